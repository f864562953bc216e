"""Folders listed: through links, each file once, and nothing left out in silence."""

import errno
import os
from pathlib import Path

import pytest

from pipeline import finding
from tests.corpora_fixtures import put


def names(folder, **asked):
    return [entry.path.removeprefix(f"{folder}/") for entry in finding.scan(str(folder), **asked)]


def test_links_to_folders_are_followed(tmp_path):
    put(tmp_path / "disk" / "train" / "a.wav", b"a")
    put(tmp_path / "more" / "b.wav", b"b")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "train").symlink_to(tmp_path / "disk" / "train")
    (tmp_path / "disk" / "train" / "deep").symlink_to(tmp_path / "more")
    assert names(tmp_path / "in") == ["train/a.wav", "train/deep/b.wav"]
    (tmp_path / "linked").symlink_to(tmp_path / "in")
    assert names(tmp_path / "linked") == ["train/a.wav", "train/deep/b.wav"]


def test_links_in_a_circle_end(tmp_path):
    put(tmp_path / "in" / "a" / "x.wav", b"x")
    put(tmp_path / "beside.wav", b"not asked for")
    (tmp_path / "in" / "a" / "all").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "here").symlink_to(".")
    (tmp_path / "in" / "up").symlink_to("..")
    (tmp_path / "in" / "self").symlink_to("self")
    assert names(tmp_path / "in") == ["a/x.wav"]


def test_a_folder_that_links_lead_to_as_well_is_listed_once(tmp_path):
    put(tmp_path / "in" / "v2" / "x.wav", b"x")
    put(tmp_path / "disk" / "deep" / "y.wav", b"y")
    for link, target in (("latest", "in/v2"), ("c10", "disk"), ("c9", "disk"), ("c1", "disk/deep")):
        (tmp_path / "in" / link).symlink_to(tmp_path / target)
    assert names(tmp_path / "in") == ["c1/y.wav", "v2/x.wav"]
    (tmp_path / "in" / "c1").unlink()
    assert names(tmp_path / "in") == ["c9/deep/y.wav", "v2/x.wav"]


def test_hidden_links_are_passed_over_as_hidden_folders_are(tmp_path):
    put(tmp_path / "disk" / "x.wav", b"x")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / ".old").symlink_to(tmp_path / "disk")
    assert names(tmp_path / "in") == [] and names(tmp_path / "in", hidden=True) == [".old/x.wav"]


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    put(tmp_path / "in" / "open" / "x.wav", b"x")
    (tmp_path / "in" / "locked").mkdir()
    (tmp_path / "in" / "lost+found").mkdir()
    real = os.scandir

    def scandir(path):
        if os.path.basename(path) in ("locked", "lost+found"):  # noqa: PTH119 - as os.walk gives it
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError, match=r"Permission denied; make it readable, or .*: '.*/in/locked'"):
        finding.scan(str(tmp_path / "in"))
    (tmp_path / "in" / "locked").rmdir()
    assert names(tmp_path / "in") == ["open/x.wav"]


def test_a_file_that_cannot_be_looked_at_is_told(tmp_path, monkeypatch):
    for name in ("a.wav", "b.wav"):
        put(tmp_path / "in" / name, b"x")
    real, code = Path.stat, errno.EIO

    def stat(self, **how):
        if self.name == "b.wav":
            raise OSError(code, os.strerror(code), str(self))
        return real(self, **how)

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(OSError, match=r"Input/output error; make it readable, or .*: '.*/in/b.wav'"):
        finding.scan(str(tmp_path / "in"))


def test_what_has_gone_or_was_never_there_is_no_error(tmp_path):
    put(tmp_path / "in" / "a.wav", b"x")
    for link, target in (("gone.wav", "nowhere"), ("circle.wav", "circle.wav"), ("through.wav", "a.wav/b.wav")):
        (tmp_path / "in" / link).symlink_to(target)
    assert names(tmp_path / "in") == ["a.wav"]
    found = {Path(entry.path).name: entry.mark for entry in finding.scan(str(tmp_path / "in"), links=True)}
    assert {name for name, mark in found.items() if mark == finding.DANGLING} == set(found) - {"a.wav"}
    assert len(found) == 4
    assert finding.scan(str(tmp_path / "nowhere")) == finding.scan(str(tmp_path / "in" / "a.wav")) == []
