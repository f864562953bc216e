"""Clips by row number: the same bytes as walking the units, in any order, from every kind of source."""

import io
import pickle
import subprocess
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.clips import IndexedClips
from pipeline.index import Selection, build_index
from pipeline.stream import read_unit
from schemas.audio import AudioFile
from tests.training_toys import voice, wav


def files(count=7):
    return {f"clip{i}.wav": wav(voice(i, 0.1 + 0.02 * i)) for i in range(count)}


def tree(folder):
    for name, data in files().items():
        (folder / name).write_bytes(data)
    return "folder", str(folder)


def tar(folder):
    with tarfile.open(folder / "clips.tar", "w") as archive:
        for name, data in files().items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return "folder", str(folder / "clips.tar")


def packed_zip(folder):
    with zipfile.ZipFile(folder / "clips.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files().items():
            archive.writestr(name, data)
    return "folder", str(folder / "clips.zip")


def parquet(folder):
    rows = [{"bytes": data, "path": name} for name, data in files().items()]
    pq.write_table(pa.table({"audio": rows, "text": list(files())}), folder / "clips.parquet", row_group_size=3)
    return "parquet", str(folder / "clips.parquet")


def opened(make, tmp_path):
    (tmp_path / "in").mkdir()
    corpus, source = make(tmp_path / "in")
    index = build_index(corpus, [source], str(tmp_path / "out"), Selection(), 1000)
    return IndexedClips(corpus, index), index


@pytest.mark.parametrize("make", [tree, tar, packed_zip, parquet])
def test_any_row_at_any_time_is_the_clip_that_walking_gives(make, tmp_path):
    clips, index = opened(make, tmp_path)
    walked = [item for unit in index.units for item in read_unit(unit)]
    assert len(clips.rows) == len(walked) == 7 and all(isinstance(item, AudioFile) for item in walked)
    travelled = pickle.loads(pickle.dumps(clips))
    for row in (5, 0, 6, 3, 3, 1, 2, 4):
        assert clips.read(row) == travelled.read(row) == walked[row]


def test_rows_the_index_refuses_are_left_out(tmp_path):
    def hollow(folder):
        tree(folder)
        (folder / "clip3.wav").write_bytes(b"")
        return "folder", str(folder)

    clips, index = opened(hollow, tmp_path)
    usable = [item for unit in index.units for item in read_unit(unit) if isinstance(item, AudioFile)]
    found = [clips.read(row) for row in range(len(clips.rows))]
    assert [clip for clip in found if isinstance(clip, AudioFile)] == usable


def test_a_compressed_archive_is_refused_with_the_command_that_repacks_it(tmp_path):
    def zipped(folder):
        tar(folder)
        subprocess.run(["gzip", str(folder / "clips.tar")], check=True)
        return "folder", str(folder / "clips.tar.gz")

    with pytest.raises(ValueError, match=r"gunzip --keep clips.tar.gz"):
        opened(zipped, tmp_path)


def test_the_hash_of_rows_is_of_the_sound_and_not_of_its_labels(tmp_path):
    first, _ = opened(tree, tmp_path)
    (tmp_path / "in" / "metadata.csv").write_text("file_name,text\nclip1.wav,hello\n")
    again = IndexedClips(
        "folder", build_index("folder", [str(tmp_path / "in")], str(tmp_path / "new"), Selection(), 9999)
    )
    assert again.rows.hash == first.rows.hash
    (tmp_path / "in" / "clip2.wav").write_bytes(wav(voice(9, 0.3)))
    third = IndexedClips(
        "folder", build_index("folder", [str(tmp_path / "in")], str(tmp_path / "third"), Selection(), 9999)
    )
    assert third.rows.hash != first.rows.hash
