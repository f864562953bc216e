"""How several datasets share the draws of a run: in exact proportion at every prefix, at any position at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

PARTS = 100_000  # shares are kept exact up to this many parts; finer weights are rounded to them


@dataclass(frozen=True)
class Mixture:
    """Integer shares over datasets. After m draws dataset d was drawn c times, with |c - m * share_d / sum| < 1.

    The draws repeat with period sum(shares); one period is worked out, every later position follows by division.
    """

    shares: tuple[int, ...]

    @classmethod
    def of(cls, weights: Sequence[float]) -> "Mixture":
        """Weights as written: 0.3 is 3/10. Raises: ValueError for a negative or not finite weight, or none above 0."""
        if not weights or not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights):
            raise ValueError(f"weights must be finite, not negative and not all 0; got {list(weights)}")
        exact = [Fraction(str(w)) for w in weights]
        scale = math.lcm(*(w.denominator for w in exact))
        whole = [int(w * scale) for w in exact]
        whole = [w // math.gcd(*whole) for w in whole]
        if (total := sum(whole)) > PARTS:
            whole = [max(1, round(w * PARTS / total)) if w else 0 for w in whole]
            whole = [w // math.gcd(*whole) for w in whole]
        return cls(tuple(whole))

    def at(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Dataset of each draw (int64, counted from 0), and how often that dataset was drawn before."""
        dataset, before = self._period
        periods, rest = np.divmod(draws, len(dataset))
        return dataset[rest], periods * np.array(self.shares)[dataset[rest]] + before[rest]

    def counts(self, draws: int) -> np.ndarray:
        """How often each dataset is drawn in the first `draws` draws: int64 [datasets]."""
        periods, rest = divmod(draws, len(self._period[0]))
        return periods * np.array(self.shares) + np.bincount(self._period[0][:rest], minlength=len(self.shares))

    @cached_property
    def _period(self) -> tuple[np.ndarray, np.ndarray]:
        # Among the datasets that have a deficit, the one that must be drawn soonest goes first. Taking the one with the
        # largest deficit instead can leave a rare dataset more than a whole draw behind; "due soonest" never does.
        total, counts = sum(self.shares), [0] * len(self.shares)
        due = [-(-total // share) if share else math.inf for share in self.shares]
        dataset, before = np.empty(total, np.int64), np.empty(total, np.int64)
        known = [d for d, share in enumerate(self.shares) if share]
        for draw in range(total):
            d = min((d for d in known if counts[d] * total < (draw + 1) * self.shares[d]), key=due.__getitem__)
            dataset[draw], before[draw] = d, counts[d]
            counts[d] += 1
            due[d] = -(-(counts[d] + 1) * total // self.shares[d])
        return dataset, before
