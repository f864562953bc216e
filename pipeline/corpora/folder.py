"""A user's own speech: loose files of any format, or tar and zip archives of them, with or without labels.

Labels, all optional, are found in
- `metadata.csv|tsv|jsonl` or `manifest.csv|tsv|jsonl`, for the files of its folder and below: with a header
  (`file_name,text,speaker,...`, or `file`, `path`, `audio`, `id`, ...), or without one as in LJSpeech (`id|text|text`);
- `KEY.json` and `KEY.txt` beside `KEY.flac`, or as in WebDataset shards beside `KEY.any.flac`.

What is not text, speaker, language, recording, split, license or duration goes into `extra`.
"""

import posixpath
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any, BinaryIO

from pipeline import storage
from pipeline.indexing.labels import Labels, read_json, to_json
from pipeline.indexing.metadata import TABLES, labels_from, read_table
from pipeline.indexing.paths import PathTable
from pipeline.indexing.sidecars import ENDINGS, Sidecars, webdataset_key
from pipeline.readers import MAX_LABEL_BYTES
from pipeline.sources import SOUNDS, Corpus, Layout

SPLITS = frozenset(("train", "training", "dev", "val", "valid", "validation", "test", "eval", "evaluation"))


class FolderLayout(Layout):
    looked_for = "sound files (wav, flac, mp3, ogg, opus, m4a, ...) or tar and zip archives of them"

    def __init__(self, source: Any) -> None:
        super().__init__(source)
        self.clips: list[str] = []  # names, as they are met
        self.sidecars = Sidecars(self.clips)
        self.tables: dict[str, list[PathTable]] = {}  # by the folder they speak for
        self.outer: dict[str, PathTable] = {}  # those of them that are files of their own, by path
        names = [entry.path[len(source.path) :].lstrip("/") for entry in source.files] if source.kind == "tree" else []
        self.sounds = {webdataset_key(name) for name in names if is_sound(name)}
        self.own = {name for name in names if name in TABLES}

    def beside(self) -> Iterable[str]:
        folder = self.source.path if self.source.kind == "tree" else storage.parent(self.source.path)
        return [storage.join(folder, name) for name in TABLES if name not in self.own]

    def clip(self, name: str) -> str | None:
        if not is_sound(name):
            return None
        self.clips.append(name)
        return storage.join(self.source.name, name) if self.source.kind == "tree" and self.source.name else name

    def is_label(self, name: str) -> bool:
        base, ending = name.rpartition("/")[2], posixpath.splitext(name)[1].lower()
        if base in TABLES:
            return True
        if ending not in ENDINGS or base.startswith("._"):
            return False
        return self.source.kind != "tree" or webdataset_key(name) in self.sounds

    def read_labels(self, name: str, file: BinaryIO) -> None:
        base = name.rpartition("/")[2]
        if base not in TABLES:
            self.read_sidecar(name, file.read(MAX_LABEL_BYTES).decode("utf-8", "replace"))
            return
        table = self.open_table(name)
        for reference, fields in read_table(base, file, self.problems):
            if not table.add(posixpath.normpath(reference.replace("\\", "/")), to_json(fields)):
                self.problems[f"second line of {base} for one file"] += 1

    def open_table(self, name: str) -> PathTable:
        """A table without lines yet, entered for the folder whose files it speaks of."""
        outside, loose = name in self.beside(), self.source.kind == "tree"
        folder = "" if outside else posixpath.dirname(name)
        path = name if outside else storage.join(self.source.path, name) if loose else ""
        table = PathTable(storage.parent(path), lambda: self.clips_below(folder), self.problems)
        self.tables.setdefault(folder, []).append(table)
        if path:
            self.outer[path] = table
        return table

    def clips_below(self, folder: str) -> list[str]:
        """All clips of a folder, by their path in it."""
        if not folder:
            return self.ordered
        first, last = (bisect_left(self.ordered, f"{folder}{mark}") for mark in "/0")  # "0" comes next to "/"
        return [name[len(folder) + 1 :] for name in self.ordered[first:last]]

    @cached_property
    def ordered(self) -> list[str]:
        """The names of all clips, once they are known: a thousand folders may have a table each."""
        return sorted(self.clips)

    def read_sidecar(self, name: str, content: str) -> None:
        fields = {"text": content.strip()} if name.lower().endswith(".txt") else read_json(content)
        if fields is None:
            self.problems["json that is broken"] += 1
        elif not self.sidecars.add(name, to_json(fields)):
            self.problems["second label file of one name"] += 1

    def labels(self, id: str, name: str) -> Labels:
        fields: dict[str, Any] = {}
        for ending in ENDINGS:
            fields |= read_json(self.sidecars.get(name, ending) or "{}") or {}
        fields |= self.from_tables(name)
        found = labels_from(fields)
        split = next((part for part in reversed(name.split("/")[:-1]) if part.lower() in SPLITS), None)
        return found if found.split or not split else replace(found, split=split)

    def from_tables(self, name: str) -> dict[str, Any]:
        """What the nearest table says of a file."""
        parts = name.split("/")
        for depth in range(len(parts) - 1, -1, -1):
            for table in self.tables.get("/".join(parts[:depth]), ()):
                line = table.find("/".join(parts[depth:]))
                if line is not None:
                    return read_json(line) or {}
        return {}

    @property
    def orphans(self) -> int:
        inner = [table for tables in self.tables.values() for table in tables if table not in self.outer.values()]
        return self.sidecars.orphans + sum(table.orphans for table in inner)

    @property
    def shared(self) -> dict[str, tuple[int, int]]:
        """A table may speak of loose files and of archives beside them."""
        return {path: (table.count, table.count - table.orphans) for path, table in self.outer.items()}

    def close(self) -> None:
        super().close()
        self.sidecars.close()
        for tables in self.tables.values():
            for table in tables:
                table.close()


def is_sound(name: str) -> bool:
    base = name.rpartition("/")[2]
    return posixpath.splitext(base)[1].lower() in SOUNDS and not base.startswith(".")


CORPUS = Corpus(
    name="folder",
    layout=FolderLayout,
    kinds=("tar", "zip", "tree"),
    license="",
    attribution="",
    notes="A user's own speech: licences and attributions are what its labels say.",
)
