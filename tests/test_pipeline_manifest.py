"""A shard exists whole or not at all, once, and an output can be held against itself."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest

from pipeline import commit as commit_module
from pipeline import storage
from pipeline.manifest import Output, commit, finished, merge, open_run, sweep, verify
from schemas.audio import Reject, Utterance
from schemas.manifest import ShardInfo, ShardManifest, WorkUnit
from schemas.spec import CodecSpec
from schemas.tokens import TokenRecord

SPEC = CodecSpec("toy", "7", 16_000, 24_000, 320, 1, 65_536, ())
ROOT = Path(__file__).parents[1]


def results(number=5, seed=0):
    draw = np.random.default_rng(seed)
    made = []
    for i in range(number):
        utterance = Utterance(f"toy_{seed}_{i}", "toy", f"a.tar::{i}", language=("en", None)[i % 2])
        if i % 4 == 3:
            made.append(Reject(utterance, "unreadable", "no decoder"))
        else:
            frames = int(draw.integers(1, 90))
            made.append(
                TokenRecord(utterance, draw.integers(0, 65_536, (1, frames)).astype(np.uint16), frames * 320 + 5)
            )
    return made


def unit(name="toy-00000", number=5):
    return WorkUnit(name, "toy", "a.tar", "a.index", 0, number, 100)


def files(folder, without=("log",)):
    paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths if p.relative_to(folder).parts[0] not in without}


@pytest.fixture(params=["parquet", "webdataset"])
def output(request, tmp_path):
    return Output(str(tmp_path / "out"), request.param)


def test_a_commit_leaves_three_files_and_says_what_they_hold(output):
    info = commit(output, unit(), iter(results()), SPEC)
    ending = {"parquet": "parquet", "webdataset": "tar"}[output.format]
    assert set(files(output.folder)) == {f"data/toy-00000.{ending}", "rejects/toy-00000.parquet", "done/toy-00000.json"}
    rows = [r for r in results() if isinstance(r, TokenRecord)]
    assert (info.num_clips, info.num_records, info.skipped) == (5, 4, {"unreadable": 1})
    assert info.num_frames == sum(r.codes.shape[1] for r in rows) and info.seconds == info.num_samples / 16_000
    assert sum(info.samples_by_language.values()) == info.num_samples and set(info.samples_by_language) == {"", "en"}
    assert finished(output) == {"toy-00000": info}


def test_doing_a_unit_twice_changes_nothing(output):
    first = commit(output, unit(), iter(results()), SPEC)
    before = files(output.folder)
    assert commit(output, unit(), iter(results()), SPEC) == first
    assert files(output.folder, ()) == before  # nothing in log/ either


def test_a_later_different_result_is_discarded_and_logged(output):
    first = commit(output, unit(), iter(results()), SPEC)
    before = files(output.folder)
    assert commit(output, unit(), iter(results(seed=1)), SPEC) == first
    assert files(output.folder) == before
    [log] = Path(output.path("log")).iterdir()
    said = json.loads(log.read_text())
    assert said["kept"]["sha256"] == first.sha256 != said["discarded"]["sha256"] and "time" in said


@pytest.mark.parametrize("moment", ["before placing", "before the sidecar", "after the sidecar"])
def test_two_different_results_at_the_same_moment_leave_one_of_them_whole(output, monkeypatch, moment):
    """Another attempt runs to its end inside ours, at the worst places."""
    other, raced = [], []

    def race():
        if not raced:
            raced.append(True)
            other.append(commit(output, unit(), iter(results(seed=1)), SPEC))

    place, create = commit_module.Attempt.place, storage.create_exclusive

    def racing_place(self):
        if moment == "before placing":
            race()
        place(self)

    def racing_create(path, data):
        if moment == "before the sidecar":
            race()
        made = create(path, data)
        if moment == "after the sidecar":
            race()
        return made

    monkeypatch.setattr(commit_module.Attempt, "place", racing_place)
    monkeypatch.setattr(storage, "create_exclusive", racing_create)
    info = commit(output, unit(), iter(results()), SPEC)
    assert other == [info]
    open_run(output, {"codec": SPEC.to_json()})
    merge(output, [unit()])
    assert verify(output).whole, str(verify(output))


def test_a_slower_attempt_that_placed_its_files_over_ours_is_undone(output, monkeypatch):
    create, placed = storage.create_exclusive, []

    def create_then_overwritten(path, data):
        made = create(path, data)
        if not placed and "done" in path:
            placed.append(True)
            for folder in ("data", "rejects"):
                for file in Path(output.path(folder)).glob("[!.]*"):
                    (file.parent / "theirs").write_bytes(b"theirs")
                    (file.parent / "theirs").replace(file)
        return made

    monkeypatch.setattr(storage, "create_exclusive", create_then_overwritten)
    commit(output, unit(), iter(results()), SPEC)
    open_run(output, {"codec": SPEC.to_json()})
    merge(output, [unit()])
    assert verify(output).whole


DIES = """
import os, sys
sys.path.insert(0, {root!r})
from pipeline import commit as module, storage
from tests.test_pipeline_manifest import *

