"""Which clips of which corpus: the options `neutok index` and `neutok tokenize` share, and the index they lead to."""

import contextlib
import math
import os
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.options import WRONG, UsageError, option

if TYPE_CHECKING:
    from pipeline.index import Index


@dataclass(frozen=True)
class Source:
    corpus: str = option("what it is: emilia, mls, common_voice, …, or folder or parquet for your own")
    input: tuple[str, ...] = option("files, folders, globs, brace ranges or URLs (s3://, hf://, https://)")
    output: str = option("folder or URL for the shards; every node must reach it")
    unit_mb: float = option("stored audio that makes one shard, in MiB", 128.0)
    split: tuple[str, ...] = option("only these splits, as the corpus names them", (), separator=",")
    language: tuple[str, ...] = option("only these languages, ISO 639-1 (639-3 where there is none)", (), separator=",")
    limit: int | None = option("only the first so many clips", None)
    keep_known_bad: bool = option("keep clips that the corpus itself lists as bad", False)
    dry_run: bool = option("say what would be done, and do nothing", False)


@contextlib.contextmanager
def wrong_options() -> Iterator[None]:
    """What the checks before the first unit raise is about what was asked for, not a fault of the program."""
    try:
        yield
    except WRONG as error:
        raise UsageError(str(error)) from error


def check_source(source: Source) -> None:
    """Raises: ValueError, OSError for what can be known to be wrong before the input is read."""
    from pipeline.corpora import CORPORA

    if source.corpus not in CORPORA:
        raise ValueError(f"unknown corpus {source.corpus!r}; known: {', '.join(sorted(CORPORA))}")
    if not 0 < source.unit_mb < math.inf:
        raise ValueError(f"--unit-mb must be more than 0, got {source.unit_mb}")
    if source.limit is not None and source.limit < 1:
        raise ValueError(f"--limit must be at least 1, got {source.limit}")
    if not source.dry_run:
        check_writable(source.output, once=True)


def check_writable(output: str, once: bool = False) -> None:
    """Raises: OSError if nothing can be written there, or with `once` not so that the first to write a file is the
    only one; ValueError if others would not see it."""
    from pipeline import storage

    if output.startswith("memory://"):
        raise ValueError(f"--output {output} is the memory of one process; give a folder or URL that all can reach")
    probe = storage.join(output, "log", f"probe-{uuid.uuid4().hex[:8]}")
    try:
        if once:
            storage.create_exclusive(probe, b"")
        else:
            storage.write_atomic(probe, lambda file: None)
        storage.remove(probe)
    except Exception as error:  # every store has errors of its own
        raise OSError(f"cannot write to --output {output}: {error}") from error


def absolute(output: str) -> str:
    """The output as every process of the run understands it, wherever it was started."""
    return output if "://" in output else str(Path(output).expanduser().resolve())


def check_lasting(output: str) -> None:
    """Raises: ValueError for a place that goes with the job: a submitted one runs in a folder that Ray removes."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and absolute(output) != output:
        raise ValueError(f"a submitted job runs in a folder of its own: give --output as a full path, not {output}")


@contextlib.contextmanager
def index_folder(source: Source) -> Iterator[str]:
    """Where the index goes: the output, or for a dry run a folder that vanishes."""
    if not source.dry_run:
        yield absolute(source.output)
        return
    with tempfile.TemporaryDirectory(prefix="neutok-dry-run-") as folder:
        yield folder


def build(source: Source, folder: str) -> "Index":
    """Raises: ValueError, OSError for inputs that are missing or are not what the corpus says."""
    from pipeline.index import Selection, build_index

    selection = Selection(source.split, source.language, source.limit, source.keep_known_bad)
    return build_index(source.corpus, source.input, folder, selection, round(source.unit_mb * 2**20))


def plan(index: "Index", source: Source) -> str:
    """What there is to do, for the screen."""
    from jobs.progress import by_reason
    from pipeline.reporting.amounts import lasting

    known = lasting(index.seconds / 3600) if index.seconds is not None else "hours unknown before decoding"
    size = f"{index.num_bytes / 2**20:,.1f} MiB"
    filters = " and ".join(f"--{name}" for name in ("split", "language") if getattr(source, name))
    left_out = f"left out by {filters}: {index.num_left_out:,} clips of these sources"
    if source.limit is not None:
        left_out += ", as far as --limit let them be read"
    return "\n".join(
        (
            f"{index.num_clips:,} clips of {source.corpus} in {index.num_sources:,} sources: {size}, {known}",
            f"{len(index.units):,} work units of about {source.unit_mb:g} MiB, one shard each",
            f"rejects known already: {by_reason(index.rejects)}; labels without sound: {index.orphan_labels:,}",
            *([left_out] if filters else []),
            *index.problems,
        )
    )
