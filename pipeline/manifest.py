"""What of an output is finished: the run it belongs to, the sidecars of its shards, the manifest over all of them."""

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline import finding, storage
from pipeline.batch import PLAN_VERSION
from pipeline.commit import commit, sweep
from pipeline.output import Output
from pipeline.verify import verify
from schemas.manifest import ShardInfo, ShardManifest, WorkUnit

__all__ = ["Output", "commit", "finished", "merge", "open_run", "sweep", "verify"]

MANIFEST_VERSION = 1


def open_run(output: Output, identity: dict[str, Any]) -> dict[str, Any]:
    """Begin a run or go on with it, and sweep what attempts that died have left. Returns: the identity as kept.

    `identity` is what decides the bytes: codec, precision, unit size, index, ... Plan version and format are added.
    Raises: ValueError if the output belongs to a run of another identity.
    """
    identity = {"plan": PLAN_VERSION, "format": output.format, **identity}
    text = json.dumps(identity, indent=1, sort_keys=True) + "\n"
    path = output.path("run.json")
    if not storage.create_exclusive(path, text.encode()):
        refuse_another(output.folder, json.loads(storage.read_bytes(path)), json.loads(text))
    sweep(output)
    return identity


def refuse_another(folder: str, kept: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises: ValueError if the identities, what run.json holds and what is asked for, are not the same."""
    if differences := differing(kept, now):
        raise ValueError(
            f"{folder} belongs to another run ({'; '.join(differences)}); give that run's options to go on with it, or "
            "another --output"
        )


def differing(kept: Any, now: Any, name: str = "") -> list[str]:
    """What two identities differ in, as `codec.revision: 3f2a..., now 90bc...`."""
    if isinstance(kept, dict) and isinstance(now, dict):
        names = sorted(kept.keys() | now.keys())
        return [said for key in names for said in differing(kept.get(key), now.get(key), f"{name}.{key}".lstrip("."))]
    return [] if kept == now else [f"{name}: {str(kept)[:60]}, now {str(now)[:60]}"]


def finished(output: Output) -> dict[str, ShardInfo]:
    """The sidecars of all finished units, by unit. Raises: ValueError for a file in done/ that is no sidecar."""
    paths = [path for path in finding.list_files(output.path("done")) if path.endswith(".json")]
    paths = [path for path in paths if not path.rpartition("/")[2].startswith(".")]
    with ThreadPoolExecutor(16) as readers:
        infos = list(readers.map(_read, paths))
    return {info.name: info for info in infos}


def _read(path: str) -> ShardInfo:
    try:
        return ShardInfo.from_json(storage.read_bytes(path).decode())
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no sidecar of a shard: {error}; remove it to have its unit done again") from error


def merge(output: Output, units: Sequence[WorkUnit]) -> ShardManifest:
    """Write manifest.json over the finished `units`, in their order, with totals.

    Raises: ValueError if a unit has no sidecar yet.
    """
    done = finished(output)
    missing = [unit.name for unit in units if unit.name not in done]
    if missing:
        raise ValueError(f"{len(missing)} of {len(units)} units are not done: {', '.join(missing[:3])}, ...; run again")
    shards = tuple(done[unit.name] for unit in units)
    run = json.loads(storage.read_bytes(output.path("run.json")))
    manifest = ShardManifest(MANIFEST_VERSION, run, shards, totals(shards, run))
    storage.write_atomic(output.path("manifest.json"), lambda file: file.write(manifest.to_json().encode()))
    sweep(output)
    return manifest


def totals(shards: Sequence[ShardInfo], run: dict[str, Any]) -> dict[str, Any]:
    """Sums over shards; hours by language and by corpus, rejects by reason."""
    rate, books = run["codec"]["input_rate"], run["codec"]["num_codebooks"]
    reasons: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    corpora: Counter[str] = Counter()
    for shard in shards:
        reasons.update(shard.skipped)
        languages.update(shard.samples_by_language)
        corpora[shard.corpus] += shard.num_samples
    num_samples = sum(shard.num_samples for shard in shards)
    return {
        "units": len(shards),
        "clips": sum(shard.num_clips for shard in shards),
        "rows": sum(shard.num_records for shard in shards),
        "frames": sum(shard.num_frames for shard in shards),
        "tokens": sum(shard.num_frames for shard in shards) * books,
        "hours": num_samples / rate / 3600,
        "bytes": sum(shard.num_bytes for shard in shards),
        "rejects": dict(sorted(reasons.items())),
        "hours_by_language": {name: samples / rate / 3600 for name, samples in sorted(languages.items())},
        "hours_by_corpus": {name: samples / rate / 3600 for name, samples in sorted(corpora.items())},
    }
