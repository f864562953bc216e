"""What training minimizes, each term a function of its own: mel, adversarial, feature matching, semantic, distillation.

Sources: arXiv 2509.09550 (Eq. 2 and 3) and XCodec2, whose weights and shapes it keeps. Terms over sub-discriminators
are summed, as XCodec2's code does; the paper's prose says averaged.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codec.nn.mel import LOG_FLOOR, mel_filters

MEL_RESOLUTIONS: tuple[tuple[int, int], ...] = (
    (32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320),
)  # fmt: skip
"""(FFT size, mel bands) of each resolution; the window is the FFT size, the hop a quarter of it."""

# One layer's output, and all of them for one sub-discriminator: the last is its verdict, the others are features.
Layers = list[Tensor]


class LogMel(nn.Module):
    """log10 of a mel spectrogram of magnitudes: periodic Hann window, centred, reflected at the ends."""

    def __init__(self, n_fft: int, num_mels: int, hop_length: int, sample_rate: int) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("filters", mel_filters(n_fft // 2 + 1, num_mels, sample_rate), persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        """[B, T] -> [B, num_mels, frames]."""
        spectrum = torch.stft(
            waveforms, self.n_fft, self.hop_length, window=self.window, center=True, return_complex=True
        )
        mels = spectrum.abs().transpose(1, 2) @ self.filters
        return mels.clamp(min=LOG_FLOOR).log10().transpose(1, 2)


class MelLoss(nn.Module):
    """Mean absolute difference of log-mel spectrograms, summed over the resolutions; always in float32.

    Source: XCodec2 (and BigCodec, the same).
    """

    def __init__(self, sample_rate: int, resolutions: Sequence[tuple[int, int]] = MEL_RESOLUTIONS) -> None:
        super().__init__()
        self.spectra = nn.ModuleList(LogMel(n_fft, mels, n_fft // 4, sample_rate) for n_fft, mels in resolutions)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Both [B, 1, T], equal in shape. Returns: a scalar."""
        return torch.stack(self.parts(output, target)).sum()

    def parts(self, output: Tensor, target: Tensor) -> list[Tensor]:
        """One scalar per resolution. Raises: ValueError if the shapes differ."""
        if output.shape != target.shape:
            raise ValueError(
                f"output and target must have one shape, got {list(output.shape)} and {list(target.shape)}; "
                "cut both to the common length"
            )
        with torch.autocast(output.device.type, enabled=False):
            output, target = output[:, 0].float(), target[:, 0].float()
            return [nn.functional.l1_loss(mel(output), mel(target)) for mel in self.spectra]


def adversarial_loss(fake: Sequence[Layers]) -> Tensor:
    """Least squares, the generator's side: sum over sub-discriminators of mean (D(output) - 1)^2."""
    return torch.stack([(layers[-1].float() - 1).square().mean() for layers in fake]).sum()


def discriminator_loss(real: Sequence[Layers], fake: Sequence[Layers]) -> tuple[Tensor, Tensor]:
    """Least squares, the discriminators' side. Returns: (on real sound, on the codec's), each summed."""
    on_real = torch.stack([(layers[-1].float() - 1).square().mean() for layers in real]).sum()
    on_fake = torch.stack([layers[-1].float().square().mean() for layers in fake]).sum()
    return on_real, on_fake


def feature_matching_loss(real: Sequence[Layers], fake: Sequence[Layers]) -> Tensor:
    """Mean absolute difference of every layer but the verdict, summed over layers; real sound is only a target."""
    return torch.stack(
        [nn.functional.l1_loss(b.float(), a.detach().float()) for a, b in feature_pairs(real, fake)]
    ).sum()


def feature_pairs(real: Sequence[Layers], fake: Sequence[Layers]) -> list[tuple[Tensor, Tensor]]:
    """The layers that feature matching compares: (5 + 8) sub-discriminators of 5 layers give 65."""
    return [pair for a, b in zip(real, fake, strict=True) for pair in zip(a[:-1], b[:-1], strict=True)]


def feature_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of features, the target without gradient: the semantic loss, and Eq. 2's distillation.

    Both [B, F, D]; cut to the common number of frames, because the published padding rules give the distilled
    encoder one frame more than its teacher.
    """
    frames = min(output.shape[1], target.shape[1])
    return nn.functional.mse_loss(output[:, :frames].float(), target[:, :frames].detach().float())
