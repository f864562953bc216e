"""What a corpus is: where its sources lie below the inputs, and how one source names its sound and its labels."""

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, BinaryIO

from pipeline import finding, storage
from pipeline.finding import Entry
from pipeline.indexing.labels import Labels, LabelTable, name_of
from pipeline.readers import MAX_LABEL_BYTES

SOUND_ENDINGS = "wav flac mp3 ogg oga opus m4a mp4 aac webm wma aif aiff aifc au caf w64 mka 3gp amr sph"
SOUNDS = frozenset(f".{ending}" for ending in SOUND_ENDINGS.split())
ARCHIVES = re.compile(r"\.(tar|tar\.(gz|bz2|xz)(\.\d+)?|tgz|tbz2?|txz|zip|parquet)$", re.IGNORECASE)
PART = re.compile(r"\.\d+$")
KINDS = {"zip": "zip", "parquet": "parquet"}


@dataclass(frozen=True, slots=True)
class Source:
    """One archive, table or tree that holds sound."""

    kind: str  # tar, zip, parquet or tree
    path: str  # of the archive or table, or of the tree's folder
    name: str  # the same below the folder that all inputs share; what rows, keys and units are named after
    files: tuple[Entry, ...] = field(repr=False)  # of a tree all its files, else the one

    def context(self, member: str) -> str:
        """Where a member stands, archive and all, for labels that follow the path."""
        return storage.join(self.path, member) if self.kind == "tree" else f"{ARCHIVES.sub('', self.path)}/{member}"


class Layout:
    """How one corpus names its sound and its labels, in one source; it holds that source's labels while it is indexed.

    A corpus overrides what differs from: every sound file is a clip, named by its stem.
    """

    looked_for = "sound files, or archives and tables of them"

    def __init__(self, source: Source) -> None:
        self.source = source
        self.table = LabelTable()
        self.problems: Counter[str] = Counter()

    # -- what the path alone tells: a source that cannot hold what was selected is not even opened
    language: str | None = None  # in any form; None is unknown or mixed
    split: str | None = None

    def beside(self) -> Iterable[str]:
        """Label files that lie outside the source: paths that may exist."""
        return ()

    # -- members of archives and trees
    def is_label(self, name: str) -> bool:
        return False

    def read_labels(self, name: str, file: BinaryIO) -> None:
        """Take in a label file, front to back. Whatever is broken in it is counted in `problems`."""

    def clip(self, name: str) -> str | None:
        """The native id of a member that is sound of this corpus, else None. `._x` files are a Mac's shadow of x."""
        base = name.rpartition("/")[2]
        stem, dot, extension = base.rpartition(".")
        return stem if stem and f".{extension.lower()}" in SOUNDS and not base.startswith("._") and dot else None

    def labels(self, id: str, name: str) -> Labels:
        """What is known of a clip, once all labels of its source are read; `reject` says no_label where they lack."""
        return Labels()

    # -- rows of Parquet tables
    def row(self, row: Mapping[str, Any], number: int) -> tuple[str, Labels]:
        """Native id and labels of a row; `row["__path__"]` is the name its Audio column gives."""
        raise NotImplementedError

    # -- labels whose sound never came
    @property
    def orphans(self) -> int:
        return self.table.orphans

    @property
    def shared(self) -> dict[str, tuple[int, int]]:
        """Of label files that several sources share: how many labels they have, and for how many this one has sound."""
        return {}

    def close(self) -> None:
        """Forget all labels."""
        for table in vars(self).values():
            if isinstance(table, LabelTable):
                table.close()


@dataclass(frozen=True)
class Corpus:
    """What is known of a corpus, and the Layout that reads it. Publishing quotes its words."""

    name: str
    layout: type[Layout]
    kinds: tuple[str, ...]  # how it is distributed: tar, zip, parquet, tree
    license: str  # SPDX; rows carry their own, which rules
    attribution: str
    citation: str = ""
    url: str = ""
    notes: str = ""  # of the terms, the text, the speakers: whole sentences, for readers of what is published
    ignores: str = r"(?!)"  # archives and tables that hold no clips, or clips that another one holds too
    same_clip: tuple[str, ...] = ()  # a key met twice is one clip, kept where its split stands first in this list


def text_lines(file: BinaryIO) -> Iterator[str]:
    """Lines of a UTF-8 label file without their ends. A byte order mark and broken bytes do no harm, and a line too
    long to be one is cut."""
    first = True
    while line := file.readline(MAX_LABEL_BYTES):
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        yield text.removeprefix("\ufeff") if first else text
        first = False
        while not line.endswith(b"\n") and (line := file.readline(MAX_LABEL_BYTES)):
            pass


