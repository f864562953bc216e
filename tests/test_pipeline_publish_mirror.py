"""Publishing where something lies already: what may be overwritten or deleted, in which order, and after a kill."""

import itertools
import json
from contextlib import contextmanager

import pytest
import s3fs

from jobs import publish as job
from pipeline import storage
from pipeline.publishing.hub import data_of
from pipeline.publishing.merge import PublishedFile, describe
from pipeline.publishing.mirror import holds, mirror
from pipeline.publishing.staging import PLAN, PROMISES
from tests import output_toys, stand_in_s3
from tests.publication_toys import publish, tree


class Killed(BaseException):
    """As a kill does, it ends a run that nothing can hold up."""


@contextmanager
def killed_after(steps):
    """What is written and removed works `steps` times."""
    taken = itertools.count()

    def counted(real):
        def step(*args):
            if next(taken) >= steps:
                raise Killed
            return real(*args)

        return step

    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_atomic", "remove"):
            patch.setattr(storage, name, counted(getattr(storage, name)))
        yield


@pytest.fixture
def bucket(monkeypatch):
    """The objects of s3://bucket, by key."""
    store = stand_in_s3.StandInS3("bucket")
    with stand_in_s3.serving(store):
        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield store.buckets["bucket"]
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def outputs(tmp_path):
    """Two outputs whose publications share names of files, not their bytes; the first has files of its own, too."""
    first = output_toys.records(30, license=lambda row: ["CC-BY-4.0", "CC0-1.0", "MIT"][row % 3])
    output_toys.write_output(tmp_path / "first", {"a": first})
    output_toys.write_output(tmp_path / "second", {"a": output_toys.records(30, seed=1)})
    return tmp_path / "first", tmp_path / "second"


def staged(output):
    """A publication ready to be sent: folder and files."""
    folder = output / "publish"
    assert job.main([str(output), "--repo-id", "org/name", "--stage-only"]) == 0
    files = [PublishedFile(**file) for file in json.loads((folder / "manifest.json").read_text())["files"]]
    return folder, [*files, describe(folder, "manifest.json")]


def send(publication, target, replace=False):
    folder, files = publication
    return mirror(folder, files, str(target), replace, say=lambda line: None)


def test_another_publication_of_the_same_names_is_overwritten_only_with_replace(outputs, bucket, capsys):
    first, second = outputs
    assert publish(first, "s3://bucket/set") == 0
    before = dict(bucket)
    assert publish(second, "s3://bucket/set") == 2
    assert "--replace deletes them" in capsys.readouterr().err
    assert bucket == before
    assert publish(second, "s3://bucket/set", "--replace") == 0
    held = {key.removeprefix("set/"): data for key, data in bucket.items()}
    assert held == {**tree(second / "publish"), PLAN: (second / "publish" / PLAN).read_bytes()}


@pytest.mark.parametrize("name", ["README.md", "manifest.json", "data/toy-en-cc-by-4.0/train-00000-of-00001.parquet"])
def test_a_file_of_somebody_else_is_overwritten_only_with_replace(outputs, bucket, capsys, name):
    bucket[name] = b"mine"
    assert publish(outputs[1], "s3://bucket") == 2
    assert f"as s3://bucket/{name}; --replace" in capsys.readouterr().err
    assert bucket == {name: b"mine"}
    assert publish(outputs[1], "s3://bucket", "--replace") == 0
    assert bucket[name] != b"mine"


def test_after_a_kill_at_any_point_the_same_publication_goes_on_without_replace(outputs, tmp_path):
    folder, files = staged(outputs[0])
    for steps in range(len(files) + 1):
        target = tmp_path / f"set-{steps}"
        with killed_after(steps), pytest.raises(Killed):
            send((folder, files), target)
        assert send((folder, files), target) <= len(files) - max(steps - 1, 0), "what was there was sent again"
        assert tree(target) == tree(folder)


def test_a_card_or_manifest_never_promises_what_replace_has_taken_away(outputs, tmp_path):
    first, second = staged(outputs[0]), staged(outputs[1])
    shared = {file.path for file in first[1]} & {file.path for file in second[1]}
    assert any(path.startswith("data/") for path in shared) and {file.path for file in first[1]} - shared
    for steps in itertools.count():
        target = tmp_path / f"set-{steps}"
        send(first, target)
        whole = False
        with killed_after(steps):
            try:
                send(second, target, replace=True)
                whole = True
            except Killed:
                pass
        for folder, files in (first, second):
            for name in PROMISES:
                if holds(str(target / name), describe(folder, name)):
                    assert all(holds(str(target / file.path), file) for file in data_of(files)), (steps, name)
        if not holds(str(target / PLAN), describe(second[0], PLAN)):
            with pytest.raises(ValueError, match="--replace"):
                send(second, target)
            send(second, target, replace=True)
        send(second, target)
        assert tree(target) == tree(second[0])
        if whole:
            break


AMONG_ITS_SHARDS = [
    ("s3://b/out", "s3://b/out", "staging"),
    ("s3://b/out", "s3a://b/out/", "staging"),
    ("s3://b/set/data/out", "s3://b/set", "staging"),
    ("s3://b/set/plots", "s3://b/set", "staging"),
    ("s3://b/out", "s3://b/out/data", "staging"),
    ("set/data/out", "s3://b/set", "set"),
    ("out", "./out", None),
    ("set/data/out", "file://{here}/set", None),
    ("link", "out", None),
]


@pytest.mark.parametrize(("output", "target", "staging"), AMONG_ITS_SHARDS, ids=lambda value: str(value))
def test_nothing_is_published_among_the_shards_it_is_made_from(output, target, staging, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("out")
    sending = ["--staging", staging] if staging else []
    assert job.main([output, "--to", target.format(here=tmp_path), "--replace", *sending]) == 2
    said = capsys.readouterr().err
    assert f"{output} is to be published" in said and "name a place beside it" in said
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_place_beside_the_shards_is_fine():
    job.check_apart(["s3://b/out"], ["s3://b/out/publish", "s3://b", "s3://b/out2", "s3://b/ou", "/b/out"])
    s3fs.S3FileSystem.clear_instance_cache()


def test_replace_leaves_the_shards_it_publishes_whole(outputs, bucket, tmp_path, capsys):
    first, second = outputs
    bucket.update({f"out/{path}": data for path, data in tree(first).items()})
    before = dict(bucket)
    staging = str(tmp_path / "staging")
    assert job.main(["s3://bucket/out", "--to", "s3://bucket/out", "--staging", staging, "--replace"]) == 2
    assert "among its shards" in capsys.readouterr().err
    assert bucket == before
    assert publish(first, tmp_path / "set") == 0
    second = second.rename(tmp_path / "set" / "data" / "second")
    shards = tree(second)
    assert publish(second, tmp_path / "set", "--replace") == 2
    assert tree(second) == shards
