"""Listening to a codec in training: fixed clips there and back, measured, and kept as sound and as mel pictures."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from codec.base import Codec
from codec.evaluation import metrics
from codec.evaluation.metrics import Pair, Scores
from jobs.clips import Clip
from jobs.training.pictures import mel_picture
from pipeline import storage
from pipeline.decoding.resample import resample
from pipeline.listen import wav_bytes


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


@dataclass(frozen=True, slots=True)
class Heard:
    """A clip that went through a codec."""

    codes: np.ndarray  # int [K, F]
    sound: np.ndarray  # float32 [T] at the output rate, of the clip's whole hops
    encode_seconds: float  # of wall time
    decode_seconds: float


def there_and_back(codec: Codec, waveform: np.ndarray, device: torch.device | str) -> Heard:
    """float32 [T] at the codec's input rate, alone in its batch."""
    spec = codec.spec
    batch = torch.from_numpy(np.ascontiguousarray(waveform))[None, None].to(device)
    began = time.perf_counter()
    codes = codec.encode(batch, torch.tensor([len(waveform)], device=device)).cpu()
    encoded = time.perf_counter()
    sound = codec.decode(codes.to(device))[0, 0].float().cpu().numpy()
    decoded = time.perf_counter()
    whole = len(waveform) // spec.hop_length * spec.hop_length * spec.output_rate // spec.input_rate
    return Heard(codes[0].numpy(), sound[:whole], encoded - began, decoded - encoded)


def pair_of(codec: Codec, waveform: np.ndarray, heard: Heard) -> Pair:
    """What the metrics compare: both at 16 kHz."""
    reference = resample(waveform, codec.spec.input_rate, metrics.RATE)
    return Pair.of(reference, resample(heard.sound, codec.spec.output_rate, metrics.RATE))


def validate(codec: Codec, clips: Sequence[Clip], names: Sequence[str], device: torch.device | str) -> Result:
    """Every clip there and back, measured at 16 kHz."""
    scores, outputs = [], []
    counts = np.zeros(codec.spec.codebook_size, np.int64)
    for clip in clips:
        heard = there_and_back(codec, clip.waveform, device)
        counts += metrics.count_codes(heard.codes, len(counts))
        outputs.append(heard.sound)
        scores.append(metrics.measure(pair_of(codec, clip.waveform, heard), names))
    return Result(scores, outputs, counts)


def keep(folder: str, clips: Sequence[Clip], result: Result, codec: Codec, most: int) -> None:
    """The first `most` clips to hear and to look at: original, output, and a picture with the original on top."""
    spec = codec.spec
    for clip, output in list(zip(clips, result.outputs, strict=True))[:most]:
        original = resample(clip.waveform, spec.input_rate, spec.output_rate)
        files = {
            f"{clip.utterance.id}.original.wav": wav_bytes(original, spec.output_rate),
            f"{clip.utterance.id}.wav": wav_bytes(output, spec.output_rate),
            f"{clip.utterance.id}.png": mel_picture([original[: len(output)], output], spec.output_rate),
        }
        for name, data in files.items():
            storage.write_atomic(storage.join(folder, name), lambda file, data=data: file.write(data))
