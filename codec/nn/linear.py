"""A linear layer, and what follows it in one pass over memory where nothing is learned, on a CPU."""

import torch
from torch import Tensor, nn

from codec.nn import native
from codec.nn.conv import on_cpu_for_good


class Linear(nn.Linear):
    """Computes in the precision of its weight."""

    def forward(self, x: Tensor, silu: bool = False, added: Tensor | None = None, scale: float = 1.0) -> Tensor:
        """[..., C] -> [..., D]: x W + b, or its silu; or `scale` times that, plus `added` [..., D]."""
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


def takes(x: Tensor, layer: Linear) -> bool:
    """Whether the kernel can take `x` [..., C]."""
    fits = x.dtype == layer.weight.dtype == torch.float32 and layer.weight.is_contiguous()
    fits = fits and layer.in_features % 16 == layer.out_features % 64 == 0
    return fits and x.numel() > 0 and on_cpu_for_good(x) and native.available()
