"""Speech as it travels: who said what, its stored bytes, its waveform, and why a clip was refused."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Utterance:
    """The labels of one clip; they ride along unchanged while the payload turns from bytes to codes.

    A label the corpus does not know is None, never an invented value.
    """

    id: str  # the row's `__key__`: corpus, "_", native id; only [A-Za-z0-9_-]; unique over one output
    corpus: str
    source: str  # where the sound lies: "path", "path::member" or "path::row N"
    text: str | None = None
    language: str | None = None  # ISO 639-1, or 639-3 where there is none
    speaker: str | None = None
    recording: str | None = None  # what a split by recording must keep together: video, chapter, book
    split: str | None = None  # as the corpus's folders name it
    license: str | None = None  # SPDX identifier
    extra: str = "{}"  # what else the corpus knows, a JSON object with sorted keys


@dataclass(frozen=True, slots=True)
class AudioFile:
    """One clip as stored: flac, mp3, opus, wav or anything a decoder knows."""

    utterance: Utterance
    data: bytes


@dataclass(frozen=True, slots=True)
class AudioSegment:
    """One clip as sound: mono float32 [T] at `sample_rate` hertz; no gain, no clipping."""

    utterance: Utterance
    waveform: np.ndarray
    sample_rate: int

    @property
    def seconds(self) -> float:
        return len(self.waveform) / self.sample_rate


@dataclass(frozen=True, slots=True)
class Reject:
    """A clip that cannot become a row. It flows through the stages like any clip, so none is ever lost."""

    utterance: Utterance
    reason: str  # one short word of REASONS
    message: str  # what was seen, without paths of this machine, addresses or times


REASONS: dict[str, str] = {
    "no_label": "sound without the label its corpus promises",
    "known_bad": "on its corpus's own list of bad clips or speakers",
    "empty": "no bytes, or a sound of no samples",
    "unreadable": "no decoder accepts the bytes",
    "decoder_crash": "the decoder's process died on it, twice",
    "decoder_hang": "the decoder did not answer in time, twice",
    "not_finite": "the sound holds NaN or infinity",
    "too_short": "shorter than one frame of the codec",
    "too_long": "longer than --max-seconds",
    "bad_rate": "a sample rate no speech has",
    "missing": "the index lists it, the source no longer holds it",
    "duplicate_key": "a clip of the same key and the same source came before it",
    "bad_codes": "the codec broke its own frame rule",
}
