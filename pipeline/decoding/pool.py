"""Decoding in child processes: in order, bounded in bytes, and proof against decoders that crash or hang.

A native decoder may take its process down. The clip it was at is then tried alone in a fresh process, twice, and
becomes a reject if that ends the same way; its neighbours go on in a process of their own.
"""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any

from pipeline.decoding.child import Child, ChildDied, Closed, Nursery
from pipeline.decoding.cutting import piece_utterance
from pipeline.decoding.load import Limits
from schemas.audio import AudioFile, AudioSegment, Reject

CLIP_SECONDS = 60.0  # a decoder may take for one clip
TRIES_ALONE = 2
CHUNK_CLIPS, CHUNK_BYTES = 8, 1 << 20  # sent to a child at once
CHUNKS_AHEAD = 3  # per child, at work or waiting
AHEAD_BYTES = 64 << 20  # stored; whatever the clips, no more is read before these are decoded
BUDGET_BYTES = 128 << 20  # of decoded sound that waits for its turn

Item = AudioFile | Reject
Result = AudioSegment | Reject
END = None  # follows the last result of a chunk


@dataclass(eq=False)
class Chunk:
    """A few clips on their way; `results` fills as they are decoded: (result, bytes it holds), at last END."""

    number: int
    clips: list[AudioFile] = field(default_factory=list)
    results: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    num_bytes: int = 0  # stored
    waiting: int = 0  # bytes in `results`
    ended: bool = False


