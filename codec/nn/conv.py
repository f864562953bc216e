"""Convolutions, and the memory layout that they are fast in."""

import torch
from torch import Tensor, nn

FEW = 32  # channels: of fewer, oneDNN 3.12 sums some convolutions of bfloat16 wrongly, where it has tile registers


class Conv1d(nn.Conv1d):
    """Computes in the precision of its weight.

    What comes in time-major goes out so where `on_cpu_for_good`; conv1d would copy it to channel-major and back.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        few = 1 < self.in_channels < FEW and self.kernel_size != (1,)
        if few and x.dtype == torch.bfloat16 and x.device.type == "cpu":
            bias = None if self.bias is None else self.bias.float()
            return self._convolve(x.float(), self.weight.float(), bias).to(x.dtype)
        return self._convolve(x, self.weight, self.bias)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # oneDNN 3.12 never ends over some depthwise convolutions of bfloat16 that are time-major
        hangs = self.groups > 1 and x.dtype == torch.bfloat16
        if x.stride(1) != 1 or hangs or not on_cpu_for_good(x):
            return self._conv_forward(x.contiguous() if hangs else x, weight, bias)
        if self.in_channels == 1 and self.stride == self.dilation == (1,):
            # oneDNN 3.12 prepares for each new length of a single channel, and that takes longer than the sums
            windows = nn.functional.pad(x[:, 0], 2 * self.padding).unfold(1, *self.kernel_size, 1)
            return nn.functional.linear(windows, weight[:, 0], bias).transpose(1, 2)
        steps, reach, apart = (1, *self.stride), (0, *self.padding), (1, *self.dilation)
        wide = nn.functional.conv2d(x[:, :, None], weight[:, :, None], bias, steps, reach, apart, self.groups)
        return wide[:, :, 0]


def time_major(x: Tensor) -> Tensor:
    """[B, C, T], the same values; where `on_cpu_for_good`, the channels of one time lie side by side in memory.

    Convolutions of few channels are up to twice as fast so, and those of many lose little.
    """
    if not on_cpu_for_good(x):
        return x
    # by way of one dimension: a single channel counts as laid out either way and would keep its strides
    return x.transpose(1, 2).reshape(-1).view(len(x), x.shape[2], -1).transpose(1, 2)


def on_cpu_for_good(x: Tensor) -> bool:
    """Whether `x` is computed with on a CPU and nothing is learned."""
    return x.device.type == "cpu" and not torch.is_grad_enabled()
