"""Damaged and hostile sources: neighbours stay, what is lost is counted, nothing is written outside, nothing hangs."""

import bz2
import gzip
import io
import json
import random
import struct
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.index import Selection, build_index
from pipeline.stream import feed_units, read_unit
from schemas.audio import AudioFile
from tests.corpora_fixtures import BUILDERS, put, put_parquet, put_zip, sound, tar_bytes

CLIPS = [(f"k{n}.wav", sound(n)) for n in range(6)]


def read(tmp_path, path, corpus="folder", unit_bytes=40_000):
    """(index, sound by key, reason by key); both ways of reading must agree."""
    index = build_index(corpus, [str(path)], str(tmp_path / "out"), Selection(), unit_bytes)
    items = [item for unit in index.units for item in read_unit(unit)]
    for source in {unit.source for unit in index.units}:
        units = [unit for unit in index.units if unit.source == source]
        fed = [item for _, found in feed_units(units, {unit.name for unit in units}) for item in found]
        assert fed == [item for unit in units for item in read_unit(unit)]
    assert len(items) == index.num_clips
    rows = {i.utterance.source.rpartition("::")[2]: i.data for i in items if isinstance(i, AudioFile)}
    return index, rows, {i.utterance.source.rpartition("::")[2]: i for i in items if not isinstance(i, AudioFile)}


def test_a_cut_tar_keeps_what_came_before(tmp_path):
    data = tar_bytes(CLIPS)
    at = data.index(CLIPS[4][1][:64]) + 100
    put(tmp_path / "a.tar", data[:at])
    index, rows, lost = read(tmp_path, tmp_path / "a.tar")
    assert rows == dict(CLIPS[:4])
    assert lost["k4.wav"].reason == "unreadable" and "cut short: 100 of" in lost["k4.wav"].message
    assert any("cut inside a member" in problem for problem in index.problems)


