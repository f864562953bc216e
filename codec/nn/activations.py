"""Anti-aliased SnakeBeta: up-sample by 2, bend, down-sample by 2 (BigVGAN, arXiv 2206.04658), as BigCodec uses it.

`plain_snake_beta` is the definition; where nothing is to be learned, a kernel does the same in one pass over memory.
The plain form cuts time into short overlapping windows, on which each filter is one small matrix product.
"""

import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

TAPS = 12  # of the low-pass filter, the same up and down
REACH = 3  # samples that either filter sees on each side
STEP = 18  # samples of a window that are its own; longer ones waste sums on zeros, shorter ones on overlap
IN_CACHE = 1 << 18  # samples


class SnakeBeta(nn.Module):
    """`snake_beta` with its two parameters per channel, stored as logarithms."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, num_valid: Tensor | None = None) -> Tensor:
        return snake_beta(x, self.alpha, self.beta, num_valid)


def snake_beta(x: Tensor, alpha: Tensor, beta: Tensor, num_valid: Tensor | None = None) -> Tensor:
    """x + sin^2(x e^alpha) / e^beta at twice the rate, between two low-pass filters.

    Args: x: [B, C, T]. alpha, beta: float32 [C]. num_valid: int64 [B], each row's own length; None: all of T.
    Returns: [B, C, T], zero past a row's own length. A row's ends are repeated outwards, wherever they lie.
    """
    kernel = None if torch.is_grad_enabled() else fused_kernel(x)
    if kernel is None:
        return plain_snake_beta(x, alpha, beta, num_valid)
    return kernel(x, *linear(alpha, beta), low_pass_taps(), num_valid)


def linear(alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Of the stored logarithms: what x is multiplied with, and what the squared sine is."""
    return alpha.exp(), 1 / (beta.exp() + 1e-9)


def fused_kernel(x: Tensor) -> Callable[..., Tensor] | None:
    """What does the whole activation in one pass on the device of `x`, or None where nothing can."""
    if x.is_cuda and x.dtype in (torch.float32, torch.float16, torch.bfloat16):
        return gpu_kernel()
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16):
        from codec.nn.native import library
        from codec.nn.snake_cpu import snake_cpu

        return snake_cpu if library() else None
    return None


@cache
@torch.inference_mode(False)
def gpu_kernel() -> Callable[..., Tensor] | None:
    """The Triton kernel, or None, with one warning, where it cannot be built: its first use needs a C compiler."""
    if not find_spec("triton"):
        return None
    from codec.nn.snake_cuda import snake_cuda

    try:
        few = torch.zeros(1, 1, 1, device="cuda")
        snake_cuda(few, few[0, 0], few[0, 0], low_pass_taps(), None)
    except Exception as error:  # of a compiler: anything
        said = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        warnings.warn(
            f"activations run in their plain form, slower: Triton cannot build for this GPU ({said})", stacklevel=2
        )
        return None
    return snake_cuda


def plain_snake_beta(x: Tensor, alpha: Tensor, beta: Tensor, num_valid: Tensor | None = None) -> Tensor:
    """`snake_beta` step by step; differentiable."""
    if num_valid is not None:
        length = x.shape[2]
        rows = [plain_snake_beta(row[None, :, :n], alpha, beta) for row, n in zip(x, num_valid.tolist(), strict=True)]
        return torch.cat([pad(row, (0, length - row.shape[2])) for row in rows])
    rate, gain = (factor[:, None, None] for factor in linear(alpha, beta))
    if torch.is_grad_enabled():
        return _bend(x, rate, gain)
    y = torch.empty_like(x)
    step = max(1, IN_CACHE // (x.shape[0] * x.shape[2]))  # a few channels at a time, so that no step leaves the cache
    for some in (slice(c, c + step) for c in range(0, x.shape[1], step)):
        y[:, some] = _bend(x[:, some], rate[some], gain[some])
    return y


def _bend(x: Tensor, rate: Tensor, gain: Tensor) -> Tensor:
    up, down = (matrix.to(x.device) for matrix in window_filters())
    length = x.shape[2]
    last_window = (length - 1) // STEP
    after = (last_window + 1) * STEP - length + 2 * REACH
    ends = x[..., :1].expand(-1, -1, 2 * REACH), x[..., -1:].expand(-1, -1, after)
    windows = torch.cat((ends[0], x, ends[1]), 2).float().unfold(2, STEP + 4 * REACH, STEP)
    doubled = windows @ up  # [B, C, windows, 2 (STEP + 2 REACH)]
    doubled = doubled + gain * torch.sin(doubled * rate).square()
    # the second filter, too, sees the first and the last sample of the clip repeated outwards, now at the doubled rate
    doubled[:, :, 0, : 2 * REACH] = doubled[:, :, 0, 2 * REACH, None]
    end = 2 * (length - last_window * STEP + REACH)
    last = doubled[:, :, last_window, end - 1, None]
    doubled[:, :, last_window, end:] = last
    if last_window:
        doubled[:, :, last_window - 1, end + 2 * STEP :] = last
    return (doubled @ down).flatten(2)[..., :length].to(x.dtype)


@cache
@torch.inference_mode(False)  # kept for good: what comes from encoding must serve learning, too
def window_filters() -> tuple[Tensor, Tensor]:
    """The two filters as banded matrices on one window: up [STEP + 12, 2 (STEP + 6)], down [2 (STEP + 6), STEP].

    A window reads its STEP samples with 6 more on each side, and knows the doubled rate with 3 pairs more on each side.
    """
    taps = low_pass()
    pairs = STEP + 2 * REACH
    up, down = torch.zeros(pairs + 2 * REACH, pairs, 2), torch.zeros(pairs, 2, STEP)
    for pair in range(pairs):
        for i in range(TAPS // 2):
            up[pair + 5 - i, pair, 0] = 2 * taps[2 * i + 1]
            up[pair + 6 - i, pair, 1] = 2 * taps[2 * i]
    for sample in range(STEP):
        for i in range(TAPS // 2):
            down[sample + i, 1, sample] = taps[2 * i]
            down[sample + i + 1, 0, sample] = taps[2 * i + 1]
    return up.flatten(1), down.flatten(0, 1)


@cache
def low_pass_taps() -> tuple[float, ...]:
    return tuple(low_pass().tolist())


def low_pass() -> Tensor:
    """Kaiser-windowed sinc of 12 taps, cut off at half the input's Nyquist rate (half width 0.3); sums to 1.

    The numbers are those the published checkpoints hold: the formula in float32. In float64 it rounds to others, 3e-8
    away, and since every activation would be off the same way, latents then move three times as far as rounding does.
    """
    half = (0.0020289647, 0.009389466, -0.025543459, -0.057657383, 0.12857258, 0.4432098)
    return torch.tensor(half + half[::-1])
