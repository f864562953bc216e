"""The training loop: any recipe over the stream, in one process or one of several ranks; it knows nothing of Ray.

    order -> crops -> update(models) -> losses -> log, validation, checkpoint

Every batch, dropout mask and learning rate follows from the step alone, so a run that was killed goes on exactly.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from codec.evaluation.metrics import CodeUse
from codec.training.modules import Generator
from codec.training.recipes import Recipe
from codec.training.step import Models, Optimizers, Update, unwrap, update
from jobs.training import checkpoints
from jobs.training.checkpoints import Position
from jobs.training.log import TrainingLog, line_of
from jobs.training.ranks import Ranks
from pipeline.crops import Crops
from pipeline.order import Order
from pipeline.shuffle import scramble


class NotFiniteError(RuntimeError):
    """The losses diverged: nothing more is saved, so the last checkpoint is whole."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """Steps between two lines of the log, two validations, two checkpoints; and when to stop early.

    The same on all ranks: at each of these they wait for one another.
    """

    log: int = 50
    validate: int | None = None  # never
    save: int = 1_000
    hours: float | None = None
    keep: int = 2


@dataclass
class Run:
    """One attempt of a run, as one rank sees it. What it stands on is put together in `setup.py`."""

    output: str
    recipe: Recipe
    precision: str
    ranks: Ranks
    order: Order
    models: Models
    optimizers: Optimizers
    position: Position
    cadence: Cadence
    log: TrainingLog | None = None  # of rank 0
    validate: Callable[[int], dict[str, float]] | None = None  # of rank 0: measure, keep samples, return means
    say: Callable[[str], None] = print
    meter: "Meter" = field(init=False)

    def __post_init__(self) -> None:
        self.meter = Meter(self.ranks, self.recipe.codec.input_rate)

    @property
    def generator(self) -> Generator:
        return unwrap(self.models.generator)

    def train(self, crops: Iterator[Crops], stopping: Callable[[], bool]) -> bool:
        """Train on `crops`, which begin at the position's step, until the recipe's last step, the hours given, or
        `stopping()`; then save. Returns: whether the last step was reached. Raises: NotFiniteError.
        """
        began = time.monotonic()
        step = self.position.step
        for batch in crops:
            assert batch.step == step, f"crops of step {batch.step} came for step {step}"
            self.meter.add(batch, self.one(batch))
            step += 1
            last = step == self.recipe.steps
            if step % self.cadence.log == 0 or last:
                self.report(step)
            every = self.cadence.validate
            judged = every is not None and (step % every == 0 or last)
            if judged:
                self.listen(step)
            # ranks must agree, and asking costs a round trip
            asked = step % 10 == 0 or self.ranks.world == 1
            late = self.cadence.hours is not None and time.monotonic() - began > self.cadence.hours * 3600
            stop = asked and self.ranks.any(late or stopping())
            if last or stop or judged or step % self.cadence.save == 0:
                self.save(step)
            if stop:
                break
        return step >= self.recipe.steps

    def one(self, batch: Crops) -> Update:
        """One step. Chance (dropout) is drawn anew for each, from the seed, the step and the rank."""
        torch.manual_seed(int(scramble(self.recipe.seed, batch.step, self.ranks.rank)[0]) >> 1)
        device = self.ranks.device
        inputs = batch.inputs.to(device, non_blocking=True)
        targets = inputs if batch.targets is batch.inputs else batch.targets.to(device, non_blocking=True)
        return update(self.models, self.optimizers, inputs, targets, self.recipe, batch.step, self.precision)

    def report(self, step: int) -> None:
        """Means since the last report, over all ranks. Raises: NotFiniteError."""
        values, replaced = self.meter.take()
        if not all(np.isfinite(value) for value in values.values()):
            raise NotFiniteError(f"step {step}: a loss is not finite: {values}; go on from the last checkpoint with "
                                 "a lower --peak-rate, or look at the data")  # fmt: skip
        values["rate"] = self.recipe.schedule(step - 1)
        self.position = self.position.after(step, values)
        values["audio_hours"] = self.position.hours
        if self.log:
            self.log.write(step, "train", values)
            for row in replaced:
                self.log.write(step, "replaced", {"row": row})
        self.say(line_of(step, self.recipe.steps, values))

    def listen(self, step: int) -> None:
        """Validate on rank 0, and remember whether this is the best so far."""
        if self.validate:
            means = self.validate(step)
            self.position = self.position.judged(step, means)
            if self.log:
                self.log.write(step, "validation", means)
            self.say(f"step {step} | " + " ".join(f"{name} {value:.4g}" for name, value in means.items()))
        self.ranks.wait()

    def save(self, step: int) -> None:
        """A checkpoint of what all ranks hold alike."""
        if self.meter.steps:
            self.report(step)
        self.position = self.position.at(step, self.order.state(step))
        if self.ranks.rank == 0:
            tensors = checkpoints.pack(*self.trained())
            checkpoints.save(self.output, tensors, self.position, self.cadence.keep)
            if self.log:
                self.log.flush()
        self.ranks.wait()

    def trained(self) -> tuple[dict[str, torch.nn.Module], dict[str, torch.optim.Optimizer]]:
        """The models that learn and their optimizers, by the names a checkpoint has for them."""
        models = {"generator": self.generator, "judges": unwrap(self.models.judges)}
        return models, {"generator": self.optimizers.generator, "judges": self.optimizers.judges}


class Meter:
    """Sums since the last report; they stay on the device until then, so that no step waits for another."""

    def __init__(self, ranks: Ranks, input_rate: int) -> None:
        self.ranks, self.input_rate = ranks, input_rate
        self.clear()

    def clear(self) -> None:
        self.steps, self.seconds, self.began = 0, 0.0, time.monotonic()
        self.sums: dict[str, Tensor] = {}
        self.times: dict[str, int] = {}
        self.counts: Tensor | None = None
        self.replaced: list[str] = []

    def add(self, batch: Crops, done: Update) -> None:
        for name, value in done.parts.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
            self.times[name] = self.times.get(name, 0) + 1
        codes = done.codes.flatten().long()
        if self.counts is None:
            self.counts = torch.zeros(done.codebook_size, dtype=torch.int64, device=codes.device)
        self.counts.scatter_add_(0, codes, torch.ones_like(codes))  # unlike bincount, a GPU need not be waited for
        self.steps += 1
        self.seconds += batch.seconds
        self.replaced += batch.replaced

    def take(self) -> tuple[dict[str, float], list[str]]:
        """Means of every part over steps and ranks, code use, speed; and the rows replaced on this rank."""
        names = sorted(self.sums)
        means = torch.stack([self.sums[name].float() / self.times[name] for name in names])
        values = dict(zip(names, self.ranks.mean(means).tolist(), strict=True))
        use = CodeUse.of(self.ranks.total(self.counts).cpu().numpy())
        seconds = self.ranks.total(torch.tensor([self.seconds], device=self.ranks.device)).item()
        wall = max(time.monotonic() - self.began, 1e-9)
        values |= {
            "codes_used": use.distinct,
            "code_entropy": use.entropy,
            "steps_per_second": self.steps / wall,
            "audio_hours_per_hour": seconds / wall,
            "seconds_of_audio": seconds,
            "seconds": wall,
        }
        replaced = self.replaced
        self.clear()
        return values, replaced