def test_a_tar_cut_between_members_is_told(tmp_path):
    data = tar_bytes(CLIPS)
    put(tmp_path / "a.tar", data[: data.index(b"k3.wav")])
    index, rows, _ = read(tmp_path, tmp_path / "a.tar")
    assert rows == dict(CLIPS[:3]) and any("without its end mark" in problem for problem in index.problems)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_a_cut_packed_tar_keeps_what_came_before(tmp_path, pack):
    noise = [(name, random.Random(name).randbytes(400_000)) for name, _ in CLIPS]
    data = pack(tar_bytes(noise))
    put(tmp_path / "a.tar.gz", data[: len(data) // 2])
    index, rows, lost = read(tmp_path, tmp_path / "a.tar.gz")
    assert 0 < len(rows) < 6 and rows.items() <= dict(noise).items()
    assert len(lost) <= 1 and all(item.reason == "unreadable" for item in lost.values())
    assert any("ends too soon" in problem for problem in index.problems)


def test_a_broken_packed_tar_is_no_crash(tmp_path):
    data = bytearray(gzip.compress(tar_bytes([*CLIPS, ("long.wav", sound(9, seconds=20))])))
    data[len(data) * 3 // 4] ^= 0xFF
    put(tmp_path / "a.tar.gz", bytes(data))
    index, rows, _ = read(tmp_path, tmp_path / "a.tar.gz")
    assert index.problems and next(iter(rows.items())) == CLIPS[0]


def header_of(data, name):
    return data.index(name.encode())


@pytest.mark.parametrize("packed", [False, True])
def test_a_flipped_header_costs_its_member_alone(tmp_path, packed):
    data = bytearray(tar_bytes(CLIPS))
    data[header_of(data, "k2.wav") + 130] ^= 0x10
    put(tmp_path / "a.tar", gzip.compress(bytes(data)) if packed else bytes(data))
    index, rows, _ = read(tmp_path, tmp_path / "a.tar")
    assert rows == dict(CLIPS[:2] + CLIPS[3:]) and any("no header where" in problem for problem in index.problems)


def with_size(data, name, size):
    """The header of a member with another size, its checksum right again: a lie, not an accident."""
    at = header_of(data, name)
    header = bytearray(data[at : at + 512])
    header[124:136] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:at] + bytes(header) + data[at + 512 :]


@pytest.mark.parametrize("size", [10**9, 30_000, 8 * 2**30 - 1])
def test_a_header_that_claims_too_much_costs_its_member_alone(tmp_path, size):
    put(tmp_path / "a.tar", with_size(tar_bytes(CLIPS), "k2.wav", size))
    _, rows, lost = read(tmp_path, tmp_path / "a.tar")
    assert rows == dict(CLIPS[:2] + CLIPS[3:])
    assert set(lost) == {"k2.wav"} and "claims" in lost["k2.wav"].message


def test_a_header_that_claims_too_little_loses_no_neighbour(tmp_path):
    put(tmp_path / "a.tar", with_size(tar_bytes(CLIPS), "k2.wav", 100))
    _, rows, _ = read(tmp_path, tmp_path / "a.tar")
    assert rows == dict(CLIPS) | {"k2.wav": CLIPS[2][1][:100]}


def test_zeros_and_joined_tars_are_read_through(tmp_path):
    put(tmp_path / "a.tar", tar_bytes(CLIPS[:2]) + bytes(4096) + tar_bytes(CLIPS[2:]))
    assert read(tmp_path, tmp_path / "a.tar")[1] == dict(CLIPS)


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_foreign_names(tmp_path, kind):
    names = ["d" * 90 + "/" + "e" * 90 + "/" + "x" * 150 + ".wav", "ünïcödé/名前.wav", "a" * 99 + ".wav"]
    with tarfile.open(tmp_path / "a.tar", "w", format=kind) as archive:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = len(sound(number))
            archive.addfile(info, io.BytesIO(sound(number)))
    assert read(tmp_path, tmp_path / "a.tar")[1] == {name: sound(n) for n, name in enumerate(names)}


def test_hostile_names_are_text_and_links_are_no_sound(tmp_path):
    names = ["../../outside.wav", "/etc/absolute.wav", "a\nb.wav", "C:\\x.wav", "x/../../y.wav", " .wav", "~/z.wav"]
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = len(sound(number))
            archive.addfile(info, io.BytesIO(sound(number)))
        for name, kind in (
            ("hard.wav", tarfile.LNKTYPE),
            ("soft.wav", tarfile.SYMTYPE),
            ("pipe.wav", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("dir.wav/"))
    before = sorted(path for path in tmp_path.rglob("*"))
    _, rows, lost = read(tmp_path, tmp_path / "a.tar")
    assert rows == {name: sound(n) for n, name in enumerate(names)}
    assert {"hard.wav", "soft.wav", "pipe.wav"} <= set(lost) and all(i.reason == "missing" for i in lost.values())
    written = set(tmp_path.rglob("*")) - set(before)
    assert all(path.is_relative_to(tmp_path / "out") for path in written)
    assert not (tmp_path.parent / "outside.wav").exists()


def test_a_name_that_is_no_utf8_stays_one_name(tmp_path):
    data = tar_bytes([("kQ.wav", sound(1)), ("kZ.wav", sound(2))])
    for old, new in ((b"kQ", b"k\xff"), (b"kZ", b"k\xfe")):
        at = data.index(old)
        header = bytearray(data[at : at + 512].replace(old, new))
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        data = data[:at] + bytes(header) + data[at + 512 :]
    put(tmp_path / "a.tar", data)
    assert read(tmp_path, tmp_path / "a.tar")[1] == {"k\\xff.wav": sound(1), "k\\xfe.wav": sound(2)}


def test_wrong_endings_are_seen_through(tmp_path):
    put(tmp_path / "a.tar", gzip.compress(tar_bytes(CLIPS)))
    put(tmp_path / "b.tar.gz", tar_bytes([("b.wav", sound(7))]))
    put_zip(tmp_path / "c.tar", [("c.wav", sound(8))])
    put(tmp_path / "d.zip", tar_bytes([("d.wav", sound(9))]))
    found = {"b.wav": sound(7), "c.wav": sound(8), "d.wav": sound(9)}
    assert read(tmp_path, tmp_path)[1] == dict(CLIPS) | found


@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>" * 100, bytes(10240), b"PK\x03\x04rubbish", b"\x1f\x8b\x08\0no"]
)
@pytest.mark.parametrize("ending", ["tar", "tar.gz", "zip", "parquet"])
def test_what_is_no_archive_is_told_and_its_neighbours_are_read(tmp_path, content, ending):
    corpus = "parquet" if ending == "parquet" else "folder"
    put(tmp_path / "in" / f"bad.{ending}", content)
    with pytest.raises(ValueError, match="no clips of corpus"):
        read(tmp_path, tmp_path / "in", corpus)
    put(tmp_path / "in" / "good.tar", tar_bytes(CLIPS))
    put_parquet(tmp_path / "in" / "good.parquet", [{"id": "r", "audio": {"bytes": sound(1), "path": "r.wav"}}])
    index, rows, _ = read(tmp_path, tmp_path / "in", corpus)
    assert len(rows) == (1 if ending == "parquet" else 6) and any(p.startswith("bad.") for p in index.problems)


def test_a_zip_without_its_directory_is_read_from_the_front(tmp_path):
    put_zip(tmp_path / "a.zip", CLIPS)
    data = (tmp_path / "a.zip").read_bytes()
    at = data.index(b"k4.wav")
    put(tmp_path / "a.zip", data[: at + 200])
    index, rows, lost = read(tmp_path, tmp_path / "a.zip")
    assert rows == dict(CLIPS[:4]) and set(lost) == {"k4.wav"}
    assert any("no readable directory" in problem for problem in index.problems)


def test_a_flipped_byte_in_a_zip_is_caught_by_its_checksum(tmp_path):
    put_zip(tmp_path / "a.zip", CLIPS, zipfile.ZIP_STORED)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.index(CLIPS[1][1][:100]) + 60] ^= 1
    put(tmp_path / "a.zip", bytes(data))
    _, rows, lost = read(tmp_path, tmp_path / "a.zip")
    assert rows == dict(CLIPS[:1] + CLIPS[2:]) and lost["k1.wav"].message == "checksum mismatch"


def test_a_zip_bomb_unpacks_no_further_than_it_claims(tmp_path):
    put_zip(tmp_path / "a.zip", [("bomb.wav", bytes(200_000_000)), ("k.wav", sound(1))])
    data = (tmp_path / "a.zip").read_bytes()
    lie = data.replace(struct.pack("<I", 200_000_000), struct.pack("<I", 1000))
    put(tmp_path / "a.zip", lie)
    _, rows, lost = read(tmp_path, tmp_path / "a.zip")
    assert rows == {"k.wav": sound(1)} and "another size" in lost["bomb.wav"].message


def test_an_encrypted_or_oddly_packed_member_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good.wav", sound(1))
        archive.writestr("odd.wav", sound(2), zipfile.ZIP_LZMA)
        archive.writestr("locked.wav", sound(3))
    data = (tmp_path / "a.zip").read_bytes()
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"locked.wav"))
    put(tmp_path / "a.zip", data[: at + 8] + b"\x01" + data[at + 9 :])
    _, rows, lost = read(tmp_path, tmp_path / "a.zip")
    assert rows == {"good.wav": sound(1)} and "encrypted" in lost["locked.wav"].message


