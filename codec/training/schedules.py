"""Learning rate as a pure function of the step, so that a resumed run needs no scheduler state. Source: XCodec2."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """Quadratic warm-up from `start` to `peak`, a straight line down to `end`, then constant; steps are batches.

    XCodec2's framework counts two steps per batch (one per optimizer); here a step is one batch.
    """

    start: float = 1e-5
    peak: float = 1e-4
    end: float = 2e-5
    warmup: int = 3_000
    decay: int = 400_000

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return self.start + (self.peak - self.start) * (step / self.warmup) ** 2
        if step < self.warmup + self.decay:
            return self.peak + (self.end - self.peak) * (step - self.warmup) / self.decay
        return self.end
