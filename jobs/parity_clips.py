"""The clips that two codecs are compared on: whole files, loaded as the main job loads them."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from pipeline.audio import Limits, load_audio
from schemas.audio import AudioFile, Reject, Utterance

RATE, HOP = 16_000, 320
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
    stored = (
        AudioFile(Utterance(id=path.name, corpus="parity", source=str(path)), path.read_bytes())
        for path in paths
        if path.suffix.lower() in SUFFIXES
    )
    for clip in load_audio(stored, Limits(RATE, max_seconds)):
        if isinstance(clip, Reject):
            if clip.reason != "too_long":
                print(f"{clip.utterance.source}: {clip.reason}: {clip.message}", file=sys.stderr)
        elif len(clip.waveform) >= HOP:
            yield Clip(clip.utterance.id, torch.from_numpy(clip.waveform))
