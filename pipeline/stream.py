"""Stored bytes of a work unit, in source order: by offset where a source can be sought in, else front to back.

Every row of the unit comes out once, as an AudioFile or as a Reject; nothing is unpacked to disk.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline import storage
from pipeline.indexing.table import Clip, Head, read_index
from pipeline.readers import MAX_CLIP_BYTES, Damaged, packed, parquet, zipped
from schemas.audio import AudioFile, Reject, Utterance
from schemas.manifest import WorkUnit

Item = AudioFile | Reject


def read_unit(unit: WorkUnit) -> Iterator[Item]:
    """The clips of one unit, in source order. A sequential unit is reached by reading all that lies before it.

    Raises: FileNotFoundError if the source is gone, and what the store raises; a clip that cannot be had is a Reject.
    """
    head, clips = read_index(unit)
    if head.packing:
        for _, items in feed_units([unit], {unit.name}):
            yield from items
    elif head.kind == "tree":
        yield from read_tree(unit.source, clips)
    elif head.kind == "parquet":
        yield from read_rows(unit.source, head, clips)
    else:
        yield from read_archive(unit.source, clips)


def feed_units(units: Sequence[WorkUnit], wanted: set[str]) -> Iterator[tuple[WorkUnit, list[Item]]]:
    """The wanted units of one archive, which is read once, front to back, and no further than the last of them.

    Args: units: of one source, in any order. wanted: names; the others are passed over without keeping their bytes.
    """
    chosen = sorted((unit for unit in units if unit.name in wanted), key=lambda unit: unit.first)
    if not chosen:
        return
    sources = {unit.source for unit in chosen}
    if len(sources) > 1:
        raise ValueError(f"one archive at a time, got units of {len(sources)}: {', '.join(sorted(sources)[:3])}")
    head, _ = read_index(chosen[0])
    if not head.packing:
        for unit in chosen:
            yield unit, list(read_unit(unit))
        return
    stream = packed.open_stream(chosen[0].source, head.packing)
    try:
        for unit in chosen:
            yield unit, [read_run(stream, clip) for clip in read_index(unit)[1]]
    finally:
        stream.close()


def read_archive(path: str, clips: Sequence[Clip]) -> Iterator[Item]:
    """Members of a plain tar or a zip, by offset, through one handle that only moves forward."""
    stream = packed.open_stream(path, "")
    try:
        for clip in clips:
            yield read_member(stream, clip)
    finally:
        stream.close()


def read_member(stream: packed.Stream, clip: Clip) -> Item:
    """One member of an archive that can be sought in."""
    if clip.refused or clip.member.crc is None:  # only a zip tells one; what a file is called says nothing
        return read_run(stream, clip)
    try:
        return AudioFile(clip.utterance, zipped.read(stream, clip.member))
    except Damaged as damage:
        return Reject(clip.utterance, "unreadable", str(damage))


def read_run(stream: packed.Stream, clip: Clip) -> Item:
    """A run of bytes of a stream that stands at or before it."""
    if clip.refused:
        return clip.refused
    try:
        stream.seek(clip.member.offset)
        data = stream.read(clip.member.size)
    except Damaged as damage:
        return Reject(clip.utterance, "unreadable", str(damage))
    if len(data) < clip.member.size:
        return Reject(clip.utterance, "unreadable", f"cut short: {len(data)} of {clip.member.size} bytes")
    return AudioFile(clip.utterance, data)


def read_tree(folder: str, clips: Sequence[Clip]) -> Iterator[Item]:
    """Files below a folder.

    Raises: FileNotFoundError where it is not the files that are missing but all there is, as on a machine without the
    mount or with keys that have run out: taken for rejects, they would never be read again.
    """
    missing = 0
    for clip in clips:
        item = clip.refused or read_file(clip.utterance, storage.join(folder, clip.member.name))
        missing += item is not clip.refused and isinstance(item, Reject) and item.reason == "missing"
        yield item
    if missing and not storage.holds_anything(folder):
        raise FileNotFoundError(
            f"{missing} of {len(clips)} clips are missing, and {folder} is empty or cannot be listed; is it mounted on "
            "this machine, and may it be read from here?"
        )


def read_file(utterance: Utterance, path: str) -> Item:
    try:
        with storage.open_read(path) as file:
            data = file.read(MAX_CLIP_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError):
        return Reject(utterance, "missing", "the file is no longer there")
    except PermissionError:
        return Reject(utterance, "missing", "the file may not be read")
    if not data:
        return Reject(utterance, "empty", "0 bytes")
    if len(data) > MAX_CLIP_BYTES:
        return Reject(utterance, "unreadable", f"more than {MAX_CLIP_BYTES} bytes stored")
    return AudioFile(utterance, data)


def read_rows(path: str, head: Head, clips: Sequence[Clip]) -> Iterator[Item]:
    """Rows of a table; where a row has a path instead of bytes, the file it names."""
    wanted = [clip.member.offset for clip in clips if not clip.refused]
    cells = parquet.read(path, wanted)
    for clip in clips:
        if clip.refused:
            yield clip.refused
            continue
        try:
            _, data, name, problem = next(cells)
        except Damaged as damage:
            problem, data, name, cells = str(damage), None, None, iter(())
        except StopIteration:
            problem, data, name = "the table can no longer be read", None, None
        if problem:
            yield Reject(clip.utterance, "unreadable", problem)
        elif data:
            small = len(data) <= MAX_CLIP_BYTES
            why = f"{len(data)} bytes stored, more than {MAX_CLIP_BYTES}"
            yield AudioFile(clip.utterance, data) if small else Reject(clip.utterance, "unreadable", why)
        elif data is not None:
            yield Reject(clip.utterance, "empty", "0 bytes")
        elif name and (file := inside(name, path, head.name)):
            yield read_file(clip.utterance, file)
        else:
            yield Reject(
                clip.utterance,
                "missing",
                "the row holds no bytes and names no file inside --input (full paths and .. are not followed)",
            )


def inside(name: str, table: str, table_name: str) -> str | None:
    """The file a row names beside its table, if it lies below the input folder; a table is trusted no further."""
    root = table.removesuffix(table_name).rstrip("/") if table_name != table else storage.parent(table)
    parts = name.replace("\\", "/").split("/")
    if "://" in name or "\0" in name or name.startswith("/") or ".." in parts:
        return None
    file = storage.join(storage.parent(table), *parts)
    if storage.is_local(file):
        real, top = Path(file).resolve(), Path(root or "/").resolve()
        return file if real.is_file() and real.is_relative_to(top) else None
    return file if storage.exists(file) else None
