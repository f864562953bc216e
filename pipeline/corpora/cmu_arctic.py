"""CMU Arctic: 18 speakers read the same phonetically balanced sentences, 16 kHz wav (festvox.org/cmu_arctic).

`cmu_us_bdl_arctic.tar.bz2` holds `cmu_us_bdl_arctic/wav/arctic_a0001.wav` and `cmu_us_bdl_arctic/etc/txt.done.data`:

    ( arctic_a0001 "Author of the danger trail, Philip Steels, etc." )

Ids repeat across speakers, so a clip is named `bdl_arctic_a0001`. About 20 prompts have no sound.
"""

import re
from collections.abc import Mapping
from typing import Any, BinaryIO

from pipeline.indexing.labels import Labels, name_of
from pipeline.sources import Corpus, Layout, id_of, text_lines

SPEAKER = re.compile(r"(?:^|/)cmu_us_([a-z]+)_arctic")
SOUND = re.compile(r"/wav/(arctic_[ab]\d+)\.wav$")
PROMPT = re.compile(r"\(\s*(\S+)\s+\"(.*)\"")  # from the first quote to the last: a sentence may hold some
GENDERS = {"bdl": "male", "rms": "male", "jmk": "male", "awb": "male", "ksp": "male", "slt": "female", "clb": "female"}
LICENSE = "LicenseRef-CMU-Arctic"


class CmuArcticLayout(Layout):
    looked_for = "archives such as cmu_us_bdl_arctic.tar.bz2, or their folders"

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self.language = "en"

    def speaker(self, name: str) -> str | None:
        found = SPEAKER.findall(self.source.context(name))
        return found[-1] if found else None

    def clip(self, name: str) -> str | None:
        match, speaker = SOUND.search(self.source.context(name)), self.speaker(name)
        return f"{speaker}_{match[1]}" if match and speaker else None

    def is_label(self, name: str) -> bool:
        return name.rpartition("/")[2] == "txt.done.data"

    def read_labels(self, name: str, file: BinaryIO) -> None:
        speaker = self.speaker(name)
        for line in text_lines(file):
            match = PROMPT.search(line)
            if match:
                self.table.add(f"{speaker}_{match[1]}", match[2].replace('\\"', '"').strip())
            elif line.strip():
                self.problems["line of txt.done.data that is no prompt"] += 1

    def labels(self, id: str, name: str) -> Labels:
        return label(self.table.get(id), self.speaker(name))

    def row(self, row: Mapping[str, Any], number: int) -> tuple[str, Labels]:
        speaker = name_of(row.get("speaker"))
        return f"{speaker}_{id_of(row, 'id')}", label(name_of(row.get("text")), speaker)


def label(text: str | None, speaker: str | None) -> Labels:
    return Labels(
        text=text,
        language="en",
        speaker=speaker,
        license=LICENSE,
        extra={"gender": GENDERS.get(speaker or "")},
        reject=None if text else "no_label",
        message="" if text else "no prompt in txt.done.data",
    )


CORPUS = Corpus(
    name="cmu_arctic",
    layout=CmuArcticLayout,
    kinds=("tar", "parquet", "tree"),
    license=LICENSE,
    attribution="CMU Arctic, Kominek and Black 2003, Carnegie Mellon University; its notice (COPYING) stays with it",
    citation="CMU-LTI-03-177",
    url="http://festvox.org/cmu_arctic",
    notes="Free for any use, commercial use included, as long as the notice is kept.",
)
