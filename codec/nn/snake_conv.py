"""A convolution that follows an activation, both in one pass over memory where nothing is learned, on a CPU."""

from typing import Any

from torch import Tensor

from codec.nn import native, tiles
from codec.nn.activations import SnakeBeta, linear, low_pass_taps
from codec.nn.conv import Conv1d
from codec.nn.snake_cpu import shaped


class SnakeConv1d(Conv1d):
    """A Conv1d that also knows how to follow an activation."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.packed = native.Packed(in_panels)
        self.laid_out = native.Packed(tiles.laid_out_conv)

    def after(self, act: SnakeBeta, x: Tensor, num_valid: Tensor | None, added: Tensor | None = None) -> Tensor:
        """self(act(x, num_valid)) + added; [B, C, T] -> [B, D, U]."""
        if native.takes(x, self):
            return self._in_one_pass(act, x, num_valid, added)
        y = self._by_tiles(act, x, num_valid) if tiles.takes_conv(x, self) else self(act(x, num_valid))
        return y if added is None else y.add_(added)

    def _in_one_pass(self, act: SnakeBeta, x: Tensor, num_valid: Tensor | None, added: Tensor | None) -> Tensor:
        (batch, channels, length), (width, stride, padding) = x.shape, (*self.kernel_size, *self.stride, *self.padding)
        threads = native.threads_for(x.numel())
        x = x.transpose(1, 2).contiguous()
        y = x.new_empty(batch, (length + 2 * padding - width) // stride + 1, self.out_channels)
        added = None if added is None else added.transpose(1, 2).contiguous()
        snake = shaped(x, *linear(act.alpha, act.beta), low_pass_taps(), num_valid)
        scratch = native.scratch("snake_conv", threads, channels, width, stride)
        sizes = (batch, channels, self.out_channels, width, stride, padding, length, y.shape[1], threads)
        native.call("snake_conv", x, added, y, *snake, self.packed(self.weight), self.bias, scratch, *sizes)
        return y.transpose(1, 2)

    def _by_tiles(self, act: SnakeBeta, x: Tensor, num_valid: Tensor | None) -> Tensor:
        (batch, channels, length), (width, stride, padding) = x.shape, (*self.kernel_size, *self.stride, *self.padding)
        threads = native.threads_for(x.numel())
        x = x.bfloat16().transpose(1, 2).contiguous()
        y = x.new_empty(batch, (length + 2 * padding - width) // stride + 1, self.out_channels)
        snake = shaped(x, *linear(act.alpha, act.beta), low_pass_taps(), num_valid)
        scratch = native.scratch("snake_conv_tiles", threads, channels, width, stride)
        sizes = (batch, channels, self.out_channels, width, stride, padding, length, y.shape[1], threads)
        native.call("snake_conv_tiles", x, y, *snake, self.laid_out(self.weight), self.bias.float(), scratch, *sizes)
        return y.transpose(1, 2)


def in_panels(weight: Tensor) -> Tensor:
    """[out, in, width] -> [width x in, out], as the kernel reads it."""
    return native.pack("snake_conv", weight.permute(2, 1, 0).flatten(0, 1).contiguous())
