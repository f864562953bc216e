"""Convolutions of width 7 that follow an activation, in a third of the multiplications, on a CPU.

Half of an acoustic encoder's multiplications are theirs, and the activation is taken in the same pass over memory.

Blocks of 18 samples are turned into 25 numbers each, multiplied with 25 numbers that the weights become once, summed
over channels, and turned into 12 samples of output. So each pair of channels costs 25/12 multiplications per sample
instead of 7; turning costs little, since it is done once per channel and not per pair.

The numbers are what determines a polynomial whose coefficients are the samples: its values at the 16 roots of unity
(a pair of conjugates is one complex value, and a product of two of these takes three real ones), at 0 and at infinity
(Winograd, "Arithmetic Complexity of Computations", 1980; transposed, as there, from a product of polynomials to a
filter). The usual points 0, 1, -1, 2, ... are fewer, but lose digits; at roots of unity rounding errs 1.5 times as
much as in plain sums, in the last bit as well.
"""

import functools

import numpy as np
import torch
from torch import Tensor

from codec.nn import native, tiles
from codec.nn.activations import SnakeBeta, linear, low_pass_taps
from codec.nn.conv import Conv1d
from codec.nn.snake_cpu import shaped

WIDTH = 7
ROOTS = 16
IN = ROOTS + 2  # samples of a block that are seen
OUT = IN - WIDTH + 1  # and that come out


class WideConv1d(Conv1d):
    """[B, C, T] -> [B, C, T], of width 7, dilated or not."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__(channels, channels, WIDTH, dilation=dilation, padding=WIDTH // 2 * dilation)
        self.packed = native.Packed(in_blocks)
        self.laid_out = native.Packed(tiles.laid_out_conv)

    def after(self, act: SnakeBeta, x: Tensor, num_valid: Tensor | None) -> Tensor:
        """self(act(x, num_valid))."""
        return self._by_blocks(act, x, num_valid) if native.takes(x, self) else self(act(x, num_valid))

    def _by_blocks(self, act: SnakeBeta, x: Tensor, num_valid: Tensor | None) -> Tensor:
        (batch, channels, length), apart = x.shape, self.dilation[0]
        x = x.transpose(1, 2).contiguous()
        y = torch.empty_like(x)
        threads = native.threads_for(x.numel())
        snake = shaped(x, *linear(act.alpha, act.beta), low_pass_taps(), num_valid)
        before, _, after = (torch.from_numpy(matrix) for matrix in matrices(np.float32))
        scratch = native.scratch("wide_conv", threads, channels, apart)
        given = (before, self.packed(self.weight), after, self.bias, scratch, batch, channels, length, apart, threads)
        native.call("wide_conv", x, y, *snake, *given)
        return y.transpose(1, 2)


def in_blocks(weight: Tensor) -> Tensor:
    """[out, in, 7] -> what the kernel reads."""
    return native.pack("wide_conv", numbers_of(weight))


def numbers_of(weight: Tensor) -> Tensor:
    """[out, in, 7] -> float32 [25, in, out]: what the numbers of a block are multiplied with."""
    taps = weight.double().permute(2, 1, 0)
    return torch.tensordot(torch.from_numpy(matrices()[1]), taps, 1).float().contiguous()


@functools.cache
def matrices(dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """before [25, 18], weights [25, 7], after [12, 25].

    For samples x [18] and taps w [7], after @ ((before @ x) * (weights @ w)) is the 12 sums over k of x[t + k] w[k].
    """
    values, numbers_of_values = _values(IN), _numbers_to_values()
    coefficients = np.linalg.inv(values) @ numbers_of_values  # [18, 25]: of a product, from its 25 numbers
    before, weights, after = coefficients.T, _numbers(WIDTH), _numbers(OUT).T
    return tuple(np.ascontiguousarray(matrix, dtype) for matrix in (before, weights, after))


def _values(count: int) -> np.ndarray:
    """[18, count]: a polynomial's values at all points from its coefficients, complex ones as two real numbers."""
    powers = np.exp(2j * np.pi / ROOTS * np.outer(np.arange(ROOTS // 2 + 1), np.arange(count)))
    pairs = powers[1:-1]
    ends = np.eye(count)[[0, -1]]  # at 0 and at infinity
    return np.concatenate((powers[[0, -1]].real, pairs.real, pairs.imag, ends))


def _numbers(count: int) -> np.ndarray:
    """[25, count]: of two such polynomials, these are multiplied: values, and for pairs a sum."""
    values = _values(count)
    real, imaginary = values[2 : ROOTS // 2 + 1], values[ROOTS // 2 + 1 : ROOTS]
    return np.concatenate((values, real + imaginary))


def _numbers_to_values() -> np.ndarray:
    """[18, 25]: (a + bi)(c + di) = (ac - bd) + ((a + b)(c + d) - ac - bd)i."""
    pairs = ROOTS // 2 - 1
    real, imaginary, both = (slice(2, 2 + pairs), slice(2 + pairs, 2 + 2 * pairs), slice(IN, IN + pairs))
    matrix = np.eye(IN, IN + pairs)
    matrix[real, imaginary] = -np.eye(pairs)
    matrix[imaginary, real] = -np.eye(pairs)
    matrix[imaginary, imaginary] = -np.eye(pairs)
    matrix[imaginary, both] = np.eye(pairs)
    return matrix
