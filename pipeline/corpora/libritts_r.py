"""LibriTTS-R: LibriTTS restored, read English, 24 kHz wav (OpenSLR 141, arXiv 2305.18802).

Archives `train_clean_100.tar.gz` (underscores) hold `LibriTTS_R/train-clean-100/...` (hyphens):

    LibriTTS_R/train-clean-100/103/1241/103_1241_000000_000001.wav
                                        103_1241_000000_000001.normalized.txt   the text, one line
                                        103_1241_000000_000001.original.txt

The Hub's Parquet files (`mythicinfinity/libritts_r`, `blabble-io/libritts_r`) have text_normalized, text_original,
speaker_id, chapter_id, id. Clips whose restoration failed are listed in `train-clean-100_bad_sample_list.txt`, in
`libritts_r_failed_speech_restoration_examples[.tar.gz]` beside the archives; they are rejects where it is found.
"""

from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

from pipeline import storage
from pipeline.corpora.librispeech import split_of
from pipeline.indexing.labels import Labels, name_of
from pipeline.readers import MAX_LABEL_BYTES
from pipeline.sources import Corpus, Layout, id_of, stem, text_lines

SIDECARS = (".normalized.txt", ".original.txt")
FAILED = "libritts_r_failed_speech_restoration_examples"
FAILED_LIST = "_bad_sample_list.txt"
CORRUPT = "1092_134562_000013_000004"


class LibriTtsLayout(Layout):
    looked_for = "archives such as train_clean_100.tar.gz, folders such as LibriTTS_R/train-clean-100, or Parquet files"

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self.language = "en"
        self.split = split_of(source.context("")) if source.kind != "tree" else None
        self.originals: dict[str, str] = {}
        self.failed: set[str] = set()

    def beside(self) -> Iterable[str]:
        folder = self.source.path
        for _ in range(3):  # the list may lie beside the archive, or beside the LibriTTS_R folder above it
            folder = storage.parent(folder)
            yield storage.join(folder, f"{FAILED}.tar.gz")
            for kind in ("train-clean-100", "train-clean-360", "train-other-500", "dev-clean", "dev-other"):
                yield storage.join(folder, FAILED, f"{kind}{FAILED_LIST}")
            yield from (storage.join(folder, FAILED, f"test-{kind}{FAILED_LIST}") for kind in ("clean", "other"))

    def is_label(self, name: str) -> bool:
        return name.endswith((*SIDECARS, FAILED_LIST)) and not name.rpartition("/")[2].startswith("._")

    def read_labels(self, name: str, file: BinaryIO) -> None:
        if name.endswith(FAILED_LIST):
            self.failed |= {stem(line.strip()) for line in text_lines(file) if line.strip()}
            return
        id = name.rpartition("/")[2].partition(".")[0]
        text = file.read(MAX_LABEL_BYTES).decode("utf-8", "replace").strip()
        if name.endswith(SIDECARS[1]):
            self.originals[id] = text
        elif text:
            self.table.add(id, text)

    def labels(self, id: str, name: str) -> Labels:
        speaker, _, rest = id.partition("_")
        split = split_of(name) or split_of(self.source.context(name))
        return self.label(id, self.table.get(id), self.originals.get(id), speaker, rest.partition("_")[0], split)

    def row(self, row: Mapping[str, Any], number: int) -> tuple[str, Labels]:
        id = id_of(row, "id")
        names = ("text_normalized", "text_original", "speaker_id", "chapter_id")
        return id, self.label(id, *(name_of(row.get(name)) for name in names), self.split)

    def label(
        self,
        id: str,
        text: str | None,
        original: str | None,
        speaker: str | None,
        chapter: str | None,
        split: str | None,
    ) -> Labels:
        bad = (
            "its file is corrupt as published"
            if id == CORRUPT
            else "its restoration failed"
            if id in self.failed
            else ""
        )
        return Labels(
            text=text,
            language="en",
            speaker=speaker or None,
            recording=chapter or None,
            split=split,
            license="CC-BY-4.0",
            extra={"original_text": original},
            reject="known_bad" if bad else None if text else "no_label",
            message=bad or ("" if text else "no .normalized.txt"),
        )


CORPUS = Corpus(
    name="libritts_r",
    layout=LibriTtsLayout,
    kinds=("tar", "parquet", "tree"),
    license="CC-BY-4.0",
    attribution="LibriTTS-R, Koizumi et al. 2023 (CC BY 4.0); LibriVox readers",
    citation="arXiv:2305.18802",
    url="https://www.openslr.org/141",
    ignores=rf"(^|/)(doc|{FAILED})\.tar\.gz$",
)
