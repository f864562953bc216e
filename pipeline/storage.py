"""One door to files: local paths stay plain paths, `s3://`, `hf://`, `https://` and the like go through fsspec."""

import contextlib
import glob as local_glob
import hashlib
import io
import os
import posixpath
import re
import socket
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

BLOCK_BYTES = 8 << 20  # of remote read-ahead: a request costs more than the few clips a skip would save

DANGLING = "dangling"
MAGIC = re.compile(r"[*?\[]")
NUMBERS = re.compile(r"(\d+)")
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


def plain(path: str | os.PathLike[str]) -> str:
    """The path as this project keeps it: a URL as it is, a local path absolute; no `file://`, no trailing slash."""
    text = os.fspath(path).removeprefix("file://")
    if is_local(text):
        return os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111 - as text, patterns included
    return text.rstrip("/")


def is_local(path: str) -> bool:
    return "://" not in path and "::" not in path


def filesystem(path: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URL and the path inside it. Raises: OSError if it needs a package that is missing."""
    with answering(path):
        return fsspec.core.url_to_fs(path)


@contextlib.contextmanager
def answering(path: str) -> Iterator[None]:
    """Every store has errors of its own, for no network, no right, no package: here they become OSErrors."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise OSError(f"{path} cannot be reached: {type(error).__name__}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """What an error says, in a line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def join(folder: str, *parts: str) -> str:
    return posixpath.join(folder, *parts)


def parent(path: str) -> str:
    return posixpath.dirname(path)


def natural(text: str) -> tuple[list[Any], str]:
    """A sort key in which clip_2 comes before clip_10."""
    return [int(part) if part.isdecimal() else part for part in NUMBERS.split(text)], text


def exists(path: str) -> bool:
    if is_local(path):
        return Path(path).exists()
    fs, inner = filesystem(path)
    with answering(path):
        return fs.exists(inner)


def is_folder(path: str) -> bool:
    if is_local(path):
        return Path(path).is_dir()
    if path.startswith(("http://", "https://")):
        return False  # a web server lists nothing; each file is named
    fs, inner = filesystem(path)
    with answering(path):
        return fs.isdir(inner)


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


def open_read(path: str, buffer_bytes: int = 1 << 20) -> BinaryIO:
    """A seekable binary file, buffered for reading forward. Raises: FileNotFoundError, and what the store raises.

    A small buffer suits who jumps from header to header of a local file; remote reading ahead stays large.
    """
    if is_local(path):
        return Path(path).open("rb", buffering=buffer_bytes)
    fs, inner = filesystem(path)
    file = fs.open(inner, "rb", block_size=BLOCK_BYTES, cache_type="readahead")
    return io.BufferedReader(file)  # fsspec's own files know no limit to a line


def read_bytes(path: str) -> bytes:
    if is_local(path):
        return Path(path).read_bytes()
    fs, inner = filesystem(path)
    return fs.cat_file(inner)


def num_bytes(path: str) -> int:
    if is_local(path):
        return Path(path).stat().st_size
    fs, inner = filesystem(path)
    return int(fs.info(inner)["size"] or 0)


def signature(entries: Iterable[Entry]) -> str:
    """Changes when any of the files does."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(f"{entry.path}\n{entry.size} {entry.mark}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def write_atomic(path: str, writer: Callable[[BinaryIO], None]) -> None:
    """Whole or not at all: `writer` fills a temporary file of this attempt's own, which then takes the name.

    An existing file of that name is replaced. Object stores show an object only when it is complete: what `writer`
    wrote is uploaded in one piece. If `writer` raises, nothing is left.
    """
    if not is_local(path):
        fs, inner = filesystem(path)
        with tempfile.TemporaryDirectory(prefix="neutok-") as folder:
            fs.makedirs(parent(inner), exist_ok=True)
            fs.put_file(str(write_temporary(str(Path(folder) / "object"), writer)), inner)
        return
    temporary = write_temporary(path, writer)
    try:
        temporary.replace(path)
        sync_folder(Path(path).parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def create_exclusive(path: str, data: bytes) -> bool:
    """Write a file that must not exist yet, whole or not at all. Returns False, changing nothing, if it does.

    A store without an exclusive write is asked first and written then: two writers may both believe they were first.
    """
    if not is_local(path):
        fs, inner = filesystem(path)
        if fs.exists(inner):
            return False
        try:
            fs.pipe_file(inner, data, mode="create")
        except FileExistsError:
            return False
        except (TypeError, ValueError, NotImplementedError):
            fs.pipe_file(inner, data)
        return True
    if Path(path).exists():
        return False
    temporary = write_temporary(path, lambda file: file.write(data))
    try:
        os.link(temporary, path)  # unlike a rename, a link refuses a name that is taken
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(Path(path).parent)
    return True


def write_temporary(path: str, writer: Callable[[BinaryIO], Any]) -> Path:
    """A file of a name no other attempt uses, in the same folder, flushed to the disk."""
    folder, name = Path(path).parent, Path(path).name
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{name[:100]}.{socket.gethostname()[:20]}-{os.getpid()}-{uuid.uuid4().hex[:12]}.tmp"
    try:
        with temporary.open("xb") as file:
            writer(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def sync_folder(folder: Path) -> None:
    """Make a rename outlive a power cut, where the system lets a folder be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove(path: str) -> None:
    """Delete a file; one that is not there is fine."""
    if is_local(path):
        Path(path).unlink(missing_ok=True)
        return
    fs, inner = filesystem(path)
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(inner)