def test_a_broken_row_group_costs_its_own_rows(tmp_path):
    rows = [{"id": f"r{n}", "audio": {"bytes": sound(n), "path": f"{n}.wav"}} for n in range(6)]
    put_parquet(tmp_path / "a.parquet", rows)
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        chunk = file.metadata.row_group(1).column(1)
        assert chunk.path_in_schema == "audio.bytes"
        at = chunk.dictionary_page_offset or chunk.data_page_offset
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[at : at + 12] = b"\xff" * 12
    put(tmp_path / "a.parquet", bytes(data))
    _, found, lost = read(tmp_path, tmp_path / "a.parquet", "parquet")
    assert {name: i.reason for name, i in lost.items()} == {"row 2": "unreadable", "row 3": "unreadable"}
    assert found == {f"row {n}": sound(n) for n in (0, 1, 4, 5)}


def test_a_table_without_sound_is_told(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="no Audio column"):
        read(tmp_path, tmp_path / "a.parquet", "parquet")


def test_plain_bytes_will_do_as_sound(tmp_path):
    pq.write_table(pa.table({"wav": [sound(1)], "text": ["a"]}), tmp_path / "a.parquet")
    _, rows, _ = read(tmp_path, tmp_path / "a.parquet", "parquet")
    assert rows == {"row 0": sound(1)}


