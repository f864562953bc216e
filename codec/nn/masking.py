"""Ragged batches: what keeps a row's features free of its batch mates.

`num_valid` is int64 [B], each row's own length at the rate of the tensor it goes with, or None where every row fills
the batch: then nothing here costs anything.
"""

import torch
from torch import Tensor


def is_valid(num_valid: Tensor, length: int) -> Tensor:
    """bool [B, length]: True within a row's own length."""
    return torch.arange(length, device=num_valid.device) < num_valid[:, None]


def zero_tail(x: Tensor, num_valid: Tensor | None, dim: int) -> Tensor:
    """`x` [B, ...] with zeros past each row's own length along `dim`: what a row alone is padded with."""
    if num_valid is None:
        return x
    shape = [1] * x.dim()
    shape[0], shape[dim] = x.shape[0], x.shape[dim]
    return x.masked_fill(~is_valid(num_valid, x.shape[dim]).view(shape), 0)


def masked_moments(x: Tensor, own: Tensor, count: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Variance and mean over `dims`, which stay as 1, of what `own` says is a row's own; `count` says how much that is.

    All at once and on the device: to ask a GPU how long a row is would wait for all that is queued.
    """
    mean = (x * own).sum(dims, keepdim=True) / count
    return ((x - mean) * own).square().sum(dims, keepdim=True) / count, mean
