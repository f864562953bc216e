"""Long clips into pieces: cut at the quietest point, so that no word is torn."""

import json
from dataclasses import replace

import numpy as np

from schemas.audio import Utterance

QUIET_SECONDS = 0.05  # the stretch whose energy is compared; a pause between words is longer


def quietest(waveform: np.ndarray, rate: int, first: int, last: int) -> int:
    """The middle of the quietest stretch between samples `first` and `last` of float32 [T]; the earliest if several."""
    size = max(1, min(round(QUIET_SECONDS * rate), last - first))
    hop = max(1, size // 5)
    squares = np.cumsum(np.square(waveform[first:last], dtype=np.float64))
    starts = np.arange(0, last - first - size + 1, hop)
    before = np.where(starts > 0, squares[starts - 1], 0.0)
    energy = squares[starts + size - 1] - before
    return first + int(starts[np.argmin(energy)]) + size // 2


def piece_utterance(whole: Utterance, number: int, start: float, end: float) -> Utterance:
    """The labels of piece `number` (from 1) of a clip: key `<key>-0001`; `extra` tells the clip and its seconds."""
    extra = {**json.loads(whole.extra), "clip": whole.id, "start": start, "end": end}
    return replace(whole, id=f"{whole.id}-{number:04d}", extra=json.dumps(extra, ensure_ascii=False, sort_keys=True))


def clip_of(key: str, extra: str) -> str:
    """The key of the clip that went in: of a piece its clip's, else the row's own."""
    if '"clip"' not in extra:
        return key
    clip = json.loads(extra).get("clip")
    is_piece = isinstance(clip, str) and key.startswith(f"{clip}-") and key[len(clip) + 1 :].isdecimal()
    return clip if is_piece else key
