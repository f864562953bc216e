"""Everything that is to be known of a GPU in one go, with torch, numpy and safetensors: no Ray, Arrow or decoders.

    python -m jobs.bench gpu --prepare clips.safetensors --input speech/      # here, where clips can be decoded
    python -m jobs.bench gpu --input clips.safetensors --output results         # there

Each part is a bench of its own in a process of its own, with a limit of time: whatever happens to one, the others run,
and what is known so far lies in gpu.json and gpu.txt; what the parts say on the way, in gpu.log. The neucodec package
is compared with if it can be imported (its wheels unpacked on PYTHONPATH will do).
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from codec.precision import ON_GPU
from jobs.options import COMPLETE, INCOMPLETE, option, parse, usage_error
from pipeline.batch import BATCH_SECONDS

PROG = "neutok bench gpu"
ROOT = Path(__file__).parents[2]
PRECISIONS = ("bfloat16", "tf32", "float32")
SAMPLE_BYTES = 2  # of a prepared clip
SHORTEST, LONGEST = 5.0, 30.0  # seconds of a prepared clip
LEAST_SECONDS = 15.0  # what a part is still begun with
LAST_WORDS = 30  # lines of a part that failed


@dataclass(frozen=True)
class GpuOptions:
    input: tuple[str, ...] = option("prepared clips; or audio files and folders, where they can be decoded", ())
    output: str | None = option("the folder for gpu.json and gpu.txt", None)
    prepare: str | None = option("decode clips of 5 to 30 s of the input into this .safetensors file, and end", None)
    megabytes: float = option("the most that --prepare writes", 20.0)
    model: tuple[str, ...] = option("which codecs", ("neucodec", "distill-neucodec"), separator=",")
    weights: str = option("a Hub id, file or folder of weights, or 'seeded'", "seeded")
    device: str = option("where to run", "cuda")
    minutes: float = option("no part runs longer than what is left of these", 8.0)
    total_seconds: float = option("of sound for encoding speed; clips come again and again", 1800.0)
    batch_seconds: float = option("of sound in a batch, padding included", BATCH_SECONDS["cuda"])
    batches: int = option("ragged batches of each codec, and a twentieth as many with clips of 30 s", 100)
    limit: int = option("clips that precisions and packages are compared on", 40)
    rounds: int = option("how often everything timed is done; the median counts", 3)

    def __post_init__(self) -> None:
        if (self.output is None) == (self.prepare is None):
            raise ValueError("give either --output, to measure, or --prepare, to bring clips along")
        if self.output is not None and not self.input:
            raise ValueError("--output needs --input: clips that --prepare wrote, or files that can be decoded here")


@dataclass(frozen=True)
class Part:
    """One bench: what it is called with, and the most seconds it may take. `without` says why it is left out."""

    name: str
    seconds: float
    command: tuple[str, ...]
    without: str | None = None


@dataclass(frozen=True)
class Outcome:
    part: str
    verdict: str
    seconds: float
    table: str
    result: Any  # what the part wrote as JSON, or None


def main(argv: Sequence[str] | None = None) -> int:
    try:
        options = parse(GpuOptions, argv, PROG, __doc__.splitlines()[0])
        if options.prepare:
            return prepare(options)
        Path(options.output).mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        return usage_error(PROG, error)
    began, outcomes = time.monotonic(), []
    for part in parts(options):
        left = options.minutes * 60 - (time.monotonic() - began)
        outcomes.append(run(part, min(part.seconds, left), Path(options.output) / "gpu.log"))
        keep(outcomes, options)
    print(summary(outcomes))
    return COMPLETE if all(each.verdict in ("done", "left out") for each in outcomes) else INCOMPLETE


def prepare(options: GpuOptions) -> int:
    """Write the clips that fit. Raises: ValueError if there are none."""
    from jobs.parity_clips import RATE, load_clips, write_prepared

    chosen, room = [], options.megabytes * 1e6
    for clip in load_clips(options.input, LONGEST):
        size = SAMPLE_BYTES * len(clip.waveform)
        if len(clip.waveform) >= SHORTEST * RATE and size <= room:
            chosen.append(clip)
            room -= size
    if not chosen:
        raise ValueError(f"no clip of {SHORTEST:g} to {LONGEST:g} s in {options.input} fits {options.megabytes:g} MB")
    write_prepared(Path(options.prepare), chosen)
    seconds = sum(len(clip.waveform) for clip in chosen) / RATE
    print(f"{options.prepare}: {len(chosen)} clips, {seconds:.0f} s")
    return COMPLETE


def parts(options: GpuOptions) -> list[Part]:
    """What there is to measure, the most wanted first."""
    common = ("--device", options.device)
    codec = (*common, "--weights", options.weights, "--input", *options.input)
    rounds, batch = ("--rounds", str(options.rounds)), ("--batch-seconds", str(options.batch_seconds))
    encode = ("encode", *codec, *rounds, *batch, "--total-seconds", str(options.total_seconds))
    few = (*codec, *rounds, *batch, "--limit", str(options.limit), "--max-seconds", str(LONGEST))
    peers = ("peers", *few, "--min-seconds", "0", "--against", "neucodec", "--threads", str(os.cpu_count() or 1))
    ragged = ("ragged", *codec, "--batches", str(options.batches), "--long-batches", str(options.batches // 20))
    ragged += ("--minutes", "1")  # nearly every row alone is of a new shape, for which libraries plan anew
    no_peer = None if find_spec("neucodec") else "the neucodec package is not installed"
    no_arrow = None if find_spec("pyarrow") else "the engine gives rows of Arrow's, which is not installed"
    engine = ("engine", *codec, *rounds, *batch, "--total-seconds", str(options.total_seconds))
    no_gpu = None if options.device.startswith("cuda") else "this precision is a GPU's"
    kernel_seconds = str(max(1, round(options.batch_seconds)))

    def encoding(name: str, precision: str, seconds: float) -> Part:
        command = (*encode, "--model", name, "--precision", precision)
        return Part(f"encode {name} {precision}", seconds, command, no_gpu if precision in ON_GPU else None)

    return [
        Part("kernel", 60, ("kernel", *common, "--seconds", kernel_seconds)),
        *(encoding(name, precision, 60) for precision in PRECISIONS for name in options.model),
        *(
            Part(f"peers {name}", 120, (*peers, "--model", name, "--precision", "float32,bfloat16"), no_peer)
            for name in options.model
        ),
        *(
            Part(f"engine {name}", 60, (*engine, "--model", name, "--precision", "bfloat16"), no_arrow)
            for name in options.model
        ),
        *(Part(f"ragged {name}", 90, (*ragged, "--model", name)) for name in options.model),
        *(Part(f"precision {name}", 90, ("precision", *few, "--model", name)) for name in options.model),
        *(encoding(name, "bfloat16+compiled", 120) for name in options.model),
    ]


def run(part: Part, seconds: float, log: Path) -> Outcome:
    """One part, stopped after so many seconds. Its progress goes to the log, as it comes; its last words are kept."""
    if part.without:
        return told(Outcome(part.name, "left out", 0.0, f"left out: {part.without}", None))
    if seconds < min(part.seconds, LEAST_SECONDS):
        return told(Outcome(part.name, "no time left", 0.0, "not begun: no time is left", None))
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]  # and not its folder: inputs may be relative
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="neutok-gpu-") as folder, log.open("ab") as errors:
        result, start = Path(folder) / "result.json", errors.tell()
        command = [sys.executable, "-m", "jobs.bench", *part.command, "--json", str(result)]
        try:
            done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=errors, timeout=seconds)
            verdict, said = "done" if done.returncode == 0 else f"exit code {done.returncode}", done.stdout
        except subprocess.TimeoutExpired as error:
            verdict, said = f"stopped after {seconds:.0f} s", error.stdout or b""
        table = said.decode(errors="replace")
        if verdict != "done":
            last = log.read_bytes()[start:].decode(errors="replace").splitlines()[-LAST_WORDS:]
            table = "\n".join([table, *last])
        found = read_result(result)
    return told(Outcome(part.name, verdict, time.monotonic() - began, table.strip("\n"), found))


def read_result(path: Path) -> Any:
    """What a part wrote as JSON; None where it came to no end."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def told(outcome: Outcome) -> Outcome:
    print(f"\n== {outcome.part}: {outcome.verdict}, {outcome.seconds:.0f} s\n{outcome.table}", flush=True)
    return outcome


def keep(outcomes: Sequence[Outcome], options: GpuOptions) -> None:
    """What is known so far, for people and for programs."""
    folder = Path(options.output)
    text = [f"== {each.part}: {each.verdict}, {each.seconds:.0f} s\n{each.table}\n" for each in outcomes]
    (folder / "gpu.txt").write_text("\n".join([*text, summary(outcomes), ""]))
    record = {"options": asdict(options), "parts": {each.part: asdict(each) for each in outcomes}}
    (folder / "gpu.json").write_text(json.dumps(record, indent=1) + "\n")


def summary(outcomes: Sequence[Outcome]) -> str:
    return "\n".join(f"{each.part:28} {each.verdict:22} {each.seconds:>6.0f} s" for each in outcomes)


if __name__ == "__main__":
    sys.exit(main())
