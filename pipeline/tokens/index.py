"""What a set of token shards holds: each row's place and length, cached, and filtered before anything is read."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import finding, storage
from pipeline.shards import find_shards
from pipeline.tokens.blocks import Block, Broken, ParquetShards, TarShards, open_parquet
from pipeline.tokens.listing import SPANS, list_shard

logger = logging.getLogger(__name__)
VERSION = 1


@dataclass(frozen=True)
class Keep:
    """Which rows to train on. An empty rule keeps everything; a row without the field that a rule names is left out."""

    min_codes: int = 0
    max_codes: int | None = None
    min_seconds: float = 0.0
    max_seconds: float | None = None
    corpora: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    quality: tuple[tuple[str, float, float], ...] = ()  # (field of `extra`, from, to), both ends included


@dataclass(frozen=True)
class TokenIndex:
    """The rows of a set of shards, in the order of the shards' names. A block is a row group, or a run of a tar."""

    shards: tuple[str, ...]
    hash: str  # of every column of every row
    borders: np.ndarray  # int64 [blocks + 1]
    block_shard: np.ndarray  # int32 [blocks]
    block_part: np.ndarray  # int32 [blocks]: which of its shard's
    lengths: np.ndarray  # int32 [rows]: codes of each
    file: str  # the cached table, with the labels

    def __len__(self) -> int:
        return len(self.lengths)

    def select(self, keep: Keep) -> np.ndarray:
        """The rows kept: int64, rising. Raises: ValueError for a corpus, language or licence that no row has."""
        kept = self.lengths >= keep.min_codes
        if keep.max_codes is not None:
            kept &= self.lengths <= keep.max_codes
        if keep.min_seconds or keep.max_seconds is not None:
            seconds = self._label("duration").cast(pa.float64()).fill_null(-1.0).to_numpy()
            longest = np.inf if keep.max_seconds is None else keep.max_seconds
            kept &= (seconds >= max(keep.min_seconds, 0)) & (seconds <= longest)
        for name, wanted in (("corpus", keep.corpora), ("language", keep.languages), ("license", keep.licenses)):
            if wanted:
                column = self._label(name).dictionary_encode().combine_chunks()
                if unknown := set(wanted) - set(known := column.dictionary.to_pylist()):
                    raise ValueError(f"no row has {name} {', '.join(sorted(unknown))}; there are: {sorted(known)}")
                of_value = np.array([value in wanted for value in known] + [False])
                kept &= of_value[column.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)]
        if keep.quality:
            kept &= np.fromiter((_good(extra, keep.quality) for extra in self._label("extra").to_pylist()), bool)
        return np.flatnonzero(kept)

    def check(self, columns: Sequence[str]) -> None:
        """Raises: ValueError if the shards have no such columns; what a tar holds shows only row by row."""
        path = self.shards[self.block_shard[0]] if len(self) else ".tar"
        names = columns if path.endswith(".tar") else open_parquet(path).schema_arrow.names
        if missing := set(columns) - set(names):
            raise ValueError(f"{path} has no column {', '.join(sorted(missing))}; it has {', '.join(names)}")

    def block_of(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.borders, rows, "right") - 1

    def read(self, block: int, columns: Sequence[str], shards: "Shards") -> Block:
        """The columns of a block. Raises: Broken, also where it is not what was listed."""
        first, last = self.borders[block : block + 2]
        path = self.shards[self.block_shard[block]]
        if path.endswith(".tar"):
            names = self._keys[first:last].to_pylist()
            found = shards.tar.read(path, names, self._spans[first:last], columns)
        else:
            found = shards.parquet.read(path, int(self.block_part[block]), columns)
        if "codes" in columns:
            lengths = np.diff(found.bounds)
            differs = np.flatnonzero(lengths != self.lengths[first:last]) if len(lengths) == last - first else [-1]
            if set(differs) - set(found.broken):
                raise Broken("its rows are not those that were listed; the shard was replaced")
        return found

    def _label(self, name: str) -> pa.ChunkedArray:
        return pq.read_table(self.file, columns=[name]).column(name)

    @cached_property
    def _keys(self) -> pa.Array:
        return pq.read_table(self.file, columns=["__key__"]).column(0).combine_chunks()

    @cached_property
    def _spans(self) -> np.ndarray:
        table = pq.read_table(self.file, columns=list(SPANS))
        return np.stack([table.column(name).fill_null(0).to_numpy() for name in SPANS], axis=1)  # none in Parquet


@dataclass(frozen=True)
class Shards:
    """The open files of one reader; not for two threads at once."""

    parquet: ParquetShards
    tar: TarShards

    @classmethod
    def open(cls) -> "Shards":
        return cls(ParquetShards(), TarShards())


def list_tokens(inputs: str | Sequence[str], cache: str | None = None) -> TokenIndex:
    """The index of token shards, made by reading them once, or as cached.

    Args: inputs: shards, or folders of them (an output, its `data`, a published data set), local or any fsspec URL.
    cache: a folder for it; by default `.cache/` in the first input if that is a local folder we may write to, else the
    user's own cache.
    What is broken is logged and left out; the hash is of what is there.
    Raises: FileNotFoundError without shards, ValueError for a file that is no token shard, OSError from the storage.
    """
    inputs = [inputs] if isinstance(inputs, str) else list(inputs)
    shards = tuple(shard for path in inputs for shard in find_shards(path))
    with ThreadPoolExecutor(16) as pool:
        seen = finding.signature(pool.map(finding.entry, shards))
    file = storage.join(cache_folder(inputs[0], cache), f"rows-{_digest([VERSION, seen])[:32]}.parquet")
    if not storage.exists(file):
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            listings = list(pool.map(list_shard, shards))
        broken = {shard: listing.broken for shard, listing in zip(shards, listings, strict=True) if listing.broken}
        tables = [listing.table for listing in listings]
        number = np.repeat(np.arange(len(tables), dtype=np.int32), [len(table) for table in tables])
        table = pa.concat_tables(tables).append_column("shard", pa.array(number))
        table = table.replace_schema_metadata(
            {"hash": _digest([listing.digest for listing in listings]), "broken": json.dumps(broken)}
        )
        storage.write_atomic(file, lambda out: pq.write_table(table, out, compression="zstd"))
    stored = pq.read_table(file, columns=["shard", "block", "length"])
    shard, block, lengths = (stored.column(name).to_numpy() for name in ("shard", "block", "length"))
    starts = np.flatnonzero((np.diff(shard, prepend=-1) != 0) | (np.diff(block, prepend=-1) != 0))
    about = stored.schema.metadata
    index = TokenIndex(
        shards, about[b"hash"].decode(), np.append(starts, len(shard)), shard[starts], block[starts], lengths, file
    )
    for path, problems in json.loads(about[b"broken"]).items():
        for problem in problems:
            logger.warning("%s is broken and left out, in part: %s", path, " ".join(problem.split()))
    return index


def cache_folder(path: str, given: str | None = None) -> str:
    """Where what is worked out from the shards at `path` is kept."""
    if given:
        return given
    if storage.is_local(path):
        folder = Path(path) if Path(path).is_dir() else Path(path).parent
        if os.access(folder, os.W_OK):
            return str(folder / ".cache")  # hidden from whoever looks for shards
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return str(Path(home) / "neutok" / _digest(path)[:16])


def _good(extra: str | None, rules: Sequence[tuple[str, float, float]]) -> bool:
    fields = json.loads(extra) if extra else {}
    values = [fields.get(name) for name, _, _ in rules]
    return all(
        isinstance(value, int | float) and least <= value <= most
        for value, (_, least, most) in zip(values, rules, strict=True)
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
