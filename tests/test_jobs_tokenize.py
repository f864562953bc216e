"""`neutok tokenize` from the command line: what is refused before any work, SIGTERM, going on, the files it leaves."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from jobs.index import main as index
from jobs.tokenize import Options, main
from jobs.verify import main as verify
from pipeline.tokenize import Settings
from tests.corpora_fixtures import BUILDERS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Twelve clips of half a second."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(12):
        sf.write(folder / f"{number:02d}.wav", np.sin(np.arange(8000) * (0.01 + 0.01 * number)) * 0.3, 16_000)
    return folder


def options(corpus, output, *more):
    return ["--corpus", "folder", "--input", str(corpus), "--output", str(output), "--codec", "null", *more]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--corpus", "librits"), "unknown corpus 'librits'; known: "),
        (("--codec", "neucodek"), "unknown codec 'neucodek'; known: "),
        (("--input", "/nowhere/at/all"), "/nowhere/at/all"),
        (("--weights", "./no/such/folder"), "no weights at './no/such/folder'"),
        (("--unit-mb", "0"), "--unit-mb must be more than 0"),
        (("--limit", "0"), "--limit must be at least 1"),
        (("--max-seconds", "-1"), "--max-seconds must be more than 0"),
        (("--split-seconds", "0.1"), "split_seconds must be at least 1"),
        (("--gpus-per-actor", "1.5"), "--gpus-per-actor is a part of one GPU or a whole number"),
        (("--max-reject-share", "2"), "--max-reject-share is between 0 and 1"),
        (("--language", "klingonese"), "klingonese"),
        (("--address", "127.0.0.1:1"), "no Ray cluster answers at 127.0.0.1:1"),
        (("--output", "/proc/no"), "cannot write to --output /proc/no"),
        (("--output", "memory://out"), "--output memory://out is the memory of one process"),
        (("--input", "https://127.0.0.1:1/a.tar"), "matches nothing (Cannot connect to host 127.0.0.1:1"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(corpus, tmp_path, capsys, more, said):
    argv = options(corpus, tmp_path / "out", *more)
    if more[0] == "--input":  # a list: given twice it would grow
        argv = [*more, *argv[:2], *argv[4:]]
    assert main(argv) == 2
    assert said in capsys.readouterr().err
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
    assert not (tmp_path / "out" / "data").exists()


def test_a_submitted_job_must_name_its_output_in_full(corpus, capsys, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert main(options(corpus, "out/here", "--dry-run")) == 2
    assert "give --output as a full path" in capsys.readouterr().err


def test_the_job_and_the_pipeline_leave_out_the_same_clips_unless_asked_otherwise():
    said = {each.name: each.default for each in fields(Options)}
    assert said["max_seconds"] == Settings().max_seconds


def test_a_dry_run_says_what_there_is_and_writes_nothing(corpus, tmp_path, capsys):
    assert main(options(corpus, tmp_path / "out", "--dry-run", "--unit-mb", "0.05")) == 0
    shown = capsys.readouterr().out
    assert "12 clips of folder in 1 sources" in shown and "4 work units" in shown
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_tells_how_many_clips_a_filter_left_out(tmp_path, capsys):
    built = BUILDERS["common_voice"](tmp_path / "in")
    argv = ["--corpus", "common_voice", "--input", *built.inputs, "--output", str(tmp_path / "out"), "--dry-run"]
    assert index(argv) == 0
    shown = capsys.readouterr().out
    assert "left out" not in shown
    total = int(shown.split()[0])
    assert index([*argv, "--split", "test"]) == 0
    shown = capsys.readouterr().out
    assert f"left out by --split: {total - int(shown.split()[0])} clips of these sources\n" in shown
    assert index([*argv, "--split", "test", "--language", "tr", "--limit", "1"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"left out by --split and --language: \d+ clips of these sources, as far as --limit", shown)


def test_sigterm_ends_cleanly_and_the_same_command_goes_on_where_it_was(corpus, tmp_path):
    output = tmp_path / "out"
    argv = options(corpus, output, "--unit-mb", "0.015", "--address", "local", "--attempts", "9")
    environment = {**os.environ, "RAY_memory_monitor_refresh_ms": "0"}
    command = [sys.executable, "-m", "jobs.tokenize", *argv]
    first = subprocess.Popen(
        [*command, "--weights", "0.5"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list(output.glob("done/*.json")):
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 4, said
    assert "run the same command again" in said
    # A unit whose mark was just being written may leave a temporary file, which is no mark.
    done = {path.name: path.stat().st_mtime_ns for path in (output / "done").glob("*.json")}
    assert 0 < len(done) < 12 and not (output / "manifest.json").exists()

    second = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert second.returncode == 0, second.stderr
    assert "12 rows of 12 clips" in second.stdout
    marks = {path.name: path.stat().st_mtime_ns for path in (output / "done").iterdir()}
    assert done.items() <= marks.items() and all(name.endswith(".json") for name in marks)
    assert len(json.loads((output / "manifest.json").read_text())["shards"]) == len(list((output / "data").iterdir()))
    events = [json.loads(line)["event"] for log in output.glob("log/*.jsonl") for line in log.read_text().splitlines()]
    assert events.count("start") == 2 and events.count("end") == 2 and events.count("actor") == 2

    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file() and "log" not in path.parts}
    assert verify([str(output)]) == 0
    third = subprocess.run(
        [*command, "--max-seconds", "7"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert third.returncode == 2
    assert "belongs to another run (max_seconds: 60.0, now 7.0)" in third.stderr
    assert before == {
        path: path.read_bytes() for path in output.rglob("*") if path.is_file() and "log" not in path.parts
    }
    shard = next((output / "data").iterdir())
    shard.write_bytes(shard.read_bytes()[:-9] + b"neutokPAR1")
    assert verify([str(output)]) == 4
