"""The same training loop on a Ray cluster: Ray Train places the ranks, connects them and starts them again."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from jobs.cluster import connect
from jobs.corpus import absolute, wrong_options
from jobs.training.loop import NotFiniteError
from jobs.training.options import TrainOptions
from jobs.training.ranks import PATIENCE, RanksFailed
from pipeline import storage

RESTARTS = 3


def train_on_ray(options: TrainOptions) -> bool:
    """Run `--ray-workers` ranks, one GPU each where the cluster has GPUs. Returns: whether the last step was reached.

    A rank that dies takes its group with it; the group is started again from the latest checkpoint, RESTARTS times. Not
    by Ray Train, which would do so where ranks refuse the options, too.
    A relative path is relative to this process's folder.
    Raises: ValueError if nobody answers at the address, the cluster cannot hold the ranks, or they refuse the options;
        NotFiniteError, or RanksFailed for whatever else they died of.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    with wrong_options():
        connect(options.ray_address, "--ray-address")
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    resources = ray.cluster_resources()
    gpus = options.device != "cpu" and resources.get("GPU", 0) > 0
    have = int(resources.get("GPU" if gpus else "CPU", 0))
    if options.device == "cuda" and not gpus:
        raise ValueError("--device cuda, but the cluster has no GPU")
    if options.ray_workers > have:
        raise ValueError(
            f"--ray-workers {options.ray_workers}, but the cluster has {have} {'GPUs' if gpus else 'CPUs'}"
        )
    options = replace(options, output=absolute(options.output))
    trainer = partial(
        TorchTrainer,
        _rank,
        train_loop_config={"options": asdict(options), "folder": str(Path.cwd())},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo", timeout_s=int(PATIENCE.total_seconds())),
        scaling_config=ScalingConfig(num_workers=options.ray_workers, use_gpu=gpus),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=0), **_notes(options.output)),
    )
    _fit(trainer)
    return reached(options)


def _fit(make_trainer: Callable[[], Any]) -> None:
    """Train to the end. Where ranks refuse or diverge they would do so again; what else they die of may pass."""
    from ray.train import TrainingFailedError

    for restarts_left in range(RESTARTS, -1, -1):
        try:
            make_trainer().fit()
            return
        except TrainingFailedError as error:
            failed = reason(error)
            if not isinstance(failed, RanksFailed):
                raise failed from error
            if not restarts_left:
                raise RanksFailed(f"{failed}; run it again to go on from the latest checkpoint") from error
            print(f"{failed}; starting again from the latest checkpoint", file=sys.stderr)


def _rank(told: dict[str, Any]) -> None:
    """One rank; Ray has joined it to the others by now, and moved it into a folder of its own."""
    from jobs.cluster import Stop
    from jobs.train import train

    with contextlib.suppress(OSError):  # another machine may not have the driver's; then only full paths work
        os.chdir(told["folder"])
    stop = Stop()
    train(TrainOptions(**told["options"]), lambda: stop.requested)


def reason(error: Exception) -> Exception:
    """What the ranks died of, of all that Ray Train tells of it.

    One rank refuses or diverges, and the others, waiting for it, die of its death: what says most goes first.
    """
    failures = list(getattr(error, "worker_failures", {}).values())
    for kind in (ValueError, NotFiniteError):
        for failure in failures:
            if isinstance(failure, kind):
                return failure
    last = storage.first_line(failures[0] if failures else error)
    return RanksFailed(f"ranks died, the last of: {last}")


def reached(options: TrainOptions) -> bool:
    """Whether the run's latest checkpoint is of its last step."""
    from jobs.training import checkpoints

    path = checkpoints.find(options.output)
    return path is not None and checkpoints.step_of(path) >= options.chosen().steps


def _notes(output: str) -> dict[str, Any]:
    """Ray's own notes of the run go beside ours; its checkpoints stay unused, for ours hold all that is needed."""
    return {"storage_path": storage.join(output, "log", "ray"), "name": "run"}
