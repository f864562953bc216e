"""What will be published, decided before a row moves: which rows go into which file of which config.

One config per corpus, language and licence; within it files of a good size, in a number that divides well.
"""

import hashlib
import json
import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.publishing.licenses import find_license, slug
from pipeline.shards import TWIN_PREFIX, read_shard
from schemas.manifest import ShardInfo, ShardManifest

PLAN_VERSION = 1
LABELS = ("corpus", "language", "license", "split")
Labels = tuple[str, str | None, str | None, str | None]


@dataclass(frozen=True, slots=True)
class Source:
    """One shard of a finished output."""

    path: str
    info: ShardInfo


@dataclass(frozen=True, slots=True, order=True)
class Group:
    """Rows that are published together."""

    config: str
    split: str
    corpus: str
    language: str  # "und" where none is known
    license: str


@dataclass
class Contents:
    """How much of one group a shard holds."""

    rows: int = 0
    with_text: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows [first, last) of `shard`, counted among those of one group."""

    shard: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Target:
    """One file to write, and its twin of three columns where there is one."""

    path: str
    twin: str | None
    group: Group
    pieces: tuple[Piece, ...]
    seconds: float

    @property
    def rows(self) -> int:
        return sum(piece.last - piece.first for piece in self.pieces)


@dataclass
class Plan:
    """Everything a publication is made from; the same outputs and choices give the same `id` and the same bytes."""

    codec: dict[str, Any]
    sources: list[Source]
    license: str | None
    targets: list[Target] = field(default_factory=list)
    twin_configs: dict[str, list[Group]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        seen = {
            "version": PLAN_VERSION,
            "codec": self.codec,
            "sources": [source.info.sha256 for source in self.sources],
            "license": self.license,
            "targets": [(target.path, target.twin, target.rows) for target in self.targets],
        }
        return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()

    @property
    def groups(self) -> list[Group]:
        return sorted({target.group for target in self.targets})


def read_outputs(folders: Sequence[str]) -> tuple[dict[str, Any], list[Source], list[ShardManifest]]:
    """The codec, the shards and the manifests of finished outputs.

    Raises: ValueError if one is unfinished, or if two were not made by one codec.
    """
    manifests, sources = [], []
    for folder in folders:
        path = storage.join(storage.plain(folder), "manifest.json")
        if not storage.exists(path):
            raise ValueError(f"{folder} has no manifest.json: it is no output, or not finished; run its job to the end")
        manifest = ShardManifest.from_json(storage.read_bytes(path).decode())
        manifests.append(manifest)
        sources += [Source(storage.join(storage.plain(folder), shard.data), shard) for shard in manifest.shards]
    codecs = [manifest.run["codec"] for manifest in manifests]
    for folder, codec in zip(folders, codecs, strict=True):
        if codec != codecs[0]:
            raise ValueError(f"{folder} was made by another codec than {folders[0]}: {codec} and {codecs[0]}")
    return codecs[0], sources, manifests


def make_plan(
    codec: dict[str, Any], sources: list[Source], license: str | None, file_mb: float, twins: bool, suffix: str
) -> Plan:
    """Scan the labels of every row and cut the groups into files of about `file_mb` million bytes, named `*suffix`.

    `license` stands in for rows that name none. `twins` asks for the files of three columns.
    Raises: ValueError if a shard does not hold what its sidecar says, if two rows share a key, or if one config would
    mix corpora, languages or licences.
    """
    plan = Plan(codec, sources, license)
    held: dict[Group, dict[str, Contents]] = {}
    sizes: dict[Group, float] = {}
    keys = array("Q")
    for source in sources:
        contents = scan_shard(source, license, keys)
        seconds = sum(part.seconds for part in contents.values()) or 1.0
        padding = {".tar": 1.8}  # a tar takes so much more than Parquet for the same rows
        stored = storage.num_bytes(source.path) / padding.get(source.path[-4:], 1.0) * padding.get(suffix, 1.0)
        for group, part in contents.items():
            held.setdefault(group, {})[source.path] = part
            sizes[group] = sizes.get(group, 0.0) + stored * part.seconds / seconds
    if len(np.unique(np.frombuffer(keys, np.uint64))) < len(keys):
        raise ValueError("two rows have one __key__; were two outputs made from the same clips?")
    plan.twin_configs = _twin_configs(held) if twins else {}
    check_names(held, plan.twin_configs)
    counts = {group: number_of_files(sizes[group], file_mb * 1e6, rows_of(held[group])) for group in sorted(held)}
    twin_of = {group: name for name, groups in plan.twin_configs.items() for group in groups}
    twin_totals: dict[tuple[str, str], int] = {}
    for group, name in sorted(twin_of.items()):
        twin_totals[name, group.split] = twin_totals.get((name, group.split), 0) + counts[group]
    twin_used: dict[tuple[str, str], int] = {}
    for group, number in counts.items():
        for place, (pieces, seconds) in enumerate(cut(held[group], number)):
            twin = None
            if group in twin_of:
                key = (twin_of[group], group.split)
                twin = file_path(*key, twin_used.get(key, 0), twin_totals[key], suffix)
                twin_used[key] = twin_used.get(key, 0) + 1
            path = file_path(group.config, group.split, place, number, suffix)
            plan.targets.append(Target(path, twin, group, pieces, seconds))
    return plan


def scan_shard(source: Source, license: str | None, keys: array) -> dict[Group, Contents]:
    """How much of which group a shard holds; a 64-bit hash of each row's key is added to `keys`."""
    contents: dict[Group, Contents] = {}
    rows = 0
    for batch in read_shard(source.path, ["__key__", *LABELS, "text", "duration"]):
        rows += len(batch)
        names = (hashlib.blake2b(key.encode(), digest_size=8) for key in batch.column("__key__").to_pylist())
        keys.extend(int.from_bytes(name.digest(), "big") for name in names)
        filled = has_text(batch.column("text")).to_pylist()
        seconds = batch.column("duration").to_pylist()
        for group, text, length in zip(groups_of(batch, license), filled, seconds, strict=True):
            part = contents.setdefault(group, Contents())
            part.rows += 1
            part.with_text += text
            part.seconds += length
    if rows != source.info.num_records:
        raise ValueError(
            f"{source.path} has {rows} rows, its sidecar says {source.info.num_records}; run its job again"
        )
    return contents


