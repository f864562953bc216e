"""Which files there are: folders listed, patterns written out, and a mark of each file that changes when it does."""

import contextlib
import errno
import glob as local_glob
import hashlib
import os
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.storage import answering, exists, filesystem, is_local, plain

DANGLING = "dangling"
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # no such file, and links to none: through a file, in a circle
MAGIC = re.compile(r"[*?\[]")
NUMBERS = re.compile(r"(\d+)")
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


def natural(text: str) -> tuple[list[Any], str]:
    """A sort key in which clip_2 comes before clip_10."""
    return [int(part) if part.isdecimal() else part for part in NUMBERS.split(text)], text


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as its folder lists it; `mark` changes when the content does (its time or etag)."""

    path: str
    size: int
    mark: str


def scan(folder: str, hidden: bool = False, links: bool = False) -> list[Entry]:
    """Every regular file below a folder, in natural order; [] if there is no such folder.

    Links to folders are followed. Hidden folders (`.git`, `.cache`) are left out unless asked for, and so is what is no
    regular file: a pipe would block whoever opens it. Links to nothing, if asked for, are marked DANGLING.
    Raises: OSError for a folder or file that is there and cannot be read: a list without it would look whole.
    """
    found = []
    if is_local(folder):
        there = (look_at(path) for path in walk(folder, hidden))
        found = [entry for entry in there if entry and (links or entry.mark != DANGLING)]
    else:
        fs, inner = filesystem(folder)
        with contextlib.suppress(FileNotFoundError), answering(folder):
            for path, info in fs.find(inner, detail=True).items():
                if hidden or "/." not in path[len(inner) :].rpartition("/")[0]:
                    found.append(Entry(url_of(path, folder, inner), int(info.get("size") or 0), remote_mark(info)))
    return sorted(found, key=lambda entry: natural(entry.path))


def walk(folder: str, hidden: bool) -> Iterator[str]:
    """The paths of all below a local folder that is no folder itself.

    No folder is walked twice, and links come last: one that leads back into the tree adds nothing to it, and of two
    that lead to the same place the first in natural order counts. Nor is one followed up to a folder it lies in.
    """
    starts, seen = [folder], set[Path]()
    while starts:
        links: list[Path] = []
        for root, folders, names in chain.from_iterable(os.walk(start, onerror=refuse) for start in starts):
            real = Path(root).resolve()
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            if not hidden:
                folders[:] = [name for name in folders if not name.startswith(".")]
            linked = [path for name in folders if (path := Path(root, name)).is_symlink()]
            links += [path for path in linked if not real.is_relative_to(path.resolve())]
            yield from (posixpath.join(root, name) for name in names)
        starts = sorted(map(str, links), key=natural)


def look_at(path: str) -> Entry | None:
    """A local file as it lies there; DANGLING for a link to nothing, as git-annex leaves what it lacks.

    None for what has just gone and for what is no regular file. Raises: OSError if it is there and cannot be read.
    """
    try:
        info = Path(path).stat()
    except OSError as error:
        refuse(error)
        return Entry(path, 0, DANGLING) if Path(path).is_symlink() else None
    return Entry(path, info.st_size, str(info.st_mtime_ns)) if stat.S_ISREG(info.st_mode) else None


def refuse(error: OSError) -> None:
    """Raise it, with what to do, unless it says that nothing is there, or is about what a disk keeps for itself."""
    if error.errno not in GONE and posixpath.basename(str(error.filename)) != "lost+found":
        why = f"{error.strerror}; make it readable, or move it out of the folder that is read"
        raise OSError(error.errno, why, error.filename) from error


def remote_mark(info: dict[str, Any]) -> str:
    marks = ("ETag", "etag", "blob_id", "md5Hash", "LastModified", "last_modified", "mtime", "created")
    return " ".join(str(info[mark]) for mark in marks if info.get(mark))


def list_files(folder: str, hidden: bool = False) -> list[str]:
    """The paths of `scan`."""
    return [entry.path for entry in scan(folder, hidden)]


def entry(path: str) -> Entry:
    """One file by its name. Raises: FileNotFoundError."""
    if is_local(path):
        info = Path(path).stat()
        return Entry(path, info.st_size, str(info.st_mtime_ns))
    fs, inner = filesystem(path)
    with answering(path):
        info = fs.info(inner)
    return Entry(path, int(info.get("size") or 0), remote_mark(info))


def expand(pattern: str) -> list[str]:
    """`{000..099}` and `{a,b}` written out, each result once, in the order written."""
    match = BRACES.search(pattern)
    if not match:
        return [pattern]
    first, last, words = match.groups()
    if first is None:
        parts = words.split(",")
    else:
        step = 1 if int(last) >= int(first) else -1
        width = len(first) if first.startswith("0") or len(first) == len(last) else 0
        parts = [str(number).zfill(width) for number in range(int(first), int(last) + step, step)]
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return list(dict.fromkeys(done for part in parts for done in expand(head + part + tail)))


def glob(pattern: str) -> list[str]:
    """What matches a pattern with `*`, `?`, `[...]`, `**`, in natural order.

    A path that exists as written matches itself alone, whatever characters it holds.
    """
    if not MAGIC.search(pattern) or (is_local(pattern) and exists(pattern)):
        return [pattern] if exists(pattern) else []
    if is_local(pattern):
        return sorted(map(plain, local_glob.glob(pattern, recursive=True)), key=natural)  # noqa: PTH207 - rooted anywhere
    fs, inner = filesystem(pattern)
    with answering(pattern):
        return sorted((url_of(path, pattern, inner) for path in fs.glob(inner)), key=natural)


def why_missing(path: str) -> str:
    """What a store says of a file it does not have, "" if nothing: of some, one that is down has none."""
    if is_local(path) or MAGIC.search(path):
        return ""
    try:
        entry(path)
    except OSError as error:
        return str(error.__cause__ or "")
    return ""


def url_of(path: str, given: str, inner: str) -> str:
    """The URL of a path that a store lists, written as the given URL is, whose path in the store is `inner`."""
    start = given.find(inner.lstrip("/"))
    return given[: max(0, start)] + path.lstrip("/")


def signature(entries: Iterable[Entry]) -> str:
    """Changes when any of the files does."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(f"{entry.path}\n{entry.size} {entry.mark}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
