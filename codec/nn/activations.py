"""Anti-aliased SnakeBeta: up-sample by 2, bend, down-sample by 2 (BigVGAN, arXiv 2206.04658), as BigCodec uses it.

`plain_snake_beta` is the definition; where nothing is to be learned, a kernel does the same in one pass over memory.
Written in two phases: at twice the rate, the even and the odd samples each depend on seven samples of the input, and
each sample of the output on seven even and seven odd ones.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from math import pi

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from codec.nn.masking import is_valid

TAPS = 12  # of the low-pass filter, the same up and down
REACH = 3  # samples that a phase sees on either side


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
    return kernel(x, alpha.exp(), 1 / (beta.exp() + 1e-9), low_pass_taps(), num_valid)


def fused_kernel(x: Tensor) -> Callable[..., Tensor] | None:
    """What does the whole activation in one pass on the device of `x`, or None where nothing can."""
    if x.is_cuda and x.dtype in (torch.float32, torch.float16, torch.bfloat16) and find_spec("triton"):
        from codec.nn.snake_cuda import snake_cuda

        return snake_cuda
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16):
        from codec.nn.snake_cpu import library, snake_cpu

        return snake_cpu if library() else None
    return None


def plain_snake_beta(x: Tensor, alpha: Tensor, beta: Tensor, num_valid: Tensor | None = None) -> Tensor:
    """`snake_beta` step by step; differentiable."""
    up, down = filters(x.device)
    batch, channels, length = x.shape
    rate = alpha.exp()[:, None, None]
    gain = 1 / (beta.exp() + 1e-9)[:, None, None]
    x32 = repeat_ends(x.float(), num_valid)
    phases = conv1d(x32.view(batch * channels, 1, -1), up).view(batch, channels, 2, length)
    phases = phases + gain * torch.sin(phases * rate).square()
    phases = repeat_phase_ends(phases, num_valid)
    y = conv1d(phases.view(batch * channels, 2, -1), down).view(batch, channels, length)
    if num_valid is not None:
        y = y * is_valid(num_valid, length)[:, None]
    return y.to(x.dtype)


def repeat_ends(x: Tensor, num_valid: Tensor | None) -> Tensor:
    """[B, C, T] -> [B, C, T + 6]: three more on each side, the first and the row's own last value."""
    index = torch.arange(-REACH, x.shape[-1] + REACH, device=x.device).clamp(0, x.shape[-1] - 1)
    if num_valid is None:
        return x[..., index]
    index = torch.minimum(index, num_valid[:, None] - 1)
    return x.gather(2, index[:, None].expand(-1, x.shape[1], -1))


def repeat_phase_ends(phases: Tensor, num_valid: Tensor | None) -> Tensor:
    """[B, C, 2, T] -> [B, C, 2, T + 6]: before the first even sample it, past the row's last odd sample that one."""
    length = phases.shape[-1]
    time = torch.arange(-REACH, length + REACH, device=phases.device)
    last = torch.full((1,), length, device=phases.device) if num_valid is None else num_valid
    both = torch.stack((2 * time, 2 * time + 1))  # [2, T + 6], in samples at twice the rate
    source = torch.minimum(both.clamp(min=0), 2 * last[:, None, None] - 1)
    source = source % 2 * length + source // 2  # where that sample lies in the two phases
    flat = phases.flatten(2)
    index = source.flatten(1)[:, None].expand(phases.shape[0], phases.shape[1], -1)
    return flat.gather(2, index).view(*phases.shape[:3], -1)


def filters(device: torch.device) -> tuple[Tensor, Tensor]:
    """The two filters in phases: up [2, 1, 7] from input to (even, odd), down [1, 2, 7] back."""
    taps = low_pass()
    up, down = torch.zeros(2, 1, 7), torch.zeros(1, 2, 7)
    up[0, 0, :6] = 2 * taps[1::2].flip(0)
    up[1, 0, 1:] = 2 * taps[0::2].flip(0)
    down[0, 0, 1:] = taps[1::2]
    down[0, 1, :6] = taps[0::2]
    return up.to(device), down.to(device)


@cache
def low_pass_taps() -> tuple[float, ...]:
    return tuple(low_pass().tolist())


def low_pass() -> Tensor:
    """Kaiser-windowed sinc of 12 taps, cut off at half the input's Nyquist rate; sums to 1."""
    cutoff, half_width = 0.25, 0.3
    attenuation = 2.285 * (TAPS // 2 - 1) * pi * 4 * half_width + 7.95
    window = torch.kaiser_window(TAPS, periodic=False, beta=0.1102 * (attenuation - 8.7), dtype=torch.float64)
    time = torch.arange(TAPS, dtype=torch.float64) - (TAPS - 1) / 2
    taps = window * 2 * cutoff * torch.sinc(2 * cutoff * time)
    return (taps / taps.sum()).float()
