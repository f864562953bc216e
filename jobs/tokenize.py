"""A speech corpus becomes token shards, on every GPU there is: `neutok tokenize`, `python -m jobs.tokenize`.

Run it again and only what is missing is done. The output, a folder or a URL, must be reachable from every node.
Exit codes: 0 complete, 2 wrong options, 3 complete with too many rejects, 4 incomplete.
"""

import contextlib
import json
import math
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jobs.corpus import Source, absolute, build, check_lasting, check_source, index_folder, plan, wrong_options
from jobs.options import COMPLETE, INCOMPLETE, OVER_REJECTS, UsageError, as_json, option, parse, usage_error

if TYPE_CHECKING:
    from jobs.backlog import Backlog
    from pipeline.index import Index
    from pipeline.tokenize import Settings
    from schemas.manifest import ShardManifest

PROG = "neutok tokenize"
POSITIVE = (
    "max_seconds",
    "split_seconds",
    "batch_seconds",
    "decode_workers",
    "gpus_per_actor",
    "actors",
    "attempts",
    "stall_minutes",
)


@dataclass(frozen=True)
class Options(Source):
    codec: str = option("neucodec, distill-neucodec, or nano, small and shipped with neutok", "neucodec")
    weights: str | None = option("Hub id, file or folder; `seeded` for random ones (default: as published)", None)
    precision: Literal["float32", "tf32", "bfloat16", "bfloat16+compiled"] = option(
        "of the codec's arithmetic; tf32 and compiled are for GPUs", "float32"
    )
    format: Literal["parquet", "webdataset"] = option("of the shards", "parquet")
    max_seconds: float = option("a longer clip is a reject, too_long, unless it is split", 60.0)
    split_seconds: float | None = option(
        "cut clips longer than this at their quietest points; no clip of up to 4 hours is too long then", None
    )
    batch_seconds: float | None = option("of padded sound in one batch (default: 10 on a CPU, 240 on a GPU)", None)
    decode_workers: int | None = option("processes that decode, per actor (default: one per core of its share)", None)
    gpus_per_actor: float = option("0.5 puts two actors on each GPU", 1.0)
    actors: int | None = option(
        "at most so many (default: one per GPU; without GPUs one per node, whose cores more would share)", None
    )
    attempts: int = option("how often a unit may fail before it is left out", 5)
    stall_minutes: float = option("an actor that does nothing for so long is ended, and its units go back", 60.0)
    max_reject_share: float = option("exit with 3 if a larger share of the clips is rejected", 0.1)
    address: str | None = option(
        "of a Ray cluster; `local` for one of its own (default: RAY_ADDRESS, else the one that `ray start` began on "
        "this machine, else one of its own)",
        None,
    )


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(Options, argv, PROG, __doc__.partition("\n")[0])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(INCOMPLETE))  # until the driver has a handler of its own
    try:
        with wrong_options():
            check(options)
            options = replace(options, output=absolute(options.output))
        with index_folder(options) as folder:
            started = time.monotonic()
            with wrong_options():
                index = build(options, folder)
            if not options.dry_run:
                return run(options, index, time.monotonic() - started)
            print(plan(index, options))
            return COMPLETE
    except UsageError as error:
        return usage_error(PROG, error)
    except KeyboardInterrupt:
        return INCOMPLETE


def check(options: Options) -> None:
    """What can be known without reading the input or loading a codec. Raises: ValueError, OSError."""
    from codec import CODECS

    check_source(options)
    if options.codec not in CODECS:
        raise ValueError(f"unknown codec {options.codec!r}; known: {', '.join(sorted(CODECS))}")
    for name in POSITIVE:
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"--{name.replace('_', '-')} must be more than 0, got {value}")
    if options.gpus_per_actor > 1 and options.gpus_per_actor % 1:
        raise ValueError(f"--gpus-per-actor is a part of one GPU or a whole number, got {options.gpus_per_actor}")
    if not 0 <= options.max_reject_share <= 1:
        raise ValueError(f"--max-reject-share is between 0 and 1, got {options.max_reject_share}")
    path = Path(options.weights or ".").expanduser()
    if options.weights and options.weights.startswith((".", "/", "~")) and not path.exists():
        raise ValueError(f"no weights at {options.weights!r}; give a file, a folder, a Hub id or `seeded`")
    check_lasting(options.output)
    settings(options)
    if not options.dry_run:
        check_identity(options)


