"""Units are handed out in order, failed ones come back last and alone, and no unit is tried for ever."""

from jobs.backlog import Backlog
from schemas.manifest import WorkUnit

A, B, C = (WorkUnit(name, "folder", "src", "index", 0, 1, 1) for name in "abc")


def test_units_come_in_their_order():
    backlog = Backlog([A, B, C], 3)
    assert [backlog.take(False) for _ in range(4)] == [A, B, C, None]


def test_a_failed_unit_comes_after_all_others_and_only_to_an_idle_actor():
    backlog = Backlog([A, B], 3)
    assert backlog.failed(backlog.take(True), "crash")
    backlog.give_back(A)
    assert backlog.take(False) == B
    assert backlog.take(False) is None
    assert backlog.take(True) == A and backlog.is_suspect(A)


def test_a_unit_that_kills_every_actor_is_given_up_and_the_others_are_done():
    backlog, done = Backlog([A, B, C], 3), []
    for _ in range(100):
        unit = backlog.take(True)
        if unit is None:
            break
        if unit == B:
            if backlog.failed(unit, "crash"):
                backlog.give_back(unit)
        else:
            backlog.done(unit)
            done.append(unit)
    assert done == [A, C] and not backlog.open
    assert [(failure.unit, failure.attempts) for failure in backlog.given_up] == [(B, 3)]


def test_a_failure_after_success_elsewhere_changes_nothing():
    backlog = Backlog([A], 3)
    unit = backlog.take(True)
    backlog.done(unit)
    assert not backlog.failed(unit, "too late")
    assert not backlog.given_up


def test_success_ends_a_row_of_failures():
    backlog = Backlog([A, B, C], 3)
    backlog.failed(A, "x")
    backlog.failed(B, "x")
    assert backlog.in_a_row == 2
    backlog.done(C)
    assert backlog.in_a_row == 0


def test_one_source_that_fails_does_not_end_the_others():
    bad = [WorkUnit(f"bad{number}", "folder", "bad.tar", "index", 0, 1, 1) for number in range(40)]
    backlog = Backlog([*bad, A], 2)
    for _ in bad:
        assert not backlog.is_hopeless(25)
        unit = backlog.take(True)
        assert unit.source == "bad.tar" and backlog.failed(unit, "no such thing")
        backlog.give_back(unit)
    assert not backlog.is_hopeless(25), "another is still to be tried"
    assert backlog.failed(backlog.take(True), "nor this") and backlog.is_hopeless(25)