def dying(function):
    def wrapped(*args, **kwargs):
        global calls
        calls += 1
        if calls == at:
            os._exit(9)
        return function(*args, **kwargs)
    return wrapped

for name in ("write_temporary", "create_exclusive", "sync_folder"):
    setattr(storage, name, dying(getattr(storage, name)))
for name in ("link", "fsync"):
    setattr(os, name, dying(getattr(os, name)))
module.check_shard = dying(module.check_shard)
for at in range(1, {steps} + 1):
    calls = 0
    process = os.fork()
    if process == 0:
        commit(Output(f"{folder}/{{at}}"), unit(), iter(results()), SPEC)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""


def test_death_at_any_step_leaves_nothing_a_second_attempt_cannot_repair(tmp_path):
    whole, steps = Output(str(tmp_path / "whole")), 20
    commit(whole, unit(), iter(results()), SPEC)
    code = DIES.format(root=str(ROOT), steps=steps, folder=str(tmp_path))
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    codes = [int(line) for line in said.split()]
    died = codes.count(9)
    assert died >= 10 and codes == [9] * died + [0] * (steps - died)  # at each of the steps there are
    for at in range(1, steps + 1):
        output = Output(str(tmp_path / str(at)))
        done = finished(output)
        open_run(output, {})
        commit(output, unit(), iter(results()), SPEC)
        assert files(output.folder, ("log", "run.json")) == files(whole.folder), at
        assert not done or finished(output) == done


def test_lost_doubled_and_torn_rows_are_never_committed(output):
    good = results()
    short = replace(good[0], codes=good[0].codes[:, :-1])
    wrong = [
        ("5 clips went in, 4 came out", good[:-1], unit()),
        ("6 clips went in, 5 came out", good, unit(number=6)),
        (r"has codes \(1, \d+\) for", [short, *good[1:]], unit()),
        ("toy_0_0 stands there twice", [*good[:4], good[0]], unit()),
    ]
    for said, rows, which in wrong:
        with pytest.raises(ValueError, match=said):
            commit(output, which, iter(rows), SPEC)
    assert files(output.folder) == {}


def test_a_piece_that_comes_to_anothers_name_gets_one_of_its_own(output):
    piece = Utterance("toy_a-0001", "toy", "a.tar::a", extra='{"clip": "toy_a", "end": 1.0, "start": 0.0}')
    plain = Utterance("toy_a-0001", "toy", "a.tar::b")
    codes = np.zeros((1, 1), np.uint16)
    rows = [TokenRecord(plain, codes, 320), TokenRecord(piece, codes, 320)]
    info = commit(output, unit("one", 2), iter(rows), SPEC)
    assert (info.num_records, info.skipped) == (2, {})
    info = commit(output, unit("two", 2), iter(rows[::-1]), SPEC)
    assert (info.num_records, info.skipped) == (1, {"duplicate_key": 1})


def test_a_clip_in_pieces_counts_once(output):
    extra = '{{"clip": "toy_a", "end": {0}.0, "start": 0.0}}'
    rows = [
        TokenRecord(
            Utterance(f"toy_a-000{i}", "toy", "a.tar::a", extra=extra.format(i)), np.zeros((1, 1), np.uint16), 320
        )
        for i in (1, 2, 3)
    ]
    bad = Reject(Utterance("toy_a", "toy", "a.tar::a"), "bad_codes", "piece 4")
    info = commit(output, unit(number=1), iter([*rows, bad]), SPEC)
    assert (info.num_clips, info.num_records) == (1, 3)


def test_a_run_of_another_identity_is_refused_and_told_why(tmp_path):
    output = Output(str(tmp_path))
    identity = {"codec": SPEC.to_json(), "unit_mb": 128.0, "index": "3f2a"}
    open_run(output, identity)
    kept = (tmp_path / "run.json").read_bytes()
    assert open_run(output, identity) == json.loads(kept)
    changed = {**identity, "codec": {**SPEC.to_json(), "revision": "8"}}
    with pytest.raises(ValueError, match=r"another run \(codec.revision: 7, now 8\); give that run's options"):
        open_run(output, changed)
    with pytest.raises(ValueError, match="format: parquet, now webdataset"):
        open_run(Output(str(tmp_path), "webdataset"), identity)
    assert (tmp_path / "run.json").read_bytes() == kept


