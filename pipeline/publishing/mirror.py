"""A staged publication to a folder or an object store: the same files, the same order, skipped and verified by hash."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from pipeline import finding, storage
from pipeline.publishing.hub import OURS
from pipeline.publishing.merge import PublishedFile, describe
from pipeline.publishing.patience import Patience
from pipeline.publishing.staging import PLAN, PROMISES


def mirror(
    folder: Path,
    files: Sequence[PublishedFile],
    target: str,
    replace: bool = False,
    patience: Patience | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Bring `target`, any path or URL fsspec knows, to exactly these files. Returns: files sent.

    The plan goes first, as a marker: files of our names beside it were sent by this publication, and are put right
    where they differ. Beside another marker, or none, they are somebody else's.
    Raises: ValueError if files that are not of this publication lie there, unless `replace` gives them up;
    RuntimeError if a file reads back as something else.
    """
    patience = patience or Patience()
    target = storage.plain(target)
    marker = describe(folder, PLAN)
    wanted = {storage.join(target, file.path) for file in files}
    there = published_at(target)
    strange = [path for path in there if path not in wanted]
    foreign = strange if holds(storage.join(target, PLAN), marker) else there
    if foreign and not replace:
        raise ValueError(
            f"{target} holds files that are not of this publication, as {foreign[0]}; --replace deletes them, or name "
            "another place"
        )
    if foreign:
        for path in [*(storage.join(target, name) for name in PROMISES), *strange]:
            storage.remove(path)

    def bring(file: PublishedFile) -> bool:
        """Send a file that is not there yet; False if it is."""
        path = storage.join(target, file.path)
        if holds(path, file):
            return False
        patience.keep_trying(lambda: _send(folder, file, path), f"sending {file.path}", is_final, say=say)
        say(f"sent {file.path}")
        return True

    bring(marker)
    sent = sum(bring(file) for file in files)
    say(f"verified {len(files)} files by hash")
    return sent


def published_at(target: str) -> list[str]:
    """The files there that bear names a publication gives, whoever wrote them."""
    named = [path for name in PROMISES if storage.exists(path := storage.join(target, name))]
    return named + [path for name in OURS for path in finding.list_files(storage.join(target, name.rstrip("/")))]


def _send(folder: Path, file: PublishedFile, path: str) -> None:
    def fill(out: BinaryIO) -> None:
        with (folder / file.path).open("rb") as data:
            shutil.copyfileobj(data, out, 8 << 20)

    storage.write_atomic(path, fill)
    if not holds(path, file):
        raise RuntimeError(f"{path} reads back as something else than was written")


def holds(path: str, file: PublishedFile) -> bool:
    """Whether the target holds this very file; it is read to know."""
    if not storage.exists(path) or storage.num_bytes(path) != file.num_bytes:
        return False
    with storage.open_read(path) as stored:
        digest = hashlib.sha256()
        while block := stored.read(8 << 20):
            digest.update(block)
    return digest.hexdigest() == file.sha256


def is_final(error: Exception) -> bool:
    return isinstance(error, PermissionError | ValueError | FileNotFoundError)
