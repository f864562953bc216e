"""The card of a shipped codec: `card.json` holds what was measured, README.md says it. No figure is written by hand."""

import json
from pathlib import Path
from typing import Any

from codec.evaluation.agreement import PAPER
from codec.evaluation.metrics import PAPER_RECONSTRUCTION
from codec.neucodec import NeuCodec
from jobs.shipping.history import CURVES
from jobs.shipping.sources import shown_licence

RECORD, CARD = "card.json", "README.md"
METRIC_NAMES = {
    "stoi": "STOI",
    "pesq_wb": "PESQ, wide band",
    "pesq_nb": "PESQ, narrow band",
    "si_sdr": "SI-SDR, dB",
    "mel_mse": "log-mel error (MSE)",
}
LEAST = {"stoi": 0.85, "pesq_wb": 1.7}  # below it a codec that ships says what kept it from there
AGREEMENT_NAMES = {
    "code_match": "exact codes",
    "projection_similarity": "cosine of what the codes stand for",
    "level_accuracy": "levels alike",
    "within_one_level": "levels within one",
}

INTRODUCTION = """\
Speech at 16 kHz to {frames:g} codes a second and back: each code one of {codebook_size:,}, so {bits:.0f} bits a second.
A small codec of NeuCodec's family ([arXiv 2509.09550](https://arxiv.org/abs/2509.09550)) that comes with neutok,
trained from scratch by neutok's own command on open recordings alone. Its codes are not those of NeuCodec.

```python
import codec

model = codec.load("{name}")
codes = model.encode(waveforms, num_samples)  # [B, 1, T] at {input_rate:,} Hz, [B] -> int32 [B, 1, F]
sound = model.decode(codes)
```

{parameters:.1f} M parameters ({encoder:.1f} M to encode, {decoder:.1f} M to decode), {megabytes:.1f} MiB in float16,
computed in float32. Revision `{revision}`.
"""

USE = """\
## What it is for, and what not

For trying out the whole path on any machine with no download: tokenizing, training on tokens, decoding, listening,
tests and teaching. To train a speech model that is to sound good, use the published NeuCodec.

- It heard {hours:.1f} hours of speech, mostly English, read or spoken to a device, in few recording conditions. Other
  languages, singing, music, several voices at once and noise come out worse.
- It keeps a speaker's voice only roughly, and its sound may be rough, buzzing or metallic.
- What it decodes is generated sound. Do not use it to make someone say what they did not say.
- Its weights are under neutok's licence, Apache-2.0. The recordings keep their own, named below.
"""

PHASE = (
    """SI-SDR compares sample by sample: a decoder that makes its own phases is far below zero, however it sounds."""
)

SHARDS = """\
The recordings were changed before: mixed to mono, brought to 16 kHz, silence at both ends cut, stored as FLAC or as
Opus at about 40 kbit/s. None of their publishers endorses this codec.
"""


def write(folder: str | Path, record: dict[str, Any]) -> None:
    """The record, and the card it makes."""
    said, kept = render(record), json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (Path(folder) / RECORD).write_text(kept)
    (Path(folder) / CARD).write_text(said)


def read(folder: str | Path) -> dict[str, Any]:
    """Raises: ValueError where no codec was shipped to."""
    path = Path(folder) / RECORD
    if not path.is_file():
        raise ValueError(f"{folder} holds no {RECORD}; `neutok ship` writes one")
    return json.loads(path.read_text())


def count_parameters(codec: NeuCodec) -> dict[str, int]:
    """How many numbers a codec has, and how many of them encoding and decoding need."""
    total = sum(p.numel() for p in codec.parameters())
    decoding = sum(p.numel() for part in (codec.decoder, codec.quantizer.project_out) for p in part.parameters())
    return {"parameters": total, "encoder_parameters": total - decoding, "decoder_parameters": decoding}


def render(record: dict[str, Any]) -> str:
    """The text of the card."""
    parts = [introduction, quality, samples, intended_use, data, training, student]
    return "\n".join(text for part in parts if (text := part(record)))


def introduction(record: dict[str, Any]) -> str:
    spec, size = record["codec"], record["size"]
    frames = spec["input_rate"] / spec["hop_length"]
    said = INTRODUCTION.format(
        name=spec["name"],
        revision=spec["revision"],
        frames=frames,
        codebook_size=spec["codebook_size"],
        bits=frames * (spec["codebook_size"] - 1).bit_length(),
        input_rate=spec["input_rate"],
        parameters=size["parameters"] / 1e6,
        encoder=size["encoder_parameters"] / 1e6,
        decoder=size["decoder_parameters"] / 1e6,
        megabytes=size["num_bytes"] / 2**20,
    )
    return f"# {spec['name']}\n\n{said}"


