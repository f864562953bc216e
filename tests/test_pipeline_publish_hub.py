"""Publishing to the Hub, spoken to for real over loopback: faults, kills, races, tags, secrets, and reading it back."""

import json
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants

from jobs import publish as job
from pipeline.publishing.hub import HubRepo, commit_groups, push
from pipeline.publishing.merge import PublishedFile, describe
from pipeline.publishing.patience import Patience
from tests import output_toys, publish_trial
from tests.hub_repos import Fault, StandInHub
from tests.publish_trial import REPO, publish
from tests.stand_in_hub import TOKEN, serving


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    with serving(StandInHub(tmp_path / "hub")) as running:
        yield running


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """A publication ready to be sent: folder and files."""
    folder = tmp_path_factory.mktemp("publish")
    rows = output_toys.records(200, language=lambda row: ["en", "de"][row % 2])
    output = output_toys.write_output(folder / "out", {"a": rows[:100], "b": rows[100:]})
    options = ["--repo-id", REPO, "--stage-only", "--file-mb", "0.04"]
    assert job.main([str(output), "--staging", str(folder / "staging"), *options]) == 0
    listed = json.loads((folder / "staging" / "manifest.json").read_text())["files"]
    files = [PublishedFile(**file) for file in listed]
    return folder / "staging", [*files, describe(folder / "staging", "manifest.json")]


def repo_of(hub, said=None, tries=8):
    api = HfApi(endpoint=hub.url, token=TOKEN)
    say = (lambda line: None) if said is None else said.append
    return HubRepo(REPO, api=api, patience=Patience(tries, 0.0), say=say)


def contents(folder, files):
    return {file.path: (folder / file.path).read_bytes() for file in files}


def published(hub, revision="main"):
    return {path: data for path, data in hub.files(REPO, revision).items() if path != ".gitattributes"}


def test_the_repository_holds_what_was_staged_data_first_and_the_manifest_last(hub, staged):
    folder, files = staged
    assert push(repo_of(hub), folder, files, "v1") == 4
    assert published(hub) == contents(folder, files) == published(hub, "v1")
    titles = [commit.title for commit in hub.repos[REPO].history()]
    assert titles == ["initial commit", *(f"Token shards, part {n} of 2" for n in (1, 2)), "Card and plots", "Manifest"]
    sent = hub.bytes_put
    assert push(repo_of(hub), folder, files, "v1") == 0
    assert hub.bytes_put == sent and len(hub.repos[REPO].commits) == 5


