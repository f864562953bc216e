"""A user's own speech: loose files of any format, or tar and zip archives of them, with or without labels.

Labels, all optional, are found in
- `metadata.csv|tsv|jsonl` or `manifest.csv|tsv|jsonl`, for the files of its folder and below: with a header
  (`file_name,text,speaker,...`, or `file`, `path`, `audio`, `id`, ...), or without one as in LJSpeech (`id|text|text`);
- `KEY.json` and `KEY.txt` beside `KEY.flac`, as in WebDataset shards.

What is not text, speaker, language, recording, split, license or duration goes into `extra`.
"""

import posixpath
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, BinaryIO

from pipeline import storage
from pipeline.indexing.labels import Labels, LabelTable, read_json, to_json
from pipeline.indexing.metadata import TABLES, labels_from, read_table
from pipeline.readers import MAX_LABEL_BYTES
from pipeline.sources import SOUNDS, Corpus, Layout

SPLITS = frozenset(("train", "training", "dev", "val", "valid", "validation", "test", "eval", "evaluation"))


class FolderLayout(Layout):
    looked_for = "sound files (wav, flac, mp3, ogg, opus, m4a, ...) or tar and zip archives of them"

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self.tables: dict[str, list[LabelTable]] = {}  # by the folder they speak for
        self.outer: dict[str, LabelTable] = {}  # those of them that are files of their own, by path
        names = [entry.path[len(source.path) :].lstrip("/") for entry in source.files] if source.kind == "tree" else []
        self.sounds = {sidecar_key(name) for name in names if is_sound(name)}
        self.own = {name for name in names if name in TABLES}

    def beside(self) -> Iterable[str]:
        folder = self.source.path if self.source.kind == "tree" else storage.parent(self.source.path)
        return [storage.join(folder, name) for name in TABLES if name not in self.own]

    def clip(self, name: str) -> str | None:
        if not is_sound(name):
            return None
        return storage.join(self.source.name, name) if self.source.kind == "tree" and self.source.name else name

    def is_label(self, name: str) -> bool:
        base, ending = name.rpartition("/")[2], posixpath.splitext(name)[1].lower()
        if base in TABLES:
            return True
        if ending not in (".json", ".txt") or base.startswith("._"):
            return False
        return self.source.kind != "tree" or sidecar_key(name) in self.sounds

    def read_labels(self, name: str, file: BinaryIO) -> None:
        base, table = name.rpartition("/")[2], LabelTable()
        if base not in TABLES:
            self.read_sidecar(name, file.read(MAX_LABEL_BYTES).decode("utf-8", "replace"))
            return
        outside = name in self.beside()
        self.tables.setdefault("" if outside else posixpath.dirname(name), []).append(table)
        if outside or self.source.kind == "tree":
            self.outer[name if outside else storage.join(self.source.path, name)] = table
        for reference, fields in read_table(base, file, self.problems):
            place = posixpath.normpath(reference.replace("\\", "/"))
            if not table.add(posixpath.basename(place) if place.startswith("/") else place, to_json(fields)):
                self.problems[f"second line of {base} for one file"] += 1

    def read_sidecar(self, name: str, content: str) -> None:
        fields = {"text": content.strip()} if name.lower().endswith(".txt") else read_json(content)
        if fields is None:
            self.problems["json that is broken"] += 1
        else:
            self.table.add(f"{sidecar_key(name)}{posixpath.splitext(name)[1].lower()}", to_json(fields))

    def labels(self, id: str, name: str) -> Labels:
        key = sidecar_key(name)
        fields: dict[str, Any] = {}
        for ending in (".txt", ".json"):
            fields |= read_json(self.table.get(f"{key}{ending}") or "{}") or {}
        fields |= self.from_tables(name)
        found = labels_from(fields)
        split = next((part for part in reversed(name.split("/")[:-1]) if part.lower() in SPLITS), None)
        return found if found.split or not split else replace(found, split=split)

    def from_tables(self, name: str) -> dict[str, Any]:
        """What the nearest table says of a file, be it called by path or by name, with its ending or without."""
        base, parts = posixpath.basename(name), name.split("/")
        for depth in range(len(parts) - 1, -1, -1):
            below = "/".join(parts[depth:])
            for table in self.tables.get("/".join(parts[:depth]), ()):
                for reference in (below, posixpath.splitext(below)[0], base, posixpath.splitext(base)[0]):
                    line = table.get(reference)
                    if line is not None:
                        return read_json(line) or {}
        return {}

    @property
    def orphans(self) -> int:
        inner = [table for tables in self.tables.values() for table in tables if table not in self.outer.values()]
        return self.table.orphans + sum(table.orphans for table in inner)

    @property
    def shared(self) -> dict[str, tuple[int, int]]:
        """A table may speak of loose files and of archives beside them."""
        return {path: (table.count, table.count - table.orphans) for path, table in self.outer.items()}

    def close(self) -> None:
        super().close()
        for tables in self.tables.values():
            for table in tables:
                table.close()


def is_sound(name: str) -> bool:
    base = name.rpartition("/")[2]
    return posixpath.splitext(base)[1].lower() in SOUNDS and not base.startswith(".")


def sidecar_key(name: str) -> str:
    """What a clip and its labels share: the path up to the first dot of the name, as WebDataset has it."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}"


CORPUS = Corpus(
    name="folder",
    layout=FolderLayout,
    kinds=("tar", "zip", "tree"),
    license="",
    attribution="",
    notes="A user's own speech: licences and attributions are what its labels say.",
)
