"""Publishing under faults and kill -9, against the stand-in Hub: `python -m tests.publish_trial --megabytes 3000`.

The repository of a disturbed publication must end as that of an undisturbed one, byte for byte, within twenty commits.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.manifest import ShardManifest
from schemas.tokens import TOKEN_SCHEMA
from tests import output_toys
from tests.hub_repos import Fault, StandInHub
from tests.stand_in_hub import TOKEN, serving

ROOT = Path(__file__).parents[1]
REPO = "org/tokens"
ROW_CODES = 500
SCHEMA = TOKEN_SCHEMA.with_metadata({"codec": json.dumps(output_toys.CODEC)})


def make_output(folder, megabytes, shards=8):
    """An output of about so many megabytes of random codes, two bytes each, written fast."""
    infos = []
    for name in ("data", "done"):
        (folder / name).mkdir(parents=True)
    rows = int(megabytes * 1e6 / 2 / ROW_CODES / shards)
    for shard in range(shards):
        draw = np.random.default_rng(shard)
        name = f"unit-{shard:03}"
        with pq.ParquetWriter(folder / "data" / f"{name}.parquet", SCHEMA, compression="zstd") as writer:
            for start in range(0, rows, 4096):
                writer.write_batch(random_rows(draw, shard, start, min(4096, rows - start)))
        info = output_toys.shard_info(folder, name, f"data/{name}.parquet", rows, rows * ROW_CODES, ["too_long"])
        (folder / "done" / f"{name}.json").write_text(info.to_json())
        infos.append(info)
    manifest = ShardManifest(1, {"codec": output_toys.CODEC}, tuple(infos), {})
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder


def random_rows(draw, shard, start, number):
    codes = pa.array(draw.integers(0, 65536, number * ROW_CODES, np.uint16))
    columns = {
        "__key__": [f"toy_{shard}_{start + row}" for row in range(number)],
        "text": [f"Sentence {start + row}." for row in range(number)],
        "corpus": ["toy"] * number,
        "language": ["en"] * number,
        "speaker": [f"speaker {row % 100}" for row in range(number)],
        "license": ["CC-BY-4.0"] * number,
        "num_samples": [ROW_CODES * 320] * number,
        "duration": [ROW_CODES / 50] * number,
        "source": [f"toy-{shard}.tar::{row}.mp3" for row in range(number)],
        "extra": ["{}"] * number,
    }
    offsets = pa.array(np.arange(number + 1, dtype=np.int32) * ROW_CODES)
    arrays = [
        pa.ListArray.from_arrays(offsets, codes)
        if field.name == "codes"
        else pa.array(columns.get(field.name) or [None] * number, field.type)
        for field in TOKEN_SCHEMA
    ]
    return pa.RecordBatch.from_arrays(
        arrays, schema=TOKEN_SCHEMA.with_metadata({"codec": json.dumps(output_toys.CODEC)})
    )


def environment(hub, home, xet=False):
    """What a publishing process sees; its token comes from the environment, as from a login."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    known = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    return {**kept, **known, **({} if xet else {"HF_HUB_DISABLE_XET": "1"})}


def start(hub, output, staging, *options, xet=False):
    command = [sys.executable, "-m", "jobs.publish", str(output), "--repo-id", REPO, "--staging", str(staging)]
    return subprocess.Popen(
        [*command, "--retry-seconds", "0.05", *options],
        cwd=ROOT,
        env=environment(hub, staging.parent / "home", xet),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def publish(hub, output, staging, *options, xet=False):
    """One whole run; returns what it said. Raises: AssertionError unless it ends well."""
    process = start(hub, output, staging, *options, xet=xet)
    said, _ = process.communicate(timeout=3600)
    assert process.returncode == 0, said
    return said


def publish_disturbed(hub, output, staging, pick, *options):
    """Runs killed while they write, while they upload and while they commit, faults all along; then a last one."""
    said = []
    running = {}

    def kill():
        os.kill(running["process"].pid, signal.SIGKILL)
        return "lost"

    uploads, commits = r"/lfs/[0-9a-f]+$", "/commit/"
    hub.faults += [
        Fault("POST", "preupload", 503),
        Fault("PUT", uploads, "drop", first=1),
        Fault("PUT", uploads, 504, first=3),
        Fault("PUT", uploads, "corrupt", first=4),
        Fault("PUT", uploads, kill, first=6),
        Fault("POST", commits, kill, first=1),
        Fault("POST", commits, "lost 504", first=2),
        Fault("POST", commits, 429, first=3),
        Fault("GET", "/tree/", 503, first=2),
        Fault("GET", "/revision/", "drop", first=2),
        Fault("POST", "/tag/", "lost"),
    ]
    for attempt in range(6):
        running["process"] = process = start(hub, output, staging, *options)
        if attempt == 0:
            wanted = pick.randint(1, 3)
            while process.poll() is None and len(list(staging.rglob("*.parquet"))) < wanted:
                time.sleep(0.01)
            time.sleep(pick.random() * 0.05)
            process.send_signal(signal.SIGKILL)
        said.append(process.communicate(timeout=3600)[0])
        if process.returncode == 0:
            return attempt, "".join(said)
        assert process.returncode == -signal.SIGKILL, said[-1]
    raise AssertionError("killed too often:\n" + "".join(said))


def trial(folder, megabytes, seed, *options):
    """Both publications; returns the two hubs, the number of kills and what was said. Raises: AssertionError."""
    output = make_output(folder / "output", megabytes)
    calm, stormy = StandInHub(folder / "calm"), StandInHub(folder / "stormy")
    options = ("--no-neutts", "--file-mb", str(megabytes / 12), *options)
    with serving(calm), serving(stormy):
        publish(calm, output, folder / "staging-calm", *options)
        kills, said = publish_disturbed(stormy, output, folder / "staging-stormy", random.Random(seed), *options)
        before = stormy.bytes_put, len(stormy.repos[REPO].commits)
        publish(stormy, output, folder / "staging-stormy", *options)
        assert before == (stormy.bytes_put, len(stormy.repos[REPO].commits)), "a second run sent something"
    calm_repo, stormy_repo = calm.repos[REPO], stormy.repos[REPO]
    assert calm_repo.find("main").tree == stormy_repo.find("main").tree
    assert calm_repo.tags.keys() == stormy_repo.tags.keys() and len(calm_repo.tags) == 1
    assert kills >= 3 and len(stormy_repo.commits) <= 20
    assert stormy.bytes_put < 1.5 * calm.bytes_put, "what was there was sent again"
    return calm, stormy, kills, said


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where to work; a temporary folder if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        begun = time.time()
        _, stormy, kills, said = trial(Path(folder), options.megabytes, options.seed)
        print(said)
        size = sum(entry.size for entry in stormy.repos[REPO].find("main").tree.values())
        print(
            f"{size / 1e6:,.0f} MB in {len(stormy.repos[REPO].find('main').tree)} files, {kills} kills, "
            f"{len(stormy.repos[REPO].commits)} commits, {stormy.bytes_put / 1e6:,.0f} MB sent, "
            f"{time.time() - begun:.0f} s: identical to the undisturbed one"
        )


if __name__ == "__main__":
    main()
