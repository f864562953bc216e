"""Multilingual LibriSpeech: read books in eight languages (OpenSLR 94, arXiv 2012.03411).

Archives `mls_german.tar.gz` (flac) and `mls_german_opus.tar.gz`:

    mls_german/metainfo.txt            speaker | gender | partition | minutes | book id | title | chapter, padded
    mls_german/train/transcripts.txt   10087_10388_000000 <TAB> text, lower case without punctuation
    mls_german/train/segments.txt      10087_10388_000000 <TAB> url <TAB> start seconds <TAB> end seconds
    mls_german/train/audio/10087/10388/10087_10388_000000.flac

The Hub's Parquet files (`facebook/multilingual_librispeech`, `parler-tts/mls_eng`) have transcript, speaker_id,
chapter_id (the book) or book_id, begin_time, end_time, audio_duration, original_path, and mostly id. Their splits
`9_hours` and `1_hours` are parts of train and are passed over, as are the handles of `limited_supervision`.
"""

import re
from collections.abc import Mapping
from typing import Any, BinaryIO

from pipeline.indexing.labels import Labels, LabelTable, name_of, number_of
from pipeline.indexing.languages import NAMES
from pipeline.sources import Corpus, Layout, id_of, text_lines

LANGUAGE = re.compile(r"(?:^|[/_])(english|german|dutch|french|spanish|italian|portuguese|polish)(?=[/_.-]|$)")
ENGLISH = re.compile(r"(?:^|/)(?:[^/]*-)?mls_eng(?=[/_-]|$)")
SPLIT = re.compile(r"(?:^|/)(train|dev|test)(?=[/-]|$)")


class MlsLayout(Layout):
    looked_for = "archives such as mls_german.tar.gz or mls_german_opus.tar.gz, their folders, or Parquet files"

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self.segments = LabelTable()
        self.books: dict[tuple[str, str], tuple[str, str]] = {}  # (speaker, book) -> gender, title
        self.language = None if source.kind == "tree" else self.language_at("")
        if source.kind == "parquet":
            self.split = self.split_at("")

    def language_at(self, name: str) -> str | None:
        path = self.source.context(name)
        found = LANGUAGE.findall(path)
        return NAMES[found[-1]] if found else "en" if ENGLISH.search(path) else None

    def split_at(self, name: str) -> str | None:
        found = SPLIT.findall(self.source.context(name))
        return found[-1] if found else None

    def is_label(self, name: str) -> bool:
        return name.rpartition("/")[2] in ("transcripts.txt", "segments.txt", "metainfo.txt")

    def read_labels(self, name: str, file: BinaryIO) -> None:
        kind = name.rpartition("/")[2]
        for line in text_lines(file):
            if not line.strip():
                continue
            cells = [cell.strip() for cell in line.split("|" if kind == "metainfo.txt" else "\t")]
            if kind == "metainfo.txt" and len(cells) >= 6:
                self.books[cells[0], cells[4]] = (cells[1], cells[5])
            elif kind == "segments.txt" and len(cells) == 4:
                self.segments.add(cells[0], "\t".join(cells[1:]))
            elif kind == "transcripts.txt" and len(cells) == 2 and all(cells):
                if not self.table.add(cells[0], cells[1]):
                    self.problems["second transcript of a clip"] += 1
            else:
                self.problems[f"line of {kind} that is none"] += 1

    def labels(self, id: str, name: str) -> Labels:
        text = self.table.get(id)
        speaker, _, rest = id.partition("_")
        book = rest.partition("_")[0]
        url, begin, end = (*(self.segments.get(id) or "").split("\t"), None, None)[:3]
        gender, title = self.books.get((speaker, book), (None, None))
        return label(
            text,
            self.language_at(name) or self.language,
            speaker,
            book,
            self.split_at(name),
            {"url": url, "begin": number_of(begin), "end": number_of(end), "gender": gender, "title": title},
        )

    def row(self, row: Mapping[str, Any], number: int) -> tuple[str, Labels]:
        begin, end = number_of(row.get("begin_time")), number_of(row.get("end_time"))
        text = name_of(row.get("transcript") or row.get("text"))
        english = "en" if "book_id" in row else None  # the column of mls_eng; the other languages have chapter_id
        speaker, book = name_of(row.get("speaker_id")), name_of(row.get("chapter_id") or row.get("book_id"))
        extra = {"url": name_of(row.get("original_path")), "begin": begin, "end": end}
        found = label(
            text, self.language or english, speaker, book, self.split, extra, number_of(row.get("audio_duration"))
        )
        return id_of(row, "id"), found


def label(
    text: str | None,
    language: str | None,
    speaker: str | None,
    book: str | None,
    split: str | None,
    extra: dict[str, Any],
    seconds: float | None = None,
) -> Labels:
    begin, end = extra["begin"], extra["end"]
    return Labels(
        text=text,
        language=language,
        speaker=speaker or None,
        recording=book or None,
        split=split,
        license="CC-BY-4.0",
        extra=extra,
        seconds=seconds if seconds is not None else None if begin is None or end is None else end - begin,
        reject=None if text else "no_label",
        message="" if text else "no line in transcripts.txt",
    )


CORPUS = Corpus(
    name="mls",
    layout=MlsLayout,
    kinds=("tar", "parquet", "tree"),
    license="CC-BY-4.0",
    attribution="Multilingual LibriSpeech, Pratap et al. 2020 (CC BY 4.0); recordings by LibriVox readers",
    citation="arXiv:2012.03411",
    url="https://www.openslr.org/94",
    notes="Text has neither case nor punctuation. Shares readers and books with LibriSpeech, LibriTTS-R and HUI.",
    ignores=r"(^|/)[19]_hours?-[^/]*\.parquet$|(^|/)train\.[19]h[-.][^/]*\.parquet$",
)
