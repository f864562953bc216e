"""How close a decoded clip is to its original: one function per metric, on one `Pair`, listed in METRICS.

Source of the choices: arXiv 2509.09550, Table 2, whose figures fit classic STOI and wide-band PESQ. STOI and PESQ are
the field's own packages, in the `eval` extra.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from codec.training.losses import LogMel

RATE = 16_000  # every reference-based metric is taken at this rate, whatever the decoder's


@dataclass(frozen=True, slots=True)
class Pair:
    """A clip and what a codec made of it: mono float32 [T] at 16 kHz, cut to one length."""

    reference: np.ndarray
    output: np.ndarray

    @classmethod
    def of(cls, reference: np.ndarray, output: np.ndarray) -> "Pair":
        """Cut both to the common length. Raises: ValueError if that is nothing."""
        length = min(len(reference), len(output))
        if length == 0:
            raise ValueError(f"nothing to compare: {len(reference)} reference and {len(output)} output samples")
        return cls(np.asarray(reference[:length], np.float32), np.asarray(output[:length], np.float32))


class MetricFailedError(Exception):
    """A metric has no value for this pair, and why in one short line; counted, never hidden."""


def stoi(pair: Pair) -> float:
    """Short-time objective intelligibility, classic; 0 to 1, higher is better."""
    from pystoi import stoi as measure

    if len(pair.reference) < RATE // 10:  # the package fails where its frames are longer than the clip
        raise MetricFailedError("fewer than 30 frames of speech (0.4 s)")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # the package warns, and returns 1e-5, below 0.4 s of speech
        try:
            return float(measure(pair.reference, pair.output, RATE, extended=False))
        except RuntimeWarning as warning:
            raise MetricFailedError("fewer than 30 frames of speech (0.4 s)") from warning


def pesq_wide(pair: Pair) -> float:
    """Perceptual evaluation of speech quality, wide band (P.862.2); 1.0 to 4.64, higher is better."""
    return _pesq(pair, "wb")


def pesq_narrow(pair: Pair) -> float:
    """Perceptual evaluation of speech quality, narrow band (P.862.1); 1.0 to 4.55, higher is better."""
    return _pesq(pair, "nb")


def _pesq(pair: Pair, mode: str) -> float:
    import pesq

    if len(pair.reference) < RATE // 4:
        raise MetricFailedError("shorter than 0.25 s")
    if not pair.reference.any() or not pair.output.any():
        raise MetricFailedError("silent reference or output")  # the package would divide by zero
    try:
        return float(pesq.pesq(RATE, pair.reference, pair.output, mode))
    except pesq.PesqError as error:
        raise MetricFailedError(f"pesq: {error.args[0].decode() if error.args else type(error).__name__}") from error


def si_sdr(pair: Pair) -> float:
    """Scale-invariant signal-to-distortion ratio of zero-mean signals, in dB, higher is better (Le Roux et al. 2019).

    Any delay ruins it, and a codec that keeps no phase scores below zero however good it sounds.
    """
    reference = pair.reference.astype(np.float64) - pair.reference.mean(dtype=np.float64)
    output = pair.output.astype(np.float64) - pair.output.mean(dtype=np.float64)
    energy = reference @ reference
    if energy == 0 or not output.any():  # silence would have 0 dB, above what a codec without phases has
        raise MetricFailedError("silent reference or output")
    target = (output @ reference / energy) * reference
    noise = output - target
    floor = np.finfo(np.float64).eps * energy  # bounds the value at 157 dB either way
    return float(10 * np.log10(max(target @ target, floor) / max(noise @ noise, floor)))


@cache
def _log_mel() -> LogMel:
    return LogMel(n_fft=1024, num_mels=80, hop_length=256, sample_rate=RATE)


def mel_mse(pair: Pair) -> float:
    """Mean squared difference of log10-mel spectrograms (FFT 1024, hop 256, 80 bands to 8 kHz); lower is better.

    The paper prints no parameters; these are fixed here for every codec compared.
    """
    if len(pair.reference) <= 512:
        raise MetricFailedError("shorter than half a window (512 samples)")
    both = torch.from_numpy(np.stack([pair.reference, pair.output]))
    with torch.inference_mode():
        reference, output = _log_mel()(both)
    return float((reference - output).square().mean())


METRICS: dict[str, Callable[[Pair], float]] = {
    "stoi": stoi,
    "pesq_wb": pesq_wide,
    "pesq_nb": pesq_narrow,
    "si_sdr": si_sdr,
    "mel_mse": mel_mse,
}

PACKAGES = {"stoi": "pystoi", "pesq_wb": "pesq", "pesq_nb": "pesq"}


def available(names: Iterable[str] = METRICS) -> tuple[str, ...]:
    """Those of `names` whose package is installed."""
    from importlib.util import find_spec

    return tuple(name for name in names if name not in PACKAGES or find_spec(PACKAGES[name]))


def require(names: Sequence[str]) -> None:
    """Refuse metrics that are unknown or not installed, before any work. Raises: ValueError."""
    for name in names:
        if name not in METRICS:
            raise ValueError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
        if name not in available([name]):
            raise ValueError(f"metric {name!r} needs the eval extra: pip install 'neutok[eval]'")


@dataclass(frozen=True, slots=True)
class Scores:
    """The metrics of one pair: a value, or the reason why there is none."""

    values: dict[str, float]
    failures: dict[str, str]


def measure(pair: Pair, names: Sequence[str]) -> Scores:
    """Every named metric of one pair; output that is not finite fails them all."""
    values, failures = {}, {}
    for name in names:
        if not np.isfinite(pair.output).all():
            failures[name] = "output is not finite"
            continue
        try:
            values[name] = METRICS[name](pair)
        except MetricFailedError as error:
            failures[name] = str(error)
    return Scores(values, failures)


@dataclass(frozen=True, slots=True)
class Mean:
    """A metric over many clips: its mean over the clips that have a value, and how many do and do not."""

    mean: float | None
    count: int
    failed: dict[str, int]  # by reason


def mean(scores: Sequence[Scores], name: str) -> Mean:
    """The unweighted mean over clips, as the paper's table takes it."""
    values = [score.values[name] for score in scores if name in score.values]
    failed = Counter(score.failures[name] for score in scores if name in score.failures)
    return Mean(float(np.mean(values)) if values else None, len(values), dict(failed))


@dataclass(frozen=True, slots=True)
class CodeUse:
    """How much of a codebook some codes use: distinct codes, their share, entropy in bits per code, and how many."""

    num_codes: int
    distinct: int
    share: float
    entropy: float

    @classmethod
    def of(cls, counts: np.ndarray) -> "CodeUse":
        """Args: counts: int [codebook_size], how often each code was seen."""
        total = int(counts.sum())
        chances = counts[counts > 0] / max(total, 1)
        entropy = -float((chances * np.log2(chances)).sum()) if total else 0.0
        return cls(total, len(chances), len(chances) / len(counts), abs(entropy))


def count_codes(codes: np.ndarray, codebook_size: int) -> np.ndarray:
    """int64 [codebook_size]: how often each code occurs; counts of several clips add up."""
    return np.bincount(np.asarray(codes).reshape(-1).astype(np.int64), minlength=codebook_size)


PAPER_RECONSTRUCTION = {"stoi": (0.90, 0.91), "pesq_wb": (2.06, 2.11)}
"""What the paper reports for NeuCodec and its distilled encoder, with the 16 kHz decoder, on CMU Arctic (Table 2)."""
