"""How a corpus lies on disk: members of a tar or zip, files of a tree, rows of a Parquet table.

A reader lists without decoding and never unpacks: names inside an archive are text, not paths.
"""

from dataclasses import dataclass

MAX_CLIP_BYTES = 1 << 30  # stored bytes of one clip; a header that claims more is lying or no speech
MAX_LABEL_BYTES = 1 << 20  # of a label file that belongs to one clip


@dataclass(frozen=True, slots=True)
class Member:
    """One file inside an archive or tree, by where its bytes are."""

    name: str
    offset: int  # of its data (tar), of its local header (zip), 0 (tree); in the unpacked stream of a .gz, .bz2, .xz
    size: int  # bytes, unpacked
    packed: int  # bytes as they lie in a zip; elsewhere the same as size
    method: int = 0  # how a zip packs it: 0 stored, 8 deflated
    crc: int | None = None  # what a zip says the CRC-32 is
    problem: str = ""  # why its bytes cannot be had; "" if they can


class Damaged(Exception):
    """The bytes contradict their own format; what was listed before the damage stays good."""
