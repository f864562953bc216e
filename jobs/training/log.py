"""What a run says while it trains: on the screen, as JSONL beside the checkpoints, to TensorBoard where installed.

One file per attempt, named for the step it began with; a second from the same step is `_2`, and so on. Lines of steps
that were lost to a crash are written again by the attempt that repeats them, to the same values.
"""

import itertools
import json
import shlex
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jobs.benches.machine import hardware
from jobs.options import as_flags
from jobs.training.options import TrainOptions
from jobs.training.ranks import Ranks
from pipeline import storage

LINE = ("total", "mel", "adversarial", "feature_matching", "semantic", "distillation", "generator_norm", "code_entropy")


class TrainingLog:
    """Only rank 0 has one."""

    def __init__(self, output: str, first_step: int) -> None:
        self.path = _free(output, first_step)
        self.lines: list[str] = []
        self.file = None
        if storage.is_local(output):
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            self.file = Path(self.path).open("w", buffering=1)  # noqa: SIM115 - open as long as the run
        self.board = None
        if find_spec("tensorboard") and storage.is_local(output):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(storage.join(output, "log", "tensorboard"), purge_step=first_step)

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """One record. Numbers also go to TensorBoard, as `kind/name`."""
        line = json.dumps({"step": step, "kind": kind, "time": round(time.time(), 1), **values})
        self.lines.append(line)
        if self.file:
            self.file.write(line + "\n")
        if self.board:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self.board.add_scalar(f"{kind}/{name}", value, step)

    def sound(self, step: int, name: str, waveform: Any, sample_rate: int) -> None:
        if self.board:
            self.board.add_audio(name, waveform[None], step, sample_rate=sample_rate)

    def flush(self) -> None:
        """An object store cannot append: there the file is written anew with every checkpoint."""
        if self.file is None:
            data = "".join(line + "\n" for line in self.lines).encode()
            storage.write_atomic(self.path, lambda file: file.write(data))
        if self.board:
            self.board.flush()

    def close(self) -> None:
        self.flush()
        if self.file:
            self.file.close()
        if self.board:
            self.board.close()


def _free(output: str, first_step: int) -> str:
    """The first name that no earlier attempt has taken."""
    endings = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
    paths = (storage.join(output, "log", f"train-{first_step:08d}{ending}.jsonl") for ending in endings)
    return next(path for path in paths if not storage.exists(path))


def beginning(options: TrainOptions, ranks: Ranks) -> dict[str, Any]:
    """What an attempt says of itself: the command that repeats it, and what it runs on."""
    command = shlex.join(["neutok", "train", *as_flags(options)])
    return {"command": command, "ranks": ranks.world, "hardware": hardware(str(ranks.device))}


def line_of(step: int, steps: int, values: dict[str, float]) -> str:
    """What the screen shows of one record of training."""
    shown = " ".join(f"{name} {values[name]:.4g}" for name in LINE if name in values)
    return (
        f"step {step}/{steps} | {shown} | {values['steps_per_second']:.2f} steps/s, "
        f"{values['audio_hours_per_hour']:.0f} h of audio per hour"
    )
