"""What a training step sees of token rows: the rows as they are, their ids under a template, or packed sequences."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from pipeline.packing import lay_out
from pipeline.templates import Template
from pipeline.token_blocks import Block

logger = logging.getLogger(__name__)
Piece = tuple[Block, int, int, int | None]  # row `place` of a block; of its ids those from `start` on, `count` or all
Ids = tuple[np.ndarray, int]  # int32 ids, and how many of them precede the speech


class View(Protocol):
    """Turns the pieces of slots into what a step is made of."""

    columns: tuple[str, ...]  # to read of a row

    def make(self, slots: Sequence[Sequence[Piece]], luck: Sequence[int]) -> list[Any | None]:
        """The content of each slot, from the pieces of it that could be read; None if it has none."""
        ...

    def stack(self, step: int, contents: Sequence[Any], filler: list[bool]) -> Any:
        """The contents of a rank's slots as one item."""
        ...


@dataclass(frozen=True)
class TokenBatch:
    """One rank's rows of a step: `batch["codes"]` is a list of uint16 arrays, other columns are lists of values.

    Under a template `batch["ids"]` is a list of int32 arrays, and `batch["prompt"]` how many ids precede the speech.
    """

    step: int
    columns: dict[str, list[Any]]
    filler: list[bool]  # rows that stand in: at the end of an epoch, or for a row that cannot be read

    def __getitem__(self, name: str) -> Any:
        return self.step if name == "step" else self.filler if name == "filler" else self.columns[name]

    def __len__(self) -> int:
        return len(self.filler)

    def rows(self) -> list[dict[str, Any]]:
        """The same row by row."""
        return [dict(zip(self.columns, values, strict=True)) for values in zip(*self.columns.values(), strict=True)]

    def __reduce__(self) -> tuple[Any, ...]:
        # workers send batches through a pipe: one array of all codes is many times cheaper there than an array a row
        arrays = {name: values for name, values in self.columns.items() if values and isinstance(values[0], np.ndarray)}
        flat = {name: (np.concatenate(rows), [len(row) for row in rows]) for name, rows in arrays.items()}
        return _unpacked, (self.step, {**self.columns, **flat}, self.filler)


def _unpacked(step: int, columns: dict[str, Any], filler: list[bool]) -> TokenBatch:
    for name, values in columns.items():
        if isinstance(values, tuple):
            flat, lengths = values
            ends = np.cumsum(lengths).tolist()
            columns[name] = [flat[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    return TokenBatch(step, columns, filler)


@dataclass(frozen=True)
class RowView:
    """Rows as they are stored."""

    columns: tuple[str, ...]

    def make(self, slots: Sequence[Sequence[Piece]], luck: Sequence[int]) -> list[Any | None]:
        return [slot[0] if slot else None for slot in slots]

    def stack(self, step: int, contents: Sequence[Piece], filler: list[bool]) -> TokenBatch:
        def column(name: str) -> list[Any]:
            if name == "codes":
                return [block.row_codes(place) for block, place, *_ in contents]
            return [block.columns[name][place] for block, place, *_ in contents]

        return TokenBatch(step, {name: column(name) for name in self.columns}, filler)


@dataclass(frozen=True)
class IdView:
    """Rows as ids under a template."""

    template: Template

    @property
    def columns(self) -> tuple[str, ...]:
        return ("codes", *self.template.columns)

    @cached_property
    def _speech(self) -> np.ndarray:
        return self.template.speech

    def make(self, slots: Sequence[Sequence[Piece]], luck: Sequence[int]) -> list[list[Ids] | None]:
        pieces = [piece for slot in slots for piece in slot]
        labels = {name: [block.columns[name][place] for block, place, *_ in pieces] for name in self.template.columns}
        prompts = iter(self.template.prompts(labels) if labels else [np.empty(0, np.int32)] * len(pieces))
        made = [[self._cut(piece, next(prompts)) for piece in slot] for slot in slots]
        return [[ids for ids in slot if ids is not None] or None for slot in made]

    def stack(self, step: int, contents: Sequence[list[Ids]], filler: list[bool]) -> Any:
        return TokenBatch(
            step, {"ids": [slot[0][0] for slot in contents], "prompt": [slot[0][1] for slot in contents]}, filler
        )

    def _cut(self, piece: Piece, prompt: np.ndarray | None) -> Ids | None:
        block, place, start, count = piece
        try:
            if prompt is None:
                raise IndexError("the template does not take it any more")
            ids = np.concatenate([prompt, self._speech[block.row_codes(place)], self.template.end])
        except IndexError as error:  # a code that the template's codebook does not have
            logger.warning("row %d of a block cannot be used: %s", place, error)
            return None
        stop = len(ids) if count is None else start + count
        return ids[start:stop], min(max(len(prompt) - start, 0), stop - start)


@dataclass(frozen=True)
class PackedView(IdView):
    """Sequences of `size` ids, filled as planned; `pad` where nothing is left to fill with."""

    size: int
    pad: int

    def stack(self, step: int, contents: Sequence[list[Ids]], filler: list[bool]) -> dict[str, Any]:
        arrays = lay_out(contents, self.size, self.pad)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return {**tensors, "filler": torch.tensor(filler), "step": step}
