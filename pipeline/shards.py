"""Token shards read as they lie, Parquet or WebDataset, local or behind a URL, one bounded batch of rows at a time."""

import io
import json
import posixpath
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import finding, storage
from pipeline.readers.parquet import is_ours
from pipeline.storage import first_line
from schemas.tokens import TOKEN_SCHEMA

ENDINGS = (".parquet", ".tar")
TWIN_PREFIX = "neutts-"  # folders of a publication that hold rows of the other folders again, in three columns
ROWS_AT_ONCE = 2048
PAIR = ("npy", "json")  # the members of a tar that are one row


@dataclass(frozen=True, slots=True)
class Stored:
    """A member of a tar: its name, where its content lies in the tar, the content."""

    name: str
    offset: int
    data: bytes


def find_shards(path: str) -> list[str]:
    """The shards at `path`: itself, those of an output's `data/`, or those of any folder; in natural order.

    Of an output only committed shards count: a unit that has no sidecar yet is not there. Of a publication the twins
    that repeat rows are left out.
    Raises: FileNotFoundError if there is none.
    """
    path = storage.plain(path)
    if path.endswith(ENDINGS) and storage.exists(path):
        return [path]
    data, done = storage.join(path, "data"), storage.join(path, "done")
    root = data if storage.is_folder(data) else path
    files = [name for name in finding.list_files(root) if name.endswith(ENDINGS)]
    skipped = re.compile(rf"(^|/)(\.|{TWIN_PREFIX}[^/]*/)")
    found = [name for name in files if not skipped.search(name[len(root) :])]
    if storage.is_folder(done):
        whole = {posixpath.basename(name).removesuffix(".json") for name in finding.list_files(done)}
        found = [name for name in found if posixpath.basename(name).rsplit(".", 1)[0] in whole]
    if not found:
        raise FileNotFoundError(f"no token shard (.parquet or .tar) at {path}; give a shard or the folder of an output")
    return found


def read_shard(path: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Rows of one shard in their order, in batches of at most ROWS_AT_ONCE, as columns of TOKEN_SCHEMA.

    Raises: ValueError if the file is no token shard, or a damaged one.
    """
    wanted = list(columns or TOKEN_SCHEMA.names)
    with storage.open_read(path) as file:
        if path.endswith(".tar"):
            yield from _read_tar(file, path, wanted)
        else:
            table = _open_parquet(file, path)
            missing = set(wanted) - set(table.schema_arrow.names)
            if missing:
                raise ValueError(f"{path} is no token shard: it has no column {', '.join(sorted(missing))}")
            try:
                for batch in table.iter_batches(ROWS_AT_ONCE, columns=wanted):
                    yield batch.select(wanted)
            except (pa.ArrowException, OSError) as error:
                if not is_ours(error):
                    raise
                raise ValueError(
                    f"{path} is damaged: {first_line(error)}; remove its sidecar in done/ and run its job again, or "
                    "copy it again"
                ) from error


def _open_parquet(file: Any, path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a whole Parquet file: {error}") from error


def _read_tar(file: Any, path: str, wanted: list[str]) -> Iterator[pa.RecordBatch]:
    rows: list[dict[str, Any]] = []
    try:
        with tarfile.open(fileobj=file, mode="r|") as tar:
            for key, parts in read_pairs(tar):
                if len(parts) < len(PAIR):
                    raise ValueError(f"{path}: {key} has no partner beside it")
                codes = np.lib.format.read_array(io.BytesIO(parts["npy"].data), allow_pickle=False)
                rows.append({**json.loads(parts["json"].data), "__key__": key, "codes": codes.reshape(-1)})
                if len(rows) == ROWS_AT_ONCE:
                    yield _batch(rows, wanted)
                    rows = []
    except tarfile.TarError as error:
        raise ValueError(f"{path} is not a whole tar: {error}") from error
    if rows:
        yield _batch(rows, wanted)


def read_pairs(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, Stored]]]:
    """Neighbours `<key>.npy` and `<key>.json`, in either order, in one front-to-back pass; other members are passed by.

    Yields: the key and its members by their kind as they were stored: one of them alone where it has no partner.
    """
    key, parts = "", {}
    for member in tar:
        name, _, kind = member.name.partition(".")
        if kind not in PAIR or not member.isfile():
            continue
        if parts and (name != key or kind in parts):
            yield key, parts
            parts = {}
        key = name
        parts[kind] = Stored(member.name, member.offset_data, tar.extractfile(member).read())
        if len(parts) == len(PAIR):
            yield key, parts
            parts = {}
    if parts:
        yield key, parts


def _batch(rows: list[dict[str, Any]], wanted: list[str]) -> pa.RecordBatch:
    schema = pa.schema([TOKEN_SCHEMA.field(name) for name in wanted])
    return pa.RecordBatch.from_pylist([{name: row.get(name) for name in wanted} for row in rows], schema)


def provenance(path: str) -> dict[str, Any]:
    """Who made a shard: codec, weights, precision, version. Parquet carries it, a tar's is its output's run.json."""
    if path.endswith(".tar"):
        run = posixpath.join(posixpath.dirname(posixpath.dirname(path)), "run.json")
        return json.loads(storage.read_bytes(run)) if storage.exists(run) else {}
    with storage.open_read(path) as file:
        stored = _open_parquet(file, path).schema_arrow.metadata or {}
    return {key.decode(): _plain(value) for key, value in stored.items() if not key.startswith((b"ARROW", b"pandas"))}


def _plain(value: bytes) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value.decode(errors="replace")


def maker(path: str) -> dict[str, Any]:
    """The CodecSpec fields of the codec that made a shard's codes; empty where the shard does not say."""
    codec = provenance(path).get("codec")
    return codec if isinstance(codec, dict) else {}
