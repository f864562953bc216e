"""What a feeder has handed over stays, whatever becomes of the feeder."""

import ray
from ray.exceptions import RayActorError

from jobs.backlog import Backlog
from jobs.feeding import Feeding
from schemas.manifest import WorkUnit

A, B = (WorkUnit(name, "folder", "src", "index", 0, 1, 1) for name in "ab")


def broken_after(read, monkeypatch):
    """The archive of A and B, whose feeder dies after it has handed over `read`."""

    def gone(ref):
        raise RayActorError

    monkeypatch.setattr(ray, "get", gone)
    feeding = Feeding([A, B], Backlog([], 3))
    archive = feeding.archives["src"]
    archive.expected = set(archive.wanted)
    for unit in read:
        archive.expected.discard(unit.name)
        archive.offers.append((archive.wanted.pop(unit.name), "files"))
    feeding._receive(archive)
    return feeding, archive


def test_a_feeder_that_dies_before_a_unit_costs_that_unit_a_try(monkeypatch):
    feeding, archive = broken_after([A], monkeypatch)
    assert feeding.backlog.in_a_row == 1 and list(archive.wanted) == ["b"]
    assert feeding.take(True) == (A, "files")


def test_a_feeder_that_dies_after_its_last_unit_costs_nothing(monkeypatch):
    feeding, archive = broken_after([A, B], monkeypatch)
    assert feeding.backlog.in_a_row == 0 and not archive.wanted
    assert [feeding.take(True) for _ in range(2)] == [(A, "files"), (B, "files")]
