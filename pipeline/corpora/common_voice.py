"""Common Voice: sentences read by volunteers, any language, any release, mp3 of mixed rates.

`cv-corpus-17.0-2024-03-15-de.tar.gz` (perhaps behind a timestamp) holds `<anything>/de/clips/common_voice_de_1.mp3` and
beside `clips` the tables, with a header and without any quoting; columns come and go with the releases:

    client_id <TAB> path <TAB> sentence <TAB> up_votes <TAB> down_votes <TAB> age <TAB> gender <TAB> ...

A clip is in validated, other or invalidated, and perhaps in test, dev or train too: it is one row, under the first of
test, dev, train, validated, other, invalidated. Mirrors on the Hub: `audio/<lang>/<split>/<lang>_<split>_<n>.tar` with
`transcript/<lang>/<split>.tsv`, and Parquet files with the same columns.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

from pipeline.indexing.labels import Labels, LabelTable, name_of, number_of
from pipeline.sources import Corpus, Layout, id_of, stem, text_lines

SPLITS = ("test", "dev", "train", "validated", "other", "invalidated")  # the first that lists a clip has it
TABLES = tuple(f"{split}.tsv" for split in SPLITS)
MIRROR = re.compile(r"^(.*?)audio/([^/]+)/([^/]+)/[^/]+\.tar$")
LOCALE = re.compile(r"common_voice_([A-Za-z-]+)_\d+")
SHARD = re.compile(r"(?:^|/)(train|dev|validation|test|validated|other|invalidated)-[^/]*$")
VOLUNTEER = ("age", "gender", "accents", "accent", "variant", "segment")
EXTRA = ("up_votes", "down_votes", *VOLUNTEER, "sentence_id", "sentence_domain")


class CommonVoiceLayout(Layout):
    looked_for = "archives such as cv-corpus-17.0-2024-03-15-de.tar.gz, folders with clips/, tars or Parquet files"

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self.durations = LabelTable()
        self.headers: list[list[str]] = []
        self.mirror = MIRROR.match(source.path) if source.kind == "tar" else None
        if self.mirror:
            self.language = self.mirror[2]
        shard = SHARD.search(source.path)
        if source.kind == "parquet" and shard:
            self.split = "dev" if shard[1] == "validation" else shard[1]

    def beside(self) -> Iterable[str]:
        if self.mirror:
            return [f"{self.mirror[1]}transcript/{self.mirror[2]}/{table}" for table in TABLES]
        return ()

    def is_label(self, name: str) -> bool:
        return name.rpartition("/")[2] in (*TABLES, "clip_durations.tsv")

    def read_labels(self, name: str, file: BinaryIO) -> None:
        base, lines = name.rpartition("/")[2], text_lines(file)
        header = [cell.strip() for cell in next(lines, "").split("\t")]
        if base == "clip_durations.tsv":
            for line in lines:
                clip, _, milliseconds = line.partition("\t")
                self.durations.put(clip_id(clip), milliseconds)
            return
        if not {"client_id", "path", "sentence"} <= set(header):
            self.problems[f"{base} without the columns client_id, path, sentence"] += 1
            return
        self.headers.append(header)
        rank, path = TABLES.index(base), header.index("path")
        for line in lines:
            cells = line.split("\t")
            if len(cells) != len(header):
                self.problems[f"line of {base} with other columns than its header"] += bool(line.strip())
                continue
            id = clip_id(cells[path])
            known = self.table.peek(id)
            if known is None or int(known.partition(" ")[0]) > rank:
                self.table.put(id, f"{rank} {len(self.headers) - 1} {line}")

    def clip(self, name: str) -> str | None:
        """Only what lies in `clips`, or in a mirror's tar."""
        inside = self.mirror or "clips" in self.source.context(name).split("/")[:-1]
        return super().clip(name) if inside else None

    def labels(self, id: str, name: str) -> Labels:
        found, locale = self.table.get(id), locale_of(id) or self.language
        if found is None:
            why = "no line in any of its tables"
            return Labels(language=locale, license="CC0-1.0", reject="no_label", message=why)
        rank, table, line = found.split(" ", 2)
        row = dict(zip(self.headers[int(table)], line.split("\t"), strict=False))
        milliseconds = number_of(self.durations.get(id))
        return label(row, row.get("locale") or locale, SPLITS[int(rank)], milliseconds)

    def row(self, row: Mapping[str, Any], number: int) -> tuple[str, Labels]:
        id = clip_id(name_of(row.get("path") or row.get("__path__")) or id_of(row))
        return id, label(row, name_of(row.get("locale")) or locale_of(id), self.split, None)

    @property
    def orphans(self) -> int:
        return 0 if self.mirror else self.table.orphans

    @property
    def shared(self) -> dict[str, tuple[int, int]]:
        """A mirror's tables speak of all the tars of their language."""
        if not self.mirror:
            return {}
        count = self.table.count
        return {f"{self.mirror[1]}transcript/{self.mirror[2]}": (count, count - self.table.orphans)}


def clip_id(path: str) -> str:
    """`common_voice_de_1`, with or without a folder before it and `.mp3` behind."""
    base = path.strip().rpartition("/")[2]
    return stem(base) if base.lower().endswith(".mp3") else base


def locale_of(id: str) -> str | None:
    found = LOCALE.match(id)
    return found[1] if found else None


def label(row: Mapping[str, Any], locale: str | None, split: str | None, milliseconds: float | None) -> Labels:
    text, speaker = name_of(row.get("sentence")), name_of(row.get("client_id"))
    return Labels(
        text=text,
        language=locale,
        speaker=speaker,
        recording=speaker,  # a volunteer's clips belong in one split
        split=split,
        license="CC0-1.0",
        extra={name: name_of(row.get(name)) for name in EXTRA},
        seconds=None if milliseconds is None else milliseconds / 1000,
        reject=None if text else "no_label",
        message="" if text else "its line has no sentence",
    )


CORPUS = Corpus(
    name="common_voice",
    layout=CommonVoiceLayout,
    kinds=("tar", "parquet", "tree"),
    license="CC0-1.0",
    attribution="Mozilla Common Voice contributors (CC0)",
    citation="arXiv:1912.06670",
    url="https://commonvoice.mozilla.org",
    notes="The platform's terms forbid hosting it elsewhere and identifying speakers; tokens that decode may be that.",
    same_clip=SPLITS,
)
