"""One unit's results become a shard, whole or not at all, once: temporary files, verified, renamed, then a sidecar.

Any process may die at any line of this file, and several may work at the same unit: the first sidecar decides, and
what lies under the final names is what it says.
"""

import hashlib
import json
import os
import re
import socket
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import pyarrow.parquet as pq

from pipeline import storage
from pipeline.decoding.cutting import clip_of
from pipeline.indexing.keys import with_source
from pipeline.output import Output
from pipeline.sinks import SINKS
from pipeline.sinks.parquet import write_rejects
from schemas.audio import Reject
from schemas.manifest import ShardInfo, WorkUnit
from schemas.spec import CodecSpec
from schemas.tokens import TokenRecord, reject_batch

Result = TokenRecord | Reject
STALE_SECONDS = 24 * 3600.0  # a temporary file of another machine is left alone for so long
TEMPORARY = re.compile(r"\..+-(\d+)-[0-9a-f]{12}\.tmp")


def commit(output: Output, unit: WorkUnit, results: Iterable[Result], spec: CodecSpec) -> ShardInfo:
    """Write, verify and place the shard of `unit`. Returns: its sidecar, which is another attempt's if that was first.

    Raises: ValueError if `results` are not one of each clip of the unit, or break the codec's frame rule.
    """
    with Attempt(output, unit) as attempt:
        info = attempt.write(results, spec)
        check_shard(str(attempt.data), attempt.rejects, info, unit.last - unit.first, output.format, spec)
        known = read_sidecar(output, unit.name)
        if known is None:
            attempt.place()
            if storage.create_exclusive(output.sidecar(unit.name), info.to_json().encode()):
                attempt.place_again()
                return info
            known = read_sidecar(output, unit.name)
            assert known is not None
            attempt.step_back(known)
        if known != info:
            log_discarded(output, known, info)
        return known


