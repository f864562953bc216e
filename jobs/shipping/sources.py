"""What a codec learned from: every clip of the run's own index, by source and licence, with whom to thank for it."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from codec.base import Codec
from codec.evaluation.metrics import CodeUse, count_codes
from jobs.clips import decoded
from jobs.training.data import Data
from pipeline.order import Order
from pipeline.publishing.licenses import find_license
from schemas.audio import Reject, Utterance

NOTHING_ASKED = ("CC0-1.0", "LicenseRef-PublicDomain")  # licences that ask for no attribution
COLUMNS = {"source": "name", "commit": "commit", "attribution": "attribution", "where": "stated", "remarks": "remarks"}


@dataclass
class Source:
    """Clips of one source under one licence."""

    name: str
    licence: str
    attribution: str = ""
    commit: str = ""
    stated: str = ""
    remarks: str = ""
    clips: int = 0
    seconds: float = 0.0
    speakers: set[str] = field(default_factory=set)
    languages: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Learned:
    """The training data, every clip of it heard once."""

    sources: tuple[Source, ...]  # most sound first
    codes: CodeUse
    rejects: Counter[str]


def check_order(data: Data, state: dict[str, int | str], batch_size: int) -> None:
    """Raises: ValueError unless these are the very clips that the run trained on."""
    order = Order([clips.rows for clips in data.clips], batch_size, int(state["seed"]), mixture=data.weights)
    if order.hash(int(state["step"])) != state["index"]:
        raise ValueError(
            "the clips of --input are not those the run was trained on; give --input, --corpus, --mixture, --split and "
            "--language as that `neutok train` had them"
        )


def sources_of(data: Data, thanks: dict[str, dict[str, str]]) -> dict[tuple[str, str], Source]:
    """Each source and licence of the clips, by labels alone, still without sound.

    Args: thanks: what `read_thanks` gives. Raises: ValueError for clips without a licence, under a share-alike one, or
        whose licence asks for an attribution that nobody gave.
    """
    found: dict[tuple[str, str], Source] = {}
    for utterance in _utterances(data):
        key = source_key(utterance)
        name, licence = key
        if key in found:
            continue
        if not licence:
            raise ValueError(f"{utterance.id} of {name} has no licence; what is shipped must say what it learned from")
        if "-SA" in licence.upper():
            raise ValueError(
                f"{name} is under {licence}, a share-alike licence; train without it what is to be shipped"
            )
        known = thanks.get(name, {})
        if licence not in NOTHING_ASKED and not known.get("attribution"):
            raise ValueError(
                f"{name} is under {licence}, and nobody is named to thank for it; add it to --attributions"
            )
        found[key] = Source(name, licence, **known)
    return found


def speakers_of(data: Data) -> set[str]:
    """Everyone the clips name."""
    return {name for utterance in _utterances(data) if (name := _named(utterance))}


def _named(utterance: Utterance) -> str | None:
    """Who speaks; None where the label says that nobody knows."""
    name = utterance.speaker
    return None if not name or name.endswith("unknown") else name


def source_key(utterance: Utterance) -> tuple[str, str]:
    """(source, licence); the source is the one its labels name, else the corpus."""
    return json.loads(utterance.extra).get("source") or utterance.corpus, utterance.license or ""


def hear(data: Data, codec: Codec, sources: dict[tuple[str, str], Source], device: str) -> Learned:
    """Every clip decoded and encoded once, whole: exact hours, and how much of the codebook they use."""
    counts = np.zeros(codec.spec.codebook_size, np.int64)
    rejects: Counter[str] = Counter()
    for clips in data.clips:
        for row in range(len(clips.rows)):
            clip = decoded(clips, row, codec.spec.input_rate)
            if isinstance(clip, Reject):
                rejects[clip.reason] += 1
                continue
            source = sources[source_key(clip.utterance)]
            source.clips += 1
            source.seconds += len(clip.waveform) / codec.spec.input_rate
            source.speakers |= {_named(clip.utterance)} - {None}
            source.languages[clip.utterance.language or "?"] += 1
            if len(clip.waveform) >= codec.spec.hop_length:
                waveform = torch.from_numpy(clip.waveform)[None, None].to(device)
                codes = codec.encode(waveform, torch.tensor([len(clip.waveform)], device=device))
                counts += count_codes(codes.cpu().numpy(), len(counts))
    ordered = sorted(sources.values(), key=lambda source: -source.seconds)
    return Learned(tuple(ordered), CodeUse.of(counts), rejects)


def read_thanks(paths: Sequence[str]) -> dict[str, dict[str, str]]:
    """By source, the fields that Markdown tables give it: every table whose first column is headed "Source…".

    Columns are known by the first word of their head: Source, Commit, Attribution, Where (it is stated), Remarks.
    """
    found: dict[str, dict[str, str]] = {}
    for path in paths:
        fields: list[str | None] | None = None
        for line in Path(path).read_text().splitlines():
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if not line.lstrip().startswith("|"):
                fields = None
            elif fields is None:
                fields = [COLUMNS.get(cell.split(" ")[0].lower()) for cell in cells]
            elif fields[0] == "name" and not set(cells[0]) <= set("-: "):
                row = {name: cell.strip("`") for name, cell in zip(fields, cells, strict=False) if name}
                found[row.pop("name")] = row
    return found


def shown_licence(id: str) -> str:
    """As a link where its text is known."""
    known = find_license(id)
    return f"[{known.name}]({known.url})" if known.url else known.name


def _utterances(data: Data) -> Iterator[Utterance]:
    for clips in data.clips:
        for row in range(len(clips.rows)):
            yield clips.clip(row)[2].utterance
