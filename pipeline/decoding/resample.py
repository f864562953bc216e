"""Sound from one rate to another: exactly the numbers of `torchaudio.functional.resample` with its defaults.

torchaudio works its kernel out anew in every call; here it is kept per pair of rates. Where two rates have little in
common that kernel is enormous and nearly all zeros (47,999 to 16,000 Hz: 3 GB); there the same formula is evaluated
at its non-zero taps alone, which gives the same weights, summed in another order.

Done where clips are decoded, whatever the codec runs on: the samples are then the same on every device.
"""

import functools
import math

import numpy as np
import torch
from torch import Tensor
from torchaudio.transforms import Resample

LOWPASS_FILTER_WIDTH, ROLLOFF = 6, 0.99  # torchaudio's defaults
DENSE_WEIGHTS = 4_000_000  # of a kernel that torchaudio may build: 16 MB; every usual rate is far below
CHUNK = 1 << 16  # output samples that the sparse form makes at once


def resample(waveform: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """float32 [T] at `source_rate` hertz to float32 at `target_rate`; the array itself where the rates are equal."""
    if source_rate == target_rate or not len(waveform):
        return waveform
    with torch.inference_mode():
        return _resampler(source_rate, target_rate)(torch.from_numpy(waveform)).numpy()


@functools.lru_cache(maxsize=32)
def _resampler(source_rate: int, target_rate: int) -> "Resample | SparseResample":
    common = math.gcd(source_rate, target_rate)
    if (source_rate // common) * (target_rate // common) > DENSE_WEIGHTS:
        return SparseResample(source_rate // common, target_rate // common)
    # the kernel in float32, as the function makes it for float32 sound; the class alone would make it in float64
    return Resample(source_rate, target_rate, dtype=torch.float32)


class SparseResample:
    """The same windowed sinc, `weights` [target, taps]; output sample n uses row n % target, from tap `first` on."""

    def __init__(self, source: int, target: int) -> None:
        self.source, self.target = source, target
        base = min(source, target) * ROLLOFF
        self.width = math.ceil(LOWPASS_FILTER_WIDTH * source / base)
        phase = torch.arange(target)
        self.first = phase * source // target - self.width
        tap = self.first[:, None] + torch.arange(2 * self.width + 2)
        # float32 from here on, step by step as torchaudio does it: its roundings are part of the definition
        t = (-phase[:, None]).to(torch.float32) / target + tap.to(torch.float32) / source
        t = (t * base).clamp_(-LOWPASS_FILTER_WIDTH, LOWPASS_FILTER_WIDTH)
        window = torch.cos(t * math.pi / LOWPASS_FILTER_WIDTH / 2) ** 2
        t = t * math.pi
        self.weights = torch.where(t == 0, torch.tensor(1.0), t.sin() / t) * (window * (base / source))

    def __call__(self, waveform: Tensor) -> Tensor:
        length = math.ceil(float(np.float32(self.target * len(waveform) / self.source)))
        padded = torch.nn.functional.pad(waveform, (self.width, self.source + self.width + 2))
        taps = torch.arange(self.weights.shape[1])
        parts = []
        for begin in range(0, length, CHUNK):
            sample = torch.arange(begin, min(begin + CHUNK, length))
            phase = sample % self.target
            start = sample // self.target * self.source + self.first[phase] + self.width
            parts.append((padded[start[:, None] + taps] * self.weights[phase]).sum(1))
        return torch.cat(parts)