def test_the_manifest_comes_last_and_sums_up(output):
    units = [unit("b"), unit("a")]
    open_run(output, {"codec": SPEC.to_json()})
    first = commit(output, units[0], iter(results()), SPEC)
    with pytest.raises(ValueError, match="1 of 2 units are not done: a"):
        merge(output, units)
    assert not storage.exists(output.path("manifest.json"))
    second = commit(output, units[1], iter(results(seed=1)), SPEC)
    manifest = merge(output, units)
    assert manifest.shards == (first, second)
    assert ShardManifest.from_json(Path(output.path("manifest.json")).read_text()) == manifest
    totals = manifest.totals
    assert (totals["clips"], totals["rows"], totals["rejects"]) == (10, 8, {"unreadable": 2})
    assert totals["tokens"] == first.num_frames + second.num_frames
    assert totals["hours"] == pytest.approx(sum(totals["hours_by_language"].values()))
    assert totals["hours_by_corpus"] == {"toy": pytest.approx(totals["hours"])}
    assert str(verify(output)) == "2 shards, 8 rows of 10 clips: all as it should be"


@pytest.mark.parametrize("harm", ["flip", "cut", "lose", "rejects", "sidecar", "twice", "stranger"])
def test_verify_finds_what_is_wrong(output, harm):
    units = [unit("a"), unit("b")]
    open_run(output, {"codec": SPEC.to_json()})
    for seed, one in enumerate(units):
        commit(output, one, iter(results(seed=0 if harm == "twice" else seed)), SPEC)
    merge(output, units)
    data = Path(output.data("a"))
    if harm == "flip":
        torn = bytearray(data.read_bytes())
        torn[len(torn) // 3] ^= 4
        data.write_bytes(torn)
    elif harm == "cut":
        data.write_bytes(data.read_bytes()[:-200])
    elif harm == "lose":
        data.unlink()
    elif harm == "rejects":
        Path(output.rejects("a")).write_bytes(Path(output.rejects("b")).read_bytes())
    elif harm == "sidecar":
        Path(output.sidecar("a")).unlink()
    elif harm == "stranger":
        (data.parent / f"c{data.suffix}").write_bytes(data.read_bytes())
    verdict = verify(output)
    assert not verdict.whole and "problems" in str(verdict)


def test_what_dead_attempts_left_is_swept_and_what_living_ones_use_is_not(tmp_path):
    output = Output(str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine = storage.write_temporary(output.data("u"), lambda file: file.write(b"x"))
    host = mine.name.split(".")[-2].rpartition(f"-{os.getpid()}-")[0]
    left = mine.with_name(f".u.parquet.{host}-{dead.pid}-{'0' * 12}.tmp")
    elsewhere = mine.with_name(f".u.parquet.elsewhere-{dead.pid}-{'0' * 12}.tmp")
    old = mine.with_name(f".u.parquet.elsewhere-{dead.pid}-{'1' * 12}.tmp")
    other = mine.with_name(".hidden")
    for path in (left, elsewhere, old, other):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    assert sweep(output) == 2
    assert set(mine.parent.iterdir()) == {mine, elsewhere, other}


@pytest.mark.parametrize("url", ["memory://out", "file://{}"])
def test_outputs_behind_urls(tmp_path, url):
    output = Output(url.format(tmp_path / "out"))
    try:
        open_run(output, {"codec": SPEC.to_json()})
        info = commit(output, unit(), iter(results()), SPEC)
        assert commit(output, unit(), iter(results()), SPEC) == info
        assert commit(output, unit(), iter(results(seed=1)), SPEC) == info
        assert finished(output) == {info.name: info}
        merge(output, [unit()])
        assert verify(output).whole, str(verify(output))
    finally:
        if url.startswith("memory"):
            fsspec.filesystem("memory").store.clear()


def test_unknown_formats_and_broken_sidecars_are_told(tmp_path):
    with pytest.raises(ValueError, match="unknown format 'zip'; known: parquet, webdataset"):
        Output(str(tmp_path), "zip")
    output = Output(str(tmp_path))
    storage.create_exclusive(output.sidecar("u"), b"{}")
    with pytest.raises(ValueError, match="is no sidecar"):
        finished(output)
    assert isinstance(commit(output, unit("v"), iter(results()), SPEC), ShardInfo)
