"""Rows of a Parquet table with an Audio column: {bytes, path}, or plain bytes. Labels are listed without the sound."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.readers import Damaged, Member
from pipeline.storage import first_line

BROKEN = (pa.ArrowException, OSError, ValueError, MemoryError, UnicodeError)
USUAL_NAMES = ("audio", "wav", "mp3", "flac", "opus", "ogg", "speech", "sound", "bytes", "audio_bytes")
LISTED_ROWS = 4096  # label rows held at a time
READ_ROWS = 16  # clips held at a time
BUFFER_BYTES = 1 << 20  # read at a time, so that a row group of ten gigabytes of sound is not held as a whole
MAX_BROKEN_ROWS = 100_000  # of one row group; a footer that claims more is not believed


def open_table(path: str) -> pq.ParquetFile:
    """Raises: Damaged if it is no Parquet file; FileNotFoundError and what a remote store raises."""
    file = storage.open_read(path)  # what the store has to say comes before what Arrow thinks of the bytes
    try:
        return pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except BROKEN as error:
        file.close()
        if not is_ours(error):
            raise
        raise Damaged(f"not a readable Parquet file ({first_line(error)})") from error


def is_ours(error: BaseException) -> bool:
    """Broken bytes, not a store that fails: Arrow's own errors carry no errno. A store may be tried again."""
    return not isinstance(error, OSError) or (type(error) is OSError and error.errno is None)


def audio_column(schema: pa.Schema) -> str:
    """The column that holds sound: the Hub's Audio feature, else a {bytes, path} struct, else bytes of a usual name.

    Raises: Damaged if there is none.
    """
    features = {}
    with contextlib.suppress(ValueError, KeyError, TypeError):
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    named = [name for name, kind in features.items() if isinstance(kind, dict) and kind.get("_type") == "Audio"]
    structs = [f.name for f in schema if pa.types.is_struct(f.type) and bytes_of(f.type)]
    plain = [f.name for f in schema if is_bytes(f.type) and f.name.lower() in USUAL_NAMES]
    usable = [name for name in named if name in structs or (name in schema.names and is_bytes(schema.field(name).type))]
    found = usable or sorted(structs, key=rank) or sorted(plain, key=rank)
    if not found:
        columns = ", ".join(f"{f.name}: {f.type}" for f in schema)
        raise Damaged(f"no Audio column ({{bytes, path}}) among its columns: {columns[:300]}")
    return found[0]


def rank(name: str) -> tuple[int, str]:
    return (USUAL_NAMES.index(name.lower()) if name.lower() in USUAL_NAMES else len(USUAL_NAMES), name)


def is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def bytes_of(kind: pa.StructType) -> bool:
    return any(field.name == "bytes" and is_bytes(field.type) for field in kind)


def label_columns(schema: pa.Schema, audio: str) -> list[str]:
    """The columns that tell of the sound: text, numbers, truth values, lists and structs of them; and its path.

    Bytes are sound or pictures, and vectors of floats are features: neither is a label.
    """
    simple = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_boolean,
        pa.types.is_null,
    )

    def is_simple(kind: pa.DataType) -> bool:
        if pa.types.is_dictionary(kind):
            return is_simple(kind.value_type)
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            return is_simple(kind.value_type) and not pa.types.is_floating(kind.value_type)
        if pa.types.is_struct(kind):
            return all(is_simple(field.type) for field in kind)
        return any(test(kind) for test in simple)

    names = [field.name for field in schema if is_simple(field.type)]
    kind = schema.field(audio).type
    has_path = pa.types.is_struct(kind) and any(f.name == "path" and is_simple(f.type) for f in kind)
    return [*names, f"{audio}.path"] if has_path else names


def rows(path: str, problems: Callable[[str], None]) -> Iterator[tuple[Member, dict[str, Any]]]:
    """Every row with its labels, in order; `size` is the mean of its row group, for the sound is not read.

    A row group that cannot be read gives members with a `problem`. Raises: Damaged if it is no such table.
    """
    with open_table(path) as table:
        audio, start = audio_column(table.schema_arrow), 0
        columns = label_columns(table.schema_arrow, audio)
        for group in range(table.num_row_groups):
            meta = table.metadata.row_group(group)
            size, count = mean_size(meta, audio), 0
            try:
                for batch in table.iter_batches(LISTED_ROWS, row_groups=[group], columns=columns or [audio]):
                    for row in batch.to_pylist():
                        inner = row.pop(audio, None)
                        row["__path__"] = inner.get("path") if isinstance(inner, dict) else None
                        yield Member("", start + count, size, size), row
                        count += 1
            except BROKEN as error:
                if not is_ours(error):
                    raise
                problems(f"row group {group} cannot be read ({first_line(error)})")
                for number in range(count, min(meta.num_rows, MAX_BROKEN_ROWS)):
                    yield Member("", start + number, 0, 0, problem=f"row group {group} cannot be read"), {}
            start += meta.num_rows


def mean_size(group: pq.RowGroupMetaData, audio: str) -> int:
    chunks = [group.column(i) for i in range(group.num_columns)]
    own = [c.total_uncompressed_size for c in chunks if c.path_in_schema in (audio, f"{audio}.bytes")]
    return sum(own) // group.num_rows if group.num_rows else 0


def read(path: str, wanted: Sequence[int]) -> Iterator[tuple[int, bytes | None, str | None, str]]:
    """The sound of rows, by ascending number: (row, bytes or None, path beside them or None, problem or "")."""
    with open_table(path) as table:
        audio, start, at = audio_column(table.schema_arrow), 0, 0
        for group in range(table.num_row_groups):
            count = table.metadata.row_group(group).num_rows
            ours = []
            while at < len(wanted) and wanted[at] < start + count:
                ours.append(wanted[at] - start)
                at += 1
            if ours:
                yield from read_group(table, group, audio, start, ours)
            start += count
        for row in wanted[at:]:
            yield row, None, None, "the table has fewer rows than were listed"


def read_group(
    table: pq.ParquetFile, group: int, audio: str, start: int, wanted: Sequence[int]
) -> Iterator[tuple[int, bytes | None, str | None, str]]:
    done, offset = 0, 0
    try:
        for batch in table.iter_batches(READ_ROWS, row_groups=[group], columns=[audio], use_threads=False):
            while done < len(wanted) and wanted[done] < offset + len(batch):
                cell = batch.column(0)[wanted[done] - offset].as_py()
                data, name = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
                yield start + wanted[done], data, name, ""
                done += 1
            offset += len(batch)
            if done == len(wanted):
                return
    except BROKEN as error:
        if not is_ours(error):
            raise
    for row in wanted[done:]:
        yield start + row, None, None, f"row group {group} cannot be read"
