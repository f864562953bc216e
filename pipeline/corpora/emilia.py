"""Emilia and Emilia-YODAS: speech in the wild, six languages, text by Whisper (arXiv 2407.05361, 2501.15907).

Three layouts: `Emilia[-YODAS]/<LANG>/<LANG>-B000000.tar` of `KEY.mp3` + `KEY.json`; the same without the top folder;
and before that `EN/EN_B00000.tar.gz` (sometimes cut into `.0`, `.1`, ...) with its labels beside in `EN_B00000.jsonl`.

    EN_0uoizKNJReY_W000519.json  {"_id": "EN_0uoizKNJReY_W000519", "text": " And ...", "duration": 17.96,
                                  "speaker": "EN_0uoizKNJReY_SPEAKER_06", "language": "en", "dnsmos": 3.3367, ...}
    EN_B00000_S00000_W000000.json {"id": ..., "wav": "EN_B00000/EN_B00000_S00000/mp3/...", "text": ..., ...}

Some speakers are known to be synthetic or code-switching: those of `emilia_known_bad_speakers.txt` are rejects. Add to
them by a `known_bad_speakers.txt` of your own, one id a line, beside the archives or up to three folders above.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from pipeline import storage
from pipeline.indexing.labels import Labels, name_of, number_of, read_json
from pipeline.readers import MAX_LABEL_BYTES
from pipeline.sources import ARCHIVES, Corpus, Layout, stem, text_lines

OLD_ARCHIVE = re.compile(r"/[A-Z]{2}_B\d+(\.tar\.gz(\.\d+)?)?$")
PREFIX = re.compile(r"(?:^|/)(Emilia|Emilia-YODAS)/([A-Z]{2})/[A-Z]{2}-B\d+(\.tar)?(/|$)")
LANGUAGE = re.compile(r"(?:^|/)(EN|ZH|DE|FR|JA|KO)[-_]B\d+")
BAD_SPEAKERS = "known_bad_speakers.txt"
LICENSES = {"Emilia": "CC-BY-NC-4.0", "Emilia-YODAS": "CC-BY-4.0"}


class EmiliaLayout(Layout):
    looked_for = "tar archives such as Emilia-YODAS/EN/EN-B000000.tar, or EN_B00000.tar.gz beside EN_B00000.jsonl"

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self.old = bool(OLD_ARCHIVE.search(source.path))
        self.bad_speakers = set(known_bad_speakers())
        prefix, language = PREFIX.search(source.path), LANGUAGE.search(source.path)
        self.part = prefix[1] if prefix else "Emilia" if self.old else None
        self.language = language[1].lower() if language else None

    def beside(self) -> Iterable[str]:
        folder = storage.parent(self.source.path)
        for _ in range(4):
            yield storage.join(folder, BAD_SPEAKERS)
            folder = storage.parent(folder)
        if self.old:
            yield f"{ARCHIVES.sub('', self.source.path)}.jsonl"

    def is_label(self, name: str) -> bool:
        return name.lower().endswith(".json")

    def read_labels(self, name: str, file: BinaryIO) -> None:
        if name.endswith(BAD_SPEAKERS):
            self.bad_speakers |= set(speakers_in(text_lines(file)))
        elif name.endswith(".jsonl"):
            for line in text_lines(file):
                label = read_json(line)
                id = label and (name_of(label.get("id") or label.get("_id")) or stem(str(label.get("wav", ""))))
                if not id:
                    self.problems["line of the jsonl that is no label"] += 1
                elif not self.table.add(id, line):
                    self.problems["second label of a clip"] += 1
        elif not self.table.add(stem(name), file.read(MAX_LABEL_BYTES).decode("utf-8", "replace")):
            self.problems["second label of a clip"] += 1

    def labels(self, id: str, name: str) -> Labels:
        line = self.table.get(id)
        label = read_json(line) if line is not None else None
        text = label.get("text") if label else None
        license = LICENSES.get(self.part or "")
        if label is None or not isinstance(text, str):
            why = "no json" if line is None else "its json is broken" if label is None else "its json has no text"
            return Labels(language=self.language, license=license, reject="no_label", message=why)
        part = self.part or ("Emilia-YODAS" if "_id" in label else "Emilia")
        speaker = name_of(label.get("speaker"))
        video = id.rpartition("_W")[0] or None  # YouTube ids hold `_` and `-`, so from the right
        bad = speaker in self.bad_speakers
        return Labels(
            text=text.strip(),
            language=name_of(label.get("language")) or self.language,
            speaker=speaker,
            recording=video if part == "Emilia-YODAS" else speaker,
            split="train",  # there is no other
            license=LICENSES[part],
            extra={key: label.get(key) for key in ("dnsmos", "phone_count", "duration")} | {"part": part},
            seconds=number_of(label.get("duration")),
            reject="known_bad" if bad else None,
            message="its speaker is on the list of bad speakers" if bad else "",
        )


def known_bad_speakers() -> list[str]:
    return speakers_in(Path(__file__).with_name(f"emilia_{BAD_SPEAKERS}").read_text().splitlines())


def speakers_in(lines: Iterable[str]) -> list[str]:
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


CORPUS = Corpus(
    name="emilia",
    layout=EmiliaLayout,
    kinds=("tar",),
    license="CC-BY-4.0 AND CC-BY-NC-4.0",
    attribution="Emilia-YODAS (CC BY 4.0) and Emilia (CC BY-NC 4.0), He et al., Amphion; YODAS, Li et al. (CC BY 3.0)",
    citation="arXiv:2407.05361, arXiv:2501.15907",
    url="https://huggingface.co/datasets/amphion/Emilia-Dataset",
    notes="Gated on the Hub. The Emilia part is for non-commercial use only, the YODAS part is not so bound; "
    "each row carries its own licence. Text is Whisper output.",
)
