"""One token shard listed: the place and length of each row, its labels, and a digest of everything in it."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.token_blocks import Broken, block_of, open_parquet

TAR_BLOCK_ROWS = 1024
LABELS = ("corpus", "language", "license", "duration", "extra")  # what a filter may look at, beside the length
SPANS = ("npy", "npy_size", "json", "json_size")  # where the payloads of a row lie in a tar


def list_shard(path: str) -> tuple[pa.Table, str]:
    """A row for each row of a shard, and the digest of everything in it. Raises: ValueError if it cannot be listed."""
    try:
        parts = list(_list_tar(path) if path.endswith(".tar") else _list_parquet(path))
    except (pa.ArrowException, tarfile.TarError, Broken, EOFError) as error:
        raise ValueError(f"cannot list {path}: {error}; make the shard again, or take it away") from error
    digest = hashlib.sha256("".join(digest for _, digest in parts).encode()).hexdigest()
    tables = [t.append_column("block", pa.array(np.full(len(t), i, np.int32))) for i, (t, _) in enumerate(parts)]
    return pa.concat_tables([_EMPTY, *tables], promote_options="default"), digest


def _list_parquet(path: str) -> Iterator[tuple[pa.Table, str]]:
    file = open_parquet(path)
    names = file.schema_arrow.names
    if missing := {"__key__", "codes"} - set(names):
        raise ValueError(f"{path} is no token shard: it has no column {', '.join(sorted(missing))}")
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, use_threads=False)
        if len(table):
            digest = hashlib.sha256()
            for name in sorted(names):
                digest.update(name.encode())
                _feed(digest, table.column(name))
            lengths = np.diff(block_of(table.select(["codes"])).bounds)
            yield _listing(table.select([n for n in ("__key__", *LABELS) if n in names]), lengths), digest.hexdigest()


def _list_tar(path: str) -> Iterator[tuple[pa.Table, str]]:
    """Members are listed by their places; `<key>.npy` and `<key>.json` are neighbours, in either order."""
    rows: list[dict[str, Any]] = []
    digest = hashlib.sha256()
    row: dict[str, Any] = {}
    with storage.open_read(path) as file, tarfile.open(fileobj=file, mode="r|") as tar:
        for member in tar:
            key, _, kind = member.name.partition(".")
            if kind not in ("npy", "json") or not member.isfile():
                continue
            if row.setdefault("__key__", key) != key or kind in row:
                raise ValueError(f"{path}: {row['__key__']} has no partner beside it")
            payload = tar.extractfile(member).read()
            row |= {kind: member.offset_data, f"{kind}_size": member.size}
            digest.update(f"{member.name} {member.size} ".encode() + payload)
            if kind == "json":
                labels = json.loads(payload)
                row |= {name: labels.get(name) for name in LABELS}
            else:
                row["length"] = (member.size - _npy_header(payload)) // 2
            if "npy" in row and "json" in row:
                rows.append(row)
                row = {}
            if len(rows) == TAR_BLOCK_ROWS:
                yield _tar_listing(rows), digest.hexdigest()
                rows = []
    if row:
        raise ValueError(f"{path}: {row['__key__']} has no partner beside it")
    if rows:
        yield _tar_listing(rows), digest.hexdigest()


def _npy_header(payload: bytes) -> int:
    """Bytes before the numbers of an .npy file. Raises: ValueError unless these are uint16."""
    file = io.BytesIO(payload)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = read(file)
    if dtype != np.dtype("<u2"):
        raise ValueError(f"codes in a tar must be uint16, got {dtype}")
    return file.tell()


def _tar_listing(rows: list[dict[str, Any]]) -> pa.Table:
    table = pa.Table.from_pylist(rows, pa.schema([f for f in _EMPTY.schema if f.name in ("__key__", *LABELS, *SPANS)]))
    return _listing(table, np.array([row["length"] for row in rows]))


def _listing(labels: pa.Table, lengths: np.ndarray) -> pa.Table:
    columns = {name: labels.column(name).cast(_EMPTY.schema.field(name).type) for name in labels.column_names}
    return pa.table({**columns, "length": pa.array(lengths, pa.int32())})


_EMPTY = pa.schema(
    [pa.field(name, pa.string()) for name in ("__key__", *LABELS) if name != "duration"]
    + [pa.field("duration", pa.float64()), pa.field("length", pa.int32())]
    + [pa.field(name, pa.int64()) for name in SPANS]
).empty_table()


def _feed(digest: Any, column: pa.ChunkedArray | pa.Array) -> None:
    """A column's values into a digest, the same however Arrow lays them out."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    digest.update(np.packbits(array.is_null().to_numpy(zero_copy_only=False)))
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        digest.update(array.value_lengths().fill_null(0).cast(pa.int64()).to_numpy())
        _feed(digest, array.flatten())
    elif pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        digest.update(np.ascontiguousarray(array.fill_null(0).to_numpy(zero_copy_only=False)))
    elif pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        text = array.fill_null("")
        digest.update(pc.binary_length(text).cast(pa.int64()).to_numpy())
        digest.update("".join(text.to_pylist()).encode())
    else:
        digest.update(repr(array.to_pylist()).encode())
