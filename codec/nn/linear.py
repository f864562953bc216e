"""A linear layer, and what follows it in one pass over memory where nothing is learned, on a CPU."""

from typing import Any

import torch
from torch import Tensor, nn

from codec.nn import native, tiles
from codec.nn.conv import on_cpu_for_good


class Linear(nn.Linear):
    """Computes in the precision of its weight."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.laid_out = native.Packed(tiles.laid_out_linear)

    def forward(self, x: Tensor, silu: bool = False, added: Tensor | None = None, scale: float = 1.0) -> Tensor:
        """[..., C] -> [..., D]: x W + b, or its silu; or `scale` times that, plus `added` [..., D]."""
        if tiles.takes_linear(x, self):
            return self._by_tiles(x, silu, added, scale)
        x = x.to(self.weight.dtype)
        if takes(x, self):
            return self._in_one_pass(x, silu, added, scale)
        y = self._plain(x)
        y = nn.functional.silu(y) if silu else y
        return y if added is None else torch.add(added, y, alpha=scale)

    def _plain(self, x: Tensor) -> Tensor:
        """By oneDNN on a CPU, as convolutions are: torch's own choice for float32, MKL, is a fifth slower on AMD."""
        if x.dtype == torch.float32 and on_cpu_for_good(x) and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return nn.functional.linear(x, self.weight, self.bias)

    def _in_one_pass(self, x: Tensor, silu: bool, added: Tensor | None, scale: float) -> Tensor:
        x, added = x.contiguous(), None if added is None else added.contiguous()
        y = x.new_empty(*x.shape[:-1], self.out_features)
        rows, threads = x.numel() // self.in_features, native.threads_for(self.weight.numel())
        scratch = native.scratch("linear", threads)
        sizes = (rows, self.in_features, self.out_features, int(silu), float(scale), threads)
        native.call("linear", x, self.weight, self.bias, added, y, scratch, *sizes)
        return y

    def _by_tiles(self, x: Tensor, silu: bool, added: Tensor | None, scale: float) -> Tensor:
        """In bfloat16, or in float32 where something is added."""
        x, added = x.contiguous(), None if added is None else added.float().contiguous()
        y = x.new_empty(*x.shape[:-1], self.out_features, dtype=torch.bfloat16 if added is None else torch.float32)
        bias = None if self.bias is None else self.bias.float()
        rows, threads = x.numel() // self.in_features, native.threads_for(self.weight.numel())
        scratch = native.scratch("linear_tiles", 1, rows, self.in_features)
        narrow = (int(part.dtype == torch.bfloat16) for part in (x, y))
        sizes = (rows, self.in_features, self.out_features, int(silu), float(scale), threads)
        native.call("linear_tiles", x, self.laid_out(self.weight), bias, added, y, scratch, *narrow, *sizes)
        return y


def takes(x: Tensor, layer: Linear) -> bool:
    """Whether the kernel can take `x` [..., C]."""
    fits = x.dtype == layer.weight.dtype == torch.float32 and layer.weight.is_contiguous()
    fits = fits and layer.in_features % 16 == layer.out_features % 64 == 0 and x.shape[-1] == layer.in_features
    return fits and x.numel() > 0 and on_cpu_for_good(x) and native.available()
