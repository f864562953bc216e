"""An actor, the driver, a node are killed with -9; run again to the end, every byte is that of an undisturbed run."""

import json
import subprocess
import sys
from pathlib import Path

from jobs.benches.kill import compare

ROOT = Path(__file__).parents[1]


def test_what_is_killed_leaves_no_trace(tmp_path):
    """Parquet from plain tars and WebDataset from fed .tar.bz2, on a cluster of two nodes."""
    command = [sys.executable, "-m", "jobs.bench", "kill", "--kills", "4", "--units", "20", "--seed", "1"]
    command += ["--json", str(tmp_path / "result.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["identical"]
    assert [course["format"] for course in result["courses"]] == ["parquet", "webdataset"]
    assert [sum(course["killed"].values()) for course in result["courses"]] == [2, 2]


def test_the_comparison_sees_every_difference_but_the_log(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "log").mkdir()
        (tmp_path / name / "log" / "x.jsonl").write_text(name)
        (tmp_path / name / "data" / "same").write_text("same")
    assert compare(tmp_path / "a", tmp_path / "b") == []
    (tmp_path / "a" / "data" / "u").write_text("1")
    (tmp_path / "b" / "data" / "u").write_text("2")
    (tmp_path / "b" / "data" / ".u.tmp").write_text("")
    (tmp_path / "a" / "manifest.json").write_text("")
    assert compare(tmp_path / "a", tmp_path / "b") == [
        "only undisturbed: manifest.json",
        "only under fire: data/.u.tmp",
        "bytes differ: data/u",
    ]
