"""Stored bytes -> mono float32 sound: libsndfile first, FFmpeg for what that rejects. Runs in a process of its own.

Whatever the bytes say of themselves, memory and time stay bounded: sound is read block by block, and reading stops
where the clip is too long to be kept.
"""

import io
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import soundfile

from pipeline.decoding.cutting import quietest
from pipeline.decoding.resample import resample

LOWEST_RATE, HIGHEST_RATE = 1_000, 384_000  # hertz
BLOCK_VALUES = 1 << 22  # float32 values decoded at once, all channels: 16 MiB
LONGEST_CLIP_SECONDS = 60.0  # of what is kept whole, unless a user says otherwise
LONGEST_CUT_SECONDS = 4 * 3600.0  # a source clip that may still be cut into pieces
SPOOL_BYTES = 64 << 20  # of pieces kept in memory, the rest on disk, until the clip is known to be whole

# what FFmpeg may take the bytes for: sound and films, and nothing that names other files, as playlists do
CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,eac3,flac,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mp3,mpeg,mpegts,"
    "ogg,tta,w64,wav,wv"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What sound is wanted as: at `rate` hertz; one clip of at most `max_seconds`, or pieces of `split_seconds`."""

    rate: int
    max_seconds: float = LONGEST_CLIP_SECONDS
    split_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A clip, or a part of one: `start` and `end` in seconds of the clip; both None if it is the whole of it."""

    waveform: np.ndarray  # float32 [T]
    start: float | None = None
    end: float | None = None


class Refused(Exception):
    """The clip cannot become sound. `reason` is one of schemas.audio.REASONS."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


class NoRoom(Exception):
    """The disk of this machine is full: no fault of the clip's."""


def load(data: bytes, limits: Limits) -> Iterator[Piece]:
    """The sound of one stored clip, at `limits.rate`. All of it has been decoded when the first piece appears.

    Raises: Refused, NoRoom, before the first piece.
    """
    if limits.split_seconds is not None:
        yield from _decode(data, lambda sound: _pieces(sound, limits.rate, limits.split_seconds))
        return
    waveform, rate = load_native(data, limits.max_seconds)
    yield Piece(_finite(resample(waveform, rate, limits.rate)))


def load_native(data: bytes, max_seconds: float) -> tuple[np.ndarray, int]:
    """float32 [T] at the clip's own rate, which the decoder tells. Raises: Refused."""
    return _decode(data, lambda sound: _whole(sound, max_seconds))


class Sound:
    """An opened clip: its rate in hertz, and its mono blocks, each float32 [n]."""

    def __init__(self, rate: int, blocks: Iterator[np.ndarray]) -> None:
        self.rate, self.blocks = rate, blocks
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise Refused("bad_rate", f"{rate} Hz; from {LOWEST_RATE} to {HIGHEST_RATE} Hz is taken")


def _decode(data: bytes, use: Callable[[Sound], Any]) -> Any:
    """What `use` makes of the sound, from the first decoder that gets to its end."""
    if not data:
        raise Refused("empty", "no bytes")
    said = []
    for name, opened, errors in DECODERS:
        try:
            with opened(data) as sound:
                return use(sound)
        except errors as error:
            said.append(f"{name}: {normalized(error)}")
        except MemoryError:
            said.append(f"{name}: wants more memory than a clip may take")
    raise Refused("unreadable", "; ".join(said))


def _whole(sound: Sound, max_seconds: float) -> tuple[np.ndarray, int]:
    longest, blocks, length = max_seconds * sound.rate, [], 0
    for block in sound.blocks:
        blocks.append(block)
        length += len(block)
        if length > longest:
            raise Refused("too_long", f"longer than {max_seconds:g} s")
    if not length:
        raise Refused("empty", "a sound of no samples")
    waveform = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    return waveform, sound.rate


