"""The whole path from stored speech to token shards: `tokenize_unit` to read, `tokenize_units` to run."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from codec.base import Codec
from pipeline.audio import load_audio
from pipeline.batch import Item, usual_batch_seconds, windows
from pipeline.commit import commit
from pipeline.decoding.child import Nursery
from pipeline.decoding.load import LONGEST_CLIP_SECONDS, Limits
from pipeline.decoding.pool import DecodePool
from pipeline.encode import Encoder, Result, encode
from pipeline.output import Output
from pipeline.overlap import Files, Overlap
from pipeline.stream import read_unit
from schemas.audio import AudioFile, Reject
from schemas.manifest import ShardInfo, WorkUnit

__all__ = ["Output", "Settings", "tokenize_unit", "tokenize_units"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a unit becomes a shard. Raises: ValueError for what cannot be."""

    max_seconds: float = LONGEST_CLIP_SECONDS  # a longer clip is a reject
    split_seconds: float | None = None  # cut longer clips instead
    batch_seconds: float | None = None  # of padded sound in one batch; None: by the codec's device
    window_seconds: float = 1200.0  # batches are planned inside windows of so much sound
    decode_workers: int = 1  # processes

    def __post_init__(self) -> None:
        for name in ("max_seconds", "split_seconds", "batch_seconds", "window_seconds", "decode_workers"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be more than 0, got {value}")
        if self.split_seconds is not None and self.split_seconds < 1:
            raise ValueError(
                f"split_seconds must be at least 1, got {self.split_seconds}; a piece has to hold some words"
            )
        if self.split_seconds is not None and self.split_seconds > self.window_seconds:
            raise ValueError(f"split_seconds must be at most {self.window_seconds:g}, got {self.split_seconds}")

    def limits(self, codec: Codec) -> Limits:
        return Limits(codec.spec.input_rate, self.max_seconds, self.split_seconds)

    def seconds_per_batch(self, codec: Codec) -> float:
        return self.batch_seconds or usual_batch_seconds(codec.device)


def tokenize_unit(
    unit: WorkUnit, codec: Codec, output: Output, settings: Settings, files: Files | None = None
) -> ShardInfo:
    """Turn one work unit into one token shard. Doing it twice changes nothing.

    `files` are its clips where they have been read already. Raises: what reading raises, and ValueError if a clip
    were lost on the way; then nothing is written.
    """
    limits = settings.limits(codec)
    clips = distinct(read_unit(unit) if files is None else files)
    with DecodePool(limits, settings.decode_workers) as pool:
        segments = load_audio(clips, limits, pool)
        together = windows(segments, settings.window_seconds)
        records = encode(together, codec, settings.seconds_per_batch(codec))
        return commit(output, unit, records, codec.spec)


def tokenize_units(
    units: Iterable[tuple[WorkUnit, Files]],
    codec: Codec,
    output: Output,
    settings: Settings,
    progress: Callable[[float], None] | None = None,
    failed: Callable[[WorkUnit, Exception], None] | None = None,
    nursery: Nursery | None = None,
) -> Iterator[ShardInfo]:
    """The shards of many units, each as `tokenize_unit` would make it, with all stages at work at once.

    A thread reads and has clips decoded, ahead of the encoder and across the borders of units; the caller's thread
    encodes; a third verifies and places finished shards. `units` may wait for the next unit as long as it likes:
    what is finished meanwhile comes out.

    Args: units: each with its clips, which are read when their turn comes. progress: told the seconds of sound that
        have been encoded, batch by batch. failed: told of a unit that cannot be done, and the others go on; without
        it the first such error ends everything and is raised. nursery: of the decoding processes, if the caller has
        started one ahead and keeps it.
    Memory: WINDOWS_AHEAD + 2 windows of sound (76 MB each at 20 minutes), the pool's budget (128 MB), and 64 MB of
        stored clips, whatever the lengths and the number of clips.
    """
    limits, batch_seconds = settings.limits(codec), settings.seconds_per_batch(codec)
    with DecodePool(limits, settings.decode_workers, nursery=nursery) as pool:

        def load(unit: WorkUnit, files: Files) -> Iterator[list[Item]]:
            segments = load_audio(distinct(files), limits, pool)
            return windows(segments, settings.window_seconds)

        def place(unit: WorkUnit, results: Sequence[Result]) -> ShardInfo:
            return commit(output, unit, results, codec.spec)

        with Overlap(units, load, place) as stages:
            encoder, shard = Encoder(codec, batch_seconds, progress), []
            broken = False  # what is left of this unit is passed over
            for event in stages:
                try:
                    if event.error is not None and not (broken and event.is_end):
                        raise event.error
                    if event.info is not None:
                        yield event.info
                    elif event.window is not None and not broken:
                        shard += encoder.push(event.window)
                    elif event.is_end and not broken:
                        stages.write(event.unit, shard + encoder.flush())
                except Exception as error:
                    if failed is None:
                        raise
                    failed(event.unit, error)
                    if not event.is_placed:  # that would be of a unit before the one at hand
                        encoder, shard, broken = Encoder(codec, batch_seconds, progress), [], True
                if event.is_end:
                    shard, broken = [], False


def distinct(files: Files) -> Iterator[AudioFile | Reject]:
    """Each key once: a clip whose key has come before is a reject."""
    seen: set[str] = set()
    for file in files:
        key = file.utterance.id
        if key in seen and not (isinstance(file, Reject) and file.reason == "duplicate_key"):
            file = Reject(file.utterance, "duplicate_key", f"a clip before it in the same unit is called {key}")
        seen.add(key)
        yield file
