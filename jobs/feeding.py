"""Archives that can only be read front to back: one feeder actor each, one unit of stored bytes ahead.

A unit's bytes go from its feeder straight to the actor that asked; the driver holds only the reference. A unit that
is lost on the way is read again by the archive's next walk, after the present one has ended.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from jobs.backlog import Backlog
from jobs.causes import cause
from jobs.worker import Feeder
from schemas.manifest import WorkUnit


@dataclass(slots=True)
class Archive:
    """One archive: its units, those still to be read, and the walk at work."""

    units: list[WorkUnit]
    wanted: dict[str, WorkUnit]  # still to be read, in order
    expected: set[str] = field(default_factory=set)  # of the walk at work
    feeder: Any = None
    name: ray.ObjectRef | None = None  # the answer to come: which unit, and its clips
    files: ray.ObjectRef | None = None
    offers: list[tuple[WorkUnit, ray.ObjectRef]] = field(default_factory=list)  # read, not yet handed out
    not_before: float = 0.0
    barren: int = 0  # walks in a row that broke before they came to a unit


class Feeding:
    """All sequential archives of a run. At most as many are walked at once as there are actors to feed."""

    def __init__(
        self, units: Sequence[WorkUnit], backlog: Backlog, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.backlog, self.say = backlog, say
        self.archives: dict[str, Archive] = {}
        for unit in units:
            archive = self.archives.setdefault(unit.source, Archive([], {}))
            archive.units.append(unit)
            archive.wanted[unit.name] = unit
            backlog.open.add(unit.name)

    @property
    def refs(self) -> list[ray.ObjectRef]:
        return [archive.name for archive in self.archives.values() if archive.name is not None]

    def step(self, actors: int) -> None:
        """Take what has been read, ask for more where nothing waits, begin new walks."""
        walking = 0
        for archive in self.archives.values():
            if archive.name is not None and ray.wait([archive.name], timeout=0)[0]:
                self._receive(archive)
            if archive.feeder is not None and archive.name is None and not archive.offers:
                archive.name, archive.files = archive.feeder.next.options(num_returns=2).remote()
            walking += archive.feeder is not None
        for archive in self.archives.values():
            if walking >= max(1, actors):
                break
            if (
                archive.feeder is None
                and archive.wanted
                and not archive.offers
                and time.monotonic() >= archive.not_before
            ):
                archive.expected = set(archive.wanted)
                archive.feeder = ray.remote(Feeder).options(num_cpus=0).remote(archive.units, archive.expected)
                walking += 1

    def take(self, idle: bool) -> tuple[WorkUnit, ray.ObjectRef] | None:
        """A unit that has been read; a suspect only for an actor that has nothing else in hand."""
        for archive in self.archives.values():
            if archive.offers and (idle or not self.backlog.is_suspect(archive.offers[0][0])):
                return archive.offers.pop(0)
        return None

    def again(self, unit: WorkUnit) -> None:
        archive = self.archives[unit.source]
        archive.wanted = {each.name: each for each in archive.units if each.name in archive.wanted or each is unit}

    def close(self) -> None:
        for archive in self.archives.values():
            self._end(archive)

    def _receive(self, archive: Archive) -> None:
        ref, files, archive.name, archive.files = archive.name, archive.files, None, None
        try:
            name = ray.get(ref)
        except RayError as error:
            self._failed(archive, cause(error))
            return
        if name is not None:
            archive.barren = 0
            archive.expected.discard(name)
            archive.offers.append((archive.wanted.pop(name), files))
        elif archive.expected:
            self._failed(archive, "its archive ended before it")
        else:
            self._end(archive)

    def _failed(self, archive: Archive, error: str) -> None:
        """The walk broke, most likely over the first unit it had still to read; if others break as early, over what is
        wrong with the archive as a whole."""
        self._end(archive)
        if not archive.expected:
            return  # all it was to read has been handed over; what is lost of that comes back by `again`
        archive.not_before = time.monotonic() + 3.0
        archive.barren += 1
        first = next(unit for unit in archive.wanted.values() if unit.name in archive.expected)
        why = f"its archive cannot be read: {error}"
        again = self.backlog.failed(first, why)
        if not again:
            del archive.wanted[first.name]
        self.say(f"unit {first.name}: {why}; {'it will be tried again' if again else 'given up'}")
        if archive.barren > self.backlog.attempts and archive.wanted:
            self.say(f"{first.source} is given up, with {len(archive.wanted):,} units still to be read")
            for unit in archive.wanted.values():
                self.backlog.give_up(unit, why)
            archive.wanted.clear()

    def _end(self, archive: Archive) -> None:
        if archive.feeder is not None:
            ray.kill(archive.feeder)
        archive.feeder = archive.name = archive.files = None
