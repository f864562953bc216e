"""One door to files: local paths stay plain paths, `s3://`, `hf://`, `https://` and the like go through fsspec."""

import contextlib
import errno
import io
import os
import posixpath
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
BLOCK_BYTES = 8 << 20  # of remote read-ahead: a request costs more than the few clips a skip would save


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


def holds_anything(folder: str) -> bool:
    """Whether a folder is there, can be listed and is not empty. A disk that is not mounted is an empty folder."""
    try:
        if is_local(folder):
            with os.scandir(folder) as entries:
                return next(entries, None) is not None
        fs, inner = filesystem(folder)
        fs.invalidate_cache()  # not what was known, but what is
        with answering(folder):
            return bool(fs.ls(inner, detail=False))
    except (OSError, ValueError):
        return False


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
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        raise OSError(
            f"the file system of {parent(path)} has no hard links, which make a shard appear whole and once; give a "
            "folder on another one, or the URL of the store that is mounted there"
        ) from error
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
