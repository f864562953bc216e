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


def test_an_archive_that_cannot_be_opened_is_given_up_whole(monkeypatch):
    said, units = [], [WorkUnit(f"u{number}", "folder", "src", "index", 0, 1, 1) for number in range(1000)]
    feeding = Feeding(units, Backlog([], 3), said.append)
    archive = feeding.archives["src"]
    monkeypatch.setattr(ray, "get", lambda ref: (_ for _ in ()).throw(RayActorError))
    walks = 0
    while archive.wanted:
        archive.expected = set(archive.wanted)
        feeding._receive(archive)
        walks += 1
    assert walks == 4, "one more than a unit is tried"
    assert not feeding.backlog.open and len(feeding.backlog.given_up) == 1000
    assert said[0] == "unit u0: its archive cannot be read: its process died; it will be tried again"
    assert said[-1] == "src is given up, with 999 units still to be read"
