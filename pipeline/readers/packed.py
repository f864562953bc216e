"""Byte streams read front to back: a plain file, its parts one after another, or what a .gz, .bz2 or .xz holds."""

import bz2
import io
import lzma
import re
import zlib
from typing import Any, BinaryIO, Protocol

from pipeline import storage
from pipeline.readers import Damaged

CHUNK_BYTES = 1 << 20
PACKED_BYTES = 128 << 10  # unpacked in small pieces: what lies before damage in the same piece is lost with it
UNPACKED_BYTES = 64 << 10
MAGICS = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"PK\x03\x04": "zip", b"PK\x05\x06": "zip"}
PART = re.compile(r"^(.*\.)(\d+)$")


class Stream(Protocol):
    """Bytes with a position. `size` is None where only reading to the end would tell."""

    position: int
    size: int | None

    def read(self, num_bytes: int) -> bytes: ...
    def seek(self, position: int) -> None: ...
    def unread(self, data: bytes) -> None: ...  # give back what was read last
    def close(self) -> None: ...


def sniff(path: str) -> str:
    """What a file is by its first bytes: "gz", "bz2", "xz", "zip"; "" for the rest: a plain tar has no magic."""
    with storage.open_read(path, buffer_bytes=512) as file:
        head = file.read(6)
    return next((kind for magic, kind in MAGICS.items() if head.startswith(magic)), "")


def open_stream(path: str, packing: str, buffer_bytes: int = CHUNK_BYTES) -> Stream:
    """The bytes of an archive, unpacked. Raises: FileNotFoundError and what the store raises."""
    if packing:
        return Packed(Parts(path), packing)
    return Plain(storage.open_read(path, buffer_bytes=buffer_bytes), storage.num_bytes(path))


class Plain:
    """A file that can be sought in."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size, self.position = file, size, 0

    def read(self, num_bytes: int) -> bytes:
        data = self.file.read(num_bytes)
        self.position += len(data)
        return data

    def seek(self, position: int) -> None:
        self.file.seek(position)
        self.position = position

    def unread(self, data: bytes) -> None:
        self.seek(self.position - len(data))

    def close(self) -> None:
        self.file.close()


class Parts:
    """`x.tar.gz.0`, `x.tar.gz.1`, ... read as the one file they were cut from; any other name is its only part."""

    def __init__(self, path: str) -> None:
        self.paths = part_names(path)
        self.file: BinaryIO | None = None

    def read(self, num_bytes: int) -> bytes:
        while self.file or self.paths:
            self.file = self.file or storage.open_read(self.paths.pop(0))
            data = self.file.read(num_bytes)
            if data:
                return data
            self.file.close()
            self.file = None
        return b""

    def close(self) -> None:
        if self.file:
            self.file.close()


def part_names(path: str) -> list[str]:
    """All parts of a cut archive, given its first."""
    match = PART.match(path)
    if not match:
        return [path]
    stem, number = match.groups()
    names = []
    while storage.exists(name := f"{stem}{int(number) + len(names):0{len(number)}d}"):
        names.append(name)
    return names


class Packed:
    """What a compressed file holds. It can only go forward.

    Reading raises Damaged where the compressed bytes are broken or end too soon; an error of the store below stays
    what it is, for that one may be tried again.
    """

    size = None

    def __init__(self, raw: Parts, packing: str) -> None:
        self.raw, self.packing, self.position = raw, packing, 0
        self.unpacker = self.fresh()
        self.packed, self.ready = b"", b""

    def fresh(self) -> Any:
        makers = {"gz": lambda: zlib.decompressobj(31), "bz2": bz2.BZ2Decompressor, "xz": lzma.LZMADecompressor}
        return makers[self.packing]()

    def read(self, num_bytes: int) -> bytes:
        parts, missing = [], num_bytes
        while missing > 0 and (self.ready or self.fill()):
            parts.append(self.ready[:missing])
            self.ready = self.ready[missing:] if missing < len(self.ready) else b""
            missing -= len(parts[-1])
        self.position += num_bytes - missing
        return b"".join(parts)

    def fill(self) -> bool:
        """Unpack some more; False at the end of a whole file."""
        while not self.ready:
            if self.unpacker.eof and not self.go_on():
                return False
            if not self.packed and getattr(self.unpacker, "needs_input", True):
                self.packed = self.raw.read(PACKED_BYTES)
                if not self.packed:
                    raise Damaged(f"the .{self.packing} stream ends too soon, after {self.position} unpacked bytes")
            try:
                self.ready = self.unpacker.decompress(self.packed, UNPACKED_BYTES)
            except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
                # only the unpacker runs in here, so an OSError is bz2's way of saying the same
                raise Damaged(f"the .{self.packing} stream is broken after {self.position} unpacked bytes") from error
            self.packed = getattr(self.unpacker, "unconsumed_tail", b"")  # bz2 and lzma keep theirs to themselves
        return True

    def go_on(self) -> bool:
        """Begin the compressed file that follows, for several in a row are one. False if none does.

        Zeros between and behind them are passed over, and rubbish behind the last. What tells them apart, the first
        bytes, may lie in two pieces of the store's.
        """
        magic = next(magic for magic, kind in MAGICS.items() if kind == self.packing)
        rest = (self.packed or self.unpacker.unused_data).lstrip(b"\0")
        while len(rest) < len(magic) and (more := self.raw.read(PACKED_BYTES)):
            rest = (rest + more).lstrip(b"\0")
        self.packed = rest
        if not rest.startswith(magic):
            return False
        self.unpacker = self.fresh()
        return True

    def seek(self, position: int) -> None:
        if position < self.position:
            raise ValueError(f"a .{self.packing} archive is read forward only, not from {self.position} to {position}")
        while self.position < position and self.read(min(CHUNK_BYTES, position - self.position)):
            pass

    def unread(self, data: bytes) -> None:
        self.ready = data + self.ready
        self.position -= len(data)

    def close(self) -> None:
        self.raw.close()


class Window(io.RawIOBase):
    """The next `num_bytes` of a stream as a file of their own, for a label file inside an archive."""

    def __init__(self, stream: Stream, num_bytes: int) -> None:
        self.stream, self.left = stream, num_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(min(len(buffer), self.left))
        buffer[: len(data)] = data
        self.left -= len(data)
        return len(data)
