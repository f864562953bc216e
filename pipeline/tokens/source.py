"""One token set of a stream: which of its rows count, and which rows, whole or in pieces, a slot of it holds."""

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pipeline import storage
from pipeline.shuffle import Rows
from pipeline.tokens.blocks import Broken
from pipeline.tokens.chunk import columns_of
from pipeline.tokens.index import Keep, Shards, TokenIndex, cache_folder, list_tokens
from pipeline.tokens.packing import Packs, plan
from pipeline.tokens.templates import Template, digest


@dataclass(frozen=True)
class Source:
    """Rows of a token set, by themselves or in packs. A slot's number in the order is a place in `rows`, or a pack."""

    name: str
    index: TokenIndex
    rows: np.ndarray  # int64: those kept, rising
    packs: Packs | None
    dropped: dict[str, int]  # rows left out, by reason
    template: str | None = None  # the hash of what turns rows into ids

    @cached_property
    def slots(self) -> Rows:
        """As an order sees it."""
        packs = self.packs
        borders = packs.borders if packs else np.unique(np.searchsorted(self.rows, self.index.borders))
        planned = [self.rows] if packs is None else [packs.bounds, packs.row, packs.start, packs.count]
        contents = [hashlib.sha256(np.ascontiguousarray(part, "<i8")).hexdigest() for part in planned]
        contents += [self.template] if self.template else []
        return Rows(self.name, digest(self.index.hash, *contents), borders)

    @property
    def rows_per_slot(self) -> float:
        return len(self.packs.row) / max(1, len(self.packs)) if self.packs else 1.0

    def index_rows(self, slots: np.ndarray) -> np.ndarray:
        """The rows of the index that these slots hold, one after the other."""
        if self.packs is None:
            return self.rows[slots]
        spans = zip(self.packs.bounds[slots], self.packs.bounds[slots + 1], strict=True)
        return np.concatenate([self.packs.row[first:last] for first, last in spans])

    def num_rows(self, slots: np.ndarray) -> int:
        """How many `index_rows` these slots have."""
        return (
            len(slots) if self.packs is None else int((self.packs.bounds[slots + 1] - self.packs.bounds[slots]).sum())
        )

    def contents(self, slots: np.ndarray, made: list[Any | None]) -> list[Any | None]:
        """What was made of the `index_rows` of these slots, slot by slot: of packs the pieces that are not broken."""
        if self.packs is None:
            return made
        rows = iter(made)
        contents: list[Any | None] = []
        for slot in slots.tolist():
            here = slice(*self.packs.bounds[slot : slot + 2])
            content = []
            for start, count in zip(self.packs.start[here].tolist(), self.packs.count[here].tolist(), strict=True):
                if (row := next(rows)) is not None:
                    ids, prompt = row
                    content.append((ids[start : start + count], max(prompt - start, 0)))
            contents.append(content or None)
        return contents


def open_source(
    name: str,
    inputs: str | Sequence[str],
    keep: Keep,
    columns: Sequence[str],
    template: Template | None,
    sequence_length: int | None,
    cache: str | None,
) -> Source:
    """List the shards, filter the rows, and plan the packs; what takes long is cached.

    Raises: ValueError if nothing is left to read, and what `list_tokens` raises.
    """
    index = list_tokens(inputs, cache)
    index.check(columns)
    folder = cache_folder(inputs if isinstance(inputs, str) else inputs[0], cache)
    rows = index.select(keep)
    dropped = {"filtered": len(index) - len(rows)}
    packs = None
    if template is not None:
        lengths = template_lengths(index, template, folder)[rows]
        dropped["refused_by_template"] = int((lengths == 0).sum())
        fits = lengths > 0
        if sequence_length is not None and not template.splits:
            dropped["too_long"] = int((lengths > sequence_length).sum())
            fits &= lengths <= sequence_length
        rows, lengths = rows[fits], lengths[fits]
        if sequence_length is not None:
            packs = cached_plan(index, rows, lengths, sequence_length, template, folder)
    if not len(rows):
        raise ValueError(f"no row of {name!r} is left to train on, of {len(index)}: {dropped}")
    return Source(name, index, rows, packs, dropped, template.hash if template else None)


def template_lengths(index: TokenIndex, template: Template, folder: str) -> np.ndarray:
    """Ids of each row under a template: int64 [rows], 0 for a row it does not take. Cached under its hash."""

    def work_out() -> dict[str, np.ndarray]:
        if not template.columns:
            return {"lengths": index.lengths.astype(np.int64) + len(template.end)}
        shards = Shards.open()
        prompts: list[int] = []
        for block in range(len(index.borders) - 1):
            try:
                found = index.read(block, template.columns, shards)
            except Broken as error:
                raise ValueError(f"cannot read {index.shards[index.block_shard[block]]}: {error}") from error
            prompts += [-1 if ids is None else len(ids) for ids in template.prompts(columns_of(found.labels))]
        lengths = np.array(prompts)
        return {"lengths": np.where(lengths < 0, 0, lengths + index.lengths + len(template.end))}

    return _cached(storage.join(folder, f"lengths-{digest(index.hash, template.hash)[:32]}.npz"), work_out)["lengths"]


def cached_plan(
    index: TokenIndex, rows: np.ndarray, lengths: np.ndarray, size: int, template: Template, folder: str
) -> Packs:
    """`packing.plan`, kept under the hash of all that decides it."""
    kept = hashlib.sha256(np.ascontiguousarray(rows, "<i8")).hexdigest()
    name = digest(index.hash, template.hash, kept, index.borders.tolist(), size)
    fields = _cached(
        storage.join(folder, f"packs-{name[:32]}.npz"),
        lambda: vars(plan(rows, lengths, index.borders, size, template.splits)),
    )
    return Packs(**fields)


def _cached(file: str, work_out: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if not storage.exists(file):
        arrays = work_out()
        storage.write_atomic(file, lambda out: np.savez(out, allow_pickle=False, **arrays))
    with np.load(io.BytesIO(storage.read_bytes(file)), allow_pickle=False) as stored:
        return dict(stored)
