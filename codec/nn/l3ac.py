"""L3AC encoder: waveform -> acoustic features, the distilled model's acoustic half.

Source: SQCodec / L3AC (arXiv 2504.04949) and the published Distill-NeuCodec checkpoint. Convolutions bring 16 kHz to
250 Hz, windowed causal attention runs there and, after a last stride, at 50 Hz.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from codec.config import L3ACConfig
from codec.nn.conv import Conv1d
from codec.nn.linear import Linear
from codec.nn.local_attention import LocalTransformer
from codec.nn.masking import zero_tail

EPSILON = torch.finfo(torch.float32).eps
# Steps (of all rows) that a wide layer holds at once where no gradient is wanted: on a CPU they stay in the cache.
PIECE_STEPS = {"cpu": 2048, "cuda": 1 << 18}


class L3ACEncoder(nn.Module):
    """Waveform -> features, one per hop."""

    def __init__(self, config: L3ACConfig) -> None:
        super().__init__()
        self.hop_length, self.strides = config.hop_length, config.strides
        self.first = TrendBlock(config)
        self.stages = nn.ModuleList(
            nn.ModuleList(ConvUnit(width, config.expansion) for _ in range(depth))
            for width, depth in zip(config.widths, config.depths, strict=True)
        )
        self.downs = nn.ModuleList(
            Conv1d(width, wider, stride, stride)
            for width, wider, stride in zip(config.widths[:-1], config.widths[1:], config.strides, strict=True)
        )
        self.project = Conv1d(config.widths[-1], config.out_width, 3, padding=1)
        width, heads, head_width = config.out_width, config.heads, config.head_width
        self.fast = LocalTransformer(width, config.fast_layers, heads, head_width, config.fast_window)
        self.last_down = Conv1d(width, width, config.last_stride, config.last_stride)
        self.slow = LocalTransformer(width, config.slow_layers, heads, head_width, config.slow_window)

    def forward(self, waveforms: Tensor, num_hops: Tensor | None = None) -> Tensor:
        """Features of a batch; what lies past a row's own hops is arbitrary.

        Args: waveforms: float32 [B, 1, hops * hop_length], zero past each row's own samples. num_hops: int64 [B], or
        None where every row fills the batch.
        Returns: float32 [B, hops, C].
        """
        num_steps = None if num_hops is None else num_hops * self.hop_length
        x = self.first(waveforms, num_steps)
        for stage, units in enumerate(self.stages):
            if stage > 0:
                x = self.downs[stage - 1](x)
                num_steps = None if num_steps is None else num_steps // self.strides[stage - 1]
            for unit in units:
                x = unit(x, num_steps)
        x = self.project(zero_tail(x, num_steps, dim=2))
        x = self.fast(x.transpose(1, 2))
        x = self.last_down(x.transpose(1, 2))
        return self.slow(x.transpose(1, 2))


class TrendBlock(nn.Module):
    """The waveform and its envelopes over growing spans, mixed into channels."""

    def __init__(self, config: L3ACConfig) -> None:
        super().__init__()
        self.pools = config.pools
        width = len(config.pools) * config.pool_width
        self.branches = nn.ModuleList(Conv1d(1, config.pool_width, 7, padding=3) for _ in config.pools)
        self.widen = Conv1d(width, 4 * width, 1)
        self.merge = Conv1d(4 * width + 1, config.widths[0], 1)

    def forward(self, waveforms: Tensor, num_samples: Tensor | None) -> Tensor:
        branches = zip(self.pools, self.branches, strict=True)
        x = torch.cat([conv(trend(waveforms, pool, num_samples)) for pool, conv in branches] + [waveforms], dim=1)
        return stepwise(self.mix, x, dim=2)

    def mix(self, x: Tensor) -> Tensor:
        return self.merge(torch.cat([functional.gelu(self.widen(x[:, :-1])), x[:, -1:]], dim=1))


def trend(x: Tensor, span: int, num_samples: Tensor | None) -> Tensor:
    """The envelope of `x` [B, 1, T] over odd `span` samples: the mean of the largest magnitudes; `x` itself for 1."""
    if span == 1:
        return x
    peaks = functional.max_pool1d(x.abs(), span, stride=1, padding=span // 2)
    # a row alone has zeros, not its last peak, past its end
    peaks = zero_tail(peaks, num_samples, dim=2)
    return zero_tail(functional.avg_pool1d(peaks, span, stride=1, padding=span // 2), num_samples, dim=2)


class ConvUnit(nn.Module):
    """Residual unit: each channel over time, then each step over channels."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.depthwise = Conv1d(width, width, 7, padding=3, groups=width)
        self.widen = Linear(width, expansion * width)
        self.act = Snake(expansion * width)
        self.response = ResponseNorm(expansion * width)
        self.narrow = Linear(expansion * width, width)

    def forward(self, x: Tensor, num_steps: Tensor | None) -> Tensor:
        y = self.depthwise(zero_tail(x, num_steps, dim=2))
        return x + stepwise(self.mix, y.transpose(1, 2), dim=1).transpose(1, 2)

    def mix(self, x: Tensor) -> Tensor:
        return self.narrow(self.response(self.act(self.widen(x))))


class Snake(nn.Module):
    """Periodic activation over the last axis, one frequency per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(x.float(), torch.sin(x * self.alpha).square(), (self.alpha + EPSILON).reciprocal())


class ResponseNorm(nn.Module):
    """Global response normalisation as published: its norm, taken over time and channels at once, is divided by
    itself, so that of the whole only a scale and a shift are left (to one part in 2^23)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, width))
        self.beta = nn.Parameter(torch.zeros(1, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.beta, x, 1 + self.gamma)


def stepwise(function: Callable[[Tensor], Tensor], x: Tensor, dim: int) -> Tensor:
    """`function`, which must take every step of `dim` by itself, over all of them: in pieces where none is learned."""
    size = max(1, PIECE_STEPS.get(x.device.type, x.shape[dim]) // x.shape[0])
    if torch.is_grad_enabled() or x.shape[dim] <= size:
        return function(x)
    return torch.cat([function(piece) for piece in x.split(size, dim)], dim)
