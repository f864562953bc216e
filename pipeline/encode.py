"""Sound -> codes through any codec: batches inside windows, one at work while the next is stacked, results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from codec.base import Codec
from pipeline.batch import Item, plan, stack
from pipeline.decoding.cutting import clip_of
from schemas.audio import AudioSegment, Reject
from schemas.tokens import TokenRecord

Result = TokenRecord | Reject
NO_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed", "unable to find an engine")


def encode(windows: Iterable[list[Item]], codec: Codec, batch_seconds: float) -> Iterator[Result]:
    """Windows of sound to records, in the order of their clips; rejects pass through.

    Raises: MemoryError if a single clip does not fit on the device.
    """
    encoder = Encoder(codec, batch_seconds)
    for window in windows:
        yield from encoder.push(window)
    yield from encoder.flush()


@dataclass(slots=True)
class Pending:
    """A window whose results are not all there."""

    results: list[Result | None]
    missing: int


@dataclass(frozen=True, slots=True)
class Launched:
    """A batch that the device is at: its codes, still arriving, and `arrived`, the event after which they are there."""

    window: Pending
    segments: tuple[AudioSegment, ...]
    positions: tuple[int, ...]
    codes: Tensor
    arrived: "torch.cuda.Event | None"


class Encoder:
    """`push` windows, get back what is finished by then; `flush` for the rest. `progress` is told seconds of sound.

    While the device is at one batch, the next is put together and queued behind it. A batch that does not fit into
    the device's memory is halved, and so are later ones of its size; codes do not depend on batch mates.
    """

    def __init__(self, codec: Codec, batch_seconds: float, progress: Callable[[float], None] | None = None) -> None:
        self.codec, self.spec, self.progress = codec, codec.spec, progress
        self.device = torch.device(codec.device)
        self.batch_samples = max(1, int(batch_seconds * self.spec.input_rate))
        self.too_much: int | None = None  # padded samples that once did not fit
        self.refusal: RuntimeError | None = None  # what the device said then
        self.windows: deque[Pending] = deque()
        self.launched: Launched | None = None

    def push(self, window: list[Item]) -> list[Result]:
        pending = Pending([None] * len(window), len(window))
        self.windows.append(pending)
        usable = []
        for position, item in enumerate(window):
            refused = item if isinstance(item, Reject) else self._too_short(item)
            if refused is None:
                usable.append(position)
            else:
                pending.results[position] = refused
                pending.missing -= 1
        lengths = [len(window[position].waveform) for position in usable]
        for batch in plan(lengths, self.batch_samples, self.spec.input_rate):
            self._run(pending, window, [usable[i] for i in batch])
        return self._finished()

    def flush(self) -> list[Result]:
        self._collect()
        return self._finished()

    def _too_short(self, segment: AudioSegment) -> Reject | None:
        try:
            self.spec.num_frames(len(segment.waveform))
        except ValueError as error:
            return refuse(segment, "too_short", str(error))
        return None

    def _run(self, pending: Pending, window: list[Item], positions: list[int]) -> None:
        longest = max(len(window[position].waveform) for position in positions)
        fits = self.too_much is None or len(positions) * longest < self.too_much
        launched = self._launch(pending, window, positions) if fits or len(positions) == 1 else None
        if launched is not None:
            self._collect()
            self.launched = launched
            return
        self._collect()  # what is in flight holds memory as well
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if fits and len(positions) > 1:
            self.too_much = len(positions) * longest
        if len(positions) == 1:
            launched = self._launch(pending, window, positions)
            if launched is None:
                raise MemoryError(
                    f"a clip of {longest / self.spec.input_rate:.1f} s does not fit into the memory of {self.device}; "
                    "lower --max-seconds, or cut long clips with --split-seconds"
                ) from self.refusal
            self.launched = launched
            return
        half = (len(positions) + 1) // 2
        self._run(pending, window, positions[:half])
        self._run(pending, window, positions[half:])

    def _launch(self, pending: Pending, window: list[Item], positions: list[int]) -> Launched | None:
        """Queue a batch on the device; None if it has no memory for it."""
        on_gpu = self.device.type == "cuda"
        batch = stack(window, positions, pinned=on_gpu)
        try:
            with torch.inference_mode():
                waveforms = batch.waveforms.to(self.device, non_blocking=True)
                # lengths stay where a codec reads them: to fetch them back would wait for the batch before this one
                codes = self.codec.encode(waveforms, batch.num_samples)
                arrived = None
                if on_gpu:
                    landing = torch.empty(codes.shape, dtype=codes.dtype, pin_memory=True)
                    codes = landing.copy_(codes, non_blocking=True)
                    arrived = torch.cuda.Event()
                    arrived.record(torch.cuda.current_stream(self.device))
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            self.refusal = error
            return None
        segments = tuple(window[position] for position in positions)
        return Launched(pending, segments, batch.positions, codes, arrived)

    def _collect(self) -> None:
        """Wait for the batch in flight and put its records where they belong."""
        if self.launched is None:
            return
        batch, self.launched = self.launched, None
        if batch.arrived is not None:
            batch.arrived.synchronize()
        codes = batch.codes.cpu().numpy()
        for row, (position, segment) in enumerate(zip(batch.positions, batch.segments, strict=True)):
            batch.window.results[position] = self._record(segment, codes[row])
        batch.window.missing -= len(batch.positions)
        if self.progress is not None:
            self.progress(sum(segment.seconds for segment in batch.segments))

    def _record(self, segment: AudioSegment, codes: np.ndarray) -> Result:
        """The row of one clip, from int [K, F]; a reject if the codec broke its own rules."""
        num_samples = len(segment.waveform)
        frames = self.spec.num_frames(num_samples)
        own = codes[:, :frames]
        if own.shape != (self.spec.num_codebooks, frames):
            message = f"codes {list(codes.shape)}, wanted {[self.spec.num_codebooks, frames]} for {num_samples} samples"
        elif own.min() < 0 or own.max() >= self.spec.codebook_size:
            message = f"codes from {own.min()} to {own.max()}, wanted 0 to {self.spec.codebook_size - 1}"
        elif codes[:, frames:].any():
            message = f"codes past the clip's end, which is after {frames} frames"
        else:
            return TokenRecord(segment.utterance, own.astype(np.uint16), num_samples)
        return refuse(segment, "bad_codes", message)

    def _finished(self) -> list[Result]:
        """Results of the windows that are complete, from the first on."""
        results: list[Result] = []
        while self.windows and not self.windows[0].missing:
            results += self.windows.popleft().results
        return results


def refuse(segment: AudioSegment, reason: str, message: str) -> Reject:
    """Of a piece its clip is refused, by the clip's key: what went in is what must come out."""
    utterance = segment.utterance
    return Reject(replace(utterance, id=clip_of(utterance.id, utterance.extra)), reason, message)


def _out_of_memory(error: RuntimeError) -> bool:
    said = str(error).lower()
    # a GPU's libraries, which allocate beside torch, say it in their own words; a convolution that finds no memory for
    # any of its ways says that it finds no way
    return isinstance(error, torch.OutOfMemoryError) or any(words in said for words in NO_MEMORY)
