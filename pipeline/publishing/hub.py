"""A staged publication to the Hugging Face Hub, by huggingface_hub's own calls: data first, then the card, then the
manifest; resumed by hash, verified by hash, tagged at the end."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

from pipeline.publishing.merge import PublishedFile
from pipeline.publishing.patience import Patience
from pipeline.shards import TWIN_PREFIX

DATA_COMMITS = 16  # with one to clear away, one for the card and one for the manifest: below twenty
FILES_IN_COMMIT = 25
OURS = ("data/", "plots/")  # folders in which a file we did not write would be read as one of ours
AGAIN = {408, 412, 425, 429, 500, 502, 503, 504}


@dataclass
class HubRepo:
    """One dataset repository and branch, spoken to with patience."""

    repo_id: str
    revision: str = "main"
    api: HfApi = field(default_factory=HfApi)
    patience: Patience = field(default_factory=Patience)
    say: Callable[[str], None] = print

    def call(self, what: str, call: Callable[[], object], is_done: Callable[[], bool] = lambda: False) -> object:
        return self.patience.keep_trying(call, what, is_final, asked_wait, is_done, self.say)

    def create(self, private: bool) -> None:
        """The repository and the branch, if they are not there yet."""
        known = {"repo_id": self.repo_id, "repo_type": "dataset", "exist_ok": True}
        self.call("creating the repository", lambda: self.api.create_repo(private=private or None, **known))
        if self.revision != "main":
            self.call("creating the branch", lambda: self.api.create_branch(branch=self.revision, **known))

    def files(self, revision: str | None = None) -> dict[str, RepoFile]:
        """path -> size and hash of every file of a revision."""
        found = self.call("listing the repository", lambda: self.files_once(revision))
        assert isinstance(found, dict)
        return found

    def files_once(self, revision: str | None = None) -> dict[str, RepoFile]:
        revision = revision or self.revision
        tree = self.api.list_repo_tree(self.repo_id, repo_type="dataset", revision=revision, recursive=True)
        return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}

    def head_once(self) -> str:
        return str(self.api.repo_info(self.repo_id, repo_type="dataset", revision=self.revision).sha)

    def tags(self) -> dict[str, str]:
        refs = self.call("listing the tags", lambda: self.api.list_repo_refs(self.repo_id, repo_type="dataset"))
        return {tag.name: tag.target_commit for tag in refs.tags}

    def commit(
        self, message: str, folder: Path, files: Sequence[PublishedFile] = (), deleted: Sequence[str] = ()
    ) -> bool:
        """One commit of what is not there yet; False if there is nothing to do."""

        def missing(there: dict[str, RepoFile]) -> tuple[list[PublishedFile], list[str]]:
            lacking = [file for file in files if not same(there.get(file.path), file, folder)]
            return lacking, [path for path in deleted if path in there]

        def commit_missing() -> None:
            # a fresh look each time: what an earlier try has committed is not sent again, and if another's commit
            # comes between this look and ours, the Hub refuses ours instead of mixing the two
            parent = self.head_once()
            lacking, present = missing(self.files_once(parent))
            additions = [CommitOperationAdd(file.path, folder / file.path) for file in lacking]
            operations = [*additions, *(CommitOperationDelete(path) for path in present)]
            if operations:
                self.api.create_commit(
                    self.repo_id,
                    operations,
                    commit_message=message,
                    repo_type="dataset",
                    revision=self.revision,
                    parent_commit=parent,
                )

        if missing(self.files()) == ([], []):
            return False
        self.call(message, commit_missing, is_done=lambda: missing(self.files()) == ([], []))
        return True


def push(
    repo: HubRepo, folder: Path, files: Sequence[PublishedFile], tag: str, private: bool = False, replace: bool = False
) -> int:
    """Bring a repository to exactly these files and tag it. Run again, it sends what is missing, or nothing.

    Args: files: in the order of publication, data first. replace: delete what else lies in our folders, and overwrite
    data of the same names; without it only a finished publication of these files is put right where it was changed.
    Returns: commits made. Raises: ValueError if the repository holds other data, or the tag marks other data;
    RuntimeError if a file is not there, whole, in the end.
    """
    repo.create(private)
    tagged = repo.tags().get(tag)
    if tagged and not _holds(repo.files(tagged), data_of(files), folder):
        raise ValueError(f"{repo.repo_id} has a tag {tag} already, and it marks other data; choose another with --tag")
    there = repo.files()
    wanted = {file.path for file in files}
    strange = sorted(path for path in there if path.startswith(OURS) and path not in wanted)
    foreign = strange + other_data(there, files, folder)
    if foreign and not replace:
        listed = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
        raise ValueError(
            f"{repo.repo_id} holds files that are not of this publication: {listed}; --replace deletes them "
            "or writes over them, or publish to another repository or --revision"
        )
    commits = 0
    if strange:
        commits += repo.commit(f"Clear away {len(strange)} files of an earlier publication", folder, deleted=strange)
    for message, group in commit_groups(files):
        made = repo.commit(message, folder, group)
        repo.say(f"{message}: {'done' if made else 'was there'}")
        commits += made
    there = repo.files()
    broken = [file.path for file in files if not same(there.get(file.path), file, folder)]
    broken += sorted(path for path in there if path.startswith(OURS) and path not in wanted)
    if broken:
        raise RuntimeError(f"{repo.repo_id} does not hold what was sent: {', '.join(broken[:5])}; publish again")
    repo.say(f"verified {len(files)} files by hash")
    if not tagged:
        head = str(repo.call("asking for the last commit", repo.head_once))
        known = {"repo_type": "dataset", "revision": head, "exist_ok": True}
        repo.call("tagging", lambda: repo.api.create_tag(repo.repo_id, tag=tag, **known))
        repo.say(f"tagged {tag}")
    return commits


def commit_groups(files: Sequence[PublishedFile]) -> Iterable[tuple[str, Sequence[PublishedFile]]]:
    """Data in few commits of whole groups, the same for every run; then plots and card; the manifest alone, last.

    Twins come in commits after those of the rows they repeat: chunked storage then knows most of their bytes already.
    """
    data = data_of(files)
    size = max(FILES_IN_COMMIT, -(-len(data) // (DATA_COMMITS - 1)))
    groups = []
    for is_twin in (False, True):
        kind = [file for file in data if file.config.startswith(TWIN_PREFIX) == is_twin]
        groups += [kind[start : start + size] for start in range(0, len(kind), size)]
    for place, group in enumerate(groups):
        yield f"Token shards, part {place + 1} of {len(groups)}", group
    rest = [file for file in files if not file.path.startswith("data/")]
    yield "Card and plots", [file for file in rest if file.path != "manifest.json"]
    yield "Manifest", [file for file in rest if file.path == "manifest.json"]


def data_of(files: Sequence[PublishedFile]) -> list[PublishedFile]:
    return [file for file in files if file.path.startswith("data/")]


def other_data(there: dict[str, RepoFile], files: Sequence[PublishedFile], folder: Path) -> list[str]:
    """Data there under names of ours that we did not send: other bytes, and beside them no manifest of ours.

    Every commit is whole, so what a killed run of ours left has our bytes.
    """
    if _holds(there, [file for file in files if file.path == "manifest.json"], folder):
        return []
    return [file.path for file in data_of(files) if file.path in there and not same(there[file.path], file, folder)]


def _holds(there: dict[str, RepoFile], files: Sequence[PublishedFile], folder: Path) -> bool:
    return all(same(there.get(file.path), file, folder) for file in files)


def same(there: RepoFile | None, file: PublishedFile, folder: Path) -> bool:
    """Whether the Hub holds this very file: by SHA-256 where it lies in LFS or Xet, else by its git hash."""
    if there is None or there.size != file.num_bytes:
        return False
    if there.lfs is not None:
        return there.lfs.sha256 == file.sha256
    data = (folder / file.path).read_bytes()
    return there.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def is_final(error: Exception) -> bool:
    """Whether trying again is of no use: a refusal, or a mistake of ours. Failed uploads come wrapped, and are not."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code not in AGAIN
    return isinstance(error, ValueError | TypeError | FileNotFoundError) and not isinstance(error, json.JSONDecodeError)


def asked_wait(error: Exception) -> float | None:
    """Seconds the server asks us to wait, if it does: `RateLimit: "api";r=0;t=55`, or `Retry-After: 55`."""
    if not isinstance(error, HfHubHTTPError):
        return None
    headers = error.response.headers
    limited = re.search(r"r=0;\s*t=(\d+)", headers.get("RateLimit", ""))
    after = limited[1] if limited else headers.get("Retry-After", "")
    return float(after) if after.isdigit() else None
