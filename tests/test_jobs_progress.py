"""What a run says of itself: hours, speed, time to go, rejects; and which places a cluster has for actors."""

import io
import json

from jobs.cluster import slots
from jobs.progress import Progress
from jobs.reporter import Reporter, RunLog, summary
from schemas.manifest import ShardInfo, ShardManifest, WorkUnit


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def unit(name, num_bytes=100):
    return WorkUnit(name, "folder", "src", "index", 0, 1, num_bytes)


def info(name, seconds=3600.0, **skipped):
    count = sum(skipped.values())
    return ShardInfo(name, 10, 10 - count, 1, 1, seconds, f"data/{name}", "r", 1, "h", "h", skipped)


def test_left_is_estimated_by_bytes_where_the_index_knows_no_seconds():
    clock = Clock()
    progress = Progress([unit("a"), unit("b", 300)], {}, None, clock)
    assert progress.snapshot().seconds_left is None
    clock.now = 1000.0  # until the codec is loaded
    progress.join("gpu")
    clock.now = 1100.0
    progress.finish(info("a", too_long=2), "gpu")
    seen = progress.snapshot()
    assert (seen.seconds_done, seen.seconds_left, seen.speed, seen.eta_seconds) == (3600.0, 10800.0, 36.0, 300.0)
    assert (seen.clips, seen.rejects, seen.share, seen.units_done) == (10, {"too_long": 2}, 0.25, 1)
    assert "1.00 h done, 3.00 h left" in seen.line() and "2 (too_long 2)" in seen.line() and "0:05:00" in seen.line()


def test_left_is_the_indexs_where_it_knows():
    progress = Progress([unit("a"), unit("b")], {}, 7200.0, Clock())
    assert progress.snapshot().seconds_left == 7200.0


def test_earlier_runs_count_as_done_and_not_as_speed():
    clock = Clock()
    progress = Progress([unit("a"), unit("b")], {"a": info("a", unreadable=1)}, None, clock)
    clock.now = 10.0
    seen = progress.snapshot()
    assert (seen.seconds_done, seen.speed, seen.units_done, seen.rejects) == (3600.0, 0.0, 1, {"unreadable": 1})
    assert seen.eta_seconds is None


def test_what_an_actor_had_not_finished_is_lost_with_it():
    clock = Clock()
    progress = Progress([unit("a"), unit("b")], {}, 7200.0, clock)
    progress.join("one")
    progress.finish(info("a"), "one")
    progress.encoded_by("one", 5000.0)
    clock.now = 10.0
    assert progress.snapshot().seconds_done == 5000.0
    assert progress.snapshot().actors == {"one": 500.0}
    progress.leave("one")
    seen = progress.snapshot()
    assert (seen.seconds_done, seen.actors) == (3600.0, {})


def test_a_unit_finished_twice_counts_once():
    progress = Progress([unit("a")], {}, None, Clock())
    progress.finish(info("a"), "one")
    progress.finish(info("a"), "two")
    assert progress.snapshot().clips == 10


def test_the_log_holds_a_record_per_event_and_a_job_log_gets_plain_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.reporter.Gauges", lambda: type("None_", (), {"set": lambda self, snapshot: None})())
    screen = io.StringIO()
    log = RunLog(str(tmp_path))
    reporter = Reporter(Progress([unit("a")], {}, None, Clock()), log, screen)
    log.write("unit", unit="a", wall=1.5)
    reporter.close()
    (file,) = (tmp_path / "log").iterdir()
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [event["event"] for event in events] == ["unit", "progress"]
    assert events[1]["units"] == 1 and "time" in events[0]
    assert "units 0/1" in screen.getvalue() and "\r" not in screen.getvalue()


def test_the_log_of_an_object_store_is_rewritten_not_appended():
    import fsspec

    log = RunLog("memory://bucket/out")
    log.write("one")
    log.flush()
    log.write("two")
    log.flush()
    (path,) = fsspec.filesystem("memory").glob("/bucket/out/log/*.jsonl")
    assert fsspec.filesystem("memory").cat(path).count(b"\n") == 2


def test_the_summary_adds_up():
    shown = summary(ShardManifest(1, {}, (info("a", too_long=1), info("b", too_long=2, unreadable=1)), {}), "out")
    assert "16 rows of 20 clips, 2.00 h" in shown
    assert "4 (too_long 3, unreadable 1), 20.00% of the clips" in shown


def node(name, alive=True, **resources):
    return {"NodeID": name, "NodeManagerHostname": "host-" + name, "Alive": alive, "Resources": resources}


def places(found):
    return [(slot.label, slot.num_gpus, slot.threads) for slot in found]


def test_every_gpu_gets_an_actor_and_a_node_without_gets_none():
    nodes = [node("a", CPU=16, GPU=2), node("b", CPU=8, GPU=1), node("c", CPU=64), node("d", alive=False, GPU=8)]
    assert places(slots(nodes, 1.0, None)) == [("host-a:0", 1.0, 8), ("host-b:0", 1.0, 8), ("host-a:1", 1.0, 8)]
    assert len(slots(nodes, 0.5, None)) == 6
    assert len(slots(nodes, 2.0, None)) == 1
    assert len(slots(nodes, 1.0, 2)) == 2


def test_without_gpus_every_node_gets_one_actor_with_all_cores():
    nodes = [node("a", CPU=16), node("b", CPU=4), node("head", CPU=0)]
    assert places(slots(nodes, 1.0, None)) == [("host-a:0", 0.0, 16), ("host-b:0", 0.0, 4)]
    assert places(slots(nodes[1:2], 1.0, 2)) == [("host-b:0", 0.0, 2), ("host-b:1", 0.0, 2)]
    assert slots([], 1.0, None) == []
