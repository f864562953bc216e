"""Audio rows -> crops for training: slot by slot of the shared order, decoded in worker processes.

A row that cannot be used is replaced inside its slot, by the order's rule, and named; so the crops of a step are the
same for any number of ranks and workers, and on every machine that decodes alike.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from pipeline.decoding.load import Refused, load_native
from pipeline.decoding.resample import resample
from pipeline.order import Order, crop_start
from pipeline.shuffle import Rows
from schemas.audio import AudioFile, Reject

LONGEST_SECONDS = 3600.0  # a longer clip is replaced
MOST_TRIES = 100  # of one slot; a corpus whose rows are broken that often is no corpus


class Clips(Protocol):
    """A dataset of clips whose bytes can be had by row number, in any order."""

    rows: Rows

    def read(self, row: int) -> AudioFile | Reject:
        """One clip as stored, or why there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Shape:
    """What a crop is: `samples` at the codec's input rate, beginning on a whole hop; the target at its output rate."""

    samples: int
    hop_length: int
    input_rate: int
    output_rate: int

    @property
    def target_samples(self) -> int:
        return self.samples * self.output_rate // self.input_rate


@dataclass(frozen=True, slots=True)
class Crops:
    """The crops that one rank reads of a step: float32 [B, 1, T] at the input rate, and the same at the output rate."""

    step: int
    inputs: Tensor
    targets: Tensor
    replaced: tuple[str, ...] = ()  # "row: reason" of what could not be used
    seconds: float = 0.0  # of sound, without padding


def crops(
    order: Order,
    clips: Sequence[Clips],
    shape: Shape,
    steps: range,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    ahead: int = 4,
) -> Iterator[Crops]:
    """The crops of each of `steps`, in order.

    Args: workers: processes that decode, each a step of its own in turn; 0: in this process. ahead: steps that each
        worker may be ahead.
    Raises: ValueError if a slot finds no usable row.
    """
    dataset = _Steps(order, clips, shape, steps, rank, world)
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=ahead if workers else None,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_apart,
    )
    return iter(loader)


def _apart(worker: int) -> None:
    """A stop (Ctrl-C, a scheduler's SIGTERM) is sent to all of a group: the trainer saves upon it, and until then needs
    its workers, which end with it."""
    os.setpgrp()


class _Steps(IterableDataset):
    def __init__(self, order: Order, clips: Sequence[Clips], shape: Shape, steps: range, rank: int, world: int) -> None:
        self.order, self.clips, self.shape, self.steps, self.rank, self.world = order, clips, shape, steps, rank, world

    def __iter__(self) -> Iterator[Crops]:
        worker = torch.utils.data.get_worker_info()
        steps = self.steps
        if worker is not None:  # the loader takes from its workers in turn: this gives every step in order
            torch.set_num_threads(1)
            steps = steps[worker.id :: worker.num_workers]
        for step in steps:
            yield self.read(step)

    def read(self, step: int) -> Crops:
        slots = self.order.step(step, self.rank, self.world)
        pairs, replaced, seconds = [], [], 0.0
        for number, dataset, row, luck in zip(
            slots.number.tolist(), slots.dataset.tolist(), slots.row.tolist(), slots.luck.tolist(), strict=True
        ):
            found = self.one(dataset, row, luck)
            for attempt in range(1, MOST_TRIES + 1):
                if not isinstance(found, str):
                    break
                replaced.append(f"{self.clips[dataset].rows.name} row {row}: {found}")
                row = self.order.filler(number, attempt)
                found = self.one(dataset, row, luck)
            if isinstance(found, str):
                raise ValueError(
                    f"{MOST_TRIES} rows in a row cannot be used, the last because: {found}; look at the data"
                )
            pairs.append(found[:2])
            seconds += found[2]
        inputs, targets = (torch.from_numpy(np.stack(side))[:, None] for side in zip(*pairs, strict=True))
        if self.shape.output_rate == self.shape.input_rate:
            targets = inputs
        return Crops(step, inputs, targets, tuple(replaced), seconds)

    def one(self, dataset: int, row: int, luck: int) -> tuple[np.ndarray, np.ndarray, float] | str:
        """A crop, the same at the output rate, and its seconds; or why the row cannot be used."""
        shape = self.shape
        file = self.clips[dataset].read(row)
        if isinstance(file, Reject):
            return file.reason
        try:
            waveform, rate = load_native(file.data, LONGEST_SECONDS)
        except Refused as refused:
            return refused.reason
        target = resample(waveform, rate, shape.output_rate)
        whole = resample(target, shape.output_rate, shape.input_rate)
        if len(whole) < shape.hop_length:
            return "too_short"
        if not np.isfinite(whole).all():
            return "not_finite"
        start = int(crop_start(luck, len(whole), shape.samples, shape.hop_length))
        crop = whole[start : start + shape.samples]
        begin = start * shape.output_rate // shape.input_rate
        return (
            _pad(crop, shape.samples),
            _pad(target[begin : begin + shape.target_samples], shape.target_samples),
            len(crop) / shape.input_rate,
        )


def _pad(waveform: np.ndarray, length: int) -> np.ndarray:
    return np.pad(waveform, (0, length - len(waveform))) if len(waveform) < length else np.ascontiguousarray(waveform)
