"""Members of a zip: listed by its central directory, or by walking its local headers where that is lost."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from pipeline.readers import MAX_CLIP_BYTES, Damaged, Member
from pipeline.readers.packed import Stream

LOCAL = struct.Struct("<4s5H3I2H")
SIGNATURE = b"PK\x03\x04"
STORED, DEFLATED = 0, 8
ENCRYPTED, SIZES_FOLLOW, UTF8 = 1, 8, 0x800


def members(
    stream: Stream, file: BinaryIO, wanted: Callable[[str], bool], problems: Callable[[str], None]
) -> Iterator[tuple[Member, BinaryIO | None]]:
    """Every member in stored order; those that are `wanted` with their content.

    Damage is told to `problems`. Raises: what the store raises.
    """
    for member in listed(stream, file, problems):
        if member.problem or not wanted(member.name):
            yield member, None
            continue
        try:
            content = io.BytesIO(read(stream, member))
        except Damaged as damage:
            problems(f"{damage}, in a label file")
            continue
        yield member, content


def listed(stream: Stream, file: BinaryIO, problems: Callable[[str], None]) -> list[Member]:
    """The members in the order of their offsets; the stored names of folders are left out."""
    try:
        with zipfile.ZipFile(file) as archive:
            found = [entry(info) for info in archive.infolist() if not info.is_dir()]
        return sorted(found, key=lambda member: member.offset)
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, EOFError, UnicodeError) as error:
        problems(f"the zip has no readable directory ({error}): it may have been cut")
    return list(walk(stream, problems))


def entry(info: zipfile.ZipInfo) -> Member:
    name = info.orig_filename
    if not info.flag_bits & UTF8:
        name = decoded(name.encode("cp437"))
    return Member(
        name.split("\0", 1)[0],
        info.header_offset,
        info.file_size,
        info.compress_size,
        info.compress_type,
        info.CRC,
        problem(info.flag_bits, info.compress_type, info.file_size),
    )


def decoded(name: bytes) -> str:
    """Many packers write UTF-8 without saying so; cp437 is what a zip means when it says nothing."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("cp437")


def problem(flags: int, method: int, size: int) -> str:
    if flags & ENCRYPTED:
        return "encrypted"
    if method not in (STORED, DEFLATED):
        return f"packed by zip method {method}, which is not read here"
    return f"claims {size} bytes" if size > MAX_CLIP_BYTES else ""


def walk(stream: Stream, problems: Callable[[str], None]) -> Iterator[Member]:
    """Members by their local headers, from the front up to the damage."""
    at = 0
    while True:
        stream.seek(at)
        block = stream.read(LOCAL.size)
        if not block.startswith(SIGNATURE) or len(block) < LOCAL.size:
            return
        _, _, flags, method, _, _, crc, packed, size, name_bytes, extra_bytes = LOCAL.unpack(block)
        name, extra = stream.read(name_bytes), stream.read(extra_bytes)
        if flags & SIZES_FOLLOW and not packed:
            problems(f"a member without its size at byte {at}: what follows is lost")
            return
        if 0xFFFFFFFF in (packed, size):
            size, packed = big_sizes(extra, size, packed)
        data = at + LOCAL.size + name_bytes + extra_bytes
        why = problem(flags, method, size)
        if stream.size is not None and data + packed > stream.size:
            why = why or f"cut short: {max(0, stream.size - data)} of {packed} bytes"
        if not name.endswith(b"/"):
            yield Member(decoded(name).split("\0", 1)[0], at, size, packed, method, crc, why)
        at = data + packed


def big_sizes(extra: bytes, size: int, packed: int) -> tuple[int, int]:
    """The 64-bit sizes of a zip64 extra field, the unpacked first."""
    while len(extra) >= 4:
        tag, length = struct.unpack_from("<HH", extra)
        if tag == 1 and len(extra) >= 20:
            return struct.unpack_from("<QQ", extra, 4)
        extra = extra[4 + length :]
    return size, packed


def read(stream: Stream, member: Member) -> bytes:
    """A member's bytes, unpacked. Raises: Damaged if they are not what the directory says."""
    stream.seek(member.offset)
    header = stream.read(LOCAL.size)
    if len(header) < LOCAL.size or not header.startswith(SIGNATURE):
        raise Damaged("no local header where the directory says")
    *_, name_bytes, extra_bytes = LOCAL.unpack(header)
    if not 0 <= member.packed <= MAX_CLIP_BYTES or not 0 <= member.size <= MAX_CLIP_BYTES:
        raise Damaged(f"claims {max(member.packed, member.size)} bytes")
    stream.read(name_bytes + extra_bytes)
    data = stream.read(member.packed)
    if len(data) < member.packed:
        raise Damaged(f"cut short: {len(data)} of {member.packed} bytes")
    if member.method == DEFLATED:
        try:
            # one byte more than promised is enough to know that the promise was a lie
            data = zlib.decompressobj(-15).decompress(data, member.size + 1)
        except zlib.error as error:
            raise Damaged("broken deflate stream") from error
    if len(data) != member.size:
        raise Damaged(f"unpacks to another size than the {member.size} bytes it claims")
    if member.crc is not None and zlib.crc32(data) != member.crc:
        raise Damaged("checksum mismatch")
    return data