def quality(record: dict[str, Any]) -> str:
    found, speed = record["quality"], record["speed"]
    lines = [
        "## How good it is\n",
        f"{found['clips']} clips, {found['seconds']:.0f} s, of {found['speakers']} speakers it never heard"
        + (", listed in [heldout.txt](heldout.txt)" if record["listed"] else "")
        + "; each there and back alone, compared at 16 kHz, means over clips.\n",
        f"| | {record['codec']['name']} | NeuCodec in its paper, on other clips |",
        "|---|---:|---:|",
    ]
    for name, mean in in_order(found["means"]):
        paper = PAPER_RECONSTRUCTION.get(name)
        lines.append(f"| {METRIC_NAMES[name]} | {number(mean['mean'])} | {number(paper[0]) if paper else ''} |")
    lines.append("")
    for name, mean in in_order(found["means"]):
        lines += [f"- {METRIC_NAMES[name]} has no value for {n} clips: {why}" for why, n in mean["failed"].items()]
    lines += [f"- Not measured: {n} clips, {why}" for why, n in found["rejects"].items()]
    if "si_sdr" in found["means"]:
        lines.append(f"- {PHASE}")
    here, there = found["codes"], record["data"]["codes"]
    lines += [
        f"- Codes over these clips: {use(here)}.",
        f"- Codes over everything it learned from: {use(there)}.",
        f"- Speed, one clip at a time on {speed['hardware']}: encodes {speed['encode']:.0f} times real time, decodes "
        f"{speed['decode']:.0f}; loads in {speed['load_seconds']:.2f} s.",
    ]
    return "\n".join([*lines, *short_of(record)]) + "\n"


def use(codes: dict[str, Any]) -> str:
    return (
        f"{codes['distinct']:,} used ({codes['share']:.1%} of the book) in {codes['num_codes']:,} sent, "
        f"{codes['entropy']:.2f} bits each"
    )


def short_of(record: dict[str, Any]) -> list[str]:
    """What it was meant to reach and did not, and how far training went."""
    means, done = record["quality"]["means"], record["training"]
    missed = [
        f"{METRIC_NAMES[name]} {number(means[name]['mean'])} instead of {least}"
        for name, least in LEAST.items()
        if name in means and (means[name]["mean"] is None or means[name]["mean"] < least)
    ]
    if not missed:
        return []
    return [
        "",
        f"It falls short of what was wanted of it: {' and '.join(missed)}. It is a checkpoint after {done['step']:,} "
        f"of the {done['steps']:,} steps its recipe plans, {done['seconds'] / 3600:.1f} hours of training on the "
        "hardware named below; the command there goes on.",
    ]


def samples(record: dict[str, Any]) -> str:
    if not record["samples"]:
        return ""
    lines = [
        "## How it sounds\n",
        "Of speakers it never heard; cut to their first seconds and brought to the codec's rate.\n",
        "| original | through the codec | language | licence | whose voice |",
        "|---|---|---|---|---|",
    ]
    for each in record["samples"]:
        name = each["name"]
        lines.append(
            f"| [listen](samples/{name}.original.flac) | [listen](samples/{name}.flac) | {each['language']} "
            f"| {shown_licence(each['licence'])} | {each['attribution']} |"
        )
    return "\n".join(lines) + "\n"


def intended_use(record: dict[str, Any]) -> str:
    return USE.format(hours=record["data"]["hours"])


def data(record: dict[str, Any]) -> str:
    found = record["data"]
    lines = [
        "## What it learned from\n",
        f"{found['clips']:,} clips, {found['hours']:.2f} hours. Nothing under a share-alike licence.\n",
        "| source | clips | hours | speakers | languages | licence | attribution |",
        "|---|---:|---:|---:|---|---|---|",
    ]
    for each in found["sources"]:
        name = each["name"] + (f" at `{each['commit']}`" if each["commit"] else "")
        lines.append(
            f"| {name} | {each['clips']:,} | {each['hours']:.2f} | {each['speakers'] or 'not labelled'} "
            f"| {', '.join(each['languages'])} | {shown_licence(each['licence'])} | {each['attribution']} |"
        )
    lines.append("")
    lines += [f"- Not used: {n} clips, {why}" for why, n in found["rejects"].items()]
    for each in found["sources"]:
        if said := " ".join(part for part in (each["stated"], each["remarks"]) if part):
            lines.append(f"- {each['name']}: {said}")
    return "\n".join(lines) + f"\n\n{SHARDS}"


