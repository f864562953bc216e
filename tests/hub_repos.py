"""What a stand-in Hub knows, and which of its calls shall go wrong; tests/stand_in_hub.py serves it."""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Entry:
    """A file of a tree: `oid` is its git blob's, `sha256` is set if it lies in LFS."""

    oid: str
    size: int
    sha256: str | None = None


@dataclass
class Commit:
    oid: str
    title: str
    tree: dict


@dataclass
class Repo:
    private: bool
    commits: dict = field(default_factory=dict)
    branches: dict = field(default_factory=dict)
    tags: dict = field(default_factory=dict)

    def find(self, revision):
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        return self.commits.get(oid)

    def history(self, branch="main"):
        return [commit for commit in self.commits.values() if branch]


@dataclass
class Fault:
    """The calls `method` `path` (a pattern) number `first` to `first + times - 1` go wrong as `kind` says.

    Kinds: a status (429, 503, …) answers it and does nothing; "lost 504" and "lost" do the work, then answer 504 or
    nothing at all; "drop" closes the connection at once; "slow" waits a little; "corrupt" turns a bit of what was
    sent; a function is called and may return one of these kinds, else the call goes on.
    """

    method: str
    path: str
    kind: object
    first: int = 1
    times: int = 1
    seen: int = 0

    def strikes(self, method, path):
        if method != self.method or not re.search(self.path, path):
            return False
        self.seen += 1
        return self.first <= self.seen < self.first + self.times


class StandInHub:
    """Everything the server knows. Blobs lie in `folder`, so that gigabytes fit."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.repos = {}
        self.xorbs = {}
        self.xet_shards = []
        self.faults = []
        self.calls = []
        self.bytes_put = 0
        self.lock = threading.RLock()
        self.url = ""

    def blob(self, digest):
        return self.folder / digest

    def has_xet(self, sha256):
        """Whether a Xet upload described a file of this hash; in a shard it stands as four little-endian numbers."""
        digest = bytes.fromhex(sha256)
        swapped = b"".join(digest[at : at + 8][::-1] for at in range(0, 32, 8))
        return any(digest in shard or swapped in shard for shard in self.xet_shards)

    def put(self, digest, data):
        temporary = self.folder / f"{digest}.{threading.get_ident()}"
        temporary.write_bytes(data)
        temporary.replace(self.blob(digest))

    def files(self, repo_id, revision="main"):
        """path -> bytes of a revision."""
        tree = self.repos[repo_id].find(revision).tree
        return {path: self.blob(entry.sha256 or entry.oid).read_bytes() for path, entry in sorted(tree.items())}

    def count(self, method, pattern):
        return sum(1 for m, path, _ in self.calls if m == method and re.search(pattern, path))

    def commit(self, repo, branch, title, changes, deleted=()):
        head = repo.find(branch)
        tree = {path: entry for path, entry in (head.tree if head else {}).items() if not _is_below(path, deleted)}
        tree.update(changes)
        described = [head.oid if head else "", title, sorted((p, e.oid, e.sha256 or "") for p, e in tree.items())]
        oid = hashlib.sha1(json.dumps(described).encode()).hexdigest()
        repo.commits[oid] = Commit(oid, title, tree)
        repo.branches[branch] = oid
        return oid

    def add_regular(self, data):
        oid = git_oid(data)
        self.put(oid, data)
        return Entry(oid, len(data))


def _is_below(path, deleted):
    return any(path == name or path.startswith(name.rstrip("/") + "/") for name in deleted)


def git_oid(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def pointer_oid(sha256, size):
    return git_oid(f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode())
