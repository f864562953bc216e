"""The whole path: the same rows and bytes however it is run, every clip accounted for, and clean ends."""

import io
import itertools
import json
import queue
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

import codec as codecs
from pipeline.decoding.pool import DecodePool
from pipeline.index import Selection, build_index
from pipeline.manifest import Output, finished, merge, open_run, verify
from pipeline.sinks import SINKS
from pipeline.stream import read_unit
from pipeline.tokenize import Settings, tokenize_unit, tokenize_units
from schemas.audio import Reject
from tests.toys import ToyCodec, clip, clips, noise, shared_clips, stored, unit, write_folder

SETTINGS = Settings(batch_seconds=6.0, window_seconds=15.0)


def mixed(seed=0):
    """Clips good and bad, and rejects known before."""
    files = clips(30, seed)
    files[4:4] = [clip(f"{seed}-bad", b"bad"), clip(f"{seed}-none", b""), clip(f"{seed}-short", stored(noise(0.01)))]
    files.insert(9, Reject(clip(f"{seed}-gone", b"").utterance, "missing", "no longer there"))
    files.insert(12, clip(f"{seed}-long", stored(np.zeros(16_000 * 61, np.float32), ending="flac")))
    return files


def rows(output, info, spec):
    return list(SINKS[output.format].read(output.path(info.data), spec))


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def test_a_unit_becomes_rows_in_source_order_and_rejects(tmp_path):
    files, codec, output = mixed(), ToyCodec(), Output(str(tmp_path))
    info = tokenize_unit(unit(files), codec, output, SETTINGS, files)
    reasons = {"toy_0-bad": "unreadable", "toy_0-none": "empty", "toy_0-short": "too_short", "toy_0-gone": "missing"}
    reasons["toy_0-long"] = "too_long"
    rejects = pq.read_table(output.path(info.rejects)).to_pylist()
    assert {row["__key__"]: row["reason"] for row in rejects} == reasons
    assert info.skipped == dict.fromkeys(sorted(reasons.values()), 1)
    good = [file for file in files if file.utterance.id not in reasons]
    records = rows(output, info, codec.spec)
    assert [record.utterance for record in records] == [file.utterance for file in good]
    for record, file in zip(records, good, strict=True):
        sound = torch.from_numpy(soundfile.read(io.BytesIO(file.data), dtype="float32")[0])
        alone = codec.encode(sound[None, None], torch.tensor([len(sound)]))[0].numpy()
        assert np.array_equal(record.codes, alone) and record.num_samples == len(sound)
    table = pq.read_table(output.path(info.data)).to_pylist()
    assert table[0]["duration"] == records[0].num_samples / 16_000 and table[0]["source"] == "toy.tar::0-0000"


@pytest.mark.parametrize("form", SINKS)
def test_many_units_at_once_give_the_bytes_of_one_after_the_other(tmp_path, form):
    units = [(replace(unit(files), name=f"u{seed}"), files) for seed, files in ((s, mixed(s)) for s in range(2))]
    one, many = Output(str(tmp_path / "one"), form), Output(str(tmp_path / "many"), form)
    told = []
    infos = [tokenize_unit(which, ToyCodec(), one, SETTINGS, files) for which, files in units]
    settings = replace(SETTINGS, decode_workers=2)
    assert list(tokenize_units(iter(units), ToyCodec(), many, settings, told.append)) == infos
    assert tree(tmp_path / "one") == tree(tmp_path / "many")
    assert len(told) > 4 and sum(told) >= sum(info.seconds for info in infos)


def test_all_128_clips_of_real_speech_become_rows(tmp_path):
    files = shared_clips()
    if not files:
        pytest.skip("no clips beside this checkout")
    codec, output = codecs.load("null"), Output(str(tmp_path))
    open_run(output, {"codec": codec.spec.to_json()})
    [info] = tokenize_units([(unit(files), files)], codec, output, Settings(decode_workers=2))
    assert (info.num_records, info.skipped, len(files)) == (128, {}, 128)
    assert info.seconds == pytest.approx(897.15, abs=0.5)
    merge(output, [unit(files)])
    assert verify(output).whole


