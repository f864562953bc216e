"""How far a run is: hours done and left, speed, time to go, rejects by reason; nothing here touches a screen or Ray."""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from pipeline.reporting.amounts import lasting
from schemas.manifest import ShardInfo, WorkUnit

WINDOW_SECONDS = 300.0  # the speed shown is that of the last five minutes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of a run. Speeds are in seconds of audio per second: times real time."""

    seconds_done: float  # of audio, encoded, of this run and of earlier ones
    seconds_left: float | None  # None until there is something to estimate it from
    units_done: int
    units: int
    speed: float
    eta_seconds: float | None
    clips: int
    rejects: dict[str, int]
    actors: dict[str, float]  # speed of each actor that is alive

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        whole = self.seconds_done + (self.seconds_left or 0.0)
        if self.seconds_left is None or not whole:
            return self.units_done / self.units if self.units else 1.0
        return self.seconds_done / whole

    def line(self) -> str:
        """All of it on one line."""
        left = "? left" if self.seconds_left is None else f"{lasting(self.seconds_left / 3600)} left"
        parts = [
            f"{lasting(self.seconds_done / 3600)} done, {left}",
            f"units {self.units_done}/{self.units}",
            f"{self.speed:,.1f}x real time",
            f"ETA {duration(self.eta_seconds)}",
            f"rejects {by_reason(self.rejects)}",
        ]
        if self.actors:
            parts.append(", ".join(f"{name} {speed:,.1f}x" for name, speed in sorted(self.actors.items())))
        return " | ".join(parts)

    def record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class Actor:
    """What one actor has done: `live` is its own count of encoded seconds, `committed` that of its finished units."""

    live: float = 0.0
    committed: float = 0.0
    history: deque[tuple[float, float]] = field(default_factory=deque)

    @property
    def seconds(self) -> float:
        return max(self.live, self.committed)


class Progress:
    """Counts a run as its units finish. `seconds` is the whole corpus's length where the index knows it."""

    def __init__(
        self,
        units: Sequence[WorkUnit],
        done: Mapping[str, ShardInfo],
        seconds: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.units = {unit.name: unit for unit in units}
        self.done: set[str] = set()
        self.seconds, self.clock = seconds, clock
        self.num_bytes = sum(unit.num_bytes for unit in units)
        self.bytes_done = 0
        self.committed = 0.0  # seconds of audio in shards, of any run
        self.clips = 0
        self.rejects: Counter[str] = Counter()
        self.actors: dict[str, Actor] = {}
        self.history: deque[tuple[float, float]] = deque([(clock(), 0.0)])
        self.encoded = 0.0  # by actors that are gone, in units they finished
        for info in done.values():
            self._count(info)

    def _count(self, info: ShardInfo) -> None:
        self.done.add(info.name)
        self.bytes_done += self.units[info.name].num_bytes
        self.committed += info.seconds
        self.clips += info.num_clips
        self.rejects.update(info.skipped)

    def join(self, actor: str) -> None:
        now = self.clock()
        if not self.actors and not self.encoded:
            self.history = deque([(now, 0.0)])  # nobody could encode before: loading a codec is not slowness
        self.actors[actor] = Actor(history=deque([(now, 0.0)]))

    def leave(self, actor: str) -> None:
        """The actor is gone, and with it what it had not finished."""
        if gone := self.actors.pop(actor, None):
            self.encoded += gone.committed

    def encoded_by(self, actor: str, seconds: float) -> None:
        """An actor's own count of the audio it has encoded since it began."""
        if actor in self.actors:
            self.actors[actor].live = seconds

    def finish(self, info: ShardInfo, actor: str) -> None:
        if info.name in self.done:
            return
        self._count(info)
        if actor in self.actors:
            self.actors[actor].committed += info.seconds
        else:
            self.encoded += info.seconds

    def snapshot(self) -> Snapshot:
        now = self.clock()
        encoded = self.encoded + sum(actor.seconds for actor in self.actors.values())
        in_flight = sum(actor.seconds - actor.committed for actor in self.actors.values())
        done = self.committed + in_flight
        left = self._left(in_flight)
        speed = slope(self.history, now, encoded)
        return Snapshot(
            seconds_done=done,
            seconds_left=left,
            units_done=len(self.done),
            units=len(self.units),
            speed=speed,
            eta_seconds=left / speed if left is not None and speed > 0 else None,
            clips=self.clips,
            rejects=dict(sorted(self.rejects.items())),
            actors={name: slope(actor.history, now, actor.seconds) for name, actor in self.actors.items()},
        )

    def _left(self, in_flight: float) -> float | None:
        """Bytes are known of every unit, seconds of some corpora only: then by the seconds per byte seen so far."""
        bytes_left = self.num_bytes - self.bytes_done
        if not bytes_left:
            return 0.0
        if self.seconds is not None and self.num_bytes:
            per_byte = self.seconds / self.num_bytes
        elif self.bytes_done and self.committed:
            per_byte = self.committed / self.bytes_done
        else:
            return None
        return max(0.0, bytes_left * per_byte - in_flight)


def slope(history: deque[tuple[float, float]], now: float, seconds: float) -> float:
    """Seconds of audio per second over the window; adds this moment to `history`."""
    history.append((now, seconds))
    while len(history) > 2 and history[1][0] <= now - WINDOW_SECONDS:
        history.popleft()
    (then, before) = history[0]
    return max(0.0, seconds - before) / (now - then) if now > then else 0.0


def duration(seconds: float | None) -> str:
    return "?" if seconds is None else str(timedelta(seconds=round(seconds)))


def by_reason(rejects: Mapping[str, int]) -> str:
    """`12 (too_long 10, unreadable 2)`, the most frequent first."""
    if not rejects:
        return "0"
    reasons = sorted(rejects.items(), key=lambda item: (-item[1], item[0]))
    return f"{sum(rejects.values()):,} ({', '.join(f'{reason} {count:,}' for reason, count in reasons)})"
