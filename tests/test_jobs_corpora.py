"""`neutok tokenize` over every corpus, as it lies, from the command line: each clip a row or a reject."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.benches.cluster import private_ray
from tests.corpora_fixtures import BUILDERS

ROOT = Path(__file__).parents[1]

ALL = """
import json, sys
import ray
import jobs.cluster
from jobs.tokenize import main

jobs.cluster.connect("local")  # one Ray for all of them
shutdown, ray.shutdown, jobs.cluster.connect = ray.shutdown, lambda: None, lambda address: None
codes = [main(argv) for argv in json.loads(sys.argv[1])]
shutdown()
print(json.dumps(codes))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every corpus's fixture and the output of a run over it; half of them as Parquet, half as WebDataset."""
    folder, built = tmp_path_factory.mktemp("corpora"), {name: BUILDERS[name] for name in sorted(BUILDERS)}
    built = {name: build(folder / name) for name, build in built.items()}
    argvs = []
    for number, (name, corpus) in enumerate(built.items()):
        argv = ["--corpus", corpus.corpus, "--input", *corpus.inputs, "--output", str(folder / f"{name}-out")]
        argv += ["--codec", "null", "--unit-mb", "0.05", "--max-reject-share", "1", "--decode-workers", "1"]
        argvs.append([*argv, "--format", ("parquet", "webdataset")[number % 2]])
    with private_ray():
        command = [sys.executable, "-c", ALL, json.dumps(argvs)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-5000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [0] * len(argvs), done.stderr[-5000:]
    return {name: (corpus, folder / f"{name}-out") for name, corpus in built.items()}


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_every_clip_becomes_a_row_or_a_reject(runs, name):
    built, output = runs[name]
    manifest = json.loads((output / "manifest.json").read_text())
    rejects = {
        row["__key__"]: row["reason"]
        for path in (output / "rejects").iterdir()
        for row in pq.read_table(path).to_pylist()
    }
    assert manifest["totals"]["rows"] == len(built.rows)
    assert rejects == built.rejects
    assert manifest["totals"]["rejects"] == {
        reason: list(rejects.values()).count(reason) for reason in rejects.values()
    }
    assert len(manifest["shards"]) == len(list((output / "data").iterdir()))
