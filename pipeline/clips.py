"""Clips by row number, in any order: what training reads where tokenizing walks units from front to back."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.index import Index
from pipeline.indexing.table import Clip, Head, read_group, read_head, to_clip
from pipeline.readers import MAX_CLIP_BYTES, Damaged, packed, parquet
from pipeline.shuffle import Rows
from pipeline.stream import read_member, read_rows, read_tree
from schemas.audio import AudioFile, Reject

BLOCK_ROWS = 1_024  # rows that the order keeps near each other, at most
KEPT_TABLES = 32  # parts of index files
KEPT_STREAMS = 64  # open archives
KEPT_GROUPS = 4  # row groups of Parquet tables, with their sound: about 100 MB each

T = TypeVar("T")
UNPACK = {"gz": "gunzip --keep", "bz2": "bunzip2 --keep", "xz": "unxz --keep"}


class Kept:
    """The last few values, each made when it is first asked for."""

    def __init__(self, most: int, close: Callable[[Any], None] | None = None) -> None:
        self.most, self.close, self.values = most, close, OrderedDict()

    def get(self, key: Any, make: Callable[[], T]) -> T:
        if key not in self.values:
            while len(self.values) >= self.most:
                _, value = self.values.popitem(last=False)
                if self.close:
                    self.close(value)
            self.values[key] = make()
        self.values.move_to_end(key)
        return self.values[key]


class IndexedClips:
    """The usable clips of an index, by number, in its order; rows already refused there are left out.

    It travels to worker processes as numbers and paths; what is open stays where it was opened.
    """

    def __init__(self, name: str, index: Index) -> None:
        """Raises: ValueError for a compressed archive, which can be read only from its front."""
        self.name = name
        self.files = list(dict.fromkeys((unit.index, unit.source) for unit in index.units))
        packed_sources = [unit.source for unit in index.units if unit.sequential]
        if packed_sources:
            raise ValueError(_how_to_unpack(packed_sources[0]))
        usable, borders, digest = [], [], hashlib.sha256()
        total = 0
        for path, _ in self.files:
            with pq.ParquetFile(storage.open_read(path)) as file:
                table = file.read(columns=["reject", "offset", "size", "member"])
            rows = np.flatnonzero(table.column("reject").is_null().to_numpy(zero_copy_only=False)).astype(np.uint32)
            digest.update(_fingerprint(table, rows))
            usable.append(rows)
            borders.append(np.append(np.arange(0, len(rows), BLOCK_ROWS), len(rows)) + total)
            total += len(rows)
        self.usable = usable
        self.ends = np.cumsum([len(rows) for rows in usable])
        # not the index's own hash: labels and the cut into units may change, and every crop is still where it was
        self.rows = Rows(name, digest.hexdigest(), np.unique(np.concatenate(borders)))
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        self._tables, self._heads = Kept(KEPT_TABLES), Kept(1 << 20)
        self._streams = Kept(KEPT_STREAMS, lambda stream: stream.close())
        self._parquets, self._groups = Kept(KEPT_STREAMS), Kept(KEPT_GROUPS)

    def clip(self, row: int) -> tuple[str, Head, Clip]:
        """Where a clip's sound lies, and its labels."""
        number = int(np.searchsorted(self.ends, row, "right"))
        path, source = self.files[number]
        inside = int(self.usable[number][row - (self.ends[number] - len(self.usable[number]))])
        head, starts = self._heads.get(path, lambda: read_head(path))
        group = int(np.searchsorted(starts, inside, "right")) - 1
        table = self._tables.get((path, group), lambda: read_group(path, group))
        return source, head, to_clip(head, table.slice(inside - int(starts[group]), 1).to_pylist()[0])

    def read(self, row: int) -> AudioFile | Reject:
        """One clip as stored, or why there is none. Raises: what the store raises."""
        source, head, clip = self.clip(row)
        if head.kind == "tree":
            return next(read_tree(source, [clip]))
        if head.kind == "parquet":
            return self._read_row(source, head, clip)
        return read_member(self._streams.get(source, lambda: packed.open_stream(source, "")), clip)

    def _read_row(self, source: str, head: Head, clip: Clip) -> AudioFile | Reject:
        """A row's sound out of its row group, which stays for its neighbours; what is no plain bytes, the slow way."""
        table, audio, starts = self._parquets.get(source, lambda: _open_table(source))
        if table is not None:
            group = int(np.searchsorted(starts, clip.member.offset, "right")) - 1
            try:
                column = self._groups.get(
                    (source, group), lambda: table.read_row_group(group, columns=[audio]).column(0).combine_chunks()
                )
                cell = column[clip.member.offset - int(starts[group])].as_py()
            except (*parquet.BROKEN, IndexError):
                cell = None
            data = cell.get("bytes") if isinstance(cell, dict) else cell
            if data and len(data) <= MAX_CLIP_BYTES:
                return AudioFile(clip.utterance, data)
        return next(read_rows(source, head, [clip]))


def _open_table(path: str) -> tuple[pq.ParquetFile | None, str, np.ndarray]:
    """A table, its column of sound, and the first row of each row group; None for one that is broken."""
    try:
        table = parquet.open_table(path)
        sizes = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
        return table, parquet.audio_column(table.schema_arrow), np.cumsum([0, *sizes[:-1]])
    except Damaged:
        return None, "", np.zeros(1, np.int64)


def _fingerprint(table: pa.Table, rows: np.ndarray) -> bytes:
    """Of what the numbers of one source's rows stand for."""
    digest = hashlib.sha256(rows.tobytes())
    for name in ("offset", "size"):
        digest.update(table.column(name).to_numpy().astype("<i8").tobytes())
    digest.update("\n".join(table.column("member").to_pylist()).encode())
    return digest.digest()


def _how_to_unpack(source: str) -> str:
    packing = packed.sniff(source)
    command = f"{UNPACK.get(packing, 'gunzip --keep')} {source.rsplit('/', 1)[-1]}"
    return (
        f"{source} is compressed as a whole and can be read only from its front; training reads in a shuffled order. "
        f"Repack it once: `{command}`, and give the .tar"
    )
