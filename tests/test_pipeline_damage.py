"""A hundred damaged inputs: rejects and clear errors, never a crash, a hang, a lost neighbour, a file elsewhere."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import damage


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return damage.run(100, 7, tmp_path_factory.mktemp("damage"))


def test_nothing_goes_wrong(outcome):
    assert not outcome.wrong, str(outcome)
    assert sum(outcome.clips.values()) == 80 and sum(outcome.sources.values()) == 20


def test_damage_is_damage(outcome):
    """The test would say nothing if its inputs were fine: most of them must not become rows."""
    rows = sum(count for (_, end), count in outcome.clips.items() if end == "row")
    assert rows < 50 and len({kind for kind, _ in outcome.clips}) >= 8
    assert {"unreadable", "empty"} <= {end for _, end in outcome.clips}


def test_the_same_seed_makes_the_same_inputs():
    draws = [damage.np.random.default_rng(3) for _ in range(2)]
    assert [damage.damaged_clip(draws[0]) for _ in range(30)] == [damage.damaged_clip(draws[1]) for _ in range(30)]


def test_a_lost_neighbour_would_be_noticed(tmp_path, monkeypatch):
    read_back = damage.read_back

    def forgetful(*args):
        rows, rejects = read_back(*args)
        rows.pop("good_3")
        return rows, rejects

    monkeypatch.setattr(damage, "read_back", forgetful)
    outcome = damage.Outcome()
    damage.clips_in(5, damage.np.random.default_rng(0), tmp_path / "clips", outcome)
    assert len(outcome.wrong) == 1 and "neighbour" in outcome.wrong[0]


def test_the_command_tells_how_to_use_it():
    root = Path(__file__).parents[1]
    said = subprocess.run([sys.executable, "-m", "tests.damage", "--help"], cwd=root, capture_output=True, text=True)
    assert said.returncode == 0 and "--count" in said.stdout
