"""The driver's loop on a real local Ray, with actors that fail, die and hold back on purpose."""

import os
import re
import signal
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import ray
import torch
from ray.exceptions import RayError

import jobs.driver
import jobs.feeding
from jobs.benches.cluster import private_ray
from jobs.causes import cause
from jobs.cluster import Stop
from jobs.driver import CannotStart, Driver, Hopeless
from jobs.progress import Progress
from jobs.reporter import Gauges
from jobs.worker import ALLOCATOR, Ready, Task
from pipeline.tokenize import Output, Settings
from schemas.manifest import ShardInfo, WorkUnit
from schemas.spec import CodecSpec

SPEC = CodecSpec("toy", "1", 16_000, 16_000, 320, 1, 4, ())


class ToyTokenizer:
    """Does what the names of the units say."""

    SLOW_SECONDS = 30

    def __init__(self, task, use_gpu, threads):
        self.task, self.use_gpu, self.sick = task, use_gpu, False

    def load(self):
        if self.task.codec == "broken":
            raise ValueError("these weights do not fit")
        assert self.use_gpu or ALLOCATOR.items() <= os.environ.items()
        return Ready(SPEC, "host", "gpu" if self.use_gpu else "cpu", os.getpid(), "0")

    def pulse(self):
        return 1.0, 1

    def tokenize(self, unit, files=None):
        if "poison" in unit.name:
            os.kill(os.getpid(), signal.SIGKILL)
        self.sick |= "sick" in unit.name
        if self.sick:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        if "wrong" in unit.name or self.task.codec == "hopeless":
            raise RuntimeError("no such thing")
        if "stuck" in unit.name:
            time.sleep(3600)
        if "slow" in unit.name:
            time.sleep(self.SLOW_SECONDS)
        assert files == ([unit.name] if unit.sequential else None)
        return ShardInfo(unit.name, 1, 1, 1, 1, 1.0, "d", "r", 1, "h", "h", {})


class ToyFeeder:
    """Hands out one unit after the other; the first walk over an archive dies in its middle, another skips a unit."""

    def __init__(self, units, wanted):
        self.units = [unit for unit in units if unit.name in wanted]
        self.dies = len(self.units) == 4 and "mortal" in units[0].source

    def next(self):
        self.units = [unit for unit in self.units if "lost" not in unit.name]
        if self.dies and len(self.units) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if not self.units:
            return None, []
        unit = self.units.pop(0)
        return unit.name, [unit.name]


class Reports:
    """A reporter and a log that only remember."""

    def __init__(self, units):
        self.progress = Progress(units, {}, None)
        self.log, self.events, self.said = self, [], []

    def write(self, event, **values):
        self.events.append((event, values))

    def say(self, text):
        self.said.append(text)

    def tick(self):
        pass


@pytest.fixture(scope="module", autouse=True)
def local_ray():
    cloudpickle = ray.cloudpickle
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with private_ray():
        ray.init(
            address="local", num_cpus=4, num_gpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False
        )
        yield
        ray.shutdown()
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setattr(jobs.driver, "Tokenizer", ToyTokenizer)
    monkeypatch.setattr(jobs.feeding, "Feeder", ToyFeeder)


def unit(name, source="plain"):
    return WorkUnit(name, "toy", source, "index", 0, 1, 1, source != "plain")


def drive(names, codec="toy", attempts=2, stop=None, gpus_per_actor=0.5, admit=lambda spec: None, **more):
    units = [unit(*name.split("@")) for name in names]
    task = Task(codec, None, "float32", Output("out", "parquet"), Settings(), None, ".")
    driver = Driver(task, units, attempts, gpus_per_actor, None, Reports(units), stop or Stop(), **more)
    driver.run(admit)
    return driver


def test_every_unit_is_done_once_by_actors_that_share_a_gpu():
    driver = drive([f"u{number}" for number in range(20)])
    assert driver.progress.snapshot().units_done == 20
    actors = [values for event, values in driver.log.events if event == "actor"]
    assert {values["device"] for values in actors} == {"gpu"} and 1 <= len(actors) <= 2
    assert not driver.backlog.given_up and not driver.backlog.open


def test_poison_and_error_cost_only_their_own_units():
    driver = drive(["a", "poison", "b", "wrong", "c", "d", "e"])
    assert {failure.unit.name: failure.attempts for failure in driver.backlog.given_up} == {"poison": 2, "wrong": 2}
    assert driver.progress.done == {"a", "b", "c", "d", "e"}
    assert {failure.unit.name: failure.error for failure in driver.backlog.given_up} == {
        "poison": "its process died",
        "wrong": "RuntimeError: no such thing",
    }


