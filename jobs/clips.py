"""Clips of any corpus, decoded one by one: what is measured and listened to."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.audio import decode_clip, resample
from pipeline.clips import IndexedClips
from pipeline.decoding.load import LONGEST_CLIP_SECONDS
from pipeline.index import Selection, build_index
from schemas.audio import Reject, Utterance

UNIT_BYTES = 128 << 20  # of work units, which nobody looks at here


@dataclass(frozen=True, slots=True)
class Clip:
    """A decoded clip: mono float32 [T] at the rate asked for."""

    utterance: Utterance
    waveform: np.ndarray


def read_clips(
    corpus: str, inputs: Sequence[str], sample_rate: int, names: Sequence[str] | None = None, limit: int | None = None
) -> Iterator[Clip | Reject]:
    """The clips of a corpus in index order, at `sample_rate`; what cannot be read comes as its Reject.

    Args: names: only these, by the end of their source path or by key. limit: at most so many.
    Raises: ValueError for an unknown corpus, inputs without clips, or names that are not there.
    """
    wanted = set(names) if names is not None else None
    count = 0
    with tempfile.TemporaryDirectory(prefix="neutok-") as folder:
        clips = IndexedClips(corpus, build_index(corpus, inputs, folder, Selection(), UNIT_BYTES))
        for row in range(len(clips.rows)):
            if limit is not None and count >= limit:
                return
            if wanted is not None:
                utterance = clips.clip(row)[2].utterance
                place = utterance.source.replace("::", "/")
                found = {name for name in wanted if name == utterance.id or f"/{place}".endswith(f"/{name}")}
                if not found:
                    continue
                wanted -= found
            count += 1
            yield decoded(clips, row, sample_rate)
    if wanted:
        raise ValueError(f"{len(wanted)} of the clips named are not in the input, such as {min(wanted)}")


def listed(path: str | Path) -> list[str]:
    """The clips that a file names, one a line."""
    return [line.strip() for line in Path(path).read_text().splitlines() if line.strip()]


def usable(clips: Iterable[Clip | Reject], shortest: int, rejects: Counter[str]) -> Iterator[Clip]:
    """Those with sound of at least `shortest` samples; the others are counted in `rejects`, by reason."""
    for clip in clips:
        if isinstance(clip, Reject):
            rejects[clip.reason] += 1
        elif len(clip.waveform) < shortest:
            rejects["too_short"] += 1
        else:
            yield clip


def decoded(clips: IndexedClips, row: int, sample_rate: int) -> Clip | Reject:
    """One row's clip at `sample_rate`, or why there is none."""
    file = clips.read(row)
    sound = file if isinstance(file, Reject) else decode_clip(file, LONGEST_CLIP_SECONDS)
    if isinstance(sound, Reject):
        return sound
    return Clip(sound.utterance, resample(sound.waveform, sound.sample_rate, sample_rate))
