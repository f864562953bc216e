"""FLEURS-R: FLEURS restored, 102 languages, 24 kHz wav (Hub google/fleurs-r, arXiv 2408.06227).

`data/af_za/train.tsv` beside `data/af_za/audio/train.tar.gz`, whose members are `train/10004088536354799741.wav`. A
line has no header and no quoting; its id is the sentence's, which several readers share, so a clip is its file name:

    1234 <TAB> 10004088536354799741.wav <TAB> Raw text. <TAB> raw text <TAB> r a w | t e x t <TAB> 123456 <TAB> FEMALE

The number of samples is the original's at 16 kHz.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, BinaryIO

from pipeline import storage
from pipeline.indexing.labels import Labels, name_of, number_of
from pipeline.sources import ARCHIVES, Corpus, Layout, stem, text_lines

PLACE = re.compile(r"(?:^|/)([a-z]{2,3}(?:_[a-z0-9]{2,4})+)/(?:audio/)?(train|dev|test)(?=[/.]|$)")
COLUMNS = 7
ORIGINAL_RATE = 16_000


class FleursLayout(Layout):
    looked_for = "archives such as data/en_us/audio/train.tar.gz, beside data/en_us/train.tsv"

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        if source.kind != "tree":
            self.language, self.split = self.place(source.context("x"))

    def place(self, path: str) -> tuple[str | None, str | None]:
        """Locale and split that a path stands in."""
        found = PLACE.findall(path)
        return found[-1] if found else (None, None)

    def beside(self) -> Iterable[str]:
        if self.source.kind == "tree":
            return
        archive = ARCHIVES.sub("", self.source.path)
        yield storage.join(storage.parent(storage.parent(archive)), f"{stem(archive)}.tsv")
        yield f"{archive}.tsv"

    def is_label(self, name: str) -> bool:
        return name.endswith(".tsv")

    def read_labels(self, name: str, file: BinaryIO) -> None:
        locale, split = self.place(self.source.context(name)) if self.source.kind == "tree" else (None, None)
        for line in text_lines(file):
            cells = line.split("\t")
            if len(cells) != COLUMNS:
                self.problems[f"line of other than {COLUMNS} columns"] += bool(line.strip())
            elif not self.table.add(f"{locale} {split} {stem(cells[1].strip())}", line):
                self.problems["second line for one file"] += 1

    def labels(self, id: str, name: str) -> Labels:
        locale, split = self.place(self.source.context(name))
        line = self.table.get(f"{locale} {split} {id}" if self.source.kind == "tree" else f"None None {id}")
        known = Labels(language=locale, split=split, license="CC-BY-4.0")
        if line is None:
            return replace(known, reject="no_label", message="no line in the tsv")
        sentence, _, raw, plain, _, samples, gender = (cell.strip() for cell in line.split("\t"))
        count = number_of(samples)
        return replace(
            known,
            text=raw,
            recording=name_of(sentence),
            extra={"transcription": plain, "gender": gender, "sentence_id": sentence},
            seconds=count / ORIGINAL_RATE if count is not None else None,
            reject=None if raw else "no_label",
            message="" if raw else "its line in the tsv has no text",
        )


CORPUS = Corpus(
    name="fleurs_r",
    layout=FleursLayout,
    kinds=("tar", "tree"),
    license="CC-BY-4.0",
    attribution="FLEURS-R, Ma et al. 2024; FLEURS, Conneau et al. 2022 (CC BY 4.0)",
    citation="arXiv:2408.06227, arXiv:2205.12446",
    url="https://huggingface.co/datasets/google/fleurs-r",
    notes="No speaker ids: `recording` is the sentence, which several readers share.",
)