def test_an_actor_whose_gpu_is_lost_is_started_anew():
    driver = drive(["sick", *(f"u{number}" for number in range(6))], gpus_per_actor=1.0)
    assert driver.progress.done == {f"u{number}" for number in range(6)}
    (failure,) = driver.backlog.given_up
    assert (failure.unit.name, failure.attempts) == ("sick", 2) and "illegal memory access" in failure.error
    assert any("has lost its GPU and is started anew" in line for line in driver.log.said)


def test_archives_are_fed_in_order_and_walked_again_for_what_was_lost():
    names = [f"{kind}{number}@{kind}.tar.gz" for kind in ("mortal", "fine") for number in range(4)]
    driver = drive([*names, "lost@leaky.tar.gz", "found@leaky.tar.gz"], attempts=3)
    assert driver.progress.done == {name.partition("@")[0] for name in names} | {"found"}
    (failure,) = driver.backlog.given_up
    assert (failure.unit.name, failure.error) == ("lost", "its archive cannot be read: its archive ended before it")


def test_a_codec_that_cannot_be_loaded_ends_the_job_with_its_own_words():
    with pytest.raises(CannotStart, match=r"^these weights do not fit$"):
        drive(["a"], codec="broken")


def test_an_error_without_a_word_still_has_a_cause():
    assert cause(RayError("")) == "RayError" and cause(RayError("lost\nat sea")) == "lost"


def test_a_codec_is_checked_even_with_nothing_to_do():
    def refuse(spec):
        raise ValueError(f"another run, not {spec.name}")

    with pytest.raises(CannotStart, match="another run, not toy"):
        drive([], admit=refuse)


def test_when_everything_fails_the_job_stops():
    with pytest.raises(Hopeless, match="failures in a row"):
        drive([f"u{number}" for number in range(60)], codec="hopeless", attempts=5)


def test_stop_lets_go_at_once_and_says_what_is_left(monkeypatch):
    stop = Stop()
    monkeypatch.setattr(Reports, "tick", lambda self: "a" in self.progress.done and stop(signal.SIGTERM, None))
    driver = drive(["a", "slow1", "slow2", "b"], stop=stop)
    assert "a" in driver.progress.done
    assert driver.backlog.open >= {"slow1", "slow2"}


def test_a_unit_that_hangs_is_told_of_and_costs_only_itself(monkeypatch):
    monkeypatch.setattr(jobs.driver, "WARN_SECONDS", 0.5)
    driver = drive(["a", "stuck", "b", "c"], stall_seconds=2.0)
    assert driver.progress.done == {"a", "b", "c"}
    assert [(failure.unit.name, failure.attempts) for failure in driver.backlog.given_up] == [("stuck", 2)]
    said = "\n".join(driver.log.said)
    assert re.search(r"has shown no progress over \S*stuck", said)
    assert re.search(r"has stood still for 0 min over .*stuck.* and is ended; its units go back", said)


def test_an_actor_that_gets_on_however_slowly_is_left_alone(monkeypatch):
    monkeypatch.setattr(jobs.driver, "STATUS_SECONDS", 0.2)
    monkeypatch.setattr(ToyTokenizer, "pulse", lambda self: (time.monotonic(), 0))
    monkeypatch.setattr(ToyTokenizer, "SLOW_SECONDS", 8)
    driver = drive(["slow"], attempts=1, stall_seconds=5.0)
    assert driver.progress.done == {"slow"} and not driver.backlog.given_up


def test_progress_is_seen_among_rays_metrics():
    progress = Progress([unit("a"), unit("b")], {}, None)
    progress.join("host:0")
    progress.finish(ShardInfo("a", 9, 6, 1, 1, 7200.0, "d", "r", 1, "h", "h", {"too_long": 3}), "host:0")
    Gauges().set(progress.snapshot())
    port = next(Path(os.environ["RAY_TMPDIR"]).glob("ray/session_2*/metrics_export_port*")).read_text().strip()
    deadline, seen = time.monotonic() + 60, ""
    while not re.search(r"^ray_neutok_rejects", seen, re.M):
        assert time.monotonic() < deadline, seen
        time.sleep(0.2)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            seen = answer.read().decode()
    assert re.search(r"^ray_neutok_hours_done\{.*\} 2\.0$", seen, re.M)
    assert re.search(r"^ray_neutok_units_done\{.*\} 1\.0$", seen, re.M)
    assert re.search(r'^ray_neutok_rejects\{.*reason="too_long".*\} 3\.0$', seen, re.M)
    assert re.search(r'^ray_neutok_actor_times_real_time\{.*actor="host:0"', seen, re.M)
