"""Label lines by the path of the file they speak of, in all the ways that people's tables give it."""

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from pipeline.indexing.labels import LabelTable

FULL = re.compile(r"(\w[\w+.-]*:)?/")  # /home/x/a.wav, s3:/bucket/a.wav (two slashes become one), C:/x/a.wav
AMBIGUOUS = (
    "clip without labels, for full paths of a table fit it no better than others; write paths below the table's folder"
)


class PathTable(LabelTable):
    """The lines of one table. A path in it is one below the table's folder, the bare name of a file, or a full path.

    A full path that does not lead to a clip, for it was written on another machine, is known by its end. The line is
    the clip's if the longest end that the clip's path shares with any line is that of no second line, and of no second
    clip; else the clip goes without, which is counted in `problems`.
    """

    def __init__(self, folder: str, clips: Callable[[], Sequence[str]], problems: Counter[str]) -> None:
        """folder: where the table lies, in full. clips: asked, once all are known, for their paths below the folder."""
        super().__init__()
        self.place, self.clips, self.problems = folder, clips, problems
        self.has_full = False
        self.ends: tuple[LabelTable, LabelTable] | None = None  # of the lines' paths and of the clips'

    def add(self, id: str, line: str) -> bool:
        self.has_full = self.has_full or bool(FULL.match(id))
        return super().add(id, line)

    def find(self, path: str) -> str | None:
        """The line of a clip, by its path below the folder; the table may leave out the ending."""
        full = [posixpath.normpath(posixpath.join(self.place, path))] if self.has_full else []
        for called in (path, *full, posixpath.basename(path)):
            for reference in (called, posixpath.splitext(called)[0]):
                if (line := self.get(reference)) is not None:
                    return line
        return self.find_by_end(path) if self.has_full else None

    def find_by_end(self, path: str) -> str | None:
        lines, clips = self.ends = self.ends or self.list_ends()
        for end in ends_of(path):
            stem = posixpath.splitext(end)[0]
            found = (lines.peek(reference) for reference in (end, stem))
            whole = next((path for path in found if path is not None), None)
            if whole and clips.peek(stem):
                return self.get(whole)
            if whole is not None:
                self.problems[AMBIGUOUS] += 1
                return None
        return None

    def list_ends(self) -> tuple[LabelTable, LabelTable]:
        clips = [posixpath.splitext(path)[0] for path in self.clips()]
        longest = 1 + max((path.count("/") for path in clips), default=0)
        return by_end(filter(FULL.match, self.ids()), longest), by_end(clips, longest)

    def close(self) -> None:
        super().close()
        for table in self.ends or ():
            table.close()


def by_end(paths: Iterable[str], longest: int) -> LabelTable:
    """By each end of a path, of at most so many parts: the path, or "" if several end so."""
    table = LabelTable()
    for path in paths:
        for end in ends_of(path, longest):
            if not table.add(end, path) and table.peek(end) != path:
                table.put(end, "")
    return table


def ends_of(path: str, longest: int | None = None) -> Iterator[str]:
    """From the longest, here of at most so many parts, to the name alone: a/b/c, b/c, c."""
    parts = path.lstrip("/").split("/")
    parts = parts[-longest:] if longest else parts
    return ("/".join(parts[first:]) for first in range(len(parts)))
