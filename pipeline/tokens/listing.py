"""One token shard listed: the place and length of each row, its labels, and a digest of everything in it."""

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.shards import PAIR, read_pairs
from pipeline.tokens.blocks import Block, Broken, open_parquet, read_through

TAR_BLOCK_ROWS = 1024
LABELS = ("corpus", "language", "license", "duration", "extra")  # what a filter may look at, beside the length
SPANS = ("npy", "npy_size", "json", "json_size")  # where the payloads of a row lie in a tar


@dataclass
class Listing:
    """What a shard holds: parts of it in order, each with its `block` number; what is broken is told and left out."""

    tables: list[pa.Table] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def add(self, block: int, table: pa.Table, lengths: np.ndarray, digest: str) -> None:
        columns = {name: table.column(name).cast(EMPTY.schema.field(name).type) for name in table.column_names}
        places = {"length": pa.array(lengths, pa.int32()), "block": pa.array(np.full(len(table), block, np.int32))}
        self.tables.append(pa.table({**columns, **places}))
        self.digests.append(digest)

    @property
    def table(self) -> pa.Table:
        return pa.concat_tables([EMPTY, *self.tables], promote_options="default")

    @property
    def digest(self) -> str:
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()


def list_shard(path: str) -> Listing:
    """List a shard, reading all of it.

    Raises: ValueError for a file that is no token shard, OSError if the storage fails.
    """
    listing = Listing()
    (list_tar if path.endswith(".tar") else list_parquet)(path, listing)
    return listing


def list_parquet(path: str, listing: Listing) -> None:
    try:
        file = open_parquet(path)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        read_through(path)  # raises if it is the storage that fails
        listing.broken.append(f"all of it: {error}")
        return
    names = file.schema_arrow.names
    if missing := {"__key__", "codes"} - set(names):
        raise ValueError(f"{path} is no token shard: it has no column {', '.join(sorted(missing))}")
    for group in range(file.num_row_groups):
        try:
            table = file.read_row_group(group, use_threads=False)
            lengths = np.diff(Block.of(table).bounds)
        except (OSError, pa.ArrowException, Broken) as error:
            read_through(path)
            listing.broken.append(f"row group {group}, {file.metadata.row_group(group).num_rows} rows: {error}")
            continue
        digest = hashlib.sha256()
        for name in sorted(names):
            digest.update(name.encode())
            _feed(digest, table.column(name))
        if len(table):
            labels = table.select([name for name in ("__key__", *LABELS) if name in names])
            listing.add(group, labels, lengths, digest.hexdigest())


def list_tar(path: str, listing: Listing) -> None:
    """Rows by where their payloads lie."""
    rows: list[dict[str, Any]] = []
    last = "the start"
    digest = hashlib.sha256()

    def flush() -> None:
        if rows:
            schema = pa.schema([EMPTY.schema.field(name) for name in ("__key__", *LABELS, *SPANS)])
            lengths = np.array([row["length"] for row in rows])
            listing.add(len(listing.tables), pa.Table.from_pylist(rows, schema), lengths, digest.hexdigest())
            rows.clear()

    try:
        with storage.open_read(path) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for last, parts in read_pairs(tar):
                for part in parts.values():
                    digest.update(f"{part.name} {len(part.data)} ".encode() + part.data)
                if len(parts) < len(PAIR):
                    listing.broken.append(f"{last}: no partner beside it")
                    continue
                places = {kind: part.offset for kind, part in parts.items()}
                sizes = {f"{kind}_size": len(part.data) for kind, part in parts.items()}
                try:
                    labels, length = _labels(parts["json"].data), _num_codes(parts["npy"].data)
                except ValueError as error:
                    listing.broken.append(f"{last}: {error}")
                    continue
                rows.append({"__key__": last, "length": length, **labels, **places, **sizes})
                if len(rows) == TAR_BLOCK_ROWS:
                    flush()
    except (tarfile.TarError, EOFError) as error:
        listing.broken.append(f"the rest, after {last}: {error}")
    flush()


def _labels(payload: bytes) -> dict[str, Any]:
    labels = json.loads(payload)
    if not isinstance(labels, dict):
        raise ValueError("its labels are no JSON object")
    return {name: labels.get(name) for name in LABELS}


def _num_codes(payload: bytes) -> int:
    """Codes of an .npy file. Raises: ValueError unless it holds uint16."""
    codes = np.load(io.BytesIO(payload), allow_pickle=False)
    if codes.dtype != np.uint16:
        raise ValueError(f"codes in a tar must be uint16, got {codes.dtype}")
    return codes.size


EMPTY = pa.schema(
    [pa.field(name, pa.string()) for name in ("__key__", *LABELS) if name != "duration"]
    + [pa.field("duration", pa.float64()), pa.field("length", pa.int32()), pa.field("block", pa.int32())]
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