def _pieces(sound: Sound, rate: int, split_seconds: float) -> Iterator[Piece]:
    """Pieces of at most `split_seconds`, each resampled for itself; the clip itself if it is no longer than that."""
    longest, buffer, start = int(split_seconds * sound.rate), np.empty(0, np.float32), 0
    spool = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 - the reader of the pieces closes it
    kept: list[tuple[float, float, int]] = []

    def keep(part: np.ndarray, end: int) -> None:
        waveform = _finite(resample(np.ascontiguousarray(part), sound.rate, rate))
        try:
            spool.write(waveform)
        except OSError as error:  # not to be taken for one of a decoder's
            raise NoRoom(f"pieces of long clips cannot be kept in {tempfile.gettempdir()}: {error.strerror}") from error
        kept.append((start / sound.rate, end / sound.rate, len(waveform)))

    try:
        for block in sound.blocks:
            buffer = np.concatenate([buffer, block])
            if start + len(buffer) > LONGEST_CUT_SECONDS * sound.rate:
                raise Refused("too_long", f"longer than {LONGEST_CUT_SECONDS / 3600:g} h, even for cutting")
            # a cut leaves a quarter of a piece at least, so it waits until that much lies behind it
            while len(buffer) > longest + longest // 4:
                place = quietest(buffer, sound.rate, longest // 2, longest)
                keep(buffer[:place], start + place)
                buffer, start = buffer[place:], start + place
        if len(buffer) > longest:
            place = quietest(buffer, sound.rate, longest // 2, len(buffer) - longest // 4)
            keep(buffer[:place], start + place)
            buffer, start = buffer[place:], start + place
        if not start and not len(buffer):
            raise Refused("empty", "a sound of no samples")
        keep(buffer, start + len(buffer))
    except BaseException:
        spool.close()
        raise
    return _read_back(spool, kept)


def _read_back(spool: Any, kept: list[tuple[float, float, int]]) -> Iterator[Piece]:
    with spool:
        spool.seek(0)
        for start, end, length in kept:
            waveform = np.frombuffer(spool.read(4 * length), np.float32)
            yield Piece(waveform) if len(kept) == 1 else Piece(waveform, start, end)


def _finite(waveform: np.ndarray) -> np.ndarray:
    if not np.isfinite(waveform).all():
        raise Refused("not_finite", "NaN or infinity among the samples")
    return waveform


def mono(samples: np.ndarray) -> np.ndarray:
    """The mean of the channels in float32: [n, C] to [n]."""
    if samples.shape[1] == 1:
        return samples[:, 0]
    total = samples[:, 0] + samples[:, 1]
    for channel in range(2, samples.shape[1]):
        total += samples[:, channel]
    total /= np.float32(samples.shape[1])
    return total


@contextmanager
def _open_sndfile(data: bytes) -> Iterator[Sound]:
    handle = -1
    try:
        if hasattr(os, "memfd_create"):  # a file in memory is read without calls back into Python: half as long again
            handle = os.memfd_create("clip")
            view = memoryview(data)
            while len(view):
                view = view[os.write(handle, view) :]
            os.lseek(handle, 0, os.SEEK_SET)
        with soundfile.SoundFile(io.BytesIO(data) if handle < 0 else handle, closefd=False) as file:
            yield Sound(file.samplerate, _sndfile_blocks(file))
    finally:
        if handle >= 0:
            os.close(handle)


def _sndfile_blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Blocks until the decoder gives no more, whatever length the header claims."""
    most = max(1, BLOCK_VALUES // file.channels)
    while True:
        wanted = min(most, file.frames - file.tell())
        if wanted <= 0:
            return
        block = file.read(out=np.empty((wanted, file.channels), np.float32))
        if not len(block):
            return
        yield mono(block)


@contextmanager
def _open_ffmpeg(data: bytes) -> Iterator[Sound]:
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none"}
    with av.open(io.BytesIO(data), options=options, metadata_errors="replace") as container:
        if not container.streams.audio:
            raise Broken("no audio stream")
        stream = container.streams.audio[0]
        stream.codec_context.thread_count = 1
        frames = (frame for frame in container.decode(stream) if frame.samples)
        first = next(frames, None)
        if first is None:
            raise Refused("empty", "a sound of no samples")
        yield Sound(first.sample_rate, _ffmpeg_blocks(first, frames))


def _ffmpeg_blocks(first: av.AudioFrame, rest: Iterator[av.AudioFrame]) -> Iterator[np.ndarray]:
    yield _frame_samples(first)
    for frame in rest:
        if frame.sample_rate != first.sample_rate:
            raise Broken(f"the rate changes from {first.sample_rate} to {frame.sample_rate} Hz")
        yield _frame_samples(frame)


def _frame_samples(frame: av.AudioFrame) -> np.ndarray:
    samples, channels = frame.to_ndarray(), frame.layout.nb_channels
    samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
    kind = frame.format.packed.name
    if kind == "u8":
        return mono((samples.astype(np.float32) - 128.0) / np.float32(128.0))
    if kind in ("s16", "s32", "s64"):
        return mono(samples.astype(np.float32) / np.float32(2.0 ** (int(kind[1:]) - 1)))
    return mono(samples.astype(np.float32))


class Broken(Exception):
    """What a decoder delivers cannot be one clip."""


DECODERS = (
    ("libsndfile", _open_sndfile, (soundfile.SoundFileError, RuntimeError, OSError)),
    ("FFmpeg", _open_ffmpeg, (av.FFmpegError, Broken, ValueError, RuntimeError, OSError)),
)

PLACES = re.compile(r"<[^<>]*>|0x[0-9a-fA-F]+|'?/[^\s']*'?")


def normalized(error: BaseException) -> str:
    """What went wrong, the same on every machine: without objects, addresses and paths."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    text = " ".join(PLACES.sub("", text).split()).strip(" .:")
    return text[:200] or type(error).__name__
