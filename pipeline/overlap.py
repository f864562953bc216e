"""Reading, encoding and writing at the same time: a thread ahead of the encoder, a thread behind it, one queue between.

The encoder's own thread iterates over events: windows of sound in order, the ends of units, shards that are placed.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from pipeline.batch import Item
from schemas.audio import AudioFile, Reject
from schemas.manifest import ShardInfo, WorkUnit

Files = Iterable[AudioFile | Reject]

WINDOWS_AHEAD = 2  # decoded and not yet encoded: with 20 minutes each 150 MB
COMMITS_AHEAD = 2  # units encoded and not yet placed


@dataclass(frozen=True, slots=True)
class Event:
    """One of: a window of a unit; its end, with `error` if it cannot be read; its shard placed, or why it cannot be."""

    unit: WorkUnit
    window: list[Item] | None = None
    info: ShardInfo | None = None
    error: Exception | None = None
    is_end: bool = False
    is_placed: bool = False


@dataclass(frozen=True, slots=True)
class NoMore:
    """No unit will come: there is none left, or their source failed."""

    error: Exception | None = None


class Overlap:
    """Iterate for events; hand finished units to `write`. As a context manager it ends its threads.

    Args: load: a unit as windows of sound. place: a unit's results as a shard, in a thread of its own, in order.
    """

    def __init__(
        self,
        units: Iterable[tuple[WorkUnit, Files]],
        load: Callable[[WorkUnit, Files], Iterator[list[Item]]],
        place: Callable[[WorkUnit, Sequence[Any]], ShardInfo],
    ) -> None:
        self.units, self.load, self.place = units, load, place
        self.events: queue.SimpleQueue[Event | NoMore] = queue.SimpleQueue()
        self.room = threading.Semaphore(WINDOWS_AHEAD)
        self.unplaced = threading.Semaphore(COMMITS_AHEAD)
        self.writer = ThreadPoolExecutor(1, "place")
        self.placing = 0  # units handed to `write` whose event has not been seen
        self.closed = False
        self.asking = False  # the loader waits for its next unit, maybe for ever
        self.loader = threading.Thread(target=self._load, name="load", daemon=True)
        self.loader.start()

    def __iter__(self) -> Iterator[Event]:
        no_more: NoMore | None = None
        while no_more is None or self.placing:
            event = self.events.get()
            if isinstance(event, NoMore):
                no_more = event
                continue
            if event.window is not None:
                self.room.release()
            self.placing -= event.is_placed
            yield event
        if no_more.error is not None:
            raise no_more.error

    def write(self, unit: WorkUnit, results: Sequence[Any]) -> None:
        """Have a unit's shard placed; waits while COMMITS_AHEAD others still are."""
        self.unplaced.acquire()
        self.placing += 1
        self.writer.submit(self._write, unit, results)

    def close(self) -> None:
        """Stop reading; finish the commit at work, drop those behind it."""
        self.closed = True
        self.room.release()
        self.writer.shutdown(wait=True, cancel_futures=True)
        while self.loader.is_alive() and not self.asking:
            self.loader.join(0.02)

    def __enter__(self) -> "Overlap":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _load(self) -> None:
        try:
            self.asking = True
            for unit, files in self.units:
                self.asking = False
                if self.closed:
                    return
                self._load_unit(unit, files)
                self.asking = True
            self.events.put(NoMore())
        except Exception as error:
            self.events.put(NoMore(error))

    def _load_unit(self, unit: WorkUnit, files: Files) -> None:
        try:
            for window in self.load(unit, files):
                self.room.acquire()
                if self.closed:
                    return
                self.events.put(Event(unit, window))
            self.events.put(Event(unit, is_end=True))
        except Exception as error:
            self.events.put(Event(unit, error=error, is_end=True))

    def _write(self, unit: WorkUnit, results: Sequence[Any]) -> None:
        try:
            event = Event(unit, info=self.place(unit, results), is_placed=True)
        except Exception as error:
            event = Event(unit, error=error, is_placed=True)
        self.unplaced.release()
        self.events.put(event)
