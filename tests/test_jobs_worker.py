"""What an actor runs, without Ray."""

import threading
from pathlib import Path

import pytest

import jobs.worker
from jobs.worker import Task, Tokenizer
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
