"""Clips of about the same length together: batches planned inside windows, from nothing but the clips' lengths."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from schemas.audio import AudioSegment, Reject

PLAN_VERSION = 1  # of the rules for windows and batches: part of a run's identity
# of padded sound in one batch: what stays near a CPU's caches, what fills a GPU
BATCH_SECONDS = {"cpu": 10.0, "cuda": 240.0}
MOST_WASTE = 0.05  # of a window's padded samples
MOST_ROWS = 512  # in a batch
WINDOW_ITEMS = 8192  # a window of rejects or of tiny clips ends here
OVERHEADS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.0)  # seconds of audio that starting a batch may be worth, largest first

Item = AudioSegment | Reject


@dataclass(frozen=True, slots=True)
class AudioBatch:
    """A few clips, zero-padded to the longest. `positions` are their places in the window they come from."""

    waveforms: Tensor  # float32 [B, 1, T]
    num_samples: Tensor  # int64 [B], before padding
    positions: tuple[int, ...]


def usual_batch_seconds(device: str | torch.device) -> float:
    """How much padded sound one batch holds on `device`, unless a user says otherwise."""
    return BATCH_SECONDS.get(torch.device(device).type, BATCH_SECONDS["cpu"])


def windows(items: Iterable[Item], window_seconds: float) -> Iterator[list[Item]]:
    """Consecutive items, at most `window_seconds` of sound together; a longer clip has a window to itself."""
    window: list[Item] = []
    seconds = 0.0
    for item in items:
        length = item.seconds if isinstance(item, AudioSegment) else 0.0
        if window and (seconds + length > window_seconds or len(window) >= WINDOW_ITEMS):
            yield window
            window, seconds = [], 0.0
        window.append(item)
        seconds += length
    if window:
        yield window


def plan(lengths: Sequence[int], batch_samples: int, rate: int = 16_000) -> list[list[int]]:
    """Which clips go together: lists of indices into `lengths`, a pure function of its arguments.

    Clips are sorted by length and cut into runs of at most `batch_samples` padded samples (a longer clip goes alone).
    Of all such cuts the one with the least padding is taken, where each batch counts as some seconds more of it: as
    many as keep the padding of all below MOST_WASTE. So batches are as large as that allows.
    """
    if not lengths:
        return []
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    ordered = np.array([lengths[i] for i in order], np.int64)
    total = int(ordered.sum())
    for overhead in OVERHEADS:
        ends = _cut(ordered, batch_samples, int(overhead * rate))
        starts = [0, *ends[:-1]]
        padded = sum(int(ordered[end - 1]) * (end - start) for start, end in zip(starts, ends, strict=True))
        if padded - total <= MOST_WASTE * padded:
            break
    return [order[start:end] for start, end in zip(starts, ends, strict=True)]


def _cut(ordered: np.ndarray, batch_samples: int, overhead: int) -> list[int]:
    """Ends of the runs of rising lengths that cost least: padded samples, and `overhead` for each run."""
    count = len(ordered)
    best = np.zeros(count + 1, np.int64)  # of the first n clips
    start_of = np.zeros(count + 1, np.int64)  # of the last run among the first n
    for end in range(1, count + 1):
        longest = int(ordered[end - 1])
        rows = min(max(1, batch_samples // max(1, longest)), MOST_ROWS, end)
        starts = np.arange(end - rows, end)
        costs = best[starts] + longest * (end - starts)
        cheapest = int(np.argmin(costs))  # the earliest of equals: the larger batch
        best[end] = costs[cheapest] + overhead
        start_of[end] = starts[cheapest]
    ends = [count]
    while start_of[ends[-1]] > 0:
        ends.append(int(start_of[ends[-1]]))
    return ends[::-1]


def stack(window: Sequence[Item], positions: Sequence[int], pinned: bool = False) -> AudioBatch:
    """The segments at `positions` as one batch, in page-locked memory if `pinned`."""
    segments = [window[position] for position in positions]
    lengths = [len(segment.waveform) for segment in segments]
    waveforms = torch.empty(len(segments), 1, max(lengths), dtype=torch.float32, pin_memory=pinned)
    rows = waveforms.numpy()[:, 0]
    for row, segment, length in zip(rows, segments, lengths, strict=True):
        row[:length] = segment.waveform
        row[length:] = 0.0
    return AudioBatch(waveforms, torch.tensor(lengths, dtype=torch.int64), tuple(positions))
