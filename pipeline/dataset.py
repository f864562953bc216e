"""Token shards as a training stream: the same global batches on any number of ranks and workers, resumed exactly.

dataset = TokenDataset("out/emilia", batch_size=256, template=Plain(base=32_000), sequence_length=2048)
if state is not None:
    dataset.load_state_dict(state)
for batch in DataLoader(dataset, batch_size=None, num_workers=2):
    ...                                           # train on it; then, whatever was loaded ahead:
    state = dataset.state_dict(batch["step"] + 1)
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from copy import copy
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pipeline.order import Order, Slots, share
from pipeline.tokens.chunk import Chunk
from pipeline.tokens.index import Keep
from pipeline.tokens.reader import Reader
from pipeline.tokens.source import open_source
from pipeline.tokens.templates import Template
from pipeline.tokens.views import IdView, PackedView, Place, RowView, View

logger = logging.getLogger(__name__)
STEPS_AHEAD, ROWS_AHEAD = 64, 2048  # how far ahead a worker reads, the lesser of the two
ATTEMPTS = 64  # to find a row that stands in for a broken one
Weights = Mapping[str, float]


class TokenDataset(IterableDataset):
    """Rows, or packed sequences, of token shards in the order of `Order`; one item is a rank's part of a step.

    Use it with `DataLoader(dataset, batch_size=None, num_workers=N)`, or faster by `dataset.loader(workers=N)`, alone,
    under DDP or Ray Train. Iterating begins at `position`, the number of steps done, each time anew.

    Args:
        inputs: shards or folders of them, local or any fsspec URL; or {name: shards} to mix data sets.
        batch_size: rows, or packed sequences, of a step over all ranks.
        steps: where to end, counted from the start of the run. By default after one epoch (three are
            `3 * dataset.order.steps_per_epoch`); several data sets, which end apart, go on for ever.
        weights: {name: weight} or a schedule [(step, {name: weight}), ...]; by default data sets count by their rows.
        keep: the rows to train on: a rule for all, or {name: rule}.
        columns: what to read of a row where no template says it. Items are `TokenBatch`.
        template: turns rows into ids. sequence_length: packs these into sequences, with `pad` at their ends; items are
            then dictionaries of the int64 tensors [b, sequence_length] of `packing.lay_out`, of `filler` and `step`.
        view: another view of the rows, such as `pipeline.tokens.audio.AudioView`.
        collate: called on each item, in the worker.
        rank, world: by default those of torch.distributed, or else of torchrun's environment, when this is made.
        window: rows that are shuffled together. cache: where indexes are kept, see `pipeline.tokens.index.list_tokens`.
        local: a folder on a local disk that keeps what was read, decoded (2 bytes a code, and the other columns): for
            shards behind a URL, several epochs, or many workers and ranks on a machine.
    Attributes: order; dropped, {name: {reason: rows left out}}.
    Raises: ValueError for options that do not fit each other or the shards, FileNotFoundError without shards.
    """

    def __init__(
        self,
        inputs: str | Sequence[str] | Mapping[str, str | Sequence[str]],
        batch_size: int,
        *,
        steps: int | None = None,
        seed: int = 0,
        epoch: int = 0,
        weights: Weights | Sequence[tuple[int, Weights]] | None = None,
        keep: Keep | Mapping[str, Keep] | None = None,
        columns: Sequence[str] = ("__key__", "text", "codes"),
        template: Template | None = None,
        sequence_length: int | None = None,
        pad: int = 0,
        view: View | None = None,
        collate: Callable[[Any], Any] | None = None,
        rank: int | None = None,
        world: int | None = None,
        window: int = 32_768,
        cache: str | None = None,
        local: str | None = None,
    ) -> None:
        super().__init__()
        if sequence_length is not None and template is None:
            raise ValueError("sequence_length packs ids: give the template that makes them")
        if view is not None and template is not None:
            raise ValueError("a view and a template each say what to make of the rows: give one")
        if template is not None:
            view = IdView(template) if sequence_length is None else PackedView(template, sequence_length, pad)
        self.view, self.collate, self.local = view or RowView(tuple(columns)), collate, local
        self.position, self._together = 0, 1
        self.rank, self.world = place_in_world() if rank is None or world is None else (rank, world)
        self._share = share(batch_size, self.rank, self.world)
        named = dict(inputs) if isinstance(inputs, Mapping) else {"tokens": inputs}
        rules = dict(keep) if isinstance(keep, Mapping) else dict.fromkeys(named, keep or Keep())
        if unknown := {*rules} - {*named}:
            raise ValueError(f"keep names {sorted(unknown)}; the data sets are {sorted(named)}")
        self.sources = [
            open_source(name, paths, rules.get(name, Keep()), self.view.columns, template, sequence_length, cache)
            for name, paths in named.items()
        ]
        self.dropped = {source.name: source.dropped for source in self.sources}
        in_slots = int(window / max(source.rows_per_slot for source in self.sources))
        rows, mixture = [source.slots for source in self.sources], by_place(weights, list(named))
        self.order = Order(rows, batch_size, seed, epoch, mixture, max(1, in_slots))
        self.steps = self.order.steps_per_epoch if steps is None and len(rows) == 1 else steps

    def state_dict(self, done: int | None = None) -> dict[str, int | str]:
        """Where a run stands, a few integers and a hash. done: steps trained on, by default `position`."""
        return self.order.state(self.position if done is None else done)

    def load_state_dict(self, state: Mapping[str, int | str]) -> None:
        """Go on from there, on any number of ranks and workers. Raises: ValueError if its batches were others."""
        self.position = self.order.resume(dict(state))

    def __len__(self) -> int:
        if self.steps is None:
            raise TypeError("several data sets, mixed, have no end of their own; give steps")
        return max(0, self.steps - self.position)

    def loader(self, workers: int = 1, together: int = 8) -> Iterator[Any]:
        """The items of `position` and on, read by a DataLoader whose workers send several steps at once: what a
        DataLoader does for each thing that it hands over costs as much as reading one."""
        grouped = copy(self)
        grouped._together = together
        for items in DataLoader(grouped, batch_size=None, num_workers=workers):
            yield from items if together > 1 else [items]

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        turn = (worker.id, worker.num_workers) if worker else (0, 1)
        reader = Reader(self.sources, self.view.columns, self.order.window, self.local)
        try:
            items = self._items(reader, *turn)
            if self._together == 1:
                yield from items
            else:
                while group := list(islice(items, self._together)):
                    yield group
        finally:
            reader.close()

    def _items(self, reader: Reader, worker: int, workers: int) -> Iterator[Any]:
        """What one worker makes: the loader takes from its workers in turn, from each one step, or some together."""
        first, ahead = 0, self._ask(reader, 0, worker, workers)
        while ahead is not None:
            first += len(ahead.steps)
            now, ahead = ahead, self._ask(reader, first, worker, workers)
            for step, slots in zip(now.steps, now.slots, strict=True):
                item = self._item(reader, step, slots, now)
                yield item if self.collate is None else self.collate(item)

    def _ask(self, reader: Reader, first: int, worker: int, workers: int) -> "_Ahead | None":
        """The next steps of a worker from its `first` on, their rows being gathered; None after the last."""
        batch = self.order.batch_size
        mine = np.arange(batch)[self._share]
        turn, within = np.divmod(first + np.arange(max(1, min(STEPS_AHEAD, ROWS_AHEAD // len(mine)))), self._together)
        steps = self.position + (turn * workers + worker) * self._together + within
        steps = steps if self.steps is None else steps[steps < self.steps]
        if not len(steps):
            return None
        slots = self.order.at(steps[:, None] * batch + mine)
        rows = {int(d): self.sources[d].index_rows(slots.row[slots.dataset == d]) for d in np.unique(slots.dataset)}
        chunks = {d: reader.ask(d, numbers) for d, numbers in rows.items()}
        return _Ahead(steps.tolist(), [slots.part(i) for i in range(len(steps))], chunks, dict.fromkeys(chunks, 0))

    def _item(self, reader: Reader, step: int, slots: Slots, ahead: "_Ahead") -> Any:
        filler = slots.filler.tolist()
        if len(self.sources) == 1:
            contents = self._make(0, slots, ahead.take(0, self.sources[0].num_rows(slots.row)))
        else:
            contents = [None] * len(filler)
            for d in np.unique(slots.dataset).tolist():
                here = np.flatnonzero(slots.dataset == d)
                places = ahead.take(d, self.sources[d].num_rows(slots.row[here]))
                for i, content in zip(here.tolist(), self._make(d, slots.part(here), places), strict=True):
                    contents[i] = content
        for i in [i for i, content in enumerate(contents) if content is None]:
            contents[i], filler[i] = self._stand_in(reader, slots, i), True
        return self.view.stack(step, contents, filler)

    def _make(self, dataset: int, slots: Slots, places: list[Place | None]) -> list[Any | None]:
        """What the view makes of slots of one data set; None for one of which nothing can be read."""
        return self.sources[dataset].contents(slots.row, self.view.make(places, slots.luck.tolist()))

    def _stand_in(self, reader: Reader, slots: Slots, i: int) -> Any:
        """What a slot holds whose own row cannot be read. Raises: RuntimeError if nothing in its data set can."""
        number, dataset = int(slots.number[i]), int(slots.dataset[i])
        source = self.sources[dataset]
        for attempt in range(1, ATTEMPTS):
            slot = replace(slots.part([i]), row=np.array([self.order.filler(number, attempt)]))
            chunk = reader.ask(dataset, source.index_rows(slot.row)).result()
            content = self._make(dataset, slot, places_of(chunk, 0, source.num_rows(slot.row)))[0]
            if content is not None:
                told = (number // self.order.batch_size, number, source.name, slot.row[0], slots.row[i])
                logger.warning("step %d, slot %d: %s %d stands in for %d", *told)
                return content
        raise RuntimeError(f"{ATTEMPTS} rows of {source.name!r} in turn cannot be read; look at the log and the shards")


@dataclass
class _Ahead:
    """Steps that come next, and for each data set their rows, one after the other, as a chunk in the making."""

    steps: list[int]
    slots: list[Slots]
    chunks: dict[int, Future[Chunk]]
    taken: dict[int, int]

    def take(self, dataset: int, count: int) -> list[Place | None]:
        """The next rows of a data set; None for one that is broken."""
        first = self.taken[dataset]
        self.taken[dataset] += count
        return places_of(self.chunks[dataset].result(), first, count)


def places_of(chunk: Chunk, first: int, count: int) -> list[Place | None]:
    rows = range(first, first + count)
    if not chunk.missing:
        return [(chunk, row) for row in rows]
    return [None if row in chunk.missing else (chunk, row) for row in rows]


def place_in_world() -> tuple[int, int]:
    """Rank and number of ranks, as torch.distributed knows them, or torchrun says; (0, 1) alone."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def by_place(weights: Weights | Sequence[tuple[int, Weights]] | None, names: Sequence[str]) -> list[Any] | None:
    """Weights by name as an order takes them, by place. Raises: ValueError if they name other data sets."""
    if weights is None:
        return None
    schedule = [(0, weights)] if isinstance(weights, Mapping) else list(weights)
    for _, part in schedule:
        if {*part} != {*names}:
            raise ValueError(f"weights must name the data sets {sorted(names)}, each once; got {sorted(part)}")
    return [(step, [part[name] for name in names]) for step, part in schedule]
