"""The card of a publication: its header, and what people read below it."""

import json
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import yaml

from pipeline.publishing.card_header import (
    MOST_CREDITS,
    CardFacts,
    Credit,
    config_names,
    default_config,
    feature,
    language_codes,
    metadata,
    rows_of,
    splits_of,
)
from pipeline.publishing.licenses import find_license
from pipeline.publishing.merge import PublishedFile
from pipeline.publishing.publication import Group
from pipeline.reporting.amounts import lasting, megabytes
from schemas.tokens import TOKEN_SCHEMA

COLUMNS = {
    "__key__": "name of the row, unique in this dataset",
    "codes": "the tokens: integers from 0 to {top}, {rate:g} frames per second{order}",
    "text": "what is said, as the corpus gives it",
    "corpus": "where the clip comes from",
    "language": "ISO 639-1, or 639-3 where there is none",
    "speaker": "the corpus's own name for who speaks",
    "recording": "what a split by recording must keep together: video, chapter, book",
    "split": "as the corpus's folders name it",
    "license": "SPDX identifier of the row's licence",
    "num_samples": "samples that were encoded, at {input_rate:,} Hz",
    "duration": "seconds",
    "source": "file and member the clip was read from",
    "extra": "what else the corpus knows, as JSON",
}


def write_card(facts: CardFacts) -> str:
    """The text of README.md."""
    header = yaml.safe_dump(metadata(facts), sort_keys=False, allow_unicode=True, width=110)
    parts = [overview, configs_table, how_to_load, how_to_hear, columns_table, numbers, rejects]
    parts += [source_notes, provenance, licences]
    written = [text for part in parts if (text := part(facts))]
    return f"---\n{header}---\n\n# {facts.title}\n\n" + "\n".join(written)


def overview(facts: CardFacts) -> str:
    report, codec = facts.report, facts.plan.codec
    languages = language_codes(facts)
    spoken = f" in {len(languages)} language{'s' * (len(languages) > 1)} ({', '.join(languages)})" if languages else ""
    return (
        f"{lasting(report['hours'])} of speech{spoken} as `{codec['name']}` tokens: {report['rows']:,} rows, "
        f"{report['tokens']:,} tokens, {report['speakers']['named']:,} named speakers. A row is one clip: its codes "
        "and what its corpus says of it. There is no sound in here; a decoder turns codes back into speech.\n"
    )


def configs_table(facts: CardFacts) -> str:
    lines = ["| Config | Language | Licence | Rows | Sound | Files | Size |", "|---|---|---|---:|---:|---:|---:|"]
    seconds: dict[str, float] = {}
    for target in facts.plan.targets:
        seconds[target.group.config] = seconds.get(target.group.config, 0.0) + target.seconds
    described: dict[str, Group] = {group.config: group for group in facts.plan.groups}
    described |= {name: groups[0] for name, groups in facts.plan.twin_configs.items()}
    for name in config_names(facts):
        files = [file for file in facts.files if file.config == name]
        sound = lasting(seconds[name] / 3600) if name in seconds else "the same"
        size = sum(file.num_bytes for file in files)
        group = described[name]
        license = find_license(group.license)
        shown = f"[{license.name}]({license.url})" if license.url else license.name
        lines.append(
            f"| `{name}` | {group.language} | {shown} | {rows_of(facts, name):,} | {sound} | {len(files)} "
            f"| {megabytes(size)} |"
        )
    text = "\n".join(lines) + "\n"
    if facts.plan.twin_configs:
        text += (
            "\nThe configs named `neutts-…` hold the same rows again, those with text, in exactly the columns "
            "`__key__`, `text`, `codes`: what NeuTTS fine-tuning reads as it stands.\n"
        )
    return text


def how_to_load(facts: CardFacts) -> str:
    config = default_config(facts)
    split = next(iter(splits_of(facts, config)))
    pinned = f', revision="{facts.tag}"' if facts.tag else ""
    if facts.suffix == ".parquet":
        code = f"""from datasets import load_dataset

rows = load_dataset({json.dumps(facts.address)}, "{config}", split="{split}"{pinned}, streaming=True)
row = next(iter(rows))"""
    else:
        folder = json.dumps(facts.address)
        if facts.tag is not None:
            folder = f'snapshot_download({folder}, repo_type="dataset"{pinned}, allow_patterns="data/{config}/*")'
        code = f"""from pathlib import Path

import webdataset
from huggingface_hub import snapshot_download

folder = Path({folder}) / "data/{config}"
files = sorted(map(str, folder.glob("{split}-*.tar")))
sample = next(iter(webdataset.WebDataset(files, shardshuffle=False).decode()))
row = {{"__key__": sample["__key__"], "codes": sample["npy"].tolist(), **sample["json"]}}"""
    return f"## Load\n\n```python\n{code}\n```\n"


def how_to_hear(facts: CardFacts) -> str:
    codec = facts.plan.codec
    weights = f", weights={json.dumps(facts.weights)}" if facts.weights else ""
    return f"""## Hear

With neutok installed, `row` from above becomes sound at {codec["output_rate"]:,} Hz:

```python
import soundfile
import torch

from codec import load

codec = load("{codec["name"]}"{weights})
codes = torch.tensor(row["codes"]).reshape(1, -1, codec.spec.num_codebooks).transpose(1, 2)
sound = codec.decode(codes)[0, 0]
soundfile.write("row.wav", sound.detach().numpy(), codec.spec.output_rate)
```
"""


