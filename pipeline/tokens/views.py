"""What a training step sees of token rows: the rows as they are, their ids under a template, or packed sequences."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, Protocol

import numpy as np
import torch

from pipeline.tokens.chunk import Chunk
from pipeline.tokens.packing import lay_out
from pipeline.tokens.templates import Template

logger = logging.getLogger(__name__)
Place = tuple[Chunk, int]  # a chunk, and the row in it
Ids = tuple[np.ndarray, int]  # int32 ids, and how many of them precede the speech


class View(Protocol):
    """Turns rows into what a step is made of."""

    columns: tuple[str, ...]  # to read of a row

    def make(self, rows: Sequence[Place | None], luck: Sequence[int]) -> list[Any | None]:
        """The content of each row, with its luck (a random number); None for a row that is broken."""
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
        flat = {name: (np.concatenate(rows), [0, *accumulate(map(len, rows))]) for name, rows in arrays.items()}
        return _unpacked, (self.step, {**self.columns, **flat}, self.filler)


def _unpacked(step: int, columns: dict[str, Any], filler: list[bool]) -> TokenBatch:
    for name, values in columns.items():
        if isinstance(values, tuple):
            flat, bounds = values
            columns[name] = [flat[first:last] for first, last in pairwise(bounds)]
    return TokenBatch(step, columns, filler)


@dataclass(frozen=True)
class RowView:
    """Rows as they are stored."""

    columns: tuple[str, ...]

    def make(self, rows: Sequence[Place | None], luck: Sequence[int]) -> list[Place | None]:
        return list(rows)

    def stack(self, step: int, contents: Sequence[Place], filler: list[bool]) -> TokenBatch:
        (chunk, first), (last_chunk, last) = contents[0], contents[-1]
        count = len(contents)
        # almost always the rows of a step lie in one run, as they were gathered
        run = last_chunk is chunk and last - first == count - 1 and all(place[0] is chunk for place in contents)

        def column(name: str) -> list[Any]:
            def of(chunk: Chunk) -> list[Any]:
                return chunk.codes if name == "codes" else chunk.columns[name]

            return of(chunk)[first : last + 1] if run else [of(each)[row] for each, row in contents]

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

    def make(self, rows: Sequence[Place | None], luck: Sequence[int]) -> list[Ids | None]:
        there = [row for row in rows if row is not None]
        labels = {name: [chunk.columns[name][row] for chunk, row in there] for name in self.template.columns}
        prompts = iter(self.template.prompts(labels) if labels else [np.empty(0, np.int32)] * len(there))
        return [None if row is None else self._ids(row, next(prompts)) for row in rows]

    def stack(self, step: int, contents: Sequence[Ids], filler: list[bool]) -> Any:
        return TokenBatch(step, {"ids": [ids for ids, _ in contents], "prompt": [n for _, n in contents]}, filler)

    def _ids(self, place: Place, prompt: np.ndarray | None) -> Ids | None:
        chunk, row = place
        try:
            if prompt is None:
                raise IndexError("the template does not take it any more")
            return np.concatenate([prompt, self._speech[chunk.codes[row]], self.template.end]), len(prompt)
        except IndexError as error:  # a code that the template's codebook does not have
            logger.warning("row %d of a chunk cannot be used: %s", row, error)
            return None


@dataclass(frozen=True)
class PackedView(IdView):
    """Sequences of `size` ids; the contents of a slot are the pieces that were planned for it. `pad` fills the rest."""

    size: int
    pad: int

    def stack(self, step: int, contents: Sequence[list[Ids]], filler: list[bool]) -> dict[str, Any]:
        arrays = lay_out(contents, self.size, self.pad)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return {**tensors, "filler": torch.tensor(filler), "step": step}