def test_a_corpus_on_disk_from_index_to_manifest(tmp_path):
    write_folder(tmp_path / "corpus", 9)
    (tmp_path / "corpus" / "en" / "broken.flac").write_bytes(b"fLaC")
    codec, output = ToyCodec(), Output(str(tmp_path / "out"))
    index = build_index("folder", [str(tmp_path / "corpus")], output.folder, Selection(), 60_000)
    assert len(index.units) > 2
    open_run(output, {"codec": codec.spec.to_json(), "index": index.hash})
    infos = list(tokenize_units(((which, read_unit(which)) for which in index.units), codec, output, SETTINGS))
    manifest = merge(output, index.units)
    assert manifest.totals["rows"] == 9 and manifest.totals["rejects"] == {"unreadable": 1}
    assert verify(output).whole, str(verify(output))
    again = Output(str(tmp_path / "again"))
    build_index("folder", [str(tmp_path / "corpus")], again.folder, Selection(), 60_000)
    assert tokenize_unit(index.units[1], codec, again, SETTINGS) == infos[1]
    texts = {row["text"] for info in infos for row in pq.read_table(output.path(info.data)).to_pylist()}
    assert texts == {f"This is number {i}." for i in range(9)}


def test_long_clips_in_pieces_are_one_clip_each(tmp_path):
    files = [*clips(3), clip("long", stored(noise(11.0)), extra='{"mood": "calm"}'), clip("bad", b"bad")]
    codec, output = ToyCodec(), Output(str(tmp_path))
    open_run(output, {"codec": codec.spec.to_json()})
    info = tokenize_unit(unit(files), codec, output, replace(SETTINGS, split_seconds=3.0), files)
    merge(output, [unit(files)])
    assert verify(output).whole
    pieces = [r for r in rows(output, info, codec.spec) if r.utterance.id.startswith("toy_long-")]
    assert info.num_clips == 5 and info.num_records == 3 + len(pieces) and len(pieces) >= 4
    marks = [json.loads(piece.utterance.extra) for piece in pieces]
    assert marks[-1]["end"] == 11.0 and all(mark["mood"] == "calm" for mark in marks)
    assert sum(piece.num_samples for piece in pieces) == 11 * 16_000


def test_what_is_done_comes_out_while_the_next_unit_is_not_yet_known(tmp_path):
    waiting = queue.SimpleQueue()
    units = iter(waiting.get, None)
    made = tokenize_units(units, ToyCodec(), Output(str(tmp_path)), SETTINGS)
    for number in range(3):
        files = clips(5, number)
        waiting.put((unit(files, f"u{number}"), files))
        assert next(made).name == f"u{number}"
    waiting.put(None)
    assert list(made) == []


def failing(files, after):
    yield from files[:after]
    raise OSError("the disk is gone")


class Choosy(ToyCodec):
    """Fails on batches of a certain loudness."""

    def encode(self, waveforms, num_samples):
        if waveforms.abs().max() > 1.5:
            raise RuntimeError("a kernel failed")
        return super().encode(waveforms, num_samples)


def test_a_unit_that_fails_is_told_and_the_others_go_on(tmp_path):
    loud = [
        *clips(8, 4, 2.0, 3.0),
        clip("loud", stored(noise(1.0, level=2.0), subtype="FLOAT")),
        *clips(12, 5, 2.0, 3.0),
    ]
    work = [(unit(files, f"u{seed}"), files) for seed, files in ((s, clips(12, s)) for s in (0, 1, 2))]
    work.insert(1, (unit(clips(9), "unread"), failing(clips(9, 3), 5)))
    work.insert(3, (unit(loud, "loud"), loud))
    work.insert(4, (replace(unit(clips(3, 6)), name="lost", last=4), clips(3, 6)))
    told, output = {}, Output(str(tmp_path))
    made = tokenize_units(
        work, Choosy(), output, SETTINGS, failed=lambda which, error: told.update({which.name: str(error)})
    )
    assert [info.name for info in made] == ["u0", "u1", "u2"] == sorted(finished(output))
    assert told["unread"] == "the disk is gone" and told["loud"] == "a kernel failed"
    assert "4 clips went in, 3 came out" in told["lost"] and len(told) == 3
    for info in finished(output).values():
        assert info.num_records == 12