class DecodePool:
    """`workers` child processes; `load` runs a stream of stored clips through them. One stream at a time.

    Memory: BUDGET_BYTES of sound, AHEAD_BYTES as stored, and in each child the chunk it is at. `decoder` names the
    function that decodes, as `module:name`, with the signature of pipeline.decoding.load.
    """

    def __init__(
        self,
        limits: Limits,
        workers: int = 1,
        clip_seconds: float = CLIP_SECONDS,
        decoder: str = "pipeline.decoding.load:load",
    ) -> None:
        if workers < 1:
            raise ValueError(f"decoding needs at least 1 worker, got {workers}")
        self.limits, self.workers = limits, workers
        self.task = {"decoder": decoder, "limits": asdict(limits), "clip_seconds": clip_seconds}
        self.chunks: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self.budget = Budget(BUDGET_BYTES)
        self.count = 0
        self.nursery = Nursery(self.task)
        self.lanes = [Lane(self) for _ in range(workers)]

    def load(self, items: Iterable[Item]) -> Iterator[Result]:
        """Each clip as its sound, or why there is none, in the order of `items`; rejects pass through.

        A clip that was cut gives several segments, one after the other. Raises: what `items` raises.
        """
        order: deque[tuple[Chunk, list[Item]]] = deque()
        source, more, ahead = iter(items), True, 0
        try:
            while more or order:
                while more and len(order) < CHUNKS_AHEAD * self.workers and (ahead < AHEAD_BYTES or not order):
                    chunk, taken = self._next_chunk(source)
                    more = bool(taken)
                    if more:
                        order.append((chunk, taken))
                        ahead += chunk.num_bytes
                if order:
                    chunk, taken = order[0]
                    yield from self._results(chunk, taken)
                    order.popleft()
                    ahead -= chunk.num_bytes
        finally:
            for chunk, _ in order:  # left early: let the lanes run free of what nobody waits for
                with contextlib.suppress(Exception):
                    for _ in self._drain(chunk):
                        pass

    def _next_chunk(self, source: Iterator[Item]) -> tuple[Chunk, list[Item]]:
        chunk = Chunk(self.count)
        taken: list[Item] = []
        for item in source:
            taken.append(item)
            if isinstance(item, AudioFile):
                chunk.clips.append(item)
                chunk.num_bytes += len(item.data)
            if chunk.num_bytes >= CHUNK_BYTES or len(chunk.clips) >= CHUNK_CLIPS or len(taken) >= 1024:
                break
        chunk.ended = not chunk.clips
        if chunk.clips:
            self.count += 1
            self.chunks.put(chunk)
        return chunk, taken

    def _results(self, chunk: Chunk, taken: list[Item]) -> Iterator[Result]:
        decoded = self._drain(chunk)
        for item in taken:
            if isinstance(item, Reject):
                yield item
            else:
                for result, last in decoded:
                    yield result
                    if last:
                        break

    def _drain(self, chunk: Chunk) -> Iterator[tuple[Result, bool]]:
        self.budget.turn(chunk.number)
        while not chunk.ended:
            found = chunk.results.get()
            chunk.ended = found is END or isinstance(found, BaseException)
            if found is END:
                return
            if isinstance(found, BaseException):
                raise found
            result, size, last = found
            self.budget.give_back(chunk, size)
            yield result, last

    def close(self) -> None:
        """End the children. Streams that are still being read raise Closed."""
        self.budget.close()
        for lane in self.lanes:
            lane.close()
        self.nursery.stop_starting()
        for _ in self.lanes:
            self.chunks.put(None)
        for lane in self.lanes:
            lane.thread.join()
        self.nursery.close()

    def __enter__(self) -> "DecodePool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Budget:
    """Bytes of decoded sound that may wait. The chunk whose turn it is may always have one result waiting."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held, self.current, self.closed = limit, 0, 0, False
        self.changed = threading.Condition()

    def take(self, chunk: Chunk, size: int) -> None:
        with self.changed:
            self.changed.wait_for(
                lambda: (
                    self.closed
                    or self.held + size <= self.limit
                    or (chunk.number == self.current and not chunk.waiting)
                )
            )
            if self.closed:
                raise Closed
            self.held += size
            chunk.waiting += size

    def give_back(self, chunk: Chunk, size: int) -> None:
        with self.changed:
            self.held -= size
            chunk.waiting -= size
            self.changed.notify_all()

    def turn(self, number: int) -> None:
        with self.changed:
            self.current = number
            self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()


class Lane:
    """One thread that keeps one child busy, chunk after chunk."""

    def __init__(self, pool: DecodePool) -> None:
        self.pool = pool
        self.child: Child | None = None
        self.delivered = 0  # pieces of the clip in hand that have been passed on
        self.closing = threading.Lock()
        self.closed = False
        self.thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self.thread.start()

    def close(self) -> None:
        with self.closing:
            self.closed = True
            if self.child is not None:
                self.child.kill()

    def _run(self) -> None:
        with contextlib.suppress(Exception):  # ahead of the first chunk, which meets the same error if there is one
            self._running_child()
        while (chunk := self.pool.chunks.get()) is not None and not self.closed:
            try:
                self._decode(chunk)
                chunk.results.put(END)
            except BaseException as error:
                self._drop_child()  # it may have answers left that nobody waits for
                chunk.results.put(error)
        if chunk is not None:
            chunk.results.put(Closed())
        self._drop_child()

    def _decode(self, chunk: Chunk) -> None:
        done = 0
        while done < len(chunk.clips):
            left = chunk.clips[done:]
            self.delivered = 0
            try:
                child = self._running_child()
                child.ask(left)
                for file in left:
                    self._receive(child, chunk, file, 0)
                    done += 1
            except ChildDied:
                self._alone(chunk, chunk.clips[done])
                done += 1

    def _alone(self, chunk: Chunk, file: AudioFile) -> None:
        """A clip whose child died: is it to blame?"""
        how, delivered = "", self.delivered
        for _ in range(TRIES_ALONE):
            self._drop_child()
            self.delivered = 0
            try:
                child = self._running_child()
                child.ask([file])
                self._receive(child, chunk, file, delivered)
                return
            except ChildDied as died:
                how = str(died)
                delivered = max(delivered, self.delivered)
        self._drop_child()
        if delivered:
            raise RuntimeError(f"{file.utterance.id}: its decoder died after it had answered; try the unit again")
        messages = {
            "decoder_hang": f"no answer in {self.pool.task['clip_seconds']:g} s, twice alone in a fresh process",
            "decoder_crash": "the decoder's process died, twice alone in a fresh process",
        }
        self._put(chunk, Reject(file.utterance, how, messages[how]), 0, True)

    def _receive(self, child: "Child", chunk: Chunk, file: AudioFile, skip: int) -> None:
        """Pass the answer about one clip on, piece by piece, but for the first `skip` pieces."""
        self.delivered = 0
        said: dict[str, Any] = {"last": False}
        while not said["last"]:
            said = child.answer()
            if "reason" in said:
                self._put(chunk, Reject(file.utterance, said["reason"], said["message"]), 0, True)
                return
            start, end, size = said["start"], said["end"], 4 * said["samples"]
            fresh, number = self.delivered >= skip, self.delivered + 1
            if fresh:
                self.pool.budget.take(chunk, size)
            waveform = child.samples(said["samples"])
            if fresh:
                utterance = file.utterance if start is None else piece_utterance(file.utterance, number, start, end)
                self._put(chunk, AudioSegment(utterance, waveform, self.pool.limits.rate), size, said["last"])
            self.delivered = number

    def _put(self, chunk: Chunk, result: Result, size: int, last: bool) -> None:
        chunk.results.put((result, size, last))

    def _running_child(self) -> "Child":
        if self.child is None:
            child = self.pool.nursery.child()
            with self.closing:
                self.child = child
                if self.closed:
                    child.kill()
                    raise Closed
        elif self.closed:
            raise Closed
        return self.child

    def _drop_child(self) -> None:
        with self.closing:
            child, self.child = self.child, None
        if child is not None:
            child.kill()
            child.bury()
