"""Log-mel front end of w2v-BERT 2.0: Kaldi's filter bank, normalized per utterance, frames stacked in pairs.

Batched on the device, each row as if alone. In float64, with the spectrum rounded to float32 between, as the features
that the published weights saw were made: rounding elsewhere moves codes that lie near a boundary.
"""

from functools import cache

import torch
from torch import Tensor

from codec.nn.masking import is_valid

FRAME, SHIFT, N_FFT = 400, 160, 512
LOWEST, HIGHEST = 20.0, 8000.0  # hertz
FLOOR = 1.1920928955078125e-07
VARIANCE_FLOOR = 1e-7


def fbank(waveforms: Tensor, num_samples: Tensor | None, bins: int, stack: int) -> Tensor:
    """Normalized log-mel features.

    Args: waveforms: float32 [B, T] at 16 kHz. num_samples: int64 [B], each row's own length, zeros past it; None: T.
    Returns: float32 [B, frames // stack, stack x bins]; zeros past a row's own frames.
    """
    frames = waveforms.double().mul(2**15).unfold(1, FRAME, SHIFT)
    frames = frames - frames.mean(-1, keepdim=True)
    frames = frames - 0.97 * torch.cat((frames[..., :1], frames[..., :-1]), -1)
    spectrum = torch.fft.rfft(frames * povey_window(frames.device), N_FFT).to(torch.complex64)
    power = spectrum.real.double().square() + spectrum.imag.double().square()
    mel = torch.log((power @ mel_filters(bins, frames.device)).clamp(min=FLOOR)).float()
    num_frames = None if num_samples is None else (num_samples - FRAME) // SHIFT + 1
    mel = normalize(mel, num_frames)
    whole = mel.shape[1] // stack * stack
    return mel[:, :whole].reshape(mel.shape[0], -1, stack * bins)


def normalize(mel: Tensor, num_frames: Tensor | None) -> Tensor:
    """Zero mean and unit variance of each bin over a row's own frames. [B, frames, bins]."""
    if num_frames is None:
        own, count = torch.ones(1, 1, 1, device=mel.device), mel.shape[1]
    else:
        own, count = is_valid(num_frames, mel.shape[1])[..., None], num_frames[:, None, None]
    mean = ((mel.double() * own).sum(1, keepdim=True) / count).float()
    deviation = (mel - mean) * own
    variance = deviation.double().square().sum(1, keepdim=True) / (count - 1)
    return deviation / (variance + VARIANCE_FLOOR).sqrt().float()


@cache
@torch.inference_mode(False)  # kept for good, whoever asks first
def povey_window(device: torch.device) -> Tensor:
    return torch.hann_window(FRAME, periodic=False, dtype=torch.float64, device=device).pow(0.85)


@cache
@torch.inference_mode(False)
def mel_filters(bins: int, device: torch.device) -> Tensor:
    """[257, bins]: triangles between equal steps of Kaldi's mel scale, linear in mel."""
    lowest, highest = hertz_to_mel(torch.tensor([LOWEST, HIGHEST], dtype=torch.float64)).tolist()
    edges = torch.linspace(lowest, highest, bins + 2, dtype=torch.float64)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    mel = hertz_to_mel(torch.arange(N_FFT // 2 + 1, dtype=torch.float64) * 16_000 / N_FFT)[:, None]
    return torch.minimum((mel - low) / (centre - low), (high - mel) / (high - centre)).clamp(min=0).to(device)


def hertz_to_mel(hertz: Tensor) -> Tensor:
    return 1127.0 * torch.log(1.0 + hertz / 700.0)
