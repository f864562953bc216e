"""A run's checkpoints, at any path or URL: written whole or not at all, without pickle, the latest and the best kept.

`<output>/checkpoints/step-00001000.safetensors` holds what learns and its optimizers' memory, and in its header, as
JSON, where the run stands. What is frozen is not in it: it comes from where it came from, and its hash is checked.
`latest.json` and `best.json` name a file; they are written after it, so whoever reads them finds it whole.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline import finding, storage

FORMAT = 1
BEST_BY = (("pesq_wb", 1), ("stoi", 1), ("mel_mse", -1))  # and which way is better


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands."""

    step: int  # steps trained on
    order: dict[str, Any]  # the state of its data order
    recipe: dict[str, Any]
    frozen: dict[str, str]  # hash of each frozen module
    best: tuple[int, str, float] | None = None  # the step, metric and value of the best validation so far
    hours: float = 0.0  # of audio trained on
    seconds: float = 0.0  # of training, all attempts together
    format: int = FORMAT

    def after(self, step: int, values: Mapping[str, float]) -> "Position":
        """With what the last steps add."""
        hours = self.hours + values["seconds_of_audio"] / 3600
        return replace(self, step=step, hours=hours, seconds=self.seconds + values["seconds"])

    def at(self, step: int, order: Mapping[str, Any]) -> "Position":
        return replace(self, step=step, order=dict(order))

    def judged(self, step: int, means: Mapping[str, float]) -> "Position":
        """With the best validation so far: by the first metric of BEST_BY that was measured."""
        for name, sign in BEST_BY:
            if name in means:
                if self.best is None or self.best[1] != name or sign * means[name] > sign * self.best[2]:
                    return replace(self, best=(step, name, means[name]))
                return self
        return self


def folder(output: str) -> str:
    return storage.join(output, "checkpoints")


def save(output: str, tensors: Mapping[str, Tensor], position: Position, keep: int) -> str:
    """Write a checkpoint, point `latest` to it (and `best`, if its own step was judged best), remove others.

    Args: keep: how many of the latest stay; the best stays whatever its age. Returns: its path.
    """
    name = f"step-{position.step:08d}.safetensors"
    path = storage.join(folder(output), name)
    whole = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    header = {"position": json.dumps(asdict(position), sort_keys=True)}
    _write(path, whole, header)
    pointer = json.dumps({"file": name, "step": position.step, "best": position.best}).encode()
    is_best = position.best is not None and position.best[0] == position.step
    for which in ("best", "latest") if is_best else ("latest",):  # latest last: whoever goes on from it has both
        storage.write_atomic(storage.join(folder(output), f"{which}.json"), lambda file: file.write(pointer))
    _remove_others(output, keep)
    return path


def find(output: str, which: str = "latest") -> str | None:
    """The path of the latest or best checkpoint, or None where there is none."""
    pointer = storage.join(folder(output), f"{which}.json")
    if not storage.exists(pointer):
        return None
    return storage.join(folder(output), json.loads(storage.read_bytes(pointer))["file"])


def step_of(path: str) -> int:
    """The step a checkpoint's name tells."""
    return int(Path(path).stem.removeprefix("step-"))


def load(path: str) -> tuple[dict[str, Tensor], Position]:
    """Raises: ValueError for a checkpoint of another version."""
    with tempfile.TemporaryDirectory(prefix="neutok-") as scratch:
        local = Path(path)
        if not storage.is_local(path):
            local = Path(scratch) / "checkpoint.safetensors"
            with storage.open_read(path) as source, local.open("wb") as target:
                while block := source.read(1 << 24):
                    target.write(block)
        with safe_open(str(local), "pt") as file:
            fields = json.loads(file.metadata()["position"])
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 - no mapping
    if fields["format"] != FORMAT:
        raise ValueError(f"{path} has checkpoint format {fields['format']}, this version reads {FORMAT}")
    best = fields.pop("best")
    return tensors, Position(**fields, best=tuple(best) if best else None)


def pack(models: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer]) -> dict[str, Tensor]:
    """What a checkpoint holds: the parameters that learn, and each optimizer's memory of them, by name."""
    tensors: dict[str, Tensor] = {}
    for name, model in models.items():
        learning = {key: p for key, p in model.named_parameters() if p.requires_grad}
        tensors |= {f"{name}/{key}": p for key, p in learning.items()}
        for key, p in learning.items():
            for slot, value in optimizers[name].state.get(p, {}).items():
                tensors[f"{name}.optimizer/{slot}/{key}"] = torch.as_tensor(value)
    return tensors


def unpack(tensors: Mapping[str, Tensor], models: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer]) -> None:
    """Put a checkpoint's tensors in place. Raises: ValueError if they are not those of these models."""
    left = dict(tensors)
    for name, model in models.items():
        optimizer = optimizers[name]
        for key, p in model.named_parameters():
            if not p.requires_grad:
                continue
            saved = left.pop(f"{name}/{key}", None)
            if saved is None or saved.shape != p.shape:
                found = None if saved is None else list(saved.shape)
                raise ValueError(f"the checkpoint has {name}/{key} as {found}, the recipe as {list(p.shape)}")
            with torch.no_grad():
                p.copy_(saved)
            slots = {
                slot: left.pop(f"{name}.optimizer/{slot}/{key}", None) for slot in ("step", "exp_avg", "exp_avg_sq")
            }
            if slots["step"] is not None:
                moments = {slot: value.to(p.device) for slot, value in slots.items() if slot != "step"}
                optimizer.state[p] = {"step": slots["step"], **moments}
    if left:
        raise ValueError(f"the checkpoint holds what the recipe does not know: {', '.join(sorted(left)[:3])}")


def _write(path: str, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    """safetensors writes to a local path alone: beside its final name, or to be uploaded whole."""
    if storage.is_local(path):
        part = Path(path).with_suffix(".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part, header)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
        return
    with tempfile.TemporaryDirectory(prefix="neutok-") as scratch:
        part = Path(scratch) / "checkpoint.safetensors"
        save_file(tensors, part, header)
        storage.write_atomic(path, lambda file: _copy(part, file))


def _copy(local: Path, file: BinaryIO) -> None:
    with local.open("rb") as source:
        while block := source.read(1 << 24):
            file.write(block)


def _remove_others(output: str, keep: int) -> None:
    """All but the best and the `keep` latest; and what a kill left: half a file, or one that `latest` never named."""
    named = [Path(path).name for which in ("best", "latest") if (path := find(output, which))]
    paths = sorted(path for path in finding.list_files(folder(output)) if path.endswith((".safetensors", ".part")))
    whole = [path for path in paths if path.endswith(".safetensors") and Path(path).name <= named[-1]]
    for path in paths:
        if path not in whole[-keep:] and Path(path).name not in named:
            storage.remove(path)
