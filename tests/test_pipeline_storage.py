"""Files through one door: written whole or not at all, listed in an order a person expects."""

import errno
import os
import re
import threading

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from jobs.corpus import check_writable
from pipeline import finding, storage


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    if request.param == "local":
        yield str(tmp_path)
    else:
        yield f"memory://{request.node.originalname}"


def put(path, data=b"x"):
    storage.write_atomic(path, lambda file: file.write(data))


def test_written_equals_read(folder):
    path = storage.join(folder, "a", "b.bin")
    put(path, b"one")
    put(path, b"two!")
    assert storage.read_bytes(path) == b"two!"
    assert storage.num_bytes(path) == 4
    with storage.open_read(path) as file:
        file.seek(1)
        assert file.read(2) == b"wo"
    assert [p.rpartition("/")[2] for p in finding.list_files(folder)] == ["b.bin"]


def test_a_failed_write_leaves_what_was_there(folder):
    path = storage.join(folder, "b.bin")
    put(path, b"old")

    def fails(file):
        file.write(b"half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        storage.write_atomic(path, fails)
    assert storage.read_bytes(path) == b"old"
    assert len(finding.list_files(folder)) == 1


def test_only_the_first_may_create(folder):
    path = storage.join(folder, "done", "a.json")
    assert storage.create_exclusive(path, b"first")
    assert not storage.create_exclusive(path, b"second")
    assert storage.read_bytes(path) == b"first"
    assert len(finding.list_files(folder)) == 1


def test_a_file_system_without_links_is_told(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match=f"the file system of {tmp_path} has no hard links"):
        storage.create_exclusive(str(tmp_path / "x"), b"")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match=r"cannot write to --output .* has no hard links"):
        check_writable(str(tmp_path), once=True)
    check_writable(str(tmp_path))


def test_an_empty_folder_holds_nothing_and_so_does_one_that_is_gone(folder):
    assert not storage.holds_anything(storage.join(folder, "none"))
    put(storage.join(folder, "some", "a.wav"))
    assert storage.holds_anything(storage.join(folder, "some"))
    storage.remove(storage.join(folder, "some", "a.wav"))
    assert not storage.holds_anything(storage.join(folder, "some"))


def test_of_many_at_once_exactly_one_creates(tmp_path):
    path = str(tmp_path / "x.json")
    wins = []
    threads = [
        threading.Thread(target=lambda n=n: wins.append(storage.create_exclusive(path, b"%d" % n))) for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(wins) == 1 and len(wins) == 16
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_files_are_listed_in_natural_order_without_hidden_folders(folder):
    for name in ("c10.wav", "c9.wav", "b/x.wav", ".git/y.wav", ".cache/deep/z.wav"):
        put(storage.join(folder, name))
    names = [path[path.index(folder.rpartition("/")[2]) :].partition("/")[2] for path in finding.list_files(folder)]
    assert names == ["b/x.wav", "c9.wav", "c10.wav"]


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "a.wav").write_bytes(b"")
    assert finding.list_files(str(tmp_path)) == [str(tmp_path / "a.wav")]


def test_braces_and_globs(folder):
    assert finding.expand("a{08..10}.{tar,zip}") == [f"a{n}.{e}" for n in ("08", "09", "10") for e in ("tar", "zip")]
    assert finding.expand("{9..11}") == ["9", "10", "11"]
    assert finding.expand("plain") == ["plain"]
    for name in ("s2.tar", "s10.tar", "[odd].tar"):
        put(storage.join(folder, name))
    found = finding.glob(storage.join(folder, "s*.tar"))
    assert [p.rpartition("/")[2] for p in found] == ["s2.tar", "s10.tar"]
    assert finding.glob(storage.join(folder, "none*")) == []


def test_the_signature_follows_the_content(folder):
    path = storage.join(folder, "a")
    put(path, b"1")
    before = finding.signature(finding.scan(folder))
    assert before == finding.signature(finding.scan(folder))
    put(path, b"22")
    assert finding.signature(finding.scan(folder)) != before


def test_a_store_that_cannot_be_reached_is_an_oserror_that_names_it(monkeypatch):
    class Refused(Exception):
        pass

    def refuse(*args, **kwargs):
        raise Refused("no credentials\nand a long story")

    for name in ("exists", "isdir", "find", "info", "glob"):
        monkeypatch.setattr(MemoryFileSystem, name, refuse)
    doors = (storage.exists, storage.is_folder, finding.scan, finding.entry)
    for door, url in [*((door, "memory://far/x") for door in doors), (finding.glob, "memory://far/*.tar")]:
        with pytest.raises(OSError, match=f"^{re.escape(url)} cannot be reached: Refused: no credentials$"):
            door(url)


def test_a_store_whose_package_is_missing_is_an_oserror(monkeypatch):
    def missing(path):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr(storage.fsspec.core, "url_to_fs", missing)
    with pytest.raises(OSError, match=r"^gs://b/x cannot be reached: ImportError: Please install gcsfs$"):
        storage.exists("gs://b/x")
