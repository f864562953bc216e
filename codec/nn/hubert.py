"""DistilHuBERT: waveform -> semantic features, the distilled model's semantic half.

Source: Chang et al., arXiv 2110.01900, and its published checkpoint `ntu-spml/distilhubert`.
"""

from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from codec.config import HubertConfig
from codec.nn.conv import Conv1d
from codec.nn.linear import Linear
from codec.nn.masking import is_valid, masked_moments, zero_tail


class Hubert(nn.Module):
    """Strided convolutions over the waveform, then a small post-norm transformer over all of a clip."""

    def __init__(self, config: HubertConfig, hop_length: int) -> None:
        super().__init__()
        if prod(config.conv_strides) != hop_length:
            raise ValueError(
                f"strides {config.conv_strides} give one frame per {prod(config.conv_strides)} samples, the codec "
                f"has one per {hop_length}; choose strides whose product is {hop_length}"
            )
        self.config, self.hop_length = config, hop_length
        width = config.conv_width
        self.convs = nn.ModuleList(
            Conv1d(1 if layer == 0 else width, width, kernel, stride, bias=False)
            for layer, (kernel, stride) in enumerate(zip(config.conv_kernels, config.conv_strides, strict=True))
        )
        self.wave_norm = ClipNorm(width)
        self.project = Linear(width, config.width)
        self.position = Conv1d(
            config.width,
            config.width,
            config.position_kernel,
            padding=config.position_kernel // 2,
            groups=config.position_groups,
        )
        self.norm = nn.LayerNorm(config.width)
        self.layers = nn.ModuleList(HubertLayer(config) for _ in range(config.layers))

    def forward(self, waveforms: Tensor, num_hops: Tensor | None = None) -> Tensor:
        """Features of a batch; what lies past a row's own hops is arbitrary.

        Args: waveforms: float32 [B, 1, hops * hop_length], zero past each row's own samples. num_hops: int64 [B], or
        None where every row fills the batch.
        Returns: float32 [B, hops, C].
        """
        hop = self.hop_length
        x = functional.pad(waveforms, (hop // 2, hop // 2))
        kernel, stride = self.config.conv_kernels[0], self.config.conv_strides[0]
        num_steps = None if num_hops is None else ((num_hops + 1) * hop - kernel) // stride + 1
        x = functional.gelu(self.wave_norm(self.convs[0](x), num_steps))
        for conv in self.convs[1:]:  # unpadded: a row's own frames see only its own samples
            x = functional.gelu(conv(x))
        x = zero_tail(self.project(x.transpose(1, 2)).float(), num_hops, dim=1)
        position = self.position(x.transpose(1, 2))[:, :, : x.shape[1]]
        x = self.norm(x + functional.gelu(position).transpose(1, 2))
        own = None if num_hops is None else is_valid(num_hops, x.shape[1])[:, None, None]
        for layer in self.layers:
            x = layer(x, own)
        return x


class ClipNorm(nn.Module):
    """Each channel of a clip brought to mean 0 and variance 1 over the clip's own time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, num_steps: Tensor | None) -> Tensor:
        x = x.float()
        if num_steps is None:
            return functional.group_norm(x, x.shape[1], self.weight, self.bias, eps=1e-5)
        if x.device.type == "cpu":
            variance, mean = row_moments(x, num_steps)
        else:
            own = is_valid(num_steps, x.shape[2])[:, None]
            variance, mean = masked_moments(x, own, num_steps[:, None, None], (2,))
        scale = self.weight[:, None] * (variance + 1e-5).rsqrt()
        return torch.addcmul(self.bias[:, None] - mean * scale, x, scale)


def row_moments(x: Tensor, num_steps: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and mean [B, C, 1] of each row's own steps of [B, C, T], row by row: the batch is held only once."""
    rows = zip(x, num_steps.tolist(), strict=True)
    own = [torch.var_mean(row[:, :steps], 1, correction=0, keepdim=True) for row, steps in rows]
    variance, mean = (torch.stack(part) for part in zip(*own, strict=True))
    return variance, mean


class HubertLayer(nn.Module):
    """Attention and feed-forward, each added and then normalised."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.query, self.key, self.value, self.out = (Linear(width, width) for _ in range(4))
        self.attention_norm = nn.LayerNorm(width)
        self.up = Linear(width, config.ffn_width)
        self.down = Linear(config.ffn_width, width)
        self.ffn_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, own: Tensor | None) -> Tensor:
        query, key, value = (
            part(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=own)
        x = self.attention_norm(x + self.out(seen.transpose(1, 2).flatten(2)))
        return self.ffn_norm(x + self.down(functional.gelu(self.up(x))))
