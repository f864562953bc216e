"""Members of a tar, listed by their headers alone; our own parser, so that a damaged or lying header costs one clip.

Formats: ustar and v7 (POSIX.1-1988), pax (POSIX.1-2001), GNU long names and base-256 sizes.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from pipeline.readers import Damaged, Member
from pipeline.readers.packed import CHUNK_BYTES, Stream, Window

BLOCK = 512
ZEROS = bytes(BLOCK)
MAX_NAME_BYTES = 1 << 16  # of a long-name or pax record; more is an attack, not a name
WITHOUT_DATA = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"5": "a folder", b"6": "a pipe"}


@dataclass(frozen=True, slots=True)
class Header:
    name: str
    kind: bytes
    size: int


def members(
    stream: Stream, wanted: Callable[[str], bool], problems: Callable[[str], None]
) -> Iterator[tuple[Member, BinaryIO | None]]:
    """Every member in stored order; those that are `wanted` with their content, to be read before going on.

    Damage is told to `problems`, then the next header that checks out is sought: neighbours are not lost. A member
    that cannot be had comes with its `problem`. Raises: what the store raises.
    """
    try:
        yield from walk(stream, wanted, problems)
    except Damaged as damage:
        problems(str(damage))


def walk(
    stream: Stream, wanted: Callable[[str], bool], problems: Callable[[str], None]
) -> Iterator[tuple[Member, BinaryIO | None]]:
    seekable = stream.size is not None
    names: dict[str, str] = {}  # what pax and long-name records say of the member that follows them
    at, ended, seen = 0, False, False
    ahead: tuple[int, bytes, Header | None] = (-1, b"", None)  # the block after the last member, read already
    while True:
        known = ahead[0] == at
        if not known:
            stream.seek(at)
        block = ahead[1] if known else stream.read(BLOCK)
        if len(block) < BLOCK:
            if not seen:
                problems("not a tar: no header found" if at or block else "empty file")
            elif not ended or block:
                problems(f"the tar ends without its end mark, at byte {at}: it may have been cut")
            return
        if block == ZEROS:
            at, ended = at + BLOCK, True
            continue
        header = ahead[2] if known else parse(block)
        if header is None:
            problems(f"no header where one should be, at byte {at}" if seen else "not a tar: no header at its start")
            found = search(stream, at + BLOCK)
            if found is None:
                return
            at, names = found, {}
            continue
        seen, ended, data = True, False, at + BLOCK
        if header.kind in b"LKxg" and header.kind:
            if header.size > MAX_NAME_BYTES:
                problems(f"a name record of {header.size} bytes at byte {at}")
                found = search(stream, data)
                if found is None:
                    return
                at, names = found, {}
                continue
            stream.seek(data)
            names |= record(header.kind, stream.read(header.size))
            at = data + padded(header.size)
            continue
        name, kind, size = names.get("path", header.name), header.kind, header.size
        if names.get("size", "").isdecimal():
            size = int(names["size"][:20])
        sparse, names = names.get("sparse"), {}
        if kind in WITHOUT_DATA or (kind == b"\0" and name.endswith("/")):
            at = data
            yield (
                Member(name, data, 0, 0, problem=f"{WITHOUT_DATA.get(kind, 'a folder')} in the archive, not a file"),
                None,
            )
            continue
        member, at = Member(name, data, size, size), data + padded(size)
        if kind == b"S" or sparse:
            member = replace(member, problem="a sparse file")
        if seekable:
            member, ahead = checked(stream, member, at, problems)
            at = ahead[0]
        if member.problem or not wanted(name):
            yield member, None
            continue
        stream.seek(data)
        yield member, io.BufferedReader(Window(stream, size))


def checked(
    stream: Stream, member: Member, following: int, problems: Callable[[str], None]
) -> tuple[Member, tuple[int, bytes, Header | None]]:
    """A member whose size was held against what follows it, and the block where the next header is.

    A size that runs past the end, or past headers that check out, is a lie or a cut: the member is lost, its
    neighbours are not.
    """
    assert stream.size is not None
    stream.seek(min(following, stream.size))
    block = stream.read(BLOCK)
    header = parse(block) if len(block) == BLOCK else None
    whole = member.offset + member.size <= stream.size
    if whole and (not block or block == ZEROS or header):
        return member, (following, block, header)
    found = search(stream, member.offset)
    if found is not None and found < following:
        problems(f"a header at byte {member.offset - BLOCK} claims {member.size} bytes, over other members")
        claim = f"its header claims {member.size} bytes, over other members"
        stream.seek(found)
        block = stream.read(BLOCK)
        return replace(member, problem=member.problem or claim), (found, block, parse(block))
    if not whole:
        cut = f"cut short: {stream.size - member.offset} of {member.size} bytes"
        problems(f"the tar is cut inside a member, at byte {stream.size}")
        return replace(member, problem=member.problem or cut), (stream.size, b"", None)
    return member, (following, block, header)


def parse(block: bytes) -> Header | None:
    """A header block, or None if its checksum or its size field is not one."""
    try:
        checksum = octal(block[148:156])
        size = number(block[124:136])
    except ValueError:
        return None
    if checksum != sum(block) - sum(block[148:156]) + 8 * 32 or size < 0:
        return None
    name = text(block[:100])
    if block[257:263] == b"ustar\0" and (prefix := text(block[345:500])):
        name = f"{prefix}/{name}"
    return Header(name, block[156:157], size)


def search(stream: Stream, start: int) -> int | None:
    """The next block after `start` that is a ustar header with a true checksum; None if there is none."""
    at = start
    stream.seek(at)
    while chunk := stream.read(CHUNK_BYTES):
        mark = chunk.find(b"ustar")
        while mark >= 0:
            place = mark - 257
            if place >= 0 and place % BLOCK == 0 and parse(chunk[place : place + BLOCK]):
                stream.unread(chunk[place:])
                return at + place
            mark = chunk.find(b"ustar", mark + 1)
        at += len(chunk)
    return None


def record(kind: bytes, data: bytes) -> dict[str, str]:
    """What a pax or GNU long-name record says; a malformed one says nothing."""
    if kind == b"L":
        return {"path": text(data)}
    if kind != b"x":
        return {}
    said: dict[str, str] = {}
    while data:
        length, _, rest = data.partition(b" ")
        if not length.isdigit() or not (len(length) + 3 <= int(length[:9]) <= len(data)):
            break
        key, _, value = rest[: int(length[:9]) - len(length) - 2].partition(b"=")
        data = data[int(length[:9]) :]
        if key in (b"path", b"size"):
            said[key.decode()] = text(value)
        elif key.startswith(b"GNU.sparse."):
            said["sparse"] = "yes"
    return said


def padded(size: int) -> int:
    return (size + BLOCK - 1) // BLOCK * BLOCK


def text(field: bytes) -> str:
    """A name up to its first NUL; bytes that are no UTF-8 stay visible as escapes, so that two names stay two."""
    return field.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def octal(field: bytes) -> int:
    digits = field.split(b"\0", 1)[0].strip()
    return int(digits, 8) if digits else 0


def number(field: bytes) -> int:
    if field[0] in (0x80, 0xFF):  # base-256, the GNU way beyond 8 GiB
        return int.from_bytes(field[1:], "big") - (256 ** (len(field) - 1) if field[0] == 0xFF else 0)
    return octal(field)