class Attempt:
    """The files of one attempt, under names of its own until they are placed; what is left of them goes at the end."""

    def __init__(self, output: Output, unit: WorkUnit) -> None:
        self.output, self.unit = output, unit
        self.local = storage.is_local(output.folder)
        self.finals = (output.data(unit.name), output.rejects(unit.name))
        self.files: list[Path] = []  # data, rejects; kept until the sidecar has decided
        self.before: list[Path | None] = [None, None]  # what lay under the final names

    def __enter__(self) -> "Attempt":
        self.folder = None if self.local else tempfile.TemporaryDirectory(prefix="neutok-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in [*self.files, *filter(None, self.before)]:
            file.unlink(missing_ok=True)
        if self.folder is not None:
            self.folder.cleanup()

    @property
    def data(self) -> Path:
        return self.files[0]

    @property
    def rejects(self) -> Path:
        return self.files[1]

    def write(self, results: Iterable[Result], spec: CodecSpec) -> ShardInfo:
        """Both files, rows as they come."""
        sink, rejects = SINKS[self.output.format], []
        count: Counter[str] = Counter()
        languages: Counter[str] = Counter()

        def rows() -> Iterator[TokenRecord]:
            for result in unique(results):
                if isinstance(result, Reject):
                    rejects.append(result)
                    continue
                count["records"] += 1
                count["frames"] += result.codes.shape[1]
                languages[result.utterance.language or ""] += result.num_samples
                yield result

        self._write(self.finals[0], lambda file: sink.write(file, rows(), spec))
        self._write(self.finals[1], lambda file: write_rejects(file, reject_batch(rejects)))
        num_samples, skipped = sum(languages.values()), Counter(reject.reason for reject in rejects)
        return ShardInfo(
            name=self.unit.name,
            num_clips=self.unit.last - self.unit.first,
            num_records=count["records"],
            num_frames=count["frames"],
            num_samples=num_samples,
            seconds=num_samples / spec.input_rate,
            data=storage.join("data", Path(self.finals[0]).name),
            rejects=storage.join("rejects", Path(self.finals[1]).name),
            num_bytes=self.data.stat().st_size,
            sha256=sha256(self.data),
            rejects_sha256=sha256(self.rejects),
            skipped=dict(sorted(skipped.items())),
            corpus=self.unit.corpus,
            samples_by_language=dict(sorted(languages.items())),
        )

    def _write(self, final: str, writer: object) -> None:
        path = final if self.folder is None else str(Path(self.folder.name) / Path(final).name)
        self.files.append(storage.write_temporary(path, writer))

    def place(self) -> None:
        """Our files under the final names. On a local disk what lay there is kept for a while."""
        for number, (file, final) in enumerate(zip(self.files, self.finals, strict=True)):
            if not self.local:
                fs, inner = storage.filesystem(final)
                fs.makedirs(storage.parent(inner), exist_ok=True)
                fs.put_file(str(file), inner)
                continue
            if self.before[number] is None and Path(final).exists():
                self.before[number] = another_name(file)
                os.link(final, self.before[number])
            ours = another_name(file)
            os.link(file, ours)
            ours.replace(final)
            storage.sync_folder(Path(final).parent)

    def place_again(self) -> None:
        """We were first: where a slower attempt has put its files over ours since, ours go back."""
        if self.local and not all(map(os.path.samefile, self.files, self.finals)):
            self.place()

    def step_back(self, known: ShardInfo) -> None:
        """Another was first: if our files lie over its, its go back.

        A store without links cannot do so; should two different results ever meet there in the same second, `verify`
        says so.
        """
        hashes = (known.sha256, known.rejects_sha256)
        for before, final, wanted in zip(self.before, self.finals, hashes, strict=True):
            if self.local and before is not None and sha256(Path(final)) != wanted and sha256(before) == wanted:
                before.replace(final)


def unique(results: Iterable[Result]) -> Iterator[Result]:
    """A piece of a clip may come to the name of another clip: then one of the two gives way."""
    seen: set[str] = set()
    pieces: set[str] = set()
    for result in results:
        if isinstance(result, TokenRecord):
            utterance = result.utterance
            if clip_of(utterance.id, utterance.extra) != utterance.id:
                if utterance.id in seen:
                    utterance = replace(utterance, id=with_source(utterance.id, utterance.source))
                    result = replace(result, utterance=utterance)
                pieces.add(utterance.id)
            elif utterance.id in pieces:
                result = Reject(utterance, "duplicate_key", "a piece of another clip has this key")
            seen.add(utterance.id)
        yield result


def check_shard(data: str, rejects: Path | str, info: ShardInfo, num_clips: int, form: str, spec: CodecSpec) -> None:
    """Read a shard back: every clip a row or a reject, every row as long as its sound.

    Raises: ValueError that says what is wrong.
    """
    name, keys, clips, frames = info.name, set(), set(), 0
    for record in SINKS[form].read(data, spec):
        key = record.utterance.id
        wanted = (spec.num_codebooks, spec.num_frames(record.num_samples))
        if record.codes.shape != wanted:
            raise ValueError(
                f"{name}: {key} has codes {record.codes.shape} for {record.num_samples} samples, not {wanted}"
            )
        if record.codes.max() >= spec.codebook_size:
            raise ValueError(f"{name}: {key} has a code {record.codes.max()} in a codebook of {spec.codebook_size}")
        if key in keys:
            raise ValueError(f"{name}: the key {key} stands there twice")
        keys.add(key)
        clips.add(clip_of(key, record.utterance.extra))
        frames += wanted[1]
    if (len(keys), frames) != (info.num_records, info.num_frames):
        raise ValueError(f"{name}: {len(keys)} rows of {frames} frames, not {info.num_records} of {info.num_frames}")
    with storage.open_read(str(rejects)) as file:
        table = pq.read_table(file, columns=["__key__", "reason"]).to_pydict()
    skipped = Counter(table["reason"])
    if dict(skipped) != info.skipped:
        raise ValueError(f"{name}: rejects {dict(skipped)}, not {info.skipped}")
    # of a clip cut into pieces some may be rows and some rejects, under the clip's key; it went in once
    others = {key for key, reason in zip(table["__key__"], table["reason"], strict=True) if reason != "duplicate_key"}
    found = len(clips | others) + skipped["duplicate_key"]
    if not found == num_clips == info.num_clips:
        raise ValueError(f"{name}: {num_clips} clips went in, {found} came out as rows or rejects")


def read_sidecar(output: Output, unit: str) -> ShardInfo | None:
    try:
        return ShardInfo.from_json(storage.read_bytes(output.sidecar(unit)).decode())
    except FileNotFoundError:
        return None


def log_discarded(output: Output, known: ShardInfo, info: ShardInfo) -> None:
    """A unit was done twice with different results, as different hardware may give: say so where times may stand."""
    said = {"kept": asdict(known), "discarded": asdict(info), "host": socket.gethostname(), "time": time.time()}
    path = output.path("log", f"discarded-{info.name}-{uuid.uuid4().hex[:12]}.json")
    storage.write_atomic(path, lambda file: file.write(json.dumps(said, indent=1).encode()))


def sweep(output: Output) -> int:
    """Remove temporary files of attempts that died: of this machine if their process is gone, of others by age.

    Returns: how many. Safe while others work at the same output.
    """
    if not storage.is_local(output.folder):
        return 0  # attempts at a remote output keep theirs in a temporary folder of their own machine
    here, swept = f".{socket.gethostname()[:20]}-", 0
    for folder in ("", "data", "rejects", "done", "index", "log"):
        for path in sorted(Path(output.path(folder)).glob(".*.tmp")):
            match = TEMPORARY.fullmatch(path.name)
            if match is None:
                continue
            try:
                age = time.time() - path.stat().st_mtime
            except FileNotFoundError:
                continue
            if (here + match[1] in path.name and not is_alive(int(match[1]))) or age > STALE_SECONDS:
                path.unlink(missing_ok=True)
                swept += 1
    return swept


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def another_name(temporary: Path) -> Path:
    """A temporary name of the same owner that is not taken."""
    stem = temporary.name.rpartition("-")[0]
    return temporary.with_name(f"{stem}-{uuid.uuid4().hex[:12]}.tmp")


def sha256(path: Path | BinaryIO) -> str:
    if isinstance(path, Path):
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.file_digest(path, "sha256").hexdigest()
