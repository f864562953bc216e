"""What a corpus knows of its clips, held while one source is indexed."""

import json
import math
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.indexing.languages import language_code

IN_MEMORY = 300_000  # labels; beyond that they go to a temporary file, so that 10 M of them cost no memory


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of one clip as its corpus gives them. `language` in the corpus's own form."""

    text: str | None = None
    language: str | None = None
    speaker: str | None = None
    recording: str | None = None
    split: str | None = None
    license: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    reject: str | None = None  # a reason of schemas.audio.REASONS, if this clip is none to tokenize
    message: str = ""


def language_fields(labels: Labels) -> tuple[str | None, dict[str, Any]]:
    """The language as a code, and `extra` with the corpus's own form where that says it otherwise."""
    code, own = language_code(labels.language), labels.language
    return code, {**labels.extra, **({"language": own} if own and own != code else {})}


def clean(value: Any) -> str | None:
    """A label as text that can be stored: None stays None, halves of surrogate pairs become question marks."""
    if value is None:
        return None
    return str(value).encode("utf-8", "replace").decode()


def name_of(value: Any) -> str | None:
    """A name or id as text; empty is unknown, and 7.0 is 7: tables turn ids into floats where one is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return (clean(value) or "").strip() or None


def number_of(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def to_json(extra: Mapping[str, Any]) -> str:
    """An object with sorted keys; what JSON has no word for (NaN, infinity) becomes null, what is None is left out."""

    def plain(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return None
        if isinstance(value, Mapping):
            return {clean(key): plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value if isinstance(value, bool | int | float | None) else clean(value)

    kept = {clean(key): plain(value) for key, value in extra.items() if value is not None and value != ""}
    return json.dumps(kept, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def read_json(text: str | bytes) -> dict[str, Any] | None:
    """A JSON object, or None for anything else, however broken, deep or large its numbers."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class LabelTable:
    """Label lines by clip, with a count of those that no clip has asked for."""

    def __init__(self) -> None:
        self.memory: dict[str, str] = {}
        self.used: set[str] = set()
        self.file: sqlite3.Connection | None = None
        self.folder: tempfile.TemporaryDirectory[str] | None = None

    def add(self, id: str, line: str) -> bool:
        """False, keeping the old line, if there is one."""
        if self.peek(id) is not None:
            return False
        self.put(id, line)
        return True

    def put(self, id: str, line: str) -> None:
        """In place of the old line, if there is one."""
        if self.file:
            self.file.execute("DELETE FROM labels WHERE id = ?", (clean(id),))
        self.memory[id] = line
        if len(self.memory) >= IN_MEMORY:
            self.spill()

    def peek(self, id: str) -> str | None:
        line = self.memory.get(id)
        if line is None and self.file:
            row = self.file.execute("SELECT line FROM labels WHERE id = ?", (clean(id),)).fetchone()
            line = row[0] if row else None
        return line

    def get(self, id: str) -> str | None:
        """The line of a clip, whose sound has been found therefore."""
        line = self.peek(id)
        if line is not None and id in self.memory:
            self.used.add(id)
        elif line is not None and self.file:
            self.file.execute("UPDATE labels SET used = 1 WHERE id = ?", (clean(id),))
        return line

    def ids(self) -> Iterator[str]:
        """Of all lines, in no order; none may be added meanwhile."""
        if self.file:
            yield from (id for (id,) in self.file.execute("SELECT id FROM labels"))
        yield from self.memory

    @property
    def count(self) -> int:
        stored = self.file.execute("SELECT COUNT(*) FROM labels").fetchone()[0] if self.file else 0
        return stored + len(self.memory)

    @property
    def orphans(self) -> int:
        """Labels that no clip has asked for."""
        stored = self.file.execute("SELECT COUNT(*) FROM labels WHERE used = 0").fetchone()[0] if self.file else 0
        return stored + len(self.memory) - len(self.used)

    def spill(self) -> None:
        """Move what is held in memory to the file."""
        if self.file is None:
            self.folder = tempfile.TemporaryDirectory(prefix="neutok-labels-")
            self.file = sqlite3.connect(Path(self.folder.name) / "labels.db", isolation_level=None)
            self.file.execute("PRAGMA journal_mode = OFF")
            self.file.execute("PRAGMA synchronous = OFF")
            self.file.execute("CREATE TABLE labels (id TEXT PRIMARY KEY, line TEXT, used INTEGER) WITHOUT ROWID")
            self.file.execute("BEGIN")  # one transaction for its whole short life: nobody else reads it
        rows = ((clean(id), clean(line), int(id in self.used)) for id, line in self.memory.items())
        self.file.executemany("INSERT OR REPLACE INTO labels VALUES (?, ?, ?)", rows)
        self.memory, self.used = {}, set()

    def close(self) -> None:
        if self.file:
            self.file.close()
        if self.folder:
            self.folder.cleanup()