def groups_of(batch: pa.RecordBatch, license: str | None) -> list[Group]:
    """The group of each row."""
    known: dict[Labels, Group] = {}
    labels = zip(*(batch.column(name).to_pylist() for name in LABELS), strict=True)
    return [known.get(row) or known.setdefault(row, group_of(row, license)) for row in labels]


def group_of(labels: Labels, license: str | None) -> Group:
    corpus, language, own_license, split = labels
    id = find_license(own_license or license or "").id
    config = f"{_safe(corpus)}-{_safe(language or 'und')}-{slug(id)}"
    return Group(config, split_name(split), corpus, language or "und", id)


def check_names(groups: Iterable[Group], twin_configs: dict[str, list[Group]]) -> None:
    """Raises: ValueError if one config would hold rows of different labels, whose files could then bear one name."""
    meant = [(g.config, f"corpus {g.corpus!r}, language {g.language!r}, licence {g.license!r}") for g in sorted(groups)]
    for name, members in twin_configs.items():
        meant += [(name, f"any corpus, language {g.language!r}, licence {g.license!r}") for g in members]
    known: dict[str, str] = {}
    for name, labels in meant:
        other = known.setdefault(name.lower(), labels)  # some file systems take one case for the other
        if other != labels:
            raise ValueError(
                f"the config {name} would mix {other} with {labels}; spell what is the same in one way, and what is "
                "not with other letters or digits (capitals, spaces and signs do not count): change it where the rows "
                "come from and make them again, or publish without one of the two"
            )


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", name) or "unnamed"


def split_name(split: str | None) -> str:
    """A split as the Hub's libraries allow it: `train-clean-100` is `train.clean.100`."""
    words = re.findall(r"\w+", split or "", re.ASCII)
    return ".".join(words) or "train"


def has_text(texts: pa.Array) -> pa.Array:
    return pc.fill_null(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0), False)


def rows_of(parts: dict[str, Contents]) -> int:
    return sum(part.rows for part in parts.values())


def number_of_files(num_bytes: float, wanted: float, rows: int) -> int:
    """Files of about `wanted` bytes each (0.6 to 1.6 times that, or one), in a number that many readers can share.

    From eight on a multiple of 8, or of 64 if one fits, below that a power of two: a reader of 2, 4, 8, … ranks then
    gives each whole files (`datasets.distributed.split_dataset_by_node`).
    """
    least, most = -(-num_bytes // (1.6 * wanted)), min(num_bytes // (0.6 * wanted), rows)
    for step in (64, 8):
        fitting = range(step, int(most) + 1, step)
        fitting = [number for number in fitting if number >= least]
        if fitting:
            return min(fitting, key=lambda number: (abs(number - num_bytes / wanted), number))
    return next(number for number in (8, 4, 2, 1) if number <= max(most, 1))


def cut(parts: dict[str, Contents], number: int) -> Iterable[tuple[tuple[Piece, ...], float]]:
    """The rows of a group in source order, in `number` runs of about equal seconds."""
    total = sum(part.seconds for part in parts.values())
    runs: list[list[Piece]] = [[] for _ in range(number)]
    seconds = [0.0] * number
    before = 0.0
    for shard, part in parts.items():
        borders = [0]
        for place in range(number):
            share = (total * (place + 1) / number - before) / part.seconds if part.seconds else 1.0
            end = part.rows if place == number - 1 else min(part.rows, max(borders[-1], round(share * part.rows)))
            if end > borders[-1]:
                runs[place].append(Piece(shard, borders[-1], end))
                seconds[place] += part.seconds * (end - borders[-1]) / part.rows
            borders.append(end)
        before += part.seconds
    return zip(map(tuple, runs), seconds, strict=True)


def file_path(config: str, split: str, place: int, number: int, suffix: str) -> str:
    return f"data/{config}/{split}-{place:05}-of-{number:05}{suffix}"


def _twin_configs(held: dict[Group, dict[str, Contents]]) -> dict[str, list[Group]]:
    """Configs of `__key__`, `text`, `codes` alone, over all corpora of one language and licence; only where text is."""
    configs: dict[str, list[Group]] = {}
    for group in sorted(held):
        if any(part.with_text for part in held[group].values()):
            configs.setdefault(f"{TWIN_PREFIX}{_safe(group.language)}-{slug(group.license)}", []).append(group)
    return configs
