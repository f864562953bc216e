"""Residual unit of the acoustic encoder: two activations, each with a convolution after it, and what came in added."""

import torch
from torch import Tensor, nn

from codec.nn import native, tiles
from codec.nn.activations import SnakeBeta, linear, low_pass_taps
from codec.nn.snake_conv import SnakeConv1d
from codec.nn.snake_cpu import shaped
from codec.nn.wide_conv import WideConv1d


class ResidualUnit(nn.Module):
    """[B, C, T] -> [B, C, T]."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.act1 = SnakeBeta(width)
        self.conv1 = WideConv1d(width, dilation)
        self.act2 = SnakeBeta(width)
        self.conv2 = SnakeConv1d(width, width, 1)

    def forward(self, x: Tensor, num_valid: Tensor | None) -> Tensor:
        if tiles.takes_conv(x, self.conv1):
            return self._by_tiles(x, num_valid)
        y = self.conv1.after(self.act1, x, num_valid)
        return self.conv2.after(self.act2, y, num_valid, added=x)

    def _by_tiles(self, x: Tensor, num_valid: Tensor | None) -> Tensor:
        """In one pass over memory, in bfloat16."""
        (batch, channels, length), threads = x.shape, native.threads_for(x.numel())
        (width,), (apart,) = self.conv1.kernel_size, self.conv1.dilation
        x = x.bfloat16().transpose(1, 2).contiguous()
        y = torch.empty_like(x)
        taps, valid = shaped(x, *linear(self.act1.alpha, self.act1.beta), low_pass_taps(), num_valid)[2:]
        halves = []
        for act, conv in ((self.act1, self.conv1), (self.act2, self.conv2)):
            halves += [*linear(act.alpha, act.beta), conv.laid_out(conv.weight), conv.bias.float()]
        scratch = native.scratch("residual_unit_tiles", threads, channels, width, apart)
        sizes = (batch, channels, length, width, apart, threads)
        native.call("residual_unit_tiles", x, y, valid, taps, *halves, scratch, *sizes)
        return y.transpose(1, 2)
