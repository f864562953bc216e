"""Convolutions of width 7 in a third of the multiplications, on a CPU: half of an acoustic encoder's time goes there.

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

from codec.nn import native
from codec.nn.layers import Conv1d, on_cpu_for_good

WIDTH = 7
ROOTS = 16
IN = ROOTS + 2  # samples of a block that are seen
OUT = IN - WIDTH + 1  # and that come out
CHANNELS = 48  # the kernel takes multiples of it


class WideConv1d(Conv1d):
    """[B, C, T] -> [B, C, T], of width 7, dilated or not."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__(channels, channels, WIDTH, dilation=dilation, padding=WIDTH // 2 * dilation)
        self._packed: tuple[Tensor, int, Tensor] | None = None  # a weight, its version, and its numbers

    def forward(self, x: Tensor) -> Tensor:
        return self._by_blocks(x) if can_go_by_blocks(self, x) else super().forward(x)

    def _by_blocks(self, x: Tensor) -> Tensor:
        before, _, after = (torch.from_numpy(matrix) for matrix in matrices(np.float32))
        batch, channels, length = x.shape
        x = x.transpose(1, 2).contiguous()
        y = torch.empty_like(x)
        threads = native.threads_for(x.numel())
        scratch = torch.empty(threads * native.library().wide_conv_scratch(channels))
        shape = (batch, channels, length, self.dilation[0])
        native.call("wide_conv", x, y, before, self._packed_weight(), after, self.bias, scratch, *shape, threads)
        return y.transpose(1, 2)

    def _packed_weight(self) -> Tensor:
        """The weight's numbers in the kernel's order; made anew when the weight has changed."""
        weight = self.weight.detach()  # kept with its numbers, so that no other can come to lie where it lay
        if self._packed is not None:
            known, version, packed = self._packed
            if known.data_ptr() == weight.data_ptr() and version == weight._version:
                return packed
        numbers = torch.from_numpy(matrices()[1]) @ weight.double().permute(2, 1, 0).flatten(1)
        numbers = numbers.float().contiguous()
        packed = torch.empty_like(numbers)
        native.call("wide_conv_pack", numbers, packed, weight.shape[0])
        self._packed = weight, weight._version, packed
        return packed


def can_go_by_blocks(layer: WideConv1d, x: Tensor) -> bool:
    """Whether the kernel can, and is faster: it wants what is time-major, and a weight that says when it changes."""
    fits = x.dtype == layer.weight.dtype == torch.float32 and x.shape[1] % CHANNELS == 0 and x.stride(1) == 1
    return fits and on_cpu_for_good(x) and not layer.weight.is_inference() and native.library() is not None


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
