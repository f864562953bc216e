"""Hours of audio per core-hour through the whole path, with a codec that costs nothing: hours / (wall x cores).

    python -m jobs.bench pipeline
    python -m jobs.bench pipeline --codec distill-neucodec --weights seeded --hours 0.5 --against-encode
    python -m jobs.bench pipeline --codec neucodec --weights seeded --hours 0.1 --clip-seconds 30 --memory

With --against-encode a real codec also encodes the same clips alone, decoded beforehand, in a process set up as an
actor is, on as many cores as the whole path gets for all of its stages: how much of the codec's speed is left.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np

from jobs.benches.corpora import sounds, write_emilia, write_parquet
from jobs.benches.memory import run_watched
from jobs.options import COMPLETE, option, parse, usage_error

PROG = "neutok bench pipeline"
ROOT = Path(__file__).parents[2]
STOCK = 300  # different clips, stored again and again under keys of their own
SHORTEST, LONGEST = 3.0, 27.0  # seconds; Emilia-YODAS has a mean of 15
STAGE_HOURS = 1.0  # for the breakdown, one stage at a time in one process


@dataclass(frozen=True)
class Options:
    source: Literal["mp3-tar", "flac-parquet"] = option(
        "24 kHz MP3 as Emilia lies, or 16 kHz FLAC in Parquet", "mp3-tar"
    )
    hours: float = option("of audio", 20.0)
    clip_seconds: float | None = option("of every clip (default: 3 to 27)", None)
    unit_mb: float = option("stored audio that makes one shard, in MiB", 16.0)
    decode_workers: int | None = option("processes that decode (default: one per core)", None)
    actors: int | None = option("actors (default: one)", None)
    format: Literal["parquet", "webdataset"] = option("of the shards", "parquet")
    codec: str = option("which codec; the null codec costs nothing", "null")
    weights: str | None = option("Hub id, file or folder; `seeded` for random ones (default: as published)", None)
    precision: str = option("of the codec's arithmetic", "float32")
    against_encode: bool = option("compare with the codec encoding the same clips alone, by turns", False)
    rounds: int = option("how often both are run; the medians count", 1)
    memory: bool = option("watch the memory of all processes, too, which makes them slower", False)
    folder: str | None = option("where to work; the corpus in it is used again (default: a temporary folder)", None)
    json: str | None = option("write the result to this file too", None, written=True)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(Options, argv, PROG, __doc__.splitlines()[0])
    if options.hours <= 0 or options.rounds < 1 or not (options.clip_seconds or 1) > 0:
        return usage_error(PROG, "--hours, --rounds and --clip-seconds must be more than 0")
    if options.against_encode and options.memory:
        return usage_error(PROG, "--memory slows the job down: run it without --against-encode")
    if options.against_encode and options.codec == "null":
        return usage_error(PROG, "--against-encode is for a codec that costs something; name one with --codec")
    with tempfile.TemporaryDirectory(prefix="neutok-pipeline-") as temporary:
        folder = Path(options.folder or temporary)
        corpus, path = make_corpus(options, folder)
        runs, encoded = [], []
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory(prefix="out-", dir=folder) as output:
                runs.append(measure(options, corpus, path, Path(output)))
            if options.against_encode:
                encoded.append(time_alone(options, path))
        result = sorted(runs, key=lambda run: run["hours_per_core_hour"])[(len(runs) - 1) // 2]  # of two, the slower
        if options.memory:
            result["peak_gib"] = max(run["peak_gib"] for run in runs)
        if options.against_encode:
            whole = statistics.median(run["index_seconds"] + run["work_seconds"] for run in runs)
            result |= {"encode_seconds": encoded, "share_of_encode": statistics.median(encoded) / whole}
            result["whole_seconds"] = [run["index_seconds"] + run["work_seconds"] for run in runs]
        else:
            result["stages"] = stages(corpus, path, options.unit_mb)
    text = json.dumps(result, indent=1)
    print(text)
    if options.json:
        Path(options.json).write_text(text + "\n")
    return COMPLETE


def make_corpus(options: Options, folder: Path) -> tuple[str, Path]:
    """The corpus below `folder`, made unless it is there. Returns: its name for --corpus, and its path."""
    shortest, longest = (options.clip_seconds or SHORTEST), (options.clip_seconds or LONGEST)
    path = folder / f"{options.source}-{options.hours:g}h-{shortest:g}-{longest:g}s"
    done = path / "made"
    if not done.exists():
        rng = np.random.default_rng(0)
        stock = min(STOCK, math.ceil(options.hours * 3600 / shortest))
        if options.source == "mp3-tar":
            write_emilia(path, sounds(stock, 24_000, "MP3", rng, shortest, longest), options.hours, 4)
        else:
            write_parquet(path, sounds(stock, 16_000, "FLAC", rng, shortest, longest), options.hours, 4)
        done.touch()
    return corpus_of(options), path


def corpus_of(options: Options) -> str:
    return "emilia" if options.source == "mp3-tar" else "parquet"


def measure(options: Options, corpus: str, path: Path, output: Path) -> dict[str, Any]:
    """One run of the job. Timed are the index and all from the first codec loaded to the manifest, not Ray's start."""
    command = [sys.executable, "-m", "jobs.tokenize", "--corpus", corpus, "--input", str(path), "--output", str(output)]
    command += ["--codec", options.codec, "--precision", options.precision, "--format", options.format]
    command += ["--unit-mb", str(options.unit_mb), "--address", "local"]
    for name in ("decode_workers", "actors", "weights"):
        if (value := getattr(options, name)) is not None:
            command += ["--" + name.replace("_", "-"), str(value)]
    if options.memory:
        watched = {"peak_gib": run_watched(command, ROOT)}  # of the job and its Ray, all processes
    else:
        watched = {}
        subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=True)
    (log,) = (output / "log").glob("*.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    at = {event["event"]: datetime.fromisoformat(event["time"]) for event in reversed(events)}  # the first of each
    index = next(event["index_seconds"] for event in events if event["event"] == "start")
    work = (at["end"] - at["actor"]).total_seconds()
    manifest = json.loads((output / "manifest.json").read_text())
    hours, cores = manifest["totals"]["hours"], len(os.sched_getaffinity(0))
    assert manifest["totals"]["rejects"] == {}, manifest["totals"]["rejects"]
    return {
        "source": options.source,
        "codec": options.codec,
        "precision": options.precision,
        "format": options.format,
        "hours": hours,
        "clips": manifest["totals"]["clips"],
        "shards": manifest["totals"]["units"],
        "cores": cores,
        "index_seconds": index,
        "work_seconds": work,
        "hours_per_core_hour": hours * 3600 / ((index + work) * cores),
    } | watched


def time_alone(options: Options, path: Path) -> float:
    """Seconds of `encode_alone`, in a process of its own that ends with it: none waits beside the job."""
    from jobs.worker import ALLOCATOR

    with patch.dict(os.environ, ALLOCATOR), ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(encode_alone, options, path).result()


def encode_alone(options: Options, path: Path) -> float:
    """Seconds of the codec and nothing else: every clip is decoded and on its way into a batch beforehand."""
    import torch

    import codec
    from jobs.benches.encode import make_batches
    from jobs.benches.machine import clock
    from pipeline.tokenize import Settings

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    device = "cuda" if torch.cuda.is_available() else "cpu"  # as the job chooses it
    model = codec.load(options.codec, device, options.weights, options.precision)
    clips = decoded(options, path, model.spec.input_rate)
    batches, _ = make_batches(clips, Settings().seconds_per_batch(model), device)

    def encode(batches: Sequence[Any]) -> None:
        for waveforms, num_samples in batches:
            model.encode(waveforms, num_samples)

    encode(batches[:1])  # warm
    return clock(lambda: encode(batches), device)[1]


def decoded(options: Options, path: Path, rate: int) -> list[Any]:
    """Every stored clip as a tensor float32 [T] at `rate`."""
    import torch

    from pipeline.decoding.load import load_native
    from pipeline.decoding.resample import resample
    from pipeline.index import Selection, build_index
    from pipeline.stream import read_unit

    with tempfile.TemporaryDirectory(prefix="neutok-alone-") as folder:
        index = build_index(corpus_of(options), [str(path)], folder, Selection(), round(options.unit_mb * 2**20))
        files = [file for unit in index.units for file in read_unit(unit)]
        return [torch.from_numpy(resample(*load_native(file.data, 60.0), rate)) for file in files]


def stages(corpus: str, path: Path, unit_mb: float) -> dict[str, float]:
    """Core-seconds per hour of audio of each stage alone, in one process, one after the other."""
    import torch

    import codec
    from pipeline.batch import windows
    from pipeline.commit import commit
    from pipeline.decoding.load import load_native
    from pipeline.decoding.resample import resample
    from pipeline.encode import encode
    from pipeline.index import Selection, build_index
    from pipeline.output import Output
    from pipeline.stream import read_unit
    from pipeline.tokenize import Settings
    from schemas.audio import AudioSegment

    torch.set_num_threads(1)
    null, settings, seconds = codec.load("null"), Settings(), 0.0
    spent = dict.fromkeys(("index", "read", "decode", "resample", "batch_encode", "write_verify_commit"), 0.0)
    with tempfile.TemporaryDirectory(prefix="neutok-stages-") as folder:
        clock = Clock()
        index = build_index(corpus, [str(path)], folder, Selection(), round(unit_mb * 2**20))
        whole = clock.lap()
        for unit in index.units:
            files = list(read_unit(unit))
            spent["read"] += clock.lap()
            waves = [load_native(file.data, 60.0) for file in files]
            spent["decode"] += clock.lap()
            waves = [resample(wave, rate, null.spec.input_rate) for wave, rate in waves]
            spent["resample"] += clock.lap()
            clips = [AudioSegment(f.utterance, w, null.spec.input_rate) for f, w in zip(files, waves, strict=True)]
            together = windows(clips, settings.window_seconds)
            records = list(encode(together, null, settings.seconds_per_batch(null)))
            spent["batch_encode"] += clock.lap()
            seconds += commit(Output(folder, "parquet"), unit, records, null.spec).seconds
            spent["write_verify_commit"] += clock.lap()
            if seconds > STAGE_HOURS * 3600:
                break
        spent["index"] = (
            whole * sum(unit.num_bytes for unit in index.units[: index.units.index(unit) + 1]) / index.num_bytes
        )
    return {name: round(value * 3600 / seconds, 3) for name, value in spent.items()}


class Clock:
    """Seconds of processor time between laps."""

    def __init__(self) -> None:
        self.last = time.process_time()

    def lap(self) -> float:
        now = time.process_time()
        passed, self.last = now - self.last, now
        return passed


if __name__ == "__main__":
    sys.exit(main())
