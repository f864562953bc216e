"""Which units are still to be done, and what to do with one that failed; knows nothing of machines.

Two units are in flight on an actor, so when it dies nobody knows which of the two killed it. A unit that was there is
a suspect from then on: it is tried again after all the others, alone on its actor, so that only guilt counts twice.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from schemas.manifest import WorkUnit


@dataclass(frozen=True, slots=True)
class Failure:
    """A unit that was given up, and why."""

    unit: WorkUnit
    attempts: int
    error: str


class Backlog:
    """Units in their order, suspects last. `attempts` is how often one unit may fail."""

    def __init__(self, units: Iterable[WorkUnit], attempts: int) -> None:
        self.attempts = attempts
        self.fresh = deque(units)
        self.suspects: deque[WorkUnit] = deque()
        self.open = {unit.name for unit in self.fresh}  # neither done nor given up
        self.failures: Counter[str] = Counter()
        self.given_up: list[Failure] = []
        self.in_a_row = 0  # failures since the last success, of whichever units
        self.failing: set[str] = set()  # and of which sources

    def take(self, idle: bool) -> WorkUnit | None:
        """The next unit for an actor, a suspect only for one that has nothing else in hand."""
        if self.fresh:
            return self.fresh.popleft()
        return self.suspects.popleft() if idle and self.suspects else None

    def is_suspect(self, unit: WorkUnit) -> bool:
        return self.failures[unit.name] > 0

    def done(self, unit: WorkUnit) -> None:
        self.open.discard(unit.name)
        self.in_a_row = 0
        self.failing.clear()

    def failed(self, unit: WorkUnit, error: str) -> bool:
        """Count a failure. Returns: whether the unit may be tried again, by `give_back` or by its feeder."""
        if unit.name not in self.open:
            return False
        self.in_a_row += 1
        self.failing.add(unit.source)
        self.failures[unit.name] += 1
        if self.failures[unit.name] < self.attempts:
            return True
        self.give_up(unit, error)
        return False

    def give_up(self, unit: WorkUnit, error: str) -> None:
        self.open.discard(unit.name)
        self.given_up.append(Failure(unit, self.failures[unit.name], error))

    def is_hopeless(self, patience: int) -> bool:
        """Whether so many failures in a row are not the fault of one source, with others still to be tried."""
        others = (unit for unit in (*self.fresh, *self.suspects) if unit.source not in self.failing)
        return self.in_a_row >= patience and (len(self.failing) > 1 or next(others, None) is None)

    def give_back(self, unit: WorkUnit) -> None:
        (self.suspects if self.is_suspect(unit) else self.fresh).append(unit)
