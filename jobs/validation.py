"""Listening to a codec in training: fixed clips there and back, measured, and kept as sound and as mel pictures."""

import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from codec.base import Codec
from codec.evaluation import metrics
from codec.evaluation.metrics import Pair, Scores
from jobs.pictures import mel_picture
from pipeline import storage


@dataclass(frozen=True, slots=True)
class Clip:
    """A fixed clip: mono float32 [T] at the codec's input rate."""

    key: str
    waveform: np.ndarray


@dataclass(frozen=True, slots=True)
class Result:
    """Metrics of all clips, and the outputs at the codec's output rate."""

    scores: list[Scores]
    outputs: list[np.ndarray]
    counts: np.ndarray  # of each code

    def means(self) -> dict[str, float]:
        """The mean of each metric that has one, and how often each failed."""
        means: dict[str, float] = {}
        names = dict.fromkeys(name for score in self.scores for name in (*score.values, *score.failures))
        for name in names:
            mean = metrics.mean(self.scores, name)
            if mean.mean is not None:
                means[name] = mean.mean
            if mean.failed:
                means[f"{name}_failed"] = sum(mean.failed.values())
        use = metrics.CodeUse.of(self.counts)
        return {**means, "codes_used": use.distinct, "code_entropy": use.entropy}


def there_and_back(codec: Codec, waveform: np.ndarray, device: torch.device | str) -> tuple[np.ndarray, np.ndarray]:
    """A clip's codes [F], and the sound they decode to, float32 [T'] at the output rate."""
    spec = codec.spec
    batch = torch.from_numpy(waveform)[None, None].to(device)
    codes = codec.encode(batch, torch.tensor([len(waveform)], device=device))
    sound = codec.decode(codes)[0, 0].float().cpu().numpy()
    whole = len(waveform) // spec.hop_length * spec.hop_length * spec.output_rate // spec.input_rate
    return codes[0, 0].cpu().numpy(), sound[:whole]


def at_rate(waveform: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Resampled where the rates differ."""
    if rate == wanted:
        return waveform
    from torchaudio.functional import resample

    return resample(torch.from_numpy(waveform), rate, wanted).numpy()


def validate(codec: Codec, clips: Sequence[Clip], names: Sequence[str], device: torch.device | str) -> Result:
    """Every clip there and back, measured at 16 kHz."""
    scores, outputs = [], []
    counts = np.zeros(codec.spec.codebook_size, np.int64)
    for clip in clips:
        codes, sound = there_and_back(codec, clip.waveform, device)
        counts += metrics.count_codes(codes, len(counts))
        outputs.append(sound)
        reference = at_rate(clip.waveform, codec.spec.input_rate, metrics.RATE)
        scores.append(metrics.measure(Pair.of(reference, at_rate(sound, codec.spec.output_rate, metrics.RATE)), names))
    return Result(scores, outputs, counts)


def keep(folder: str, clips: Sequence[Clip], result: Result, codec: Codec, most: int) -> None:
    """The first `most` clips to hear and to look at: original, output, and a picture with the original on top."""
    spec = codec.spec
    for clip, output in list(zip(clips, result.outputs, strict=True))[:most]:
        original = at_rate(clip.waveform, spec.input_rate, spec.output_rate)
        files = {
            f"{clip.key}.original.wav": wav_bytes(original, spec.output_rate),
            f"{clip.key}.wav": wav_bytes(output, spec.output_rate),
            f"{clip.key}.png": mel_picture([original[: len(output)], output], spec.output_rate),
        }
        for name, data in files.items():
            storage.write_atomic(storage.join(folder, name), lambda file, data=data: file.write(data))


def wav_bytes(waveform: np.ndarray, sample_rate: int) -> bytes:
    """float32 [T] as a 16-bit WAV file, cut off at full scale."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, sample_rate, 0, "NONE", ""))
        file.writeframes(np.rint(np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()
