"""A dataset's rows in a new order each epoch: any position at once, and neighbours in it lie near in the files."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Rows:
    """A dataset as an order sees it: rows `borders[i]` to `borders[i + 1]` are a block, cheap to read together."""

    name: str
    hash: str  # of what the row numbers stand for
    borders: np.ndarray  # int64 [blocks + 1], rising from 0

    def __len__(self) -> int:
        return int(self.borders[-1])


def scramble(*parts: int | np.ndarray) -> np.ndarray:
    """Random uint64 numbers, one for each combination of the parts and always the same: SplitMix64, folded over them.

    Plain integer arithmetic, so that no other version of numpy shuffles otherwise.
    """
    state = np.zeros(1, np.uint64)
    for part in parts:
        part = part.astype(np.uint64) if isinstance(part, np.ndarray) else np.uint64(part % 2**64)
        state = (state ^ part) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


class Shuffle:
    """Blocks are shuffled over the dataset; the rows of consecutive blocks, `window` rows or more, among themselves.

    A reader that follows holds the blocks of one window. What it costs to find a position: once an epoch a sort of the
    blocks, once a window a sort of its rows.
    """

    def __init__(self, rows: Rows, key: int, window: int) -> None:
        self.rows, self.key, self.window = rows, key, window
        self._kept: dict[tuple[int, ...], Any] = {}

    def at(self, epochs: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Row numbers, int64 [N], at these positions of these epochs."""
        found = np.empty(len(positions), np.int64)
        for epoch in np.unique(epochs):
            firsts = self._epoch(int(epoch))[0]
            windows = np.where(epochs == epoch, np.searchsorted(firsts, positions, "right") - 1, -1)
            for window in np.unique(windows[windows >= 0]):
                here = windows == window
                found[here] = self._window(int(epoch), int(window))[positions[here] - firsts[window]]
        return found

    def near(self, epoch: int, position: int) -> np.ndarray:
        """All rows of the window that holds this position."""
        return self._window(epoch, int(np.searchsorted(self._epoch(epoch)[0], position, "right")) - 1)

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The first position of each window, then of each shuffled block, both with the end; and these blocks."""

        def work_out() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            blocks = np.argsort(scramble(self.key, 0, epoch, np.arange(len(self.rows.borders) - 1)), kind="stable")
            starts = np.append(0, np.cumsum(np.diff(self.rows.borders)[blocks]))
            firsts = starts[:-1][np.diff(starts[:-1] // self.window, prepend=-1) > 0]
            if len(firsts) > 1 and starts[-1] - firsts[-1] < self.window // 2:
                firsts = firsts[:-1]  # a short last window joins the one before
            return np.append(firsts, starts[-1]), starts, blocks

        return self._keep((epoch,), work_out)

    def _window(self, epoch: int, window: int) -> np.ndarray:
        def work_out() -> np.ndarray:
            firsts, starts, blocks = self._epoch(epoch)
            first, last = np.searchsorted(starts, firsts[window : window + 2])
            borders = self.rows.borders
            rows = np.concatenate([np.arange(borders[b], borders[b + 1]) for b in blocks[first:last]])
            return rows[np.argsort(scramble(self.key, 1, epoch, rows), kind="stable")]

        return self._keep((epoch, window), work_out)

    def _keep(self, key: tuple[int, ...], work_out: Callable[[], Any]) -> Any:
        if key not in self._kept:
            value = work_out()
            while len(self._kept) >= 8:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = value
        return self._kept[key]
