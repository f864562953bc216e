"""The clips that two codecs are compared on: whole files, mono at 16 kHz."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import av
import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.functional import resample

RATE, HOP = 16_000, 320
SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".aac", ".m4a", ".mp4", ".webm"}


@dataclass(frozen=True)
class Clip:
    name: str
    waveform: Tensor  # float32 [T] at 16 kHz


def load_clips(inputs: Sequence[str], max_seconds: float) -> Iterator[Clip]:
    """The clips of files and folders, by name, from one hop to `max_seconds`; of the shipped sample if none are named.

    Raises: ValueError for an input that does not exist, or is no sound.
    """
    roots = [Path(name).expanduser() for name in inputs] or [Path(str(files("pipeline"))) / "sample"]
    for root in roots:
        if not root.exists():
            raise ValueError(f"no such file or folder: {root}")
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if path.suffix.lower() in SUFFIXES:
                waveform = load_clip(path)
                if HOP <= len(waveform) <= max_seconds * RATE:
                    yield Clip(path.name, waveform)


def load_clip(path: Path) -> Tensor:
    """float32 [T] at 16 kHz, the mean of the channels. Raises: ValueError if nothing can decode it."""
    try:
        sound, rate = _decode(path)
    except (av.FFmpegError, OSError, IndexError) as error:
        raise ValueError(f"cannot decode {path}: {error}") from error
    return resample(torch.from_numpy(sound.mean(axis=0)), rate, RATE)


def _decode(path: Path) -> tuple[np.ndarray, int]:
    """float32 [C, T] and its rate."""
    try:
        sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
        return sound.T, rate
    except soundfile.LibsndfileError:  # aac, mp4, webm
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            to_float = av.AudioResampler(format="fltp")
            blocks = [block for frame in container.decode(stream) for block in to_float.resample(frame)]
            blocks += to_float.resample(None)
            return np.concatenate([block.to_ndarray() for block in blocks], axis=1), stream.codec_context.sample_rate
