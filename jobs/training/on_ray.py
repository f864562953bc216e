"""The same training loop on a Ray cluster: Ray Train places the ranks, connects them and starts them again."""

import logging
from dataclasses import asdict
from typing import Any

from jobs.cluster import connect
from jobs.training.options import TrainOptions
from jobs.training.ranks import PATIENCE


def train_on_ray(options: TrainOptions) -> bool:
    """Run `--ray-workers` ranks, one GPU each where the cluster has GPUs. Returns: whether the last step was reached.

    A rank that dies takes its group with it; the group is started again from the latest checkpoint, three times.
    Raises: ValueError if the cluster cannot hold the ranks, or they all refuse the options.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    connect(options.ray_address)
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
    trainer = TorchTrainer(
        _rank,
        train_loop_config=asdict(options),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo", timeout_s=int(PATIENCE.total_seconds())),
        scaling_config=ScalingConfig(num_workers=options.ray_workers, use_gpu=gpus),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=3), **_where(options.output)),
    )
    trainer.fit()
    return reached(options)


def _rank(fields: dict[str, Any]) -> None:
    """One rank; Ray has joined it to the others by now."""
    from jobs.cluster import Stop
    from jobs.train import train

    stop = Stop()
    train(TrainOptions(**fields), lambda: stop.requested)


def reached(options: TrainOptions) -> bool:
    """Whether the run's latest checkpoint is of its last step."""
    from jobs.training import checkpoints

    path = checkpoints.find(options.output)
    return path is not None and checkpoints.step_of(path) >= options.chosen().steps


def _where(output: str) -> dict[str, Any]:
    """Ray's own notes of the run go beside ours; its checkpoints stay unused, for ours hold all that is needed."""
    from pathlib import Path

    from pipeline import storage

    folder = storage.join(output, "log", "ray")
    return {"storage_path": str(Path(folder).resolve()) if storage.is_local(output) else folder, "name": "run"}
