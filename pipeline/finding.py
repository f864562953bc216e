"""Which files there are: folders listed, patterns written out, and a mark of each file that changes when it does."""

import contextlib
import glob as local_glob
import hashlib
import os
import posixpath
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.storage import answering, exists, filesystem, is_local, plain

DANGLING = "dangling"
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

    Hidden folders (`.git`, `.cache`) are left out unless asked for, and so is what is no regular file: a pipe
    would block whoever opens it. Links to nothing, if asked for, are marked DANGLING.
    """
    found = []
    if is_local(folder):
        for root, folders, names in os.walk(folder):
            if not hidden:
                folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = posixpath.join(root, name)
                try:
                    info = Path(path).stat()
                    if stat.S_ISREG(info.st_mode):
                        found.append(Entry(path, info.st_size, str(info.st_mtime_ns)))
                except OSError:  # a file that has just gone, or a link to nothing, as git-annex leaves what it lacks
                    if links and Path(path).is_symlink():
                        found.append(Entry(path, 0, DANGLING))
    else:
        fs, inner = filesystem(folder)
        with contextlib.suppress(FileNotFoundError), answering(folder):
            for path, info in fs.find(inner, detail=True).items():
                if hidden or "/." not in path[len(inner) :].rpartition("/")[0]:
                    found.append(Entry(url_of(path, folder, inner), int(info.get("size") or 0), remote_mark(info)))
    return sorted(found, key=lambda entry: natural(entry.path))


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
