"""Any Parquet tables with an Audio column, from the Hub or a user's own: the usual names of columns are labels.

A row is named by `id` (or `__key__`, `key`, `utterance_id`), else by the file its Audio column names, else by its
number. Every other column of labels goes into `extra`.
"""

import re
from collections.abc import Mapping
from typing import Any

from pipeline.indexing.labels import Labels
from pipeline.indexing.metadata import labels_from
from pipeline.sources import ARCHIVES, Corpus, Layout, id_of

IDS = ("id", "__key__", "key", "utterance_id", "utt_id", "segment_id")
SPLIT = re.compile(r"(?:^|/)([A-Za-z0-9_.]+)-\d{5}-of-\d{5}")  # as the Hub's shards are named


class ParquetLayout(Layout):
    looked_for = ".parquet files"

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        named = SPLIT.findall(source.path)  # `train` of train-00000-of-00003.parquet
        self.split = named[-1] if named else None

    def row(self, row: Mapping[str, Any], number: int) -> tuple[str, Labels]:
        fields = {name: value for name, value in row.items() if name not in (*IDS, "__path__")}
        found = labels_from({"split": self.split, **fields})
        return id_of(row, *IDS) or f"{ARCHIVES.sub('', self.source.name)}_{number}", found


CORPUS = Corpus(
    name="parquet",
    layout=ParquetLayout,
    kinds=("parquet",),
    license="",
    attribution="",
    notes="A user's own tables: licences and attributions are what their columns say.",
)
