"""Blocks of token rows as they lie in shards, read at once: a Parquet row group, or a run of members of a tar."""

import io
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage import filesystem, is_local
from schemas.tokens import TOKEN_SCHEMA

OPEN_FILES = 32
NO_LISTS = pa.array([], pa.list_(pa.uint16()))


class Broken(Exception):
    """Rows that are there but cannot be read; the message says what was seen."""


@dataclass(frozen=True)
class Block:
    """Rows read together. Codes of row i are `codes[bounds[i]:bounds[i + 1]]`."""

    labels: pa.Table  # the other columns
    codes: np.ndarray  # uint16, of all rows
    bounds: np.ndarray  # int [rows + 1]
    broken: dict[int, str] = field(default_factory=dict)  # what is wrong with single rows

    @cached_property
    def ends(self) -> list[int]:
        """`bounds` as Python's own integers, which index many times faster than numpy's."""
        return self.bounds.tolist()

    @classmethod
    def of(cls, table: pa.Table) -> "Block":
        """A table, without copying codes that are uint16 already. Raises: Broken for what cannot be codes."""
        if "codes" not in table.column_names:
            return cls(table, np.empty(0, np.uint16), np.zeros(len(table) + 1, np.int64))
        column = table.column("codes")
        lists = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [NO_LISTS])
        if not (pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type)):
            raise Broken(f"codes are {lists.type}, not a list of integers")
        if lists.null_count or lists.values.null_count:
            raise Broken("there are nulls among the codes")
        return cls(table.drop_columns(["codes"]), _uint16(lists.values.to_numpy()), lists.offsets.to_numpy())


class ParquetShards:
    """Row groups of Parquet shards, a few files kept open."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, pq.ParquetFile] = OrderedDict()

    def read(self, path: str, group: int, columns: Sequence[str]) -> Block:
        """The columns of one row group. Raises: Broken, OSError if the storage fails."""
        try:
            file = self._file(path)
            if missing := set(columns) - set(file.schema_arrow.names):
                raise ValueError(f"{path} has no column {', '.join(sorted(missing))}; it has {file.schema_arrow.names}")
            return Block.of(file.read_row_group(group, columns=list(columns), use_threads=False))
        except FileNotFoundError as error:
            raise Broken("the shard is gone") from error
        except (OSError, pa.ArrowException) as error:
            self._open.pop(path, None)
            read_through(path)  # raises where the storage, not the file, is what fails
            raise Broken(f"row group {group} does not decode: {' '.join(str(error).split())}") from error

    def _file(self, path: str) -> pq.ParquetFile:
        if path not in self._open:
            while len(self._open) >= OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            self._open[path] = open_parquet(path)
        self._open.move_to_end(path)
        return self._open[path]


class TarShards:
    """Runs of members of WebDataset shards: `<key>.npy` holds the codes, `<key>.json` the labels."""

    def read(self, path: str, keys: Sequence[str], spans: np.ndarray, columns: Sequence[str]) -> Block:
        """Rows with payloads at `spans`, int64 [rows, 4]: npy offset and size, json offset and size. Raises: Broken."""
        first, last = int(spans[:, [0, 2]].min()), int((spans[:, [0, 2]] + spans[:, [1, 3]]).max())
        try:
            data = read_range(path, first, last)
        except FileNotFoundError as error:
            raise Broken("the shard is gone") from error
        if len(data) < last - first:
            raise Broken(f"the shard ends at byte {first + len(data)}, before {last}")
        codes, rows, broken = [], [], {}
        for i, (npy, npy_size, text, text_size) in enumerate((spans - [first, 0, first, 0]).tolist()):
            try:
                row = {**json.loads(data[text : text + text_size]), "__key__": keys[i]}
                array = _uint16(np.load(io.BytesIO(data[npy : npy + npy_size]), allow_pickle=False).reshape(-1))
            except (ValueError, TypeError, EOFError, Broken) as error:
                broken[i] = f"its members do not parse: {error}"
                row, array = {}, np.empty(0, np.uint16)
            rows.append(row)
            codes.append(array)
        labels = pa.table({name: _column(name, rows) for name in columns if name != "codes"})
        return Block(labels, np.concatenate(codes), np.cumsum([0] + [len(array) for array in codes]), broken)


def _column(name: str, rows: Sequence[dict[str, Any]]) -> pa.Array:
    known = TOKEN_SCHEMA.get_field_index(name) >= 0
    return pa.array([row.get(name) for row in rows], TOKEN_SCHEMA.field(name).type if known else None)


def _uint16(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint16:
        return values
    if values.dtype.kind not in "iu" or (len(values) and not 0 <= values.min() <= values.max() <= 65_535):
        raise Broken(f"codes must be integers from 0 to 65535, got {values.dtype}")
    return values.astype(np.uint16)


def open_parquet(path: str) -> pq.ParquetFile:
    """A local file mapped into memory, a remote one read in few large requests."""
    if is_local(path):
        return pq.ParquetFile(path, memory_map=True)
    fs, inner = filesystem(path)
    return pq.ParquetFile(fs.open(inner, "rb", cache_type="readahead"), pre_buffer=True)


def read_range(path: str, first: int, last: int) -> bytes:
    if is_local(path):
        with Path(path).open("rb") as file:
            file.seek(first)
            return file.read(last - first)
    fs, inner = filesystem(path)
    return fs.cat_file(inner, start=first, end=last)


def read_through(path: str) -> None:
    """Read a whole file and forget it: tells a broken file (this passes) from broken storage (OSError)."""
    fs, inner = filesystem(path)
    with fs.open(inner, "rb") as file:
        while file.read(8 << 20):
            pass
