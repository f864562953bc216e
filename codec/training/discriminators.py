"""The judges of adversarial training: multi-period (HiFi-GAN) and multi-resolution spectrogram discriminators.

Sizes as in XCodec2. Every judge returns the outputs of all its layers, the verdict last.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.training.losses import Layers


@dataclass(frozen=True, slots=True)
class DiscriminatorConfig:
    """Sizes of both kinds; the FFT sizes are those of the Stable Codec paper, the hop half of each."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)  # in samples
    period_width: int = 16
    period_growth: int = 4
    period_max_width: int = 512
    n_ffts: tuple[int, ...] = (78, 126, 206, 334, 542, 876, 1418, 2296)
    spectrum_width: int = 32


class PeriodDiscriminator(nn.Module):
    """Judges every p-th sample: the wave is folded to [T / p, p] and convolved along time alone."""

    def __init__(self, period: int, width: int, growth: int, max_width: int) -> None:
        super().__init__()
        self.period = period
        widths = [1] + [min(width * growth**i, max_width) for i in range(4)]
        widths.append(widths[-1])
        strides = (3, 3, 3, 3, 1)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(widths[i], widths[i + 1], (5, 1), (strides[i], 1), (2, 0))) for i in range(5)
        )
        self.verdict = weight_norm(nn.Conv2d(widths[-1], 1, (2, 1), 1, (1, 0)))

    def forward(self, waveforms: Tensor) -> Layers:
        """[B, 1, T] -> five [B, C, T', p], and the verdict [B, N]."""
        if remainder := waveforms.shape[2] % self.period:
            waveforms = nn.functional.pad(waveforms, (0, self.period - remainder), mode="reflect")
        x = waveforms.unflatten(2, (-1, self.period))
        outputs = []
        for layer in self.layers:
            x = nn.functional.leaky_relu(layer(x), 0.1)
            outputs.append(x)
        return [*outputs, self.verdict(x).flatten(1)]


class SpectrumDiscriminator(nn.Module):
    """Judges one magnitude spectrogram, linear, as a picture of frequency by time."""

    def __init__(self, n_fft: int, width: int) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, n_fft // 2
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        widths = [1, *(width * 2**i for i in range(5))]
        shapes = [(5, 2)] * 4 + [(3, 1)]  # kernel, stride
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(widths[i], widths[i + 1], kernel, stride, kernel // 2))
            for i, (kernel, stride) in enumerate(shapes)
        )
        self.verdict = weight_norm(nn.Conv2d(widths[-1], 1, 3, 1, 1))

    def forward(self, waveforms: Tensor) -> Layers:
        """[B, 1, T] -> five [B, C, frequency, time], and the verdict [B, 1, frequency, time]."""
        x = self.spectrogram(waveforms)[:, None]
        outputs = []
        for layer in self.layers:
            x = nn.functional.leaky_relu(layer(x), 0.2)
            outputs.append(x)
        return [*outputs, self.verdict(x)]

    def spectrogram(self, waveforms: Tensor) -> Tensor:
        """Magnitudes, float32 [B, n_fft / 2 + 1, frames]; the power is clamped: very quiet bins carry no gradient."""
        with torch.autocast(waveforms.device.type, enabled=False):
            spectrum = torch.stft(
                waveforms[:, 0].float(),
                self.n_fft,
                self.hop_length,
                window=self.window,
                center=True,
                return_complex=True,
            )
            return torch.view_as_real(spectrum).square().sum(-1).clamp(1e-7, 1e3).sqrt()


class Discriminators(nn.Module):
    """All judges. The published configuration holds 5 + 8 of them, 10,284,730 + 18,097,936 parameters."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.periods = nn.ModuleList(
            PeriodDiscriminator(period, config.period_width, config.period_growth, config.period_max_width)
            for period in config.periods
        )
        self.spectra = nn.ModuleList(SpectrumDiscriminator(n_fft, config.spectrum_width) for n_fft in config.n_ffts)

    def forward(self, *waveforms: Tensor) -> tuple[list[Layers], ...]:
        """For each [B, 1, T] given, one list of layers per judge; the sounds are judged apart."""
        with torch.nn.utils.parametrize.cached():
            return tuple([judge(x) for judge in (*self.periods, *self.spectra)] for x in waveforms)
