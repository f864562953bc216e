"""The clips that two codecs are compared on: whole files, loaded as the main job loads them; or prepared ones.

Prepared clips lie decoded in one .safetensors file, for machines that have torch and nothing to decode sound with.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from schemas.audio import AudioFile, Reject, Utterance

RATE, HOP = 16_000, 320
PREPARED = ".safetensors"
FULL_SCALE = 2.0**15  # prepared clips are int16
SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".aac", ".m4a", ".mp4", ".webm"}


@dataclass(frozen=True)
class Clip:
    name: str
    waveform: Tensor  # float32 [T] at 16 kHz


def load_clips(inputs: Sequence[str], max_seconds: float) -> Iterator[Clip]:
    """The clips of files and folders, by name, from one hop to `max_seconds`; of the shipped sample if none are named.

    What cannot be decoded is told and left out. Raises: ValueError for an input that does not exist.
    """
    roots = [Path(name).expanduser() for name in inputs] or [Path(str(files("pipeline"))) / "sample"]
    if missing := [str(root) for root in roots if not root.exists()]:
        raise ValueError(f"no such file or folder: {', '.join(missing)}")
    paths = [path for root in roots for path in (sorted(root.rglob("*")) if root.is_dir() else [root])]
    for path in paths:
        if path.suffix == PREPARED:
            clips: Iterator[Clip] = read_prepared(path)
        elif path.suffix.lower() in SUFFIXES:
            clips = decode(path, max_seconds)
        else:
            continue
        for clip in clips:
            if HOP <= len(clip.waveform) <= max_seconds * RATE:
                yield clip


def first_clips(inputs: Sequence[str], max_seconds: float, limit: int | None = None) -> list[Clip]:
    """The first so many of them, or all. Raises: ValueError if there are none."""
    clips = list(islice(load_clips(inputs, max_seconds), limit))
    if not clips:
        raise ValueError(f"no clip of at most {max_seconds} s in {inputs}")
    return clips


def decode(path: Path, max_seconds: float) -> Iterator[Clip]:
    """The clip in one sound file, or none if it is longer or cannot be decoded, which is told."""
    from pipeline.audio import Limits, load_audio  # the decoders, which a machine with prepared clips need not have

    stored = AudioFile(Utterance(id=path.name, corpus="parity", source=str(path)), path.read_bytes())
    for clip in load_audio([stored], Limits(RATE, max_seconds)):
        if not isinstance(clip, Reject):
            yield Clip(clip.utterance.id, torch.from_numpy(clip.waveform))
        elif clip.reason != "too_long":
            print(f"{clip.utterance.source}: {clip.reason}: {clip.message}", file=sys.stderr)


def write_prepared(path: Path, clips: Iterable[Clip]) -> int:
    """Store clips as 16-bit samples. Returns: how many."""
    stored = {
        clip.name: (clip.waveform * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1).to(torch.int16)
        for clip in clips
    }
    save_file(stored, path)
    return len(stored)


def read_prepared(path: Path) -> Iterator[Clip]:
    """The clips that `write_prepared` stored, by name. Raises: ValueError for a file of anything else."""
    for name, samples in sorted(load_file(path).items()):
        if samples.dtype != torch.int16 or samples.dim() != 1:
            raise ValueError(f"{path} holds no prepared clips: {name} is {samples.dtype} {list(samples.shape)}")
        yield Clip(name, samples.float() / FULL_SCALE)
