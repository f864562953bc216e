"""Decoding in child processes: in order, bounded in bytes, and proof against decoders that crash or hang.

A native decoder may take its process down. The clip it was at is then tried alone in a fresh process, twice, and
becomes a reject if that ends the same way; its neighbours go on in a process of their own.
"""

import contextlib
import queue
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType

from pipeline.decoding.child import Nursery
from pipeline.decoding.lane import END, Budget, Chunk, Lane, Result
from pipeline.decoding.load import Limits
from schemas.audio import AudioFile, Reject

CLIP_SECONDS = 60.0  # a decoder may take for one clip
CHUNK_CLIPS, CHUNK_BYTES = 8, 1 << 20  # sent to a child at once
CHUNKS_AHEAD = 3  # per child, at work or waiting
AHEAD_BYTES = 64 << 20  # stored; whatever the clips, no more is read before these are decoded
BUDGET_BYTES = 128 << 20  # of decoded sound that waits for its turn

Item = AudioFile | Reject


class DecodePool:
    """`workers` child processes; `load` runs a stream of stored clips through them. One stream at a time.

    They are forked from `nursery`, by default one that ends with the pool. Memory: BUDGET_BYTES of sound, AHEAD_BYTES
    as stored, and in each child the chunk it is at.
    """

    def __init__(
        self,
        limits: Limits,
        workers: int = 1,
        clip_seconds: float = CLIP_SECONDS,
        nursery: Nursery | None = None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"decoding needs at least 1 worker, got {workers}")
        self.limits, self.workers = limits, workers
        self.chunks: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self.budget = Budget(BUDGET_BYTES)
        self.count = 0
        self.nursery, self.owns_nursery = nursery or Nursery(), nursery is None
        self.lanes = [Lane(self.chunks, self.budget, self.nursery, limits, clip_seconds) for _ in range(workers)]

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
        if self.owns_nursery:
            self.nursery.stop_starting()
        for _ in self.lanes:
            self.chunks.put(None)
        for lane in self.lanes:
            lane.thread.join()
        if self.owns_nursery:
            self.nursery.close()

    def __enter__(self) -> "DecodePool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
