"""Shards merged into the files of a publication: Parquet or tars, the same bytes whoever writes them and how often."""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.publishing.publication import Target, groups_of, has_text
from pipeline.shards import read_shard
from pipeline.sinks import webdataset
from pipeline.sinks.parquet import OPTIONS, provenance
from schemas.spec import CodecSpec
from schemas.tokens import TOKEN_SCHEMA, TokenRecord, record_of

GROUP_ROWS = 8192
GROUP_CODES = 6_000_000  # 24 MB in memory, 12 MB stored: far below what the Hub's viewer takes, fine to stream
TWIN_COLUMNS = ("__key__", "text", "codes")
# of a full path or URL all up to the last slash before "::": where it lay on somebody's machine is not for others
FOLDERS = r"^(?:/|[A-Za-z][A-Za-z0-9+.-]*://)(?:(?:[^:]|:[^:])*/)?"


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file of the publication, `path` below its root."""

    path: str
    num_bytes: int
    sha256: str
    rows: int = 0
    config: str = ""
    split: str = ""


def merge(
    targets: Iterable[Target], folder: Path, license: str | None, spec: CodecSpec, workers: int
) -> Iterator[list[PublishedFile]]:
    """Write every target below `folder`, each whole or not at all, `workers` at a time; those already there are kept.

    Yields: each target's files (itself and its twin), in the targets' order.
    """
    with ThreadPoolExecutor(workers) as pool:  # Arrow reads, compresses and writes outside Python's lock
        yield from pool.map(partial(merge_one, folder=folder, license=license, spec=spec), targets)


def merge_one(target: Target, folder: Path, license: str | None, spec: CodecSpec) -> list[PublishedFile]:
    paths = [path for path in (target.path, target.twin) if path]
    if not all((folder / path).exists() for path in paths):
        write = _write_tar if target.path.endswith(webdataset.SUFFIX) else _write_parquet
        write(target, [str(folder / path) for path in paths], license, spec)
    split = target.group.split
    return [describe(folder, path, rows_in(folder / path, target), path.split("/")[1], split) for path in paths]


def rows_in(file: Path, target: Target) -> int:
    """Rows of a file that is there; a tar would have to be read to count them, and is taken at the plan's word."""
    return target.rows if file.suffix == webdataset.SUFFIX else pq.read_metadata(file).num_rows


def describe(folder: Path, path: str, rows: int = 0, config: str = "", split: str = "") -> PublishedFile:
    """A file that is there, with its size and hash."""
    file = folder / path
    with file.open("rb") as stored:
        digest = hashlib.file_digest(stored, "sha256").hexdigest()
    return PublishedFile(path, file.stat().st_size, digest, rows, config, split)


def _write_parquet(target: Target, paths: list[str], license: str | None, spec: CodecSpec) -> None:
    """Fill the target and its twin in one pass over the shards; they appear together, the target last."""
    schema = TOKEN_SCHEMA.with_metadata(provenance(spec))
    narrow = pa.schema([TOKEN_SCHEMA.field(name) for name in TWIN_COLUMNS], schema.metadata)

    def fill(main: BinaryIO, twin: BinaryIO | None) -> None:
        with ExitStack() as stack:
            writer = stack.enter_context(_parquet_writer(main, schema))
            second = stack.enter_context(_parquet_writer(twin, narrow)) if twin else None
            for table in row_groups(target, license):
                writer.write_table(table.cast(schema), row_group_size=len(table))
                if second:
                    kept = twin_rows(table)
                    second.write_table(kept.cast(narrow), row_group_size=max(len(kept), 1))

    if len(paths) == 1:
        storage.write_atomic(paths[0], lambda main: fill(main, None))
    else:
        storage.write_atomic(paths[0], lambda main: storage.write_atomic(paths[1], lambda twin: fill(main, twin)))


def _parquet_writer(file: Any, schema: pa.Schema) -> pq.ParquetWriter:
    # equal codes become equal bytes in target and twin, which the Hub's chunked storage keeps once
    statistics = [name for name in OPTIONS["write_statistics"] if name in schema.names]
    return pq.ParquetWriter(file, schema, **{**OPTIONS, "write_statistics": statistics})


def _write_tar(target: Target, paths: list[str], license: str | None, spec: CodecSpec) -> None:
    def records() -> Iterator[TokenRecord]:
        for table in row_groups(target, license):
            for row in table.to_pylist():
                yield record_of(row, np.array(row["codes"], np.uint16), spec.num_codebooks)

    storage.write_atomic(paths[0], lambda file: webdataset.write(file, records(), spec))


def row_groups(target: Target, license: str | None) -> Iterator[pa.Table]:
    """The target's rows, ready to be written, a row group at a time.

    Raises: ValueError if the shards do not give as many as was planned.
    """
    total = 0
    waiting: list[pa.RecordBatch] = []
    rows = codes = 0
    for piece in target.pieces:
        seen = 0
        for batch in read_shard(piece.shard):
            mine = pa.array([group == target.group for group in groups_of(batch, license)], pa.bool_())
            batch = batch.filter(mine)
            first, last = max(piece.first - seen, 0), min(piece.last - seen, len(batch))
            seen += len(batch)
            if first < last:
                batch = public_rows(batch.slice(first, last - first), license)
                waiting.append(batch)
                rows += len(batch)
                total += len(batch)
                codes += pc.sum(pc.list_value_length(batch.column("codes"))).as_py() or 0
            if rows >= GROUP_ROWS or codes >= GROUP_CODES:
                yield pa.Table.from_batches(waiting)
                waiting, rows, codes = [], 0, 0
            if seen >= piece.last:
                break
    if waiting:
        yield pa.Table.from_batches(waiting)
    if total != target.rows:
        raise ValueError(f"{target.path} should hold {target.rows} rows, its shards gave {total}; did they change?")


def public_rows(batch: pa.RecordBatch, license: str | None) -> pa.RecordBatch:
    """Rows as they are shown to others: with a licence, and a source that names the file and not where it lay."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns["source"] = pc.replace_substring_regex(columns["source"], FOLDERS, "")
    if license:
        columns["license"] = pc.if_else(pc.equal(pc.fill_null(columns["license"], ""), ""), license, columns["license"])
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=TOKEN_SCHEMA)


def twin_rows(table: pa.Table) -> pa.Table:
    """`__key__`, `text` and `codes` of the rows that have text, the text without space around it."""
    table = table.filter(has_text(table.column("text").combine_chunks()))
    text = pc.utf8_trim_whitespace(table.column("text"))
    return table.set_column(table.schema.get_field_index("text"), "text", text).select(TWIN_COLUMNS)


def sweep(folder: Path) -> None:
    """Remove the temporary files that a killed run left."""
    for path in folder.rglob(".*.tmp"):
        with suppress(FileNotFoundError):
            path.unlink()
