"""LibriSpeech: read English, 16 kHz flac (OpenSLR 12); test-clean is the set codecs are compared on.

`LibriSpeech/test-clean/61/70968/61-70968-0000.flac`, labels in `61-70968.trans.txt`:

    61-70968-0000 HE BEGAN A CONFUSED COMPLAINT AGAINST THE WIZARD WHO HAD VANISHED

The Hub's Parquet form has the columns file, audio, text, speaker_id, chapter_id, id.
"""

import re
from collections.abc import Mapping
from typing import Any, BinaryIO

from pipeline.indexing.labels import Labels, name_of
from pipeline.sources import Corpus, Layout, id_of, text_lines

SPLIT = re.compile(r"(?:^|/)(dev|validation|test|train)[-._](clean|other)(?:[-._](100|360|500))?(?=[-._/]|$)")
HUB_SPLIT = re.compile(r"(?:^|/)(clean|other)/(dev|validation|test|train)(?:[-._](100|360|500))?(?=[-._/]|$)")


def split_of(path: str) -> str | None:
    """`test-clean`, however the archive, the folder or the Hub spells it."""
    found = SPLIT.findall(path) or [(split, kind, n) for kind, split, n in HUB_SPLIT.findall(path)]
    return "-".join(part for part in found[-1] if part).replace("validation", "dev") if found else None


class LibriSpeechLayout(Layout):
    looked_for = "archives such as test-clean.tar.gz, folders such as LibriSpeech/test-clean, or Parquet files"

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self.split = split_of(source.context("")) if source.kind != "tree" else None
        self.language = "en"

    def is_label(self, name: str) -> bool:
        return name.endswith(".trans.txt")

    def read_labels(self, name: str, file: BinaryIO) -> None:
        for line in text_lines(file):
            id, space, text = line.partition(" ")
            if id and space and text.strip():
                self.table.add(id, text.strip().lower())
            elif line.strip():
                self.problems["line of a trans.txt that is no label"] += 1

    def labels(self, id: str, name: str) -> Labels:
        speaker, _, rest = id.partition("-")
        return self.label(self.table.get(id), speaker, rest.partition("-")[0], split_of(name) or self.split_at(name))

    def split_at(self, name: str) -> str | None:
        return self.split or split_of(self.source.context(name))

    def row(self, row: Mapping[str, Any], number: int) -> tuple[str, Labels]:
        text, speaker, chapter = (name_of(row.get(column)) for column in ("text", "speaker_id", "chapter_id"))
        return id_of(row, "id"), self.label(text and text.lower(), speaker, chapter, self.split)

    def label(self, text: str | None, speaker: str | None, chapter: str | None, split: str | None) -> Labels:
        return Labels(
            text=text,
            language="en",
            speaker=speaker or None,
            recording=chapter or None,
            split=split,
            license="CC-BY-4.0",
            reject=None if text else "no_label",
            message="" if text else "no line in its trans.txt",
        )


CORPUS = Corpus(
    name="librispeech",
    layout=LibriSpeechLayout,
    kinds=("tar", "parquet", "tree"),
    license="CC-BY-4.0",
    attribution="LibriSpeech (c) 2014 by Vassil Panayotov; LibriVox readers (CC BY 4.0)",
    citation="Panayotov et al., LibriSpeech: an ASR corpus based on public domain audio books, ICASSP 2015",
    url="https://www.openslr.org/12",
    notes="Text has no punctuation; it is lower-cased here.",
)
