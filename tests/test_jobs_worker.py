"""What an actor runs, without Ray."""

import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import jobs.worker
from jobs.worker import ALLOCATOR, Task, Tokenizer
from pipeline.tokenize import Output, Settings
from tests.toys import ToyCodec, clips, unit


def task(folder, codec="toy"):
    return Task(codec, None, "float32", Output(str(folder)), Settings(), 1, str(Path.cwd()))


def test_the_thread_that_encodes_has_loaded_the_codec(tmp_path, monkeypatch):
    threads = []

    class Noted(ToyCodec):
        def encode(self, waveforms, num_samples):
            threads.append(threading.current_thread())
            return super().encode(waveforms, num_samples)

    def load(name, device, weights, precision):
        threads.append(threading.current_thread())
        return Noted()

    monkeypatch.setattr(jobs.worker.codecs, "load", load)
    tokenizer = Tokenizer(task(tmp_path), use_gpu=False, threads=1)
    assert tokenizer.load().spec == ToyCodec().spec
    files = clips(3)
    assert tokenizer.tokenize(unit(files, "u"), files).num_records == 3
    assert len(threads) >= 2 and len(set(threads)) == 1


def test_what_is_wrong_with_a_codec_is_raised_where_it_was_asked_for(tmp_path):
    with pytest.raises(ValueError, match="nosuch"):
        Tokenizer(task(tmp_path, "nosuch"), use_gpu=False, threads=1).load()


def test_memory_is_given_back_now_and_then_while_batches_come(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(jobs.worker, "give_back_memory", lambda: given.append(1))
    monkeypatch.setattr(jobs.worker.codecs, "load", lambda *_: ToyCodec())
    tokenizer = Tokenizer(task(tmp_path), use_gpu=False, threads=1)
    tokenizer.load()
    files = clips(3)
    tokenizer.tokenize(unit(files, "soon"), files)
    assert not given
    monkeypatch.setattr(jobs.worker, "KEEP_SECONDS", 0.0)
    tokenizer.tokenize(unit(files, "late"), files)
    assert given


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are not told")
def test_what_the_allocator_keeps_between_pieces_in_use_is_given_back():
    script = """
import resource
from jobs.worker import give_back_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20

before, large, small = resident(), [], []
for _ in range(100):
    large.append(bytearray(2 << 20))
    small.append(bytearray(1000))  # stays, so that no end of the heap is free
del large
kept = resident() - before
give_back_memory()
print(kept, resident() - before)
"""
    run = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **ALLOCATOR}, capture_output=True, text=True, check=True
    )
    kept, left = map(int, run.stdout.split())
    assert kept > 190 and left < 10
