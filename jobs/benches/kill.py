"""kill -9 of actors, drivers and nodes at random moments; every byte is compared with an undisturbed run."""

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jobs.benches.cluster import TwoNodes, private_ray
from jobs.benches.corpora import sounds, write_arctic, write_emilia
from jobs.options import COMPLETE, option, parse

PROG = "neutok bench kill"
ROOT = Path(__file__).parents[2]
KINDS = ("actor", "driver", "node")
PAUSE = "0.1"  # seconds of every batch of the null codec, so that kills find a unit half done
KILLS_PER_RUN = 8
PATIENCE_SECONDS = 240


@dataclass(frozen=True)
class Options:
    kills: int = option("kills in all, over the formats", 30)
    format: Literal["parquet", "webdataset", "both"] = option("of the shards", "both")
    units: int = option("work units of the corpus, about", 60)
    seed: int = option("of the moments and the victims", 0)
    json: str | None = option("write the result to this file too", None, written=True)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(Options, argv, PROG, __doc__)
    formats = ("parquet", "webdataset") if options.format == "both" else (options.format,)
    rng, started = random.Random(options.seed), time.monotonic()
    results, plan = [], [KINDS[number % len(KINDS)] for number in range(options.kills)]
    with tempfile.TemporaryDirectory(prefix="neutok-kill-") as folder, private_ray():
        corpora = make_corpora(Path(folder), options.units, options.seed)
        nodes = TwoNodes()
        try:
            for turn, format in enumerate(formats):
                share = plan[turn * len(plan) // len(formats) : (turn + 1) * len(plan) // len(formats)]
                results.append(Course(Path(folder), corpora[turn % len(corpora)], format, nodes, rng).run(share))
        finally:
            nodes.close()
    differences = [line for result in results for line in result["differences"]]
    result = {"kills": options.kills, "identical": not differences, "seconds": time.monotonic() - started}
    result |= {"seed": options.seed, "courses": results}
    print(json.dumps(result, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    return 1 if differences else COMPLETE


@dataclass(frozen=True, slots=True)
class Corpus:
    name: str
    input: str
    unit_mb: float


def make_corpora(folder: Path, units: int, seed: int) -> list[Corpus]:
    """Plain tars that are read by offset, and a .tar.bz2 that is fed."""
    rng = np.random.default_rng(seed)
    mp3, wav = sounds(40, 24_000, "MP3", rng, 1, 4), sounds(20, 16_000, "WAV", rng, 0.3, 0.6)
    write_emilia(folder / "emilia", mp3, units * 4 * 2.5 / 3600, 2)
    write_arctic(folder / "arctic", wav, units * 2, ("aew", "slt"))
    mean = {name: sum(len(s.data) for s in stock) / len(stock) for name, stock in (("mp3", mp3), ("wav", wav))}
    return [
        Corpus("emilia", str(folder / "emilia"), 4 * mean["mp3"] / 2**20),
        Corpus("cmu_arctic", str(folder / "arctic"), 4 * mean["wav"] / 2**20),
    ]


class Course:
    """One corpus and one format: the undisturbed run, then runs under fire until all kills are spent."""

    def __init__(self, folder: Path, corpus: Corpus, format: str, nodes: TwoNodes, rng: random.Random) -> None:
        self.folder, self.corpus, self.format, self.nodes, self.rng = folder, corpus, format, nodes, rng
        self.killed: Counter[str] = Counter()
        self.starts = 0

    def run(self, left: list[str]) -> dict[str, Any]:
        """Spend all kills of `left`, in any order."""
        whole = self.folder / f"{self.format}-undisturbed"
        self.finish(self.start(whole), whole)
        self.rng.shuffle(left)
        differences, runs = [], 0
        while left:
            output = self.folder / f"{self.format}-{runs}"
            self.under_fire(output, left)
            differences += [f"{output.name}: {line}" for line in compare(whole, output)]
            runs += 1
        shards = len(list((whole / "done").iterdir()))
        return {
            "format": self.format,
            "corpus": self.corpus.name,
            "units": shards,
            "runs": runs,
            "drivers": self.starts - 1,
            "killed": dict(self.killed),
            "differences": differences,
        }

    def under_fire(self, output: Path, left: list[str]) -> None:
        """One run to its end, with kills from `left`, as many as find something to kill."""
        driver, seen, budget = self.start(output), 0, KILLS_PER_RUN
        while left and budget:
            if not self.progress(driver, output, seen):
                break  # it was done before it could be hit
            time.sleep(self.rng.uniform(0.0, 0.6))
            kind = left[-1]
            if driver.poll() is not None:
                break
            if kind == "driver":
                driver.kill()
                driver.wait()
            elif kind == "node":
                self.nodes.kill_node()
            elif not (name := self.nodes.kill_actor(self.rng)):
                continue
            left.pop()
            budget -= 1
            self.killed[kind if kind != "actor" else name.partition(".")[0].removeprefix("ray::").lower()] += 1
            seen = count_done(output)
            if kind == "driver":
                driver = self.start(output)
        self.finish(driver, output)

    def progress(self, driver: subprocess.Popen, output: Path, seen: int) -> bool:
        """Wait until something more is done. Returns: False if the driver ended instead."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if driver.poll() is not None:
                return False
            if count_done(output) > seen:
                return True
            time.sleep(0.02)
        raise TimeoutError(f"no unit was finished in {PATIENCE_SECONDS} s; see {log_of(output)}")

    def start(self, output: Path) -> subprocess.Popen:
        self.starts += 1
        command = [sys.executable, "-m", "jobs.tokenize", "--corpus", self.corpus.name, "--input", self.corpus.input]
        command += ["--output", str(output), "--format", self.format, "--unit-mb", f"{self.corpus.unit_mb:.6f}"]
        command += ["--codec", "null", "--weights", PAUSE, "--attempts", "50", "--decode-workers", "1"]
        environment = {**os.environ, "RAY_ADDRESS": self.nodes.address}
        with log_of(output).open("a") as log:
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def finish(self, driver: subprocess.Popen, output: Path) -> None:
        """Raises: RuntimeError if the driver ends with anything but complete."""
        if code := driver.wait(PATIENCE_SECONDS):
            raise RuntimeError(f"the driver ended with {code}:\n{log_of(output).read_text()[-4000:]}")


def log_of(output: Path) -> Path:
    return output.with_suffix(".log")


def count_done(output: Path) -> int:
    return sum(1 for path in (output / "done").glob("*.json"))


def compare(whole: Path, other: Path) -> list[str]:
    """How two outputs differ, but for `log/`: names that only one has, and bytes that are not the same."""
    ours, theirs = hashes(whole), hashes(other)
    only = [f"only undisturbed: {name}" for name in sorted(ours.keys() - theirs.keys())]
    only += [f"only under fire: {name}" for name in sorted(theirs.keys() - ours.keys())]
    return only + [
        f"bytes differ: {name}" for name in sorted(ours.keys() & theirs.keys()) if ours[name] != theirs[name]
    ]


def hashes(output: Path) -> dict[str, str]:
    files = [path for path in output.rglob("*") if path.is_file()]
    names = {path: path.relative_to(output).as_posix() for path in files}
    return {
        name: hashlib.sha256(p.read_bytes()).hexdigest() for p, name in names.items() if not name.startswith("log/")
    }


if __name__ == "__main__":
    sys.exit(main())
