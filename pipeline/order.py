"""Which row every slot of every training step reads: a pure function, the same for any number of ranks and workers.

The slots of a run are numbered: slot b of step s is number s * batch_size + b. `Order.at` leads any numbers to rows:
    number -> dataset, and how often it was drawn before        mixture.py: exact shares at every prefix
           -> epoch of that dataset, and the position in it     so each dataset ends its epoch before it repeats
           -> row                                               shuffle.py: blocks, then rows in a window of blocks
Nothing walks from the start and nothing is split by shard; where a run stands is one integer.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from pipeline.mixture import Mixture
from pipeline.shuffle import Rows, Shuffle, scramble

VERSION = 1  # of the order itself: another version gives other batches, so a state says its own
FILLERS, CROPS = 1, 2  # what a random number is for


@dataclass(frozen=True)
class Slots:
    """What slots read. Arrays of one shape."""

    number: np.ndarray  # int64: step * batch_size + slot
    dataset: np.ndarray  # int64
    row: np.ndarray  # int64, in the dataset
    epoch: np.ndarray  # int64, of the dataset
    filler: np.ndarray  # bool: stands in where the epoch of a single dataset ends inside a batch
    luck: np.ndarray  # uint64, random: for `crop_start`

    def part(self, index: Any) -> "Slots":
        """Some of them, as numpy indexes."""
        return Slots(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


class Order:
    """The order of a run.

    Args: datasets: what is read. batch_size: slots of a step, over all ranks. epoch: number of the first epoch; each is
    shuffled anew. mixture: weights in the order of `datasets`, or a schedule [(step, weights), ...] from step 0, each
    part of which counts its shares from its own start; without it datasets count by their rows. window: rows that are
    shuffled together.
    Raises: ValueError for an empty dataset, names that are not unique, or a schedule that does not rise from step 0.
    """

    def __init__(
        self,
        datasets: Sequence[Rows],
        batch_size: int,
        seed: int = 0,
        epoch: int = 0,
        mixture: Sequence[float] | Sequence[tuple[int, Sequence[float]]] | None = None,
        window: int = 32_768,
    ) -> None:
        schedule = list(mixture or [len(rows) for rows in datasets])
        if schedule and not isinstance(schedule[0], Sequence):
            schedule = [(0, schedule)]
        _check(datasets, batch_size, window, schedule)
        self.datasets, self.batch_size, self.seed, self.epoch, self.window = datasets, batch_size, seed, epoch, window
        self.schedule = [(int(step), Mixture.of(weights)) for step, weights in schedule]
        self._starts = np.array([step * batch_size for step, _ in self.schedule])  # slot numbers
        parts = zip(self.schedule, np.diff(self._starts), strict=False)
        drawn = [mixture.counts(int(length)) for (_, mixture), length in parts]
        self._drawn = np.cumsum([np.zeros(len(datasets), np.int64), *drawn], axis=0)  # before each part of the schedule
        # keyed by name: a dataset goes its own way whatever it is mixed with
        names = [int(hashlib.sha256(rows.name.encode()).hexdigest()[:16], 16) for rows in datasets]
        self._shuffles = [
            Shuffle(rows, int(scramble(seed, name)[0]), window) for rows, name in zip(datasets, names, strict=True)
        ]

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which one dataset gives every row once. Raises: ValueError for several, which end apart."""
        if len(self.datasets) > 1:
            raise ValueError("mixed datasets end their epochs at different steps; say how many steps to run")
        return -(-len(self.datasets[0]) // self.batch_size)

    def step(self, step: int, rank: int = 0, world: int = 1) -> Slots:
        """The slots that a rank reads of a step. Raises: ValueError if the batch cannot be shared evenly."""
        return self.at(step * self.batch_size + np.arange(self.batch_size)[share(self.batch_size, rank, world)])

    def at(self, numbers: np.ndarray) -> Slots:
        """What the slots of these numbers read."""
        numbers = np.asarray(numbers, np.int64)
        dataset, epoch, position = self._places(numbers)
        row = np.empty_like(position)
        filler = position >= np.array([len(rows) for rows in self.datasets])[dataset]
        for d in np.unique(dataset):
            here = (dataset == d) & ~filler
            row[here] = self._shuffles[d].at(epoch[here] + self.epoch, position[here])
        row[filler] = [self.filler(int(number)) for number in numbers[filler]]
        return Slots(numbers, dataset, row, epoch + self.epoch, filler, scramble(self.seed, CROPS, numbers))

    def filler(self, number: int, attempt: int = 0) -> int:
        """The row that stands in at a slot: attempt 0 past the end of an epoch, 1, 2, ... for a row that is broken.

        It comes from the slot's own dataset and window, whose blocks are at hand; after 8 attempts from anywhere.
        """
        dataset, epoch, position = (int(place[0]) for place in self._places(np.array([number])))
        num_rows = len(self.datasets[dataset])
        luck = int(scramble(self.seed, FILLERS, number, attempt)[0])
        if attempt > 8:
            return luck % num_rows
        near = self._shuffles[dataset].near(epoch + self.epoch, min(position, num_rows - 1))
        return int(near[luck % len(near)])

    def state(self, step: int) -> dict[str, int | str]:
        """Where a run stands that has trained on `step` steps: for its checkpoint."""
        return {"version": VERSION, "step": step, "seed": self.seed, "epoch": self.epoch, "index": self.hash(step)}

    def resume(self, state: dict[str, int | str]) -> int:
        """The step to go on with. Raises: ValueError if the state belongs to another order."""
        for name, now in self.state(int(state["step"])).items():
            if (then := state.get(name)) != now:
                raise ValueError(
                    f"the {name} changed since this position was saved ({name} {str(then)[:12]}, now {str(now)[:12]}); "
                    "resume with the same shards, filters, template, batch size, weights and seed, or start at step 0"
                )
        return int(state["step"])

    def hash(self, step: int = 0) -> str:
        """Of everything but the seed that decides the batches before `step`; weights of later steps may yet change."""
        schedule = [(start, mixture.shares) for start, mixture in self.schedule if start < max(step, 1)]
        datasets = [(d.name, d.hash, hashlib.sha256(d.borders.astype("<i8")).hexdigest()) for d in self.datasets]
        return hashlib.sha256(json.dumps([self.batch_size, self.window, schedule, datasets]).encode()).hexdigest()

    def _places(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Dataset, epoch of it (from 0) and position in that; past the end of a dataset where a filler belongs."""
        if len(self.datasets) == 1:  # its last batch is filled up: an epoch is a whole number of steps
            return np.zeros_like(numbers), *np.divmod(numbers, self.steps_per_epoch * self.batch_size)
        dataset, before = np.empty_like(numbers), np.empty_like(numbers)
        part = np.searchsorted(self._starts, numbers, "right") - 1
        for p in np.unique(part):
            here = part == p
            dataset[here], drawn = self.schedule[p][1].at(numbers[here] - self._starts[p])
            before[here] = drawn + self._drawn[p][dataset[here]]
        return dataset, *np.divmod(before, np.array([len(rows) for rows in self.datasets])[dataset])


def share(batch_size: int, rank: int, world: int) -> slice:
    """The slots of a batch that one rank reads. Raises: ValueError if the batch cannot be shared evenly."""
    if batch_size % world or not 0 <= rank < world:
        raise ValueError(
            f"a global batch of {batch_size} cannot be shared evenly by {world} ranks (asked for rank {rank}); "
            "choose a batch size that the number of ranks divides"
        )
    return slice(rank * batch_size // world, (rank + 1) * batch_size // world)


def crop_start(luck: np.ndarray | int, length: np.ndarray | int, crop: int, border: int = 1) -> np.ndarray | int:
    """Where a crop of `crop` begins in a clip of `length`: a multiple of `border`; 0 if the clip is no longer."""
    places = np.maximum(np.asarray(length, np.int64) - crop, 0) // border + 1
    return (np.asarray(luck, np.uint64) % places.astype(np.uint64)).astype(np.int64) * border


def _check(datasets: Sequence[Rows], batch_size: int, window: int, schedule: list) -> None:
    if not datasets or not all(len(rows) for rows in datasets):
        empty = [rows.name for rows in datasets if not len(rows)]
        raise ValueError(f"nothing to order: {empty or 'no dataset'}: no rows; look at the inputs and the filters")
    if len({rows.name for rows in datasets}) < len(datasets):
        raise ValueError(f"each dataset needs a name of its own, got {[rows.name for rows in datasets]}")
    if batch_size < 1 or window < 1:
        raise ValueError(f"batch_size and window must be at least 1, got {batch_size} and {window}")
    steps = [step for step, _ in schedule]
    if steps[0] != 0 or any(b <= a for a, b in pairwise(steps)):
        raise ValueError(f"a schedule of weights must begin at step 0 and rise, got steps {steps}")
    if any(len(weights) != len(datasets) for _, weights in schedule):
        raise ValueError(f"weights must be {len(datasets)} numbers, one for each dataset, got {schedule}")
