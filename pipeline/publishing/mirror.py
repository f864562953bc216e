"""A staged publication to a folder or an object store: the same files, the same order, skipped and verified by hash."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from pipeline import finding, storage
from pipeline.publishing.hub import OURS
from pipeline.publishing.merge import PublishedFile
from pipeline.publishing.patience import Patience


def mirror(
    folder: Path,
    files: Sequence[PublishedFile],
    target: str,
    replace: bool = False,
    patience: Patience | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Bring `target`, any path or URL fsspec knows, to exactly these files. Returns: files sent.

    Raises: ValueError if other files lie in our folders there; RuntimeError if a file reads back as something else.
    """
    patience = patience or Patience()
    target = storage.plain(target)
    wanted = {storage.join(target, file.path) for file in files}
    ours = [path for name in OURS for path in finding.list_files(storage.join(target, name.rstrip("/")))]
    strange = sorted(set(ours) - wanted)
    if strange and not replace:
        raise ValueError(
            f"{target} holds files that are not of this publication, as {strange[0]}; --replace deletes them"
        )
    for path in strange:
        storage.remove(path)
    sent = 0
    for file in files:
        path = storage.join(target, file.path)
        if not holds(path, file):
            patience.keep_trying(lambda p=path, f=file: _send(folder, f, p), f"sending {file.path}", is_final, say=say)
            sent += 1
            say(f"sent {file.path}")
    say(f"verified {len(files)} files by hash")
    return sent


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