def columns_table(facts: CardFacts) -> str:
    codec = facts.plan.codec
    books = codec["num_codebooks"]
    facts_of_codes = {
        "top": codec["codebook_size"] - 1,
        "rate": codec["input_rate"] / codec["hop_length"],
        "order": f", frame after frame, {books} codebooks in each" if books > 1 else "",
        "input_rate": codec["input_rate"],
    }
    lines = ["## Columns", "", "| Column | Type | What |", "|---|---|---|"]
    for field in TOKEN_SCHEMA:
        kind = f"list of {field.type.value_type}" if pa.types.is_list(field.type) else feature(field)["dtype"]
        lines.append(f"| `{field.name}` | {kind} | {COLUMNS[field.name].format(**facts_of_codes)} |")
    return "\n".join(lines) + "\n"


def numbers(facts: CardFacts) -> str:
    report = facts.report
    lengths = report["durations"]
    lines = ["## Numbers", ""]
    lines += [f"![{name.removesuffix('.svg')}](plots/{name})" for name in facts.plots]
    lines.append("")
    if lengths["quantiles"]:
        middle = ", ".join(f"{name} {value:.2f}" for name, value in lengths["quantiles"].items())
        lines.append(
            f"- Seconds a row: {lengths['min']:.2f} to {lengths['max']:.2f}, mean {lengths['mean']:.2f}; {middle}."
        )
    for place, book in enumerate(report["codebooks"]):
        lines.append(
            f"- Codebook {place}: {book['used']:,} of {book['size']:,} codes used, entropy {book['entropy_bits']:.2f} "
            "bits a token."
        )
    for name in ("near_silent", "duplicates"):
        lines.append(f"- {name.replace('_', '-').capitalize()}: {report[name]['rows']:,} {report[name]['meaning']}.")
    return "\n".join(lines) + "\n"


def rejects(facts: CardFacts) -> str:
    counted = facts.report["rejects"]
    if not counted["clips"]:
        return "## Left out\n\nNo clip was rejected.\n"
    lines = ["## Left out", "", f"{counted['clips']:,} clips could not become rows:", "", "| Reason | Clips |"]
    lines += ["|---|---:|", *(f"| {reason} | {clips:,} |" for reason, clips in counted["by_reason"].items())]
    return "\n".join(lines) + "\n"


def source_notes(facts: CardFacts) -> str:
    """What is known of the corpora that the rows come from; "" where nothing is."""
    corpora = sorted({group.corpus for group in facts.plan.groups})
    known = [facts.credits[corpus] for corpus in corpora if corpus in facts.credits]
    lines = [f"- `{credit.name}`: {credit.notes}" for credit in known if credit.notes]
    return "\n".join(["## Notes on the sources", "", *lines]) + "\n" if lines else ""


def provenance(facts: CardFacts) -> str:
    codec = facts.plan.codec
    extra = codec.get("extra_frames", 0)
    rule = f"floor(samples / {codec['hop_length']}){f' + {extra}' if extra else ''} frames a clip"
    return f"""## Provenance

Codec `{codec["name"]}`, weights `{codec["revision"]}`, {codec.get("precision", "float32")}; {rule}, samples counted
at {codec["input_rate"]:,} Hz. `manifest.json` lists every file with its size and SHA-256, and what the rows were made
from. Written by neutok.
"""


def licences(facts: CardFacts) -> str:
    lines = [
        "## Licences, attribution, citation",
        "",
        "Each row carries its licence, and no config mixes two. Whoever uses the rows owes these credits:",
        "",
    ]
    corpora: dict[str, set[str]] = {}
    for group in facts.plan.groups:
        corpora.setdefault(group.corpus, set()).add(group.license)
    for corpus, ids in sorted(corpora.items()):
        credit = facts.credits.get(corpus, Credit(corpus, ""))
        named = ", ".join(find_license(id).name for id in sorted(ids))
        lines.append(f"### {credit.name}\n\nLicence: {named}. {credit.attribution}".rstrip())
        if credit.url:
            lines.append(f"\n<{credit.url}>")
        own = facts.own_credits.get(corpus, [])
        lines += ["", *(f"- {plain(line)}" for line in own)] if own else []
        lines += ["", where_all_credits_stand(facts)] if len(own) >= MOST_CREDITS else []
        if "@" in credit.citation:
            lines.append(f"\n```bibtex\n{credit.citation.strip()}\n```")
        elif credit.citation:
            lines.append(f"\n{credit.citation}")
        lines.append("")
    return "\n".join(lines)


def where_all_credits_stand(facts: CardFacts) -> str:
    """What to say below a list that ends at MOST_CREDITS."""
    text = (
        f"The list ends here, at {MOST_CREDITS:,}, and more credits than these may be owed: that of every row stands "
        "in its column `extra`, as `attribution`."
    )
    if facts.plan.twin_configs:
        text += (
            " The configs named `neutts-…` lack this column: their rows are owed the credits of the rows of the same "
            "`__key__` in the other configs."
        )
    return text


def plain(text: str) -> str:
    """Text of a corpus that can neither break a line nor become markup."""
    return re.sub(r"([\\`*_<>|\[\]#])", r"\\\1", " ".join(text.split()))


def write_manifest(
    facts: CardFacts, files: Sequence[PublishedFile], runs: Sequence[dict[str, Any]], version: str
) -> str:
    """manifest.json: every file but itself, with its hash, and the identity of the runs that made the rows."""
    known = {
        "neutok": version,
        "codec": facts.plan.codec,
        "runs": list(runs),
        "rows": facts.report["rows"],
        "tokens": facts.report["tokens"],
        "hours": facts.report["hours"],
        "rejects": facts.report["rejects"],
        "files": [
            {name: value for name in PublishedFile.__slots__ if (value := getattr(file, name))} for file in files
        ],
    }
    return json.dumps(known, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