def test_a_failed_unit_stays_failed_when_the_shard_before_it_cannot_be_placed(tmp_path, monkeypatch):
    told, encoding_failed, placing_failed, encoded = [], threading.Event(), threading.Event(), []

    class Once(Choosy):
        def encode(self, waveforms, num_samples):
            encoded.append(float(waveforms.abs().max()))
            return super().encode(waveforms, num_samples)

    def place(*args):
        encoding_failed.wait(30)
        placing_failed.set()
        raise OSError("the disk is full")

    def failed(which, error):
        told.append((which.name, str(error)))
        encoding_failed.set()
        placing_failed.wait(30)

    def files():
        yield clip("loud", stored(noise(2.0, level=2.0), subtype="FLOAT"))
        yield from quiet

    monkeypatch.setattr("pipeline.tokenize.commit", place)
    quiet = clips(20, 1, 2.0, 3.0)
    first = clips(2, 2)
    work = [(unit(first, "first"), first), (unit([*quiet, quiet[0]], "second"), files())]
    settings = replace(SETTINGS, window_seconds=1.0, batch_seconds=1.0)
    assert not list(tokenize_units(work, Once(), Output(str(tmp_path)), settings, failed=failed))
    assert told == [("second", "a kernel failed"), ("first", "the disk is full")]
    assert len(encoded) <= 3  # of the second unit nothing after what failed


def test_without_anyone_to_tell_the_first_failure_is_raised(tmp_path):
    work = [
        (unit(clips(3), "a"), clips(3)),
        (unit(clips(9), "b"), failing(clips(9, 1), 4)),
        (unit(clips(3), "c"), clips(3, 2)),
    ]
    made = tokenize_units(work, ToyCodec(), Output(str(tmp_path)), SETTINGS)
    with pytest.raises(OSError, match="disk is gone"):
        list(made)
    assert "c" not in finished(Output(str(tmp_path)))


def test_stopping_early_ends_threads_and_processes(tmp_path, monkeypatch):
    pools, start = [], DecodePool.__init__

    def noted(self, *args, **kwargs):
        pools.append(self)
        start(self, *args, **kwargs)

    monkeypatch.setattr(DecodePool, "__init__", noted)
    before = set(threading.enumerate())
    work = ((unit(files, f"u{seed}"), files) for seed, files in ((s, clips(40, s)) for s in range(50)))
    made = tokenize_units(work, ToyCodec(), Output(str(tmp_path)), replace(SETTINGS, decode_workers=2))
    next(made)
    made.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=30)  # one that is asking for its next unit ends when it gets it
        assert not thread.is_alive()
    assert all(pool.nursery.process.poll() is not None for pool in pools) and len(pools) == 1
    done = finished(Output(str(tmp_path)))
    assert 1 <= len(done) < 50 and all(info.num_records == 40 for info in done.values())


def test_sound_ahead_of_the_encoder_is_bounded(tmp_path):
    """A slow codec and endless work: what has been read stays a few windows ahead."""
    read, gate, enough = [], threading.Semaphore(0), threading.Event()

    class Slow(ToyCodec):
        def encode(self, waveforms, num_samples):
            assert gate.acquire(timeout=60)
            return super().encode(waveforms, num_samples)

    def endless():
        for number in itertools.takewhile(lambda _: not enough.is_set(), itertools.count()):
            file = clip(str(number), stored(noise(1.0, seed=number % 7)))
            read.append(number)
            yield file

    settings = Settings(batch_seconds=5.0, window_seconds=5.0)
    work = [(unit([], "endless"), endless())]
    told = []
    made = tokenize_units(work, Slow(), Output(str(tmp_path)), settings, failed=lambda unit, why: told.append(str(why)))
    thread = threading.Thread(target=list, args=(made,))
    thread.start()
    for _ in range(4):
        gate.release()
    known = -1
    while known != len(read):
        known = len(read)
        threading.Event().wait(1.0)
    assert 5 <= known <= 4 * 5 + 4 * 5 + 3 * 8 + 8  # encoded, windows ahead, chunks ahead
    enough.set()
    gate.release(100_000)
    thread.join(60)
    assert "0 clips went in" in told[0]  # the unit said it had none


def test_a_key_that_comes_twice_is_a_reject(tmp_path):
    files = [*clips(4), *clips(2)]
    info = tokenize_unit(unit(files), ToyCodec(), Output(str(tmp_path)), SETTINGS, files)
    assert (info.num_clips, info.num_records, info.skipped) == (6, 4, {"duplicate_key": 2})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_seconds": 0}, "max_seconds must be more than 0, got 0"),
        ({"decode_workers": -1}, "decode_workers must be more than 0"),
        ({"split_seconds": 0.5}, "at least 1"),
        ({"split_seconds": 2000.0}, "at most 1200"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Settings(**wrong)


def test_empty_units_are_shards_too(tmp_path):
    output = Output(str(tmp_path))
    [info] = tokenize_units([(unit([], "none"), [])], ToyCodec(), output, SETTINGS)
    assert (info.num_clips, info.num_records, info.seconds) == (0, 0, 0.0)
    assert pq.read_table(output.path(info.rejects)).num_rows == 0