FAULTS = {
    "429": lambda: [Fault("POST", "preupload", 429, times=2), Fault("POST", "/commit/", 429, times=2)],
    "503": lambda: [Fault(method, ".", 503, first=3, times=2) for method in ("GET", "POST", "PUT")],
    "504": lambda: [Fault("PUT", "/lfs/", 504, times=3), Fault("POST", "/lfs/.*verify", 504, times=2)],
    "dropped connections": lambda: [Fault(method, ".", "drop", first=2, times=2) for method in ("GET", "POST", "PUT")],
    "lost answers": lambda: [Fault("POST", path, "lost") for path in ("create", "/commit/", "batch", "/tag/")],
    "504 after a commit": lambda: [Fault("POST", "/commit/", "lost 504", first=n) for n in (1, 2, 3)],
    "corrupted uploads": lambda: [Fault("PUT", "/lfs/", "corrupt", first=n) for n in (1, 5)],
    "uploads that fail for long": lambda: [Fault("PUT", "/lfs/", 503, times=20)],
    "slow uploads": lambda: [Fault("PUT", "/lfs/", "slow", times=3)],
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_change_nothing_of_the_result(hub, staged, name):
    folder, files = staged
    hub.faults = FAULTS[name]()
    assert push(repo_of(hub), folder, files, "v1") == 4
    assert all(fault.seen >= fault.first for fault in hub.faults), "a fault never struck"
    assert published(hub) == contents(folder, files) == published(hub, "v1")
    assert len(hub.repos[REPO].commits) == 5, "a commit was made twice"


def test_what_never_gets_better_ends_and_another_run_goes_on(hub, staged):
    folder, files = staged
    hub.faults = [Fault("POST", "/commit/", 503, first=2, times=99)]
    with pytest.raises(Exception, match="503"):
        push(repo_of(hub, tries=2), folder, files, "v1")
    assert len(hub.repos[REPO].commits) == 2 and not hub.repos[REPO].tags
    hub.faults, sent = [], hub.bytes_put
    assert push(repo_of(hub), folder, files, "v1") == 3
    assert hub.bytes_put == sent and published(hub) == contents(folder, files)


def test_a_commit_of_another_that_comes_between_is_neither_lost_nor_mixed_up(hub, staged):
    folder, files = staged

    def other():
        with hub.lock:
            hub.commit(hub.repos[REPO], "main", "theirs", {"theirs.txt": hub.add_regular(b"theirs")})

    hub.faults = [Fault("POST", "/commit/", other, first=2)]
    push(repo_of(hub), folder, files, "v1")
    assert published(hub) == {**contents(folder, files), "theirs.txt": b"theirs"}
    assert hub.count("POST", "/commit/") == 5  # ours were four, one of them refused once


def test_a_file_that_was_changed_is_put_right(hub, staged):
    folder, files = staged
    push(repo_of(hub), folder, files, "v1")
    path = files[0].path
    api = HfApi(endpoint=hub.url, token=TOKEN)
    changed = [CommitOperationAdd(path, b"PAR1 not ours"), CommitOperationAdd("README.md", b"---\nlicense: mit\n---\n")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        api.create_commit(REPO, changed, commit_message="meddling", repo_type="dataset")
    assert push(repo_of(hub), folder, files, "v1") == 2
    assert published(hub) == contents(folder, files)


def test_what_the_hub_does_not_hold_in_the_end_is_told(hub, staged, monkeypatch):
    folder, files = staged
    monkeypatch.setattr(HubRepo, "commit", lambda self, *args, **kwargs: True)
    with pytest.raises(RuntimeError, match="does not hold what was sent"):
        push(repo_of(hub), folder, files, "v1")
    assert not hub.repos[REPO].tags


def test_files_of_an_earlier_publication_are_refused_or_cleared_away(hub, staged):
    folder, files = staged
    repo = repo_of(hub)
    repo.create(False)
    old = [
        CommitOperationAdd("data/old/train-00000-of-00001.parquet", b"PAR1"),
        CommitOperationAdd("notes.md", b"mine"),
    ]
    repo.api.create_commit(REPO, old, commit_message="old", repo_type="dataset")
    with pytest.raises(ValueError, match=r"data/old/train-00000-of-00001\.parquet; --replace"):
        push(repo, folder, files, "v1")
    assert hub.bytes_put == 4
    push(repo, folder, files, "v1", replace=True)
    assert published(hub) == {**contents(folder, files), "notes.md": b"mine"}


def test_data_of_another_publication_under_the_same_names_is_overwritten_only_with_replace(hub, staged):
    folder, files = staged
    repo = repo_of(hub)
    repo.create(False)
    theirs = [CommitOperationAdd(files[0].path, b"PAR1 theirs"), CommitOperationAdd("manifest.json", b"{}")]
    repo.api.create_commit(REPO, theirs, commit_message="theirs", repo_type="dataset")
    before = published(hub)
    with pytest.raises(ValueError, match=f"{re.escape(files[0].path)}; --replace"):
        push(repo, folder, files, "v1")
    assert published(hub) == before and not hub.repos[REPO].tags
    push(repo, folder, files, "v1", replace=True)
    assert published(hub) == contents(folder, files)


def test_a_tag_of_other_data_is_refused_before_anything_is_sent(hub, staged):
    folder, files = staged
    repo = repo_of(hub)
    repo.create(False)
    repo.api.create_tag(REPO, tag="v1", repo_type="dataset")
    with pytest.raises(ValueError, match="tag v1 already"):
        push(repo, folder, files, "v1")
    assert hub.bytes_put == 0
    push(repo, folder, files, "v2")
    assert set(hub.repos[REPO].tags) == {"v1", "v2"}


def test_a_branch_is_published_beside_main(hub, staged):
    folder, files = staged
    push(replace(repo_of(hub), revision="next"), folder, files, "v1", private=True)
    assert published(hub, "next") == contents(folder, files) and published(hub) == {}
    assert hub.repos[REPO].private


def test_no_publication_takes_twenty_commits():
    for number in (1, 25, 26, 300, 480, 5000):
        files = [PublishedFile(f"data/x/train-{i:05}.parquet", 1, "") for i in range(number)]
        files += [PublishedFile(path, 1, "") for path in ("plots/x.svg", "README.md", "manifest.json")]
        groups = list(commit_groups(files))
        assert len(groups) + 1 < 20  # one more may clear away
        assert [file for _, group in groups for file in group] == files
        assert number > 300 or max(len(group) for _, group in groups) <= 25


@pytest.mark.parametrize("token", [TOKEN, "hf_" + "aWrongToken9876543210"])
def test_no_secret_is_printed_whatever_fails(hub, staged, tmp_path, token):
    folder, _ = staged
    hub.faults = [
        Fault("POST", "/commit/", 400),
        Fault("PUT", "/lfs/", 503, times=2),
        Fault("POST", "preupload", "drop"),
    ]
    env = {**publish_trial.environment(hub, tmp_path / "home"), "HF_TOKEN": token}
    options = ["--repo-id", REPO, "--file-mb", "0.04", "--tries", "2", "--retry-seconds", "0.01"]
    command = [sys.executable, "-m", "jobs.publish", str(folder.parent / "out"), "--staging", str(folder), *options]
    ran = subprocess.run(command, cwd=publish_trial.ROOT, env=env, capture_output=True, text=True, check=False)
    said = ran.stdout + ran.stderr
    assert ran.returncode in (2, 4) and "neutok publish" in ran.stderr
    assert "Traceback" not in said
    for secret in (token, token[3:], "signedsecret", "AKIASECRETKEY"):
        assert secret not in said


def test_fifty_megabytes_survive_faults_and_three_kills(tmp_path):
    _, stormy, kills, said = publish_trial.trial(tmp_path, 50, seed=1)
    assert kills >= 3 and "only the answer was lost" in said
    assert sum(entry.size for entry in stormy.repos[REPO].find("main").tree.values()) > 49e6


def test_on_the_xet_path_the_upload_completes_and_twins_are_sent_once(tmp_path):
    output = publish_trial.make_output(tmp_path / "out", 20, shards=2)
    with serving(StandInHub(tmp_path / "hub")) as hub:
        publish(hub, output, tmp_path / "staging", "--file-mb", "8", xet=True)
        tree = hub.repos[REPO].find("main").tree
        size = sum(entry.size for entry in tree.values())
        assert size > 39e6, "rows twice: with all columns, and with three"
        assert hub.xet_shards and hub.bytes_put < 0.6 * size
        listed = json.loads((tmp_path / "staging" / "manifest.json").read_text())["files"]
        assert {path: tree[path].sha256 for path in tree if path.endswith(".parquet")} == {
            file["path"]: file["sha256"] for file in listed if file["path"].endswith(".parquet")
        }
        before = hub.bytes_put, len(hub.repos[REPO].commits)
        publish(hub, output, tmp_path / "staging", "--file-mb", "8", xet=True)
        assert before == (hub.bytes_put, len(hub.repos[REPO].commits))


READ_BACK = """
import json, re, sys
sys.path[:0] = ["."]
import pyarrow.parquet as pq
import yaml
from datasets import Dataset, IterableDataset, load_dataset
from datasets.distributed import split_dataset_by_node
from huggingface_hub import HfFileSystem

import codec
from tests import output_toys

repo, tag = sys.argv[1:]
files = HfFileSystem()
card = files.read_text(f"datasets/{repo}@{tag}/README.md")
header = yaml.safe_load(card.split("---\\n")[1])
rows = 0
for info in header["dataset_info"]:
    for split in info["splits"]:
        whole = load_dataset(repo, info["config_name"], split=split["name"])
        stream = load_dataset(repo, info["config_name"], split=split["name"], revision=tag, streaming=True)
        assert isinstance(whole, Dataset) and isinstance(stream, IterableDataset)
        assert whole.num_rows == split["num_examples"]
        assert whole.features == stream.features
        assert whole.features._to_yaml_list() == info["features"], (whole.features, info["features"])
        assert [row["__key__"] for row in stream] == whole["__key__"]
        assert list(stream.take(3)) == whole.select(range(3)).to_list()
        ranks = [split_dataset_by_node(stream, rank, stream.num_shards) for rank in range(stream.num_shards)]
        assert sorted(row["__key__"] for rank in ranks for row in rank) == sorted(whole["__key__"])
        rows += whole.num_rows
first = sorted(files.glob(f"datasets/{repo}@{tag}/data/*/*.parquet"))[0]
with files.open(first) as file:
    assert pq.ParquetFile(file).metadata.num_rows > 0
codec.CODECS["neucodec"] = lambda device, weights, precision: output_toys.Humming("0123abcd")
names = {}
for code in re.findall(r"```python\\n(.*?)```", card, re.DOTALL):
    exec(code, names)
print(json.dumps({"rows": rows, "samples": len(names["sound"]), "codes": len(names["row"]["codes"])}))
"""


def test_the_published_dataset_is_read_back_and_heard_by_the_card_s_own_words(hub, staged, tmp_path):
    folder, files = staged
    repo = repo_of(hub)
    tag = re.search(r'revision="(.*?)"', (folder / "README.md").read_text())[1]
    push(repo, folder, files, tag)
    (tmp_path / "here").mkdir()
    for name in ("tests", "codec", "schemas", "pipeline"):
        (tmp_path / "here" / name).symlink_to(publish_trial.ROOT / name)
    ran = subprocess.run(
        [sys.executable, "-c", READ_BACK, REPO, tag],
        cwd=tmp_path / "here",
        env=publish_trial.environment(hub, tmp_path / "home"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["rows"] == 400 and found["samples"] == 480 * found["codes"]
    assert (tmp_path / "here" / "row.wav").stat().st_size > 2 * found["samples"]


def test_the_stand_in_needs_a_token(hub):
    api = HfApi(endpoint=hub.url, token="hf_nobody")
    with pytest.raises(Exception, match="401"):
        api.create_repo(REPO, repo_type="dataset")
    assert Path(hub.folder).exists() and not hub.repos