def run(options: Options, index: "Index", index_seconds: float) -> int:
    """The units that have no shard yet, on Ray; then the manifest. Returns the exit code. Raises: UsageError."""
    import ray

    from jobs.cluster import Stop, connect
    from jobs.driver import CannotStart, Driver, Hopeless
    from jobs.progress import Progress
    from jobs.reporter import Reporter, RunLog
    from jobs.worker import Task
    from pipeline import manifest
    from pipeline.tokenize import Output

    output, stop, log = Output(options.output, options.format), Stop(), RunLog(options.output)
    names = {unit.name for unit in index.units}
    done = {name: info for name, info in manifest.finished(output).items() if name in names}
    todo = [unit for unit in index.units if unit.name not in done]
    asked = {**identity(options), "index": index.hash}
    log.write("start", options=as_json(options), index_seconds=index_seconds, units=len(index.units), done=len(done))
    with wrong_options():
        connect(options.address)
    stop.install()
    reporter = Reporter(Progress(index.units, done, index.seconds), log)
    for problem in index.problems:
        reporter.say(problem)
    reporter.say(f"{index.num_clips:,} clips; {len(todo):,} of {len(index.units):,} units to do")
    task = Task(
        options.codec,
        options.weights,
        options.precision,
        output,
        settings(options),
        options.decode_workers,
        str(Path.cwd()),
    )
    driver = Driver(
        task,
        todo,
        options.attempts,
        options.gpus_per_actor,
        options.actors,
        reporter,
        stop,
        stall_seconds=60 * options.stall_minutes,
    )
    try:
        with contextlib.closing(reporter):
            driver.run(admit=lambda spec: manifest.open_run(output, {**asked, "codec": spec.to_json()}))
        left = explain(driver.backlog)
        code = INCOMPLETE if left else conclude(manifest.merge(output, index.units), options)
        log.write("end", exit=code)
    except CannotStart as error:
        raise UsageError(str(error)) from error
    except Hopeless as error:
        print(f"stopped: {error}", file=sys.stderr)
        explain(driver.backlog)
        code = INCOMPLETE
        log.write("end", exit=code, error=str(error))
    finally:
        log.flush()
        ray.shutdown()
        stop.install()  # the shutdown takes our handlers away
    return code


def explain(backlog: "Backlog") -> int:
    """Say which units failed, and how many are left. Returns: that number."""
    for failure in backlog.given_up:
        print(f"unit {failure.unit.name} failed {failure.attempts} times: {failure.error}", file=sys.stderr)
    left = len(backlog.open) + len(backlog.given_up)
    if left:
        print(f"incomplete: {left:,} units left; run the same command again to go on", file=sys.stderr)
    return left


def conclude(whole: "ShardManifest", options: Options) -> int:
    from jobs.reporter import reject_share, summary

    print(summary(whole, options.output), flush=True)
    share = reject_share(whole)
    if share <= options.max_reject_share:
        return COMPLETE
    print(
        f"{share:.2%} of the clips were rejected, more than --max-reject-share {options.max_reject_share:.2%}",
        file=sys.stderr,
    )
    return OVER_REJECTS


def settings(options: Options) -> "Settings":
    from pipeline.tokenize import Settings

    chosen = {name: getattr(options, name) for name in ("max_seconds", "split_seconds", "batch_seconds")}
    return Settings(**{name: value for name, value in chosen.items() if value is not None})


def identity(options: Options) -> dict[str, Any]:
    """What makes two runs the same, as far as the options say: with another of any of these the shards differ."""
    from pipeline.batch import PLAN_VERSION

    selection = {name: getattr(options, name) for name in ("split", "language", "limit", "keep_known_bad")}
    how = {name: getattr(options, name) for name in ("max_seconds", "split_seconds", "batch_seconds", "format")}
    chosen = {"corpus": options.corpus, "selection": selection, "unit_mb": options.unit_mb, "plan": PLAN_VERSION}
    return json.loads(json.dumps({**chosen, **how}))


def check_identity(options: Options) -> None:
    """An index must not be written over that of another run. Raises: ValueError if the output belongs to one."""
    from pipeline import storage
    from pipeline.manifest import refuse_another

    path = storage.join(absolute(options.output), "run.json")
    if not storage.exists(path):
        return
    asked, kept = identity(options), json.loads(storage.read_bytes(path))
    refuse_another(options.output, {name: kept.get(name) for name in asked}, asked)


if __name__ == "__main__":
    sys.exit(main())
