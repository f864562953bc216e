"""Decoding in child processes: the same sound in the same order, whatever one clip does to its decoder."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.audio import load_audio
from pipeline.decoding import pool as decode_pool
from pipeline.decoding.child import Closed, Nursery
from pipeline.decoding.load import Limits
from pipeline.decoding.pool import DecodePool
from schemas.audio import AudioSegment, Reject
from tests.toys import clip, clips, noise, stored

LIMITS = Limits(16_000)
BAD = "tests.toys:misbehaving"


def keys(results):
    return [result.utterance.id for result in results]


def same(left, right):
    return len(left) == len(right) and all(
        a == b if isinstance(a, Reject) else a.utterance == b.utterance and np.array_equal(a.waveform, b.waveform)
        for a, b in zip(left, right, strict=True)
    )


@contextlib.contextmanager
def pool_of(decoder, **settings):
    nursery = Nursery(decoder)
    with contextlib.closing(nursery), DecodePool(LIMITS, nursery=nursery, **settings) as pool:
        yield pool


@pytest.fixture(scope="module")
def pool():
    with DecodePool(LIMITS, workers=2) as pool:
        yield pool


def test_the_pool_gives_what_one_process_gives_bit_for_bit_and_in_order(pool):
    files = [*clips(20, ending="mp3", rate=24_000), *clips(20, 1, ending="flac", rate=48_000)]
    files[3:3] = [clip("bad", b"bad"), clip("none", b"")]
    files.insert(17, Reject(clip("gone", b"").utterance, "missing", "not there"))
    assert same(list(load_audio(files, LIMITS, pool)), list(load_audio(files, LIMITS)))


def test_a_stream_left_early_leaves_the_pool_usable(pool):
    stream = pool.load(clips(60))
    next(stream)
    stream.close()
    files = clips(5, 3)
    assert keys(pool.load(files)) == keys(files)


def test_a_source_that_fails_is_heard_of_and_leaves_the_pool_usable(pool):
    def source():
        yield from clips(9)
        raise OSError("the archive ended")

    with pytest.raises(OSError, match="archive ended"):
        list(pool.load(source()))
    assert len(list(pool.load(clips(3)))) == 3


def test_a_child_that_is_killed_from_outside_costs_nothing(pool):
    files = clips(40, 5)
    stream = pool.load(files)
    got = [next(stream)]
    for lane in pool.lanes:
        os.kill(lane.child.process, signal.SIGKILL)
    got += list(stream)
    assert same(got, list(load_audio(files, LIMITS)))


def test_no_source_no_sound(pool):
    assert list(pool.load([])) == []


def test_crash_hang_and_greed_cost_one_clip_each_and_no_neighbour(tmp_path):
    files = clips(14, 7)
    files.insert(2, clip("crash", b"crash:"))
    files.insert(5, clip("spin", b"spin:"))
    files.insert(6, clip("hang", b"hang:"))
    files.insert(9, clip("greedy", b"greedy:"))
    good = files[0].data
    files.insert(11, clip("once", b"once:" + str(tmp_path / "flag").encode() + b"\n" + good))
    files.insert(12, clip("print", b"print:" + good))
    with pool_of(BAD, workers=2, clip_seconds=1.5) as pool:
        results = list(pool.load(files))
    assert keys(results) == keys(files)
    reasons = {r.utterance.id: r.reason for r in results if isinstance(r, Reject)}
    assert reasons == {
        "toy_crash": "decoder_crash",
        "toy_spin": "decoder_hang",
        "toy_hang": "decoder_hang",
        "toy_greedy": "unreadable",
    }
    wanted = {s.utterance.id: s.waveform for s in load_audio(clips(14, 7), LIMITS)}
    wanted |= {"toy_once": wanted[keys(files)[0]], "toy_print": wanted[keys(files)[0]]}
    for result in results:
        if isinstance(result, AudioSegment):
            assert np.array_equal(result.waveform, wanted[result.utterance.id])
    messages = [r.message for r in results if isinstance(r, Reject)]
    assert "no answer in 1.5 s, twice alone in a fresh process" in messages


def test_a_decoder_that_cannot_start_is_an_error_and_no_reject():
    with (
        pool_of("tests.toys:no_such_function") as pool,
        pytest.raises(RuntimeError, match="could not start"),
    ):
        list(pool.load(clips(1)))


def test_a_full_disk_is_an_error_and_no_reject():
    with pool_of(BAD) as pool:
        with pytest.raises(RuntimeError, match="the disk is full"):
            list(pool.load([*clips(3), clip("full", b"full:")]))
        assert len(list(pool.load(clips(3)))) == 3, "the pool is usable"


def test_pieces_of_a_cut_clip_come_in_order_through_the_pool():
    files = [*clips(3), clip("long", stored(noise(9.0))), *clips(3, 1)]
    limits = Limits(16_000, split_seconds=2.0)
    with DecodePool(limits) as pool:
        assert same(list(load_audio(files, limits, pool)), list(load_audio(files, limits)))


def test_sound_that_waits_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(decode_pool, "BUDGET_BYTES", 400_000)
    files = [clip(str(i), b"50000") for i in range(60)]  # 200 kB of sound each
    with pool_of("tests.toys:same_decoder", workers=2) as pool:
        stream, most = pool.load(files), 0
        for number, _ in enumerate(stream):
            if number % 10 == 5:
                time.sleep(0.05)  # a slow reader
            most = max(most, pool.budget.held)
        assert number == 59 and 0 < most <= 600_000 and pool.budget.held == 0


def test_stored_clips_that_wait_are_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(decode_pool, "AHEAD_BYTES", 50_000)
    read = []

    def source():
        for number in range(20):
            read.append(number)
            yield clip(str(number), b"0" * 30_000 + b"100")  # 30 kB that say a hundred samples

    monkeypatch.setattr(decode_pool, "CHUNK_BYTES", 20_000)
    with pool_of("tests.toys:same_decoder", workers=2) as pool:
        for done, _ in enumerate(pool.load(source())):
            assert len(read) - done <= 3
    assert done == 19


def test_closing_while_the_decoders_are_busy_ends_at_once():
    nursery = Nursery(BAD)
    pool = DecodePool(LIMITS, nursery=nursery)
    stream = pool.load([clip("hang", b"hang:"), *clips(3)])
    failures = []

    def read():
        try:
            list(stream)
        except Exception as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    while pool.lanes[0].child is None:
        time.sleep(0.01)
    process = pool.lanes[0].child
    pool.close()
    reader.join(10)
    assert not reader.is_alive() and isinstance(failures[0], Closed)
    assert process.status is not None
    nursery.close()


def test_a_nursery_started_ahead_serves_pool_after_pool():
    nursery, files = Nursery(), clips(3)
    nursery.start()
    process = nursery.process
    for _ in range(2):
        with DecodePool(LIMITS, nursery=nursery) as pool:
            assert same(list(pool.load(files)), list(load_audio(files, LIMITS)))
    assert nursery.process is process and process.poll() is None
    nursery.close()
    assert process.poll() is not None
    with pytest.raises(Closed):
        nursery.start()


def in_a_daemon(connection):
    with DecodePool(LIMITS) as pool:
        count = len(list(pool.load(clips(3))))
        connection.send((count, pool.nursery.process.pid, pool.lanes[0].child.process))
        connection.recv()


def is_running(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_it_works_where_processes_may_have_no_children_and_leaves_none_behind():
    """A worker of Ray or of a data loader is daemonic, and multiprocessing would refuse it children."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=in_a_daemon, args=(theirs,), daemon=True)
    process.start()
    assert ours.poll(120)
    count, nursery, worker = ours.recv()
    assert count == 3 and is_running(nursery) and is_running(worker)
    process.kill()
    process.join()
    deadline = time.monotonic() + 60
    while (is_running(nursery) or is_running(worker)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(nursery) and not is_running(worker)


def test_the_number_of_workers_does_not_show_in_the_results():
    files = clips(30, 11)
    with DecodePool(LIMITS, workers=3) as pool:
        assert same(list(pool.load(iter(files))), list(load_audio(files, LIMITS)))
    with pytest.raises(ValueError, match="at least 1 worker"):
        DecodePool(LIMITS, workers=0)


def test_rejects_alone_need_no_decoder(pool):
    rejects = [Reject(replace(clip(str(i), b"").utterance), "missing", "not there") for i in range(2500)]
    assert list(pool.load(rejects)) == rejects
