"""The header of a publication's card: what the Hub and `datasets` read of it, as YAML."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from pipeline.publishing.licenses import find_license
from pipeline.publishing.merge import TWIN_COLUMNS, PublishedFile
from pipeline.publishing.publication import Plan
from schemas.tokens import TOKEN_SCHEMA

SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B")
MOST_CREDITS = 1000  # of the rows' own, listed for one corpus: a card is for people to read


@dataclass(frozen=True, slots=True)
class Credit:
    """Whom a corpus is owed to, and what its users should know."""

    name: str
    attribution: str
    citation: str = ""
    url: str = ""
    notes: str = ""


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card is written from."""

    title: str
    address: str  # what `load_dataset` is given: a repository's id or a folder
    tag: str | None
    plan: Plan
    files: Sequence[PublishedFile]
    report: dict[str, Any]  # of pipeline.reporting.report: statistics of all rows, rejects
    credits: dict[str, Credit]
    own_credits: dict[str, list[str]]  # that the rows of a user's own corpus carry, at most MOST_CREDITS each
    plots: Sequence[str]
    weights: str | None  # what `codec.load` is given to decode, if not the published weights

    @property
    def suffix(self) -> str:
        """Of the data files: .parquet or .tar."""
        return PurePosixPath(self.files[0].path).suffix


def metadata(facts: CardFacts) -> dict[str, Any]:
    """The card's header, as the Hub and `datasets` read it."""
    groups = facts.plan.groups
    hub_ids = sorted({find_license(group.license).hub_id for group in groups})
    found: dict[str, Any] = {"license": hub_ids[0] if len(hub_ids) == 1 else hub_ids}
    if "other" in hub_ids:
        others = [find_license(g.license) for g in groups if find_license(g.license).hub_id == "other"]
        found["license_name"] = "-".join(sorted({license.id.lower().replace("_", "-") for license in others}))
        if len({license.url for license in others}) == 1 and others[0].url:
            found["license_link"] = others[0].url
    if languages := language_codes(facts):
        found["language"] = languages
    found |= {
        "pretty_name": facts.title,
        "task_categories": ["text-to-speech", "automatic-speech-recognition"],
        "tags": ["speech-tokens", "audio-codec", facts.plan.codec["name"]],
        "size_categories": [size_category(facts.report["rows"])],
        "configs": [config_entry(facts, name) for name in config_names(facts)],
    }
    if facts.suffix == ".parquet":  # of other files `datasets` finds the features itself
        found["dataset_info"] = [info_entry(facts, name) for name in config_names(facts)]
    return found


def config_names(facts: CardFacts) -> list[str]:
    """The configs with all columns, then those of three."""
    return list(dict.fromkeys([*(group.config for group in facts.plan.groups), *sorted(facts.plan.twin_configs)]))


def splits_of(facts: CardFacts, config: str) -> dict[str, list[PublishedFile]]:
    splits: dict[str, list[PublishedFile]] = {}
    for file in facts.files:
        if file.config == config:
            splits.setdefault(file.split, []).append(file)
    return dict(sorted(splits.items(), key=lambda item: (item[0] != "train", item[0])))


def config_entry(facts: CardFacts, name: str) -> dict[str, Any]:
    files = [{"split": split, "path": f"data/{name}/{split}-*{facts.suffix}"} for split in splits_of(facts, name)]
    default = {"default": True} if name == default_config(facts) else {}
    return {"config_name": name, **default, "data_files": files}


def default_config(facts: CardFacts) -> str:
    """The config with all columns that has most rows."""
    return max(facts.plan.groups, key=lambda group: (rows_of(facts, group.config), group.config)).config


def rows_of(facts: CardFacts, config: str) -> int:
    return sum(file.rows for file in facts.files if file.config == config)


def language_codes(facts: CardFacts) -> list[str]:
    """ISO codes alone: a label of another form stands in the rows, but the Hub would refuse it here."""
    return sorted(
        {group.language for group in facts.plan.groups if re.fullmatch(r"[a-z]{2,3}", group.language)} - {"und"}
    )


def info_entry(facts: CardFacts, name: str) -> dict[str, Any]:
    columns = TWIN_COLUMNS if name in facts.plan.twin_configs else TOKEN_SCHEMA.names
    splits = splits_of(facts, name)
    size = sum(file.num_bytes for files in splits.values() for file in files)
    return {
        "config_name": name,
        "features": [feature(TOKEN_SCHEMA.field(column)) for column in columns],
        "splits": [
            {"name": split, "num_bytes": sum(f.num_bytes for f in files), "num_examples": sum(f.rows for f in files)}
            for split, files in splits.items()
        ],
        "download_size": size,
        "dataset_size": size,
    }


def feature(field: pa.Field) -> dict[str, str]:
    """A column as the header spells its type."""
    if pa.types.is_list(field.type):
        return {"name": field.name, "list": str(field.type.value_type)}
    return {"name": field.name, "dtype": "float64" if field.type == pa.float64() else str(field.type)}


def size_category(rows: int) -> str:
    return SIZES[min(max(len(str(max(rows, 1))) - 3, 0), len(SIZES) - 1)]
