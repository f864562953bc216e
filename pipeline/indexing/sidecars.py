"""Label files that lie beside their clips, and whose each of them is where names hold more dots than one."""

import posixpath
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

from pipeline.indexing.labels import LabelTable

ENDINGS = (".txt", ".json")


class Sidecars:
    """The lines of label files; a clip has the file of its own name, `2024.01.05.txt` beside `2024.01.05.wav`.

    Failing that it has, as in WebDataset, the file that shares the longest beginning of its name up to a dot: `a.wav`,
    `a.16k.wav` and `a.left.wav` share `a.txt`. That ends where other clips and other files share more: 2024.01.06.txt
    is not for 2024.01.07.wav if there is a 2024.01.06.wav.
    """

    def __init__(self, clips: Sequence[str]) -> None:
        self.clips = clips  # names, all of them there before the first `get`
        self.lines = LabelTable()  # by stem and ending
        self.first = LabelTable()  # by a shorter beginning and ending: the stem of the first file that begins so

    def add(self, name: str, line: str) -> bool:
        """False, keeping the old line, if there is a file of this name."""
        stem, *shorter = beginnings(name)
        ending = posixpath.splitext(name)[1].lower()
        if not self.lines.add(f"{stem}{ending}", line):
            return False
        for beginning in shorter:
            self.first.add(f"{beginning}{ending}", stem)
        return True

    def get(self, name: str, ending: str) -> str | None:
        """The line of a clip, of the file with this ending."""
        names = beginnings(name)
        if (line := self.lines.get(f"{names[0]}{ending}")) is not None:
            return line
        for beginning in names:
            if f"{beginning}{ending}" in self.parted:
                return None
            if (stem := self.stem_of(beginning, ending)) is not None:
                return self.lines.get(f"{stem}{ending}")
        return None

    @cached_property
    def parted(self) -> set[str]:
        """Beginnings, and endings, that tell too little: a clip and a file of theirs share a longer one."""
        return {
            f"{shorter}{ending}"
            for clip in self.clips
            for longer, shorter in pairwise(beginnings(clip))
            for ending in ENDINGS
            if self.stem_of(longer, ending) is not None
        }

    def stem_of(self, beginning: str, ending: str) -> str | None:
        """The stem of the file that is called so, else of the first that begins so."""
        return beginning if self.lines.peek(f"{beginning}{ending}") is not None else self.first.peek(beginning + ending)

    @property
    def orphans(self) -> int:
        return self.lines.orphans

    def close(self) -> None:
        self.lines.close()
        self.first.close()


def beginnings(name: str) -> list[str]:
    """A path up to each dot of its file's name, from the last to the first: x/a.b.wav gives x/a.b and x/a."""
    folder, slash, base = name.rpartition("/")
    parts = base.split(".")
    return [f"{folder}{slash}{'.'.join(parts[:count])}" for count in range(len(parts) - 1, 0, -1)]


def webdataset_key(name: str) -> str:
    """The path up to the first dot of the file's name: what a clip and its labels share at least."""
    return beginnings(name)[-1]