def training(record: dict[str, Any]) -> str:
    done = record["training"]
    recipe = done["recipe"]
    judged = done["best"]
    crops = f"{recipe['batch_size']} crops of {recipe['crop_seconds']:g} s"
    lines = [
        "## How it was trained\n",
        f"Recipe `{recipe['name']}`: {done['step']:,} steps of {crops}, {done['audio_hours']:.1f} hours of audio with "
        f"repeats, in {done['seconds'] / 3600:.2f} hours. {losses_of(recipe, done['step'])} None of the measures above "
        "is in a loss.",
    ]
    if judged:
        lines.append(
            f"The best by {METRIC_NAMES[judged[1]]} over clips for validation ({judged[2]:.3f}, step {judged[0]:,})."
        )
    lines.append("")
    attempts = done["attempts"]
    for attempt in attempts:
        lines.append(f"- From step {attempt['first_step']:,}: {attempt['hardware'] or 'hardware not logged'}")
    lines += ["", *commands(attempts, done["told"]), ""]
    lines.append("The last command, given again, goes on from the latest checkpoint at its --output.")
    if done["goes_on"] and not recipe["starts_from"]:
        lines += [
            "Where that is gone, this goes on from the weights here, with new judges and a new schedule:\n",
            "```",
            done["goes_on"],
            "```",
        ]
    lines.append("")
    titles = {f"{file}.svg": title for _, _, title, file in CURVES}
    lines += [f"![{titles[name]}](curves/{name})" for name in done["curves"]]
    lines.append("\nEvery setting is under `training` in [card.json](card.json).")
    return "\n".join(lines) + "\n"


def commands(attempts: list[dict[str, Any]], told: str | None) -> list[str]:
    """What was run, as the log tells it, or as it was told by hand for attempts that the log is silent about."""
    lines = [told] if told else []
    for attempt in attempts:
        if attempt["command"]:
            lines += [f"# from step {attempt['first_step']:,}", attempt["command"]]
        elif not told:
            lines.append(f"# from step {attempt['first_step']:,}: command not logged")
    return ["```", *lines, "```"]


def losses_of(recipe: dict[str, Any], step: int) -> str:
    """What was learned from, until this step."""
    if step <= recipe["adversarial_after"]:
        return "It learned from the mel loss alone."
    if recipe["adversarial_after"]:
        return f"It learned from the mel loss alone until step {recipe['adversarial_after']:,}, then from judges too."
    return "It learned from the mel loss and from judges."


def student(record: dict[str, Any]) -> str:
    """Section 4.2 of the paper, for this codec and its student."""
    found = record.get("agreement")
    if not found:
        return ""
    size = found["student_parameters"] / 1e6, record["size"]["encoder_parameters"] / 1e6
    lines = [
        "## Its student\n",
        f"`{found['student']['name']}` learned to encode as this codec does, through its frozen quantizer and decoder: "
        f"{size[0]:.2f} M parameters to encode instead of {size[1]:.2f} M. Over {found['frames']:,} frames of "
        f"{found['clips']} clips:\n",
        "| its codes and this codec's | here | paper |",
        "|---|---:|---:|",
    ]
    lines += [f"| {AGREEMENT_NAMES[name]} | {number(found[name])} | {paper:.2f} |" for name, paper in PAPER.items()]
    lines += [
        "",
        "| there and back | this codec | student | paper: NeuCodec | paper: its student |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, (teacher, pupil) in in_order(found["reconstruction"]):
        paper = [number(value) for value in PAPER_RECONSTRUCTION.get(name, ())] or ["", ""]
        lines.append(f"| {METRIC_NAMES[name]} | {number(teacher)} | {number(pupil)} | {paper[0]} | {paper[1]} |")
    if done := found["training"]:
        lines += ["", f"Trained for {done['step']:,} steps in {done['seconds'] / 3600:.2f} hours:", ""]
        lines += commands(done["attempts"], None)
    return "\n".join(lines) + "\n"


def in_order(measures: dict[str, Any]) -> list[tuple[str, Any]]:
    """By metric, in the order of METRIC_NAMES: a record is kept sorted by name."""
    return [(name, measures[name]) for name in METRIC_NAMES if name in measures]


def number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
