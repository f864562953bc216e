"""An output held against itself: every hash, every row's length, every key, every clip that went in."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow.parquet as pq

from pipeline import finding, storage
from pipeline.commit import check_shard
from pipeline.output import Output
from pipeline.sinks import SINKS
from schemas.manifest import ShardInfo, ShardManifest
from schemas.spec import CodecSpec


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found; whole if there is no problem."""

    shards: int
    clips: int
    rows: int
    problems: tuple[str, ...]

    @property
    def whole(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        head = f"{self.shards:,} shards, {self.rows:,} rows of {self.clips:,} clips: "
        return head + (
            "all as it should be" if self.whole else "\n".join([f"{len(self.problems)} problems", *self.problems])
        )


def verify(output: Output) -> Verdict:
    """Read all of a finished output again. Raises: FileNotFoundError if it has no manifest yet."""
    manifest = ShardManifest.from_json(storage.read_bytes(output.path("manifest.json")).decode())
    spec = CodecSpec.from_json(manifest.run["codec"])
    problems, seen = [], {}
    for shard in manifest.shards:
        for problem in _check(output, shard, spec, seen):
            problems.append(f"{shard.name}: {problem}" if not problem.startswith(shard.name) else problem)
    problems += _strangers(output, manifest)
    clips = sum(shard.num_clips for shard in manifest.shards)
    listed = _num_listed(output)
    if listed is not None and listed != clips:
        problems.append(f"the index lists {listed:,} clips, the shards account for {clips:,}")
    return Verdict(len(manifest.shards), clips, sum(shard.num_records for shard in manifest.shards), tuple(problems))


def _check(output: Output, shard: ShardInfo, spec: CodecSpec, seen: dict[int, str]) -> Iterator[str]:
    data, rejects = output.path(shard.data), output.path(shard.rejects)
    try:
        sidecar = json.loads(storage.read_bytes(output.sidecar(shard.name)))
        if sidecar != json.loads(shard.to_json()):
            yield "the sidecar says something else than the manifest"
        for path, wanted in ((data, shard.sha256), (rejects, shard.rejects_sha256)):
            with storage.open_read(path) as file:
                if (found := hashlib.file_digest(file, "sha256").hexdigest()) != wanted:
                    yield f"{path.rpartition('/')[2]} has sha256 {found[:12]}..., the sidecar says {wanted[:12]}..."
        check_shard(data, rejects, shard, shard.num_clips, output.format, spec)
        for record in SINKS[output.format].read(data, spec):
            other = seen.setdefault(hash(record.utterance.id), shard.name)
            if other != shard.name:
                yield f"the key {record.utterance.id} stands in {other} as well"
    except Exception as error:  # a damaged file fails in many ways, and each is a finding
        yield f"{type(error).__name__}: {error}"


def _strangers(output: Output, manifest: ShardManifest) -> Iterator[str]:
    known = {shard.data for shard in manifest.shards} | {shard.rejects for shard in manifest.shards}
    for folder in ("data", "rejects"):
        for path in finding.list_files(output.path(folder)):
            name = path.rpartition("/")[2]
            if not name.startswith(".") and f"{folder}/{name}" not in known:
                yield f"{folder}/{name} belongs to no shard of the manifest"


def _num_listed(output: Output) -> int | None:
    """Clips in the index files; None if the output keeps no index."""
    paths = [path for path in finding.list_files(output.path("index")) if path.endswith(".parquet")]
    if not paths:
        return None
    count = 0
    for path in paths:
        with storage.open_read(path) as file:
            count += pq.ParquetFile(file).metadata.num_rows
    return count
