"""The index file of one source: its columns and its head, how it is written, and its rows read back as clips."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.readers import Member
from schemas.audio import Reject, Utterance
from schemas.manifest import WorkUnit

INDEX_VERSION = 1
BATCH_ROWS = 16_384

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("base_key", pa.string()),  # the key before it collided with another; null if it did not
        pa.field("member", pa.string(), nullable=False),  # name in the archive or below the tree's folder; "" for rows
        pa.field("offset", pa.int64(), nullable=False),  # see readers.Member; of a Parquet table the row number
        pa.field("size", pa.int64(), nullable=False),
        pa.field("packed", pa.int64(), nullable=False),
        pa.field("method", pa.int32(), nullable=False),
        pa.field("crc", pa.uint32()),
        pa.field("text", pa.string()),
        pa.field("language", pa.string()),
        pa.field("speaker", pa.string()),
        pa.field("recording", pa.string()),
        pa.field("split", pa.string()),
        pa.field("license", pa.string()),
        pa.field("extra", pa.string(), nullable=False),
        pa.field("seconds", pa.float64()),  # as the corpus says, where it does
        pa.field("reject", pa.string()),
        pa.field("message", pa.string(), nullable=False),
    ]
)


class Clip(NamedTuple):
    """A row of the index: who, where, and whether it is refused already."""

    utterance: Utterance
    member: Member
    refused: Reject | None


class Head(NamedTuple):
    """What an index file says of its whole source."""

    corpus: str
    name: str
    kind: str
    packing: str


def origin(name: str, kind: str, member: str, offset: int) -> str:
    """Where a clip lies, as rows tell it: "path", "path::member" or "path::row N", below the inputs' folder."""
    if kind == "parquet":
        return f"{name}::row {offset}"
    if kind == "tree":
        return storage.join(name, member) if name else member
    return f"{name}::{member}"


def write_index(path: str, batches: Iterable[pa.RecordBatch], head: Callable[[], str]) -> None:
    """An index file: its bytes follow from its rows and its head, which is asked for when the rows are written."""

    def write(file: BinaryIO) -> None:
        with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch, row_group_size=BATCH_ROWS)
            writer.add_key_value_metadata({"neutok": head()})

    storage.write_atomic(path, write)


def to_batch(rows: Sequence[tuple[Any, ...]], schema: pa.Schema = SCHEMA) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def read_index(unit: WorkUnit) -> tuple[Head, list[Clip]]:
    """The rows [first, last) of a unit's index file."""
    with pq.ParquetFile(storage.open_read(unit.index)) as file:
        head = to_head(file)
        rows, start = [], 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if start < unit.last and end > unit.first:
                table = file.read_row_group(group)
                first, last = max(0, unit.first - start), min(end, unit.last) - start
                rows += table.slice(first, last - first).to_pylist()
            start = end
    return head, [to_clip(head, row) for row in rows]


def read_head(path: str) -> tuple[Head, np.ndarray]:
    """What an index file says of its source, and the first row of each of its row groups."""
    with pq.ParquetFile(storage.open_read(path)) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        head = to_head(file)
    return head, np.cumsum([0, *sizes[:-1]])


def read_group(path: str, group: int) -> pa.Table:
    with pq.ParquetFile(storage.open_read(path)) as file:
        return file.read_row_group(group)


def to_head(file: pq.ParquetFile) -> Head:
    said = json.loads(file.metadata.metadata[b"neutok"])
    return Head(said["corpus"], said["name"], said["kind"], said["packing"])


def to_clip(head: Head, row: dict[str, Any]) -> Clip:
    utterance = Utterance(
        id=row["key"],
        corpus=head.corpus,
        source=origin(head.name, head.kind, row["member"], row["offset"]),
        text=row["text"],
        language=row["language"],
        speaker=row["speaker"],
        recording=row["recording"],
        split=row["split"],
        license=row["license"],
        extra=row["extra"],
    )
    member = Member(row["member"], row["offset"], row["size"], row["packed"], row["method"], row["crc"])
    return Clip(utterance, member, Reject(utterance, row["reject"], row["message"]) if row["reject"] else None)