def test_what_changes_after_listing_is_missing_not_a_crash(tmp_path):
    for number in range(3):
        put(tmp_path / "in" / f"{number}.wav", sound(number))
    index = build_index("folder", [str(tmp_path / "in")], str(tmp_path / "out"), Selection(), 1 << 20)
    (tmp_path / "in" / "1.wav").unlink()
    (tmp_path / "in" / "2.wav").write_bytes(b"")
    assert [getattr(i, "reason", "") for unit in index.units for i in read_unit(unit)] == ["", "missing", "empty"]


def test_a_folder_that_is_not_mounted_costs_no_clip(tmp_path):
    folder = tmp_path / "in"
    for number in range(3):
        put(folder / f"{number}.wav", sound(number))
    index = build_index("folder", [str(folder)], str(tmp_path / "out"), Selection(), 1 << 20)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"3 of 3 clips are missing, and .*in is empty or cannot be listed"):
        list(read_unit(index.units[0]))
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="is it mounted"):
        list(read_unit(index.units[0]))


def test_broken_labels_cost_no_sound(tmp_path):
    odd = [
        b"[" * 100_000,
        b'{"text": "\\ud800", "duration": NaN}',
        b"\xff\xfe\x00",
        b'"text"',
        b'{"duration": 1e999}',
        b"null",
    ]
    members = [(f"k{n}.{e}", d) for n, label in enumerate(odd) for e, d in (("wav", sound(n)), ("json", label))]
    put(tmp_path / "a.tar", tar_bytes(members))
    put(tmp_path / "metadata.csv", b'file_name,text\n"k0.wav,unbalanced\nk1.wav,"a\0b"\n\xff\xff\n')
    assert len(read(tmp_path, tmp_path / "a.tar")[1]) == 6
    put(tmp_path / "b.tar", tar_bytes([(name.replace("wav", "mp3"), data) for name, data in members]))
    _, rows, lost = read(tmp_path, tmp_path / "b.tar", "emilia")
    assert len(rows) + len(lost) == 6 and {item.reason for item in lost.values()} == {"no_label"}


@pytest.mark.parametrize("name", ["emilia", "hui", "parquet", "librispeech", "common_voice"])
def test_random_damage_is_never_a_crash(tmp_path, name):
    built = BUILDERS[name](tmp_path / "in")
    files = sorted(path for path in (tmp_path / "in").rglob("*") if path.is_file())
    whole = {path: path.read_bytes() for path in files}
    rng = random.Random(name)
    for attempt in range(12):
        for path in files:
            data = bytearray(whole[path])
            for _ in range(rng.choice((0, 1, 8)) if data else 0):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            if rng.random() < 0.2:
                del data[rng.randrange(len(data) + 1) :]
            path.write_bytes(data)
        try:
            index = build_index(name, built.inputs, str(tmp_path / f"out{attempt}"), Selection(), 20_000)
        except ValueError:
            continue
        assert sum(len(list(read_unit(unit))) for unit in index.units) == index.num_clips
        json.dumps(index.problems)
