"""Layers of bfloat16 by the tile registers of a CPU (AMX): whether it has them, and weights in the order they read.

The products are those that oneDNN computes as well, with float32 sums; but a layer's input is rounded as it is laid out
for the tiles, and what follows is taken while the sums lie in cache. Each row has the same bits alone and in a batch.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from codec.nn import native
from codec.nn.conv import on_cpu_for_good

SIDE = 32  # rows, columns and depth that two tiles by two take at once
LANES = 16  # channels of activations are a multiple of it


@functools.cache
def ready() -> bool:
    """Whether there are such registers, and this process may use them."""
    kernels = native.library()
    return kernels is not None and bool(kernels.tiles_ready())


def may_run(x: Tensor, weight: Tensor) -> bool:
    """Whether `x` may go by tiles to a layer of this weight.

    Not where the weight does not tell when it changes: what was made in inference mode does not.
    """
    fits = weight.dtype == torch.bfloat16 and x.dtype in (torch.float32, torch.bfloat16) and x.numel() > 0
    return fits and on_cpu_for_good(x) and native.available() and ready() and not weight.is_inference()


def laid_out(weight: Tensor) -> Tensor:
    """bfloat16 [depth, out] -> [out / 32, depth / 32, 2, 16, 16, 2]: panel by panel, tile by tile, pairs of depth."""
    depth, out = weight.shape
    tiles = weight.view(depth // SIDE, SIDE // 2, 2, out // SIDE, 2, SIDE // 2)
    return tiles.permute(3, 0, 4, 1, 5, 2).contiguous()


def laid_out_linear(weight: Tensor) -> Tensor:
    """[out, in] -> as `laid_out`."""
    return laid_out(weight.T.contiguous())


def laid_out_conv(weight: Tensor) -> Tensor:
    """[out, in, width] -> as `laid_out` of [width x in, out], channels made multiples of 32 by zeros."""
    out, channels, _ = weight.shape
    whole = pad(weight.permute(2, 1, 0), (0, -out % SIDE, 0, -channels % SIDE))
    return laid_out(whole.flatten(0, 1))


def takes_linear(x: Tensor, layer: nn.Linear) -> bool:
    """Whether the kernel of linear layers can take `x` [..., C]."""
    fits = layer.in_features % SIDE == layer.out_features % SIDE == 0 and x.shape[-1] == layer.in_features
    return fits and may_run(x, layer.weight)


def takes_conv(x: Tensor, layer: nn.Conv1d) -> bool:
    """Whether the kernel of convolutions can take `x` [B, C, T], and is faster: where it is time-major."""
    fits = layer.in_channels % LANES == layer.out_channels % LANES == 0 and layer.groups == 1
    return fits and x.shape[1] == layer.in_channels and x.stride(1) == 1 and may_run(x, layer.weight)
