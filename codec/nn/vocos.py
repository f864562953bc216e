"""Decoder: quantized features -> waveform, by a spectrum that an inverse STFT turns into sound.

Source: Vocos (arXiv 2306.00814) with the backbone of X-Codec 2 (arXiv 2502.04128), as NeuCodec publishes it.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, group_norm, pad, silu

from codec.config import DecoderConfig
from codec.nn.conv import Conv1d
from codec.nn.linear import Linear
from codec.nn.masking import is_valid, masked_moments, zero_tail
from codec.nn.transformer import TransformerLayer

EPS = 1e-6
LOUDEST = 100.0  # of any bin


class VocosDecoder(nn.Module):
    def __init__(self, latent_width: int, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.project = Linear(latent_width, width)
        self.embed = Conv1d(width, width, config.kernel, padding=config.kernel // 2)
        self.before = nn.ModuleList(ResnetBlock(config) for _ in range(config.resnet_blocks))
        self.layers = nn.ModuleList(
            TransformerLayer(width, config.heads, config.expansion * width, EPS) for _ in range(config.layers)
        )
        self.after = nn.ModuleList(ResnetBlock(config) for _ in range(config.resnet_blocks))
        self.norm = nn.LayerNorm(width, EPS)
        self.head = Linear(width, config.n_fft + 2)

    def forward(self, quantized: Tensor, num_frames: Tensor | None = None) -> Tensor:
        """Sound of quantized features.

        Args: quantized: [B, F, D]. num_frames: int64 [B], each row's own count; None: all of F.
        Returns: float32 [B, 1, F x hop length]; zeros past a row's own frames. Not clipped.
        """
        return self.synthesize(self.backbone(self.project(quantized), num_frames), num_frames)

    def backbone(self, x: Tensor, num_frames: Tensor | None) -> Tensor:
        """[B, F, width] -> [B, F, width]."""
        x = self.embed(zero_tail(x.transpose(1, 2), num_frames, 2)).float()
        for block in self.before:
            x = block(x, num_frames)
        x = x.transpose(1, 2)
        keys = None if num_frames is None else is_valid(num_frames, x.shape[1])[:, None, None]
        for layer in self.layers:
            x = layer(x, keys)
        x = x.transpose(1, 2)
        for block in self.after:
            x = block(x, num_frames)
        return self.norm(x.transpose(1, 2).float())

    def synthesize(self, x: Tensor, num_frames: Tensor | None) -> Tensor:
        """[B, F, width] -> [B, 1, F x hop length]: log-magnitude and phase of each frame, and their inverse STFT."""
        magnitude, phase = self.head(x).float().chunk(2, -1)
        magnitude = magnitude.exp().clamp(max=LOUDEST)
        spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
        return istft(spectrum, self.config.n_fft, self.config.hop_length, num_frames)[:, None]


class ResnetBlock(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.norm1 = MaskedGroupNorm(config.norm_groups, config.width, EPS)
        self.conv1 = Conv1d(config.width, config.width, 3, padding=1)
        self.norm2 = MaskedGroupNorm(config.norm_groups, config.width, EPS)
        self.conv2 = Conv1d(config.width, config.width, 3, padding=1)

    def forward(self, x: Tensor, num_frames: Tensor | None) -> Tensor:
        y = self.conv1(zero_tail(silu(self.norm1(x, num_frames)), num_frames, 2))
        y = dropout(silu(self.norm2(y, num_frames)), self.dropout, self.training)
        return x + self.conv2(zero_tail(y, num_frames, 2))


class MaskedGroupNorm(nn.GroupNorm):
    """Statistics of each group of channels over a row's own frames."""

    def forward(self, x: Tensor, num_valid: Tensor | None) -> Tensor:
        x = x.float()
        if num_valid is None:
            return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        own = is_valid(num_valid, x.shape[2])[:, None, None]
        groups = x.unflatten(1, (self.num_groups, -1))
        count = (num_valid * groups.shape[2])[:, None, None, None]
        variance, mean = masked_moments(groups, own, count, (2, 3))
        x = ((groups - mean) * torch.rsqrt(variance + self.eps)).flatten(1, 2)
        return x * self.weight[:, None] + self.bias[:, None]


def istft(spectrum: Tensor, n_fft: int, hop_length: int, num_frames: Tensor | None = None) -> Tensor:
    """Overlap-added Hann-windowed frames, divided by the overlap-added squared window ("same" padding).

    Args: spectrum: complex [B, F, n_fft / 2 + 1]. num_frames: int64 [B], each row's own count; None: F.
    Returns: float32 [B, F x hop_length], zeros past a row's own frames.
    """
    window = torch.hann_window(n_fft, device=spectrum.device)
    frames = torch.fft.irfft(spectrum, n_fft) * window
    weights = window.square().expand(1, frames.shape[1], -1)
    if num_frames is not None:
        own = is_valid(num_frames, frames.shape[1])[..., None]
        frames, weights = frames * own, weights * own
    edge = (n_fft - hop_length) // 2
    sound = overlap_add(frames, hop_length)[:, edge:-edge]
    total = overlap_add(weights, hop_length)[:, edge:-edge]
    if num_frames is None:
        return sound / total
    own = is_valid(num_frames * hop_length, sound.shape[1])
    return torch.where(own, sound, 0.0) / torch.where(own, total, 1.0)


def overlap_add(frames: Tensor, hop_length: int) -> Tensor:
    """[B, F, N x hop_length] -> [B, (F + N - 1) x hop_length]: each frame added one hop after the one before."""
    parts = frames.unflatten(2, (-1, hop_length))
    overlaps = parts.shape[2]
    total = sum(pad(parts[:, :, n], (0, 0, n, overlaps - 1 - n)) for n in range(overlaps))
    return total.flatten(1)
