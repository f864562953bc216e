"""The ranks of a training run: one process, the processes of torchrun, or Ray Train's workers; all the same here."""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

PATIENCE = timedelta(hours=24)  # of ranks that wait for one that lists large corpora; torch's own is 10 or 30 minutes


class RanksFailed(RuntimeError):
    """A rank died of what is not known to be the options' fault, as often as a run bears it."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which one of how many this process is, and the device it computes on."""

    rank: int
    world: int
    device: torch.device

    def check(self, batch_size: int) -> None:
        """Raises: ValueError for a batch that cannot be shared evenly."""
        if batch_size % self.world:
            raise ValueError(
                f"a batch of {batch_size} crops cannot be shared evenly by {self.world} ranks; "
                f"choose --batch-size as a multiple of {self.world}"
            )

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with gradients averaged over ranks; itself where there is one rank, or nothing that learns."""
        if self.world == 1 or not any(p.requires_grad for p in model.parameters()):
            return model
        return DistributedDataParallel(model, gradient_as_bucket_view=True)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over ranks."""
        return self.total(values) / self.world

    def total(self, values: Tensor) -> Tensor:
        """The sum over ranks."""
        if self.world > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on any rank; all ranks must ask at the same step."""
        if self.world == 1:
            return flag
        return bool(self.total(torch.tensor([float(flag)], device=self.device)))

    def wait(self) -> None:
        """Until every rank is here."""
        if self.world > 1:
            self.any(False)


def join(device: str) -> Ranks:
    """This process's place: in the group that is there, in the one torchrun describes, or alone.

    Args: device: "cpu", "cuda" or "auto". Raises: ValueError for "cuda" where there is none.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"unknown device {device!r}; known: auto, cpu, cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("no GPU to be seen here; give --device cpu, or look at the driver")
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    place = torch.device("cpu")
    if on_gpu:
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.cuda.set_device(place)
    if not dist.is_initialized():
        return Ranks(0, 1, place)
    return Ranks(dist.get_rank(), dist.get_world_size(), place)
