"""The whole publication as files in a local folder, ready to be sent: data, plots, card, manifest, in this order."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import storage
from pipeline.publishing.card import write_card, write_manifest
from pipeline.publishing.card_header import MOST_CREDITS, CardFacts, Credit
from pipeline.publishing.hub import OURS
from pipeline.publishing.merge import PublishedFile, describe, merge, sweep
from pipeline.publishing.publication import Plan
from pipeline.reporting.report import draw
from pipeline.reporting.statistics import Statistics
from pipeline.shards import read_shard
from pipeline.sinks.parquet import version
from schemas.manifest import ShardManifest
from schemas.spec import CodecSpec

PLAN, REPORT = ".plan.json", ".report.json"
PROMISES = ("manifest.json", "README.md")  # what promises the files: it comes after them, and goes before them


@dataclass(frozen=True, slots=True)
class Wording:
    """What the card says beside the numbers."""

    title: str
    address: str  # what `load_dataset` is given
    tag: str | None  # None: named after the data, "" for none
    weights: str | None
    credits: dict[str, Credit]


@dataclass(frozen=True, slots=True)
class Staged:
    files: list[PublishedFile]  # in the order of publication
    tag: str


def open_staging(folder: Path, plan_id: str, may_clear: bool) -> None:
    """Make `folder` the place of this plan. If it is another publication's and `may_clear`, what that wrote is removed.

    Raises: ValueError if it holds something else, or what must not be cleared.
    """
    marker = folder / PLAN
    if marker.exists() and json.loads(marker.read_text())["plan"] == plan_id:
        sweep(folder)
        return
    if folder.exists() and any(folder.iterdir()):
        if not marker.exists():
            raise ValueError(f"{folder} holds something else; name an empty folder, or the one of the same publication")
        if not may_clear:
            raise ValueError(f"{folder} holds another publication; --replace deletes it, or name an empty folder")
        clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    storage.write_atomic(str(marker), lambda file: file.write(json.dumps({"plan": plan_id}).encode()))


def clear(folder: Path) -> None:
    """Remove what a publication wrote, and nothing that lies beside it."""
    sweep(folder)
    for name in (*PROMISES, REPORT):
        (folder / name).unlink(missing_ok=True)
    for name in OURS:
        if (folder / name).exists():
            shutil.rmtree(folder / name)


def stage(
    plan: Plan,
    manifests: Sequence[ShardManifest],
    folder: Path,
    wording: Wording,
    workers: int = 2,
    say: Callable[[str], None] = print,
) -> Staged:
    """Write what is not there yet. The same plan gives the same bytes, in one run or after many interrupted ones.

    Raises: ValueError if the files do not hold every row once.
    """
    spec = CodecSpec.from_json(plan.codec)
    files: list[PublishedFile] = []
    kept = {target.path for target in plan.targets if (folder / target.path).exists()}
    if kept:
        say(f"{len(kept)} of {len(plan.targets)} files are written already")
    for done, written in enumerate(merge(plan.targets, folder, plan.license, spec, workers), 1):
        files += written
        if written[0].path not in kept:
            say(f"{done} of {len(plan.targets)}: {written[0].path}, {written[0].rows:,} rows")
    files.sort(key=lambda file: (file.config in plan.twin_configs, file.path))
    listed = sum(file.rows for file in files if file.config not in plan.twin_configs)
    expected = sum(source.info.num_records for source in plan.sources)
    if listed != expected:
        raise ValueError(
            f"{expected} rows went in, {listed} came out: a file in {folder} is not what was written, and nothing is "
            f"sent; remove {folder / 'data'} and publish again"
        )
    report = read_report(plan, manifests, folder, say)
    digest = sha256("".join(f"{file.path} {file.sha256}\n" for file in files).encode()).hexdigest()
    tag = f"tokens-{digest[:12]}" if wording.tag is None else wording.tag
    drawn = draw(report)
    facts = CardFacts(
        title=wording.title,
        address=wording.address,
        tag=tag or None,
        plan=plan,
        files=files,
        report=report,
        credits=wording.credits,
        own_credits=report["own_credits"],
        plots=list(drawn),
        weights=wording.weights,
    )
    texts = {**{f"plots/{name}": svg for name, svg in drawn.items()}, "README.md": write_card(facts)}
    for path, text in texts.items():
        put(folder, path, text)
    small = [describe(folder, path) for path in texts]
    put(folder, "manifest.json", write_manifest(facts, [*files, *small], [m.run for m in manifests], version()))
    return Staged([*files, *small, describe(folder, "manifest.json")], tag)


def put(folder: Path, path: str, text: str) -> None:
    storage.write_atomic(str(folder / path), lambda file: file.write(text.encode()))


def read_report(
    plan: Plan, manifests: Sequence[ShardManifest], folder: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Statistics of all rows, rejects, and the credits that rows carry; counted once and kept beside the plan."""
    kept = folder / REPORT
    if not kept.exists():
        say("counting what the rows hold")
        statistics = Statistics(plan.codec["num_codebooks"], plan.codec["codebook_size"])
        own_credits: dict[str, set[str]] = {}
        for source in plan.sources:
            for batch in read_shard(source.path):
                statistics.add(batch)
                collect_credits(batch, own_credits)
        rejects: Counter[str] = Counter()
        for manifest in manifests:
            for shard in manifest.shards:
                rejects.update(shard.skipped)
        report = {
            **statistics.summary(),
            "rejects": {"clips": rejects.total(), "by_reason": dict(rejects.most_common())},
            "own_credits": {corpus: sorted(found) for corpus, found in sorted(own_credits.items())},
        }
        put(folder, REPORT, json.dumps(report))
    return json.loads(kept.read_text())


def collect_credits(batch: pa.RecordBatch, found: dict[str, set[str]]) -> None:
    """Attributions that rows of a user's own corpus carry in `extra`, the first MOST_CREDITS of each corpus."""
    for corpus, extra in zip(batch.column("corpus").to_pylist(), batch.column("extra").to_pylist(), strict=True):
        if '"attribution"' in extra:
            line = json.loads(extra).get("attribution")
            known = found.setdefault(corpus, set())
            if isinstance(line, str) and line.strip() and len(known) < MOST_CREDITS:
                known.add(line.strip())
