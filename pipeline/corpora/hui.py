"""HUI-Audio-Corpus-German: read German books, 44.1 kHz wav (opendata.iisys.de, arXiv 2106.06309).

One zip a speaker (`Karlsson.zip`, `Karlsson_Clean.zip`; `others.zip` holds many), unpacked side by side or not:

    Karlsson/der_blinde/wavs/der_blinde_01_f000012.wav
    Karlsson/der_blinde/metadata.csv      der_blinde_01_f000012|"Er sagte ""nein"" | und ging."

The table is a csv with `|` between and quotes where the text has `"` or `|`. Speakers are LibriVox readers.
"""

import csv
import posixpath
from typing import Any, BinaryIO

from pipeline.indexing.labels import Labels
from pipeline.sources import ARCHIVES, Corpus, Layout, text_lines


class HuiLayout(Layout):
    looked_for = "zips such as Karlsson.zip or others_Clean.zip, or their folders Speaker/book/{metadata.csv,wavs}"

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self.language = "de"

    def clip(self, name: str) -> str | None:
        return (
            super().clip(name) if posixpath.basename(posixpath.dirname(self.source.context(name))) == "wavs" else None
        )

    def is_label(self, name: str) -> bool:
        return name.rpartition("/")[2] == "metadata.csv"

    def read_labels(self, name: str, file: BinaryIO) -> None:
        rows = csv.reader((f"{line}\n" for line in text_lines(file)), delimiter="|")
        book = posixpath.dirname(self.source.context(name))
        try:
            for row in rows:
                if len(row) < 2 or not row[0].strip():
                    self.problems["line of metadata.csv that is no label"] += bool(row)
                elif not self.table.add(f"{book}/{row[0].strip()}", row[1].strip()):
                    self.problems["second line for one clip"] += 1
        except csv.Error:
            self.problems["metadata.csv breaks off: its quotes do not match"] += 1

    def labels(self, id: str, name: str) -> Labels:
        book = posixpath.dirname(posixpath.dirname(self.source.context(name)))
        text = self.table.get(f"{book}/{id}")
        speaker = posixpath.basename(posixpath.dirname(book))
        clean = "clean" in ARCHIVES.sub("", posixpath.basename(self.source.path)).lower() or "dataset_clean" in book
        return Labels(
            text=text,
            language="de",
            speaker=speaker.removesuffix("_Clean") or None,
            recording="_".join(id.split("_")[:-2]) or None,  # the book; its name may hold `_` itself
            license="CC0-1.0",
            extra={"subset": "clean" if clean else "full"},
            reject=None if text else "no_label",
            message="" if text else "no line in metadata.csv",
        )


CORPUS = Corpus(
    name="hui",
    layout=HuiLayout,
    kinds=("zip", "tree"),
    license="CC0-1.0",
    attribution="HUI-Audio-Corpus-German, Puchtler et al. 2021 (CC0); LibriVox readers",
    citation="arXiv:2106.06309",
    url="https://opendata.iisys.de/dataset/hui-audio-corpus-german/",
    notes="CC0 by the paper's table; some re-uploads say otherwise. The clean zips repeat clips of the full ones.",
    ignores=r"(^|/)datasetStatistic[^/]*\.zip$",
)
