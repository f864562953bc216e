"""One child of the pool kept busy: clips go to it chunk by chunk, their sound comes back within a budget of bytes."""

import contextlib
import queue
import threading
from dataclasses import dataclass, field
from typing import Any

from pipeline.decoding.child import Child, ChildDied, Closed, Nursery
from pipeline.decoding.cutting import piece_utterance
from pipeline.decoding.load import Limits
from schemas.audio import AudioFile, AudioSegment, Reject

TRIES_ALONE = 2

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

    def __init__(
        self,
        chunks: queue.SimpleQueue[Chunk | None],
        budget: Budget,
        nursery: Nursery,
        limits: Limits,
        clip_seconds: float,
    ) -> None:
        self.chunks, self.budget, self.nursery = chunks, budget, nursery
        self.limits, self.clip_seconds = limits, clip_seconds
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
        while (chunk := self.chunks.get()) is not None and not self.closed:
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
            "decoder_hang": f"no answer in {self.clip_seconds:g} s, twice alone in a fresh process",
            "decoder_crash": "the decoder's process died, twice alone in a fresh process",
        }
        self._put(chunk, Reject(file.utterance, how, messages[how]), 0, True)

    def _receive(self, child: "Child", chunk: Chunk, file: AudioFile, skip: int) -> None:
        """Pass the answer about one clip on, piece by piece, but for the first `skip` pieces."""
        self.delivered = 0
        said: dict[str, Any] = {"last": False}
        while not said["last"]:
            said = child.answer()
            if "trouble" in said:
                raise RuntimeError(said["trouble"])
            if "reason" in said:
                self._put(chunk, Reject(file.utterance, said["reason"], said["message"]), 0, True)
                return
            start, end, size = said["start"], said["end"], 4 * said["samples"]
            fresh, number = self.delivered >= skip, self.delivered + 1
            if fresh:
                self.budget.take(chunk, size)
            waveform = child.samples(said["samples"])
            if fresh:
                utterance = file.utterance if start is None else piece_utterance(file.utterance, number, start, end)
                self._put(chunk, AudioSegment(utterance, waveform, self.limits.rate), size, said["last"])
            self.delivered = number

    def _put(self, chunk: Chunk, result: Result, size: int, last: bool) -> None:
        chunk.results.put((result, size, last))

    def _running_child(self) -> "Child":
        if self.child is None:
            child = self.nursery.child(self.limits, self.clip_seconds)
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
