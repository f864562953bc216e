"""A few clips to listen to beside the weights: how they were, and what the codec makes of them."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from codec.base import Codec
from jobs.clips import Clip, read_clips
from jobs.training.validation import there_and_back
from pipeline.decoding.resample import resample

MAY_BE_PASSED_ON = ("CC0-1.0", "LicenseRef-PublicDomain", "CC-BY-4.0", "CC-BY-3.0")


@dataclass(frozen=True, slots=True)
class Sample:
    """Two sounds of one length at the output rate, and whose voice it is."""

    name: str
    language: str
    speaker: str
    licence: str
    attribution: str
    original: np.ndarray  # float32 [T]
    decoded: np.ndarray


def make_samples(codec: Codec, folder: str, names: Sequence[str], seconds: float, device: str) -> list[Sample]:
    """The first `seconds` of each named clip of a folder, there and back.

    Raises: ValueError for a clip that is not there, cannot be read, or may not be passed on with its attribution.
    """
    found = []
    for clip in read_clips("folder", [folder], codec.spec.input_rate, names) if names else ():
        if not isinstance(clip, Clip):
            raise ValueError(f"the sample {clip.utterance.id} cannot be used: {clip.message or clip.reason}")
        said, thanks = clip.utterance, json.loads(clip.utterance.extra).get("attribution")
        if said.license not in MAY_BE_PASSED_ON or not thanks:
            raise ValueError(
                f"the sample {said.source} is under {said.license}, attributed to {thanks}; samples are to be under "
                f"one of {', '.join(MAY_BE_PASSED_ON)}, with an attribution"
            )
        waveform = clip.waveform[: round(seconds * codec.spec.input_rate)]
        sound = there_and_back(codec, waveform, device).sound
        original = resample(waveform, codec.spec.input_rate, codec.spec.output_rate)[: len(sound)]
        stem = Path(said.source).stem
        found.append(Sample(stem, said.language or "", said.speaker or "", said.license, thanks, original, sound))
    return found


def flac_bytes(waveform: np.ndarray, sample_rate: int) -> bytes:
    """float32 [T] as a 16-bit FLAC file, cut off at full scale."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(waveform, -1, 1), sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()