def stem(name: str) -> str:
    return posixpath.splitext(name.rpartition("/")[2])[0]


def id_of(row: Mapping[str, Any], *columns: str) -> str:
    """The first of these columns that names the row, else the stem of its file."""
    for column in columns:
        if found := name_of(row.get(column)):
            return found
    return stem((name_of(row.get("__path__") or row.get("file") or row.get("path")) or "").replace("\\", "/"))


def find_sources(corpus: Corpus, inputs: Sequence[str], exclude: str = "") -> list[Source]:
    """Every source of a corpus below the inputs, in natural order.

    Args: inputs: local paths, globs, brace ranges, URLs; files, or folders with all below. exclude: a folder whose
    files are none (the output, should it lie inside an input).
    Raises: ValueError, saying what was looked for, if an input is not there or nothing in them is of this corpus.
    """
    if not inputs:
        raise ValueError("no --input given; name files, folders, globs or URLs")
    groups: dict[str, list[Entry]] = {}  # files by the folder they are a tree of
    seen: set[str] = set()
    for given in inputs:
        whole = storage.plain(given)
        for pattern in [whole] if storage.exists(whole) else finding.expand(whole):
            hits = finding.glob(pattern)
            if not hits:
                why = f" ({said})" if (said := finding.why_missing(pattern)) else ""
                raise ValueError(
                    f"--input {pattern} matches nothing{why}; check the path, or quote a pattern for the shell"
                )
            for hit in hits:
                folder = storage.is_folder(hit)
                found = finding.scan(hit, links=True) if folder else [finding.entry(hit)]
                new = [e for e in found if e.path not in seen and not below(e.path, exclude)]
                seen |= {entry.path for entry in new}
                groups.setdefault(hit if folder else fixed_folder(pattern), []).extend(new)
    root = common_folder(list(groups))
    sources = [source for folder, files in groups.items() for source in split_up(corpus, folder, files, root)]
    if not sources:
        raise ValueError(nothing_found(corpus, inputs, [entry for files in groups.values() for entry in files]))
    return sorted(sources, key=lambda source: finding.natural(source.name))


def split_up(corpus: Corpus, folder: str, files: Sequence[Entry], root: str) -> Iterator[Source]:
    """The sources among the files of a folder: its archives and tables one by one, its loose files as one tree."""
    loose = []
    for entry in files:
        match = ARCHIVES.search(entry.path)
        kind = KINDS.get(match[1].lower(), "tar") if match else "tree"
        if kind == "tree":
            loose.append(entry)
        elif kind in corpus.kinds and not re.search(corpus.ignores, entry.path) and is_first_part(match):
            parts = [e for e in files if match and match[3] and PART.sub("", e.path) == PART.sub("", entry.path)]
            yield Source(kind, entry.path, relative(entry.path, root), tuple(parts) or (entry,))
    if "tree" not in corpus.kinds:
        return
    tree = Source("tree", folder, relative(folder, root), tuple(loose))
    layout = corpus.layout(tree)
    if any(layout.clip(relative(entry.path, folder)) for entry in loose):
        yield tree


def is_first_part(match: re.Match[str] | None) -> bool:
    """Not .tar.gz.1, which is read with .tar.gz.0 (or .00)."""
    return not match or not match[3] or int(match[3][1:]) == 0


def nothing_found(corpus: Corpus, inputs: Sequence[str], files: Sequence[Entry]) -> str:
    endings = Counter(posixpath.splitext(entry.path)[1] or "no extension" for entry in files)
    saw = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(6)) or "no files at all"
    return f"nothing of corpus {corpus.name!r} in {', '.join(inputs)}; looked for {corpus.layout.looked_for}; saw {saw}"


def fixed_folder(pattern: str) -> str:
    """The folder of a file, or the part of a pattern before its first wildcard."""
    match = finding.MAGIC.search(pattern)
    return storage.parent(pattern[: match.start()] if match and not storage.exists(pattern) else pattern) or "/"


def common_folder(folders: Sequence[str]) -> str:
    """The deepest folder that holds them all; "" where there is none (two stores)."""
    first, *others = [folder.split("/") for folder in folders]
    for other in others:
        first = [part for part, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, other, strict=False))]
    shared = "/".join(first)
    return "" if shared.endswith((":", ":/")) else shared or ("/" if folders[0].startswith("/") else "")


def relative(path: str, folder: str) -> str:
    """A path below a folder: "" for the folder itself; the whole path if there is no such folder."""
    if not folder:
        return path
    return "" if path == folder else path.removeprefix(folder if folder.endswith("/") else f"{folder}/")


def below(path: str, folder: str) -> bool:
    return bool(folder) and (path == folder or path.startswith(f"{folder.rstrip('/')}/"))
