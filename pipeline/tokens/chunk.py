"""Rows gathered from blocks in the order that steps need them, by Arrow, in a few large runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.tokens.blocks import Block

NO_CODES = np.empty(0, np.uint16)


@dataclass(frozen=True)
class Chunk:
    """Rows in the order asked for: `codes` are views of uint16 arrays, other columns lists of values."""

    codes: list[np.ndarray]
    columns: dict[str, list[Any]]
    missing: frozenset[int] = field(default_factory=frozenset)  # rows that are broken; they are empty here


def gather(blocks: Mapping[int, Block | None], block: np.ndarray, place: np.ndarray) -> Chunk:
    """Row `place[i]` of block `block[i]`, for each i; a block that is None is broken as a whole."""
    bad = np.zeros(len(block), bool)
    parts, numbers = [], []
    found: list[np.ndarray] = [NO_CODES] * len(block)
    for number, stored in blocks.items():
        mine = np.flatnonzero(block == number)
        if stored is None:
            bad[mine] = True
            continue
        if stored.broken:
            bad[mine] = np.isin(place[mine], list(stored.broken))
        # Arrow gathers text well, but lists element by element: a slice for each row is many times faster there
        codes, ends = stored.codes, stored.ends
        for i, row in zip(mine.tolist(), place[mine].tolist(), strict=True):
            found[i] = codes[ends[row] : ends[row + 1]]
        parts.append(stored.labels.take(pa.array(place[mine])))
        numbers.append(mine)
    missing = frozenset(np.flatnonzero(bad).tolist())
    if not parts:
        return Chunk(found, {}, missing)
    labels = pa.concat_tables(parts, promote_options="permissive").combine_chunks()
    if labels.num_columns:
        order = np.zeros(len(block), np.int64)
        order[np.concatenate(numbers)] = np.arange(len(labels))
        labels = labels.take(pa.array(order, mask=bad))
    return Chunk(found, columns_of(labels), missing)


def columns_of(labels: pa.Table) -> dict[str, list[Any]]:
    return {name: values(labels.column(name)) for name in labels.column_names}


def values(column: pa.ChunkedArray) -> list[Any]:
    """A column as a list. ASCII text is taken apart by Python, several times faster than Arrow makes its strings."""
    if column.null_count or column.num_chunks != 1 or not pa.types.is_string(column.type):
        return column.to_pylist()
    array = column.chunk(0)
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    text = data.slice(ends[0], ends[-1] - ends[0]).to_pybytes().decode() if data else ""
    if len(text) != ends[-1] - ends[0]:
        return column.to_pylist()
    return [text[first:last] for first, last in pairwise((ends - ends[0]).tolist())]
