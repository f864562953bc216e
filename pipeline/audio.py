"""Stored clips as sound: `load_audio` for a stream of them, `decode_clip` for one."""

from collections.abc import Iterable, Iterator

from pipeline.decoding.cutting import piece_utterance
from pipeline.decoding.load import LONGEST_CLIP_SECONDS, Limits, Refused, load, load_native
from pipeline.decoding.pool import DecodePool
from pipeline.decoding.resample import resample
from schemas.audio import AudioFile, AudioSegment, Reject

__all__ = ["DecodePool", "Limits", "decode_clip", "load_audio", "resample"]


def load_audio(
    files: Iterable[AudioFile | Reject], limits: Limits, pool: DecodePool | None = None
) -> Iterator[AudioSegment | Reject]:
    """Each stored clip as mono float32 sound at `limits.rate`, or why there is none, in the order given.

    The mean of the channels, resampled from the rate that the decoder tells; no gain, no clipping. Rejects pass
    through. With `pool` (made with the same limits) its processes decode; without, this one does, to the same bits,
    unprotected from decoders that crash.
    """
    if pool is not None:
        yield from pool.load(files)
        return
    for file in files:
        if isinstance(file, Reject):
            yield file
            continue
        try:
            for number, piece in enumerate(load(file.data, limits), 1):
                whole = piece.start is None
                utterance = file.utterance if whole else piece_utterance(file.utterance, number, piece.start, piece.end)
                yield AudioSegment(utterance, piece.waveform, limits.rate)
        except Refused as refused:
            yield Reject(file.utterance, refused.reason, refused.message)


def decode_clip(file: AudioFile, max_seconds: float = LONGEST_CLIP_SECONDS) -> AudioSegment | Reject:
    """One clip as mono float32 at its own rate, decoded in this process."""
    try:
        waveform, rate = load_native(file.data, max_seconds)
    except Refused as refused:
        return Reject(file.utterance, refused.reason, refused.message)
    return AudioSegment(file.utterance, waveform, rate)
