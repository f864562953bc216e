"""Acoustic encoder of the small codec: log-mel spectra at two window lengths, mixed frame by frame.

A spectrum hands the network what a convolutional encoder must first learn, at a fraction of its cost. The blocks are
ConvNeXt's (arXiv 2201.03545) along time; each sees a few frames, so a feature does not depend on how long its clip is.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from codec.config import SpectralConfig
from codec.nn.conv import Conv1d
from codec.nn.linear import Linear
from codec.nn.masking import zero_tail
from codec.nn.mel import LOG_FLOOR, mel_filters

CENTRE = -3.0  # where the log magnitudes of speech lie, about


class SpectralEncoder(nn.Module):
    def __init__(self, config: SpectralConfig, sample_rate: int) -> None:
        super().__init__()
        self.hop_length, self.spectra = config.hop_length, config.spectra
        for i, (n_fft, mels, _) in enumerate(config.spectra):
            self.register_buffer(f"filters{i}", mel_filters(n_fft // 2 + 1, mels, sample_rate), persistent=False)
        self.project = Linear(config.num_features, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)
        self.last = Linear(config.width, config.out_width)

    def forward(self, waveforms: Tensor, num_hops: Tensor | None = None) -> Tensor:
        """waveforms [B, 1, hops x hop length] -> [B, hops, C]; past a row's own hops lies anything."""
        num_samples = None if num_hops is None else num_hops * self.hop_length
        x = self.project(self.log_mels(zero_tail(waveforms, num_samples, 2)[:, 0]))
        for block in self.blocks:
            x = block(x, num_hops)
        return self.last(self.norm(x.float()))

    def log_mels(self, waveforms: Tensor) -> Tensor:
        """[B, hops x hop length] -> float32 [B, hops, features]: log10 magnitudes, one spectrum after the other."""
        parts = []
        with torch.autocast(waveforms.device.type, enabled=False):
            for i, (n_fft, _, steps) in enumerate(self.spectra):
                step = self.hop_length // steps
                # each window is centred on its step; zeros and no reflection, so that a row alone sees the same
                padded = pad(waveforms.float(), ((n_fft - step) // 2, (n_fft - step) // 2))
                window = torch.hann_window(n_fft, device=waveforms.device)
                spectrum = torch.stft(padded, n_fft, step, window=window, center=False, return_complex=True)
                mels = spectrum.abs().transpose(1, 2) @ getattr(self, f"filters{i}")
                parts.append((mels.clamp(min=LOG_FLOOR).log10() - CENTRE).unflatten(1, (-1, steps)).flatten(2))
        return torch.cat(parts, 2)


class Block(nn.Module):
    """Mix each channel over time, then each frame over channels, around a skip."""

    def __init__(self, config: SpectralConfig) -> None:
        super().__init__()
        width = config.width
        self.depthwise = Conv1d(width, width, config.kernel, padding=config.kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = Linear(width, config.expansion * width)
        self.narrow = Linear(config.expansion * width, width)

    def forward(self, x: Tensor, num_hops: Tensor | None) -> Tensor:
        """[B, F, C] -> [B, F, C]."""
        y = self.depthwise(zero_tail(x, num_hops, 1).transpose(1, 2)).transpose(1, 2)
        return x + self.narrow(gelu(self.widen(self.norm(y.float()))))
