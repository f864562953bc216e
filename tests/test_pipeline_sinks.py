"""What is written is what is read, by us and by the loaders people use, and the same rows are the same bytes."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset

from pipeline.sinks import SINKS
from pipeline.sinks import parquet as parquet_sink
from schemas.audio import Reject, Utterance
from schemas.tokens import TokenRecord, reject_batch
from tests.toys import ToyCodec


def records(number, books=1, seed=0):
    draw = np.random.default_rng(seed)
    made = []
    for i in range(number):
        frames = int(draw.integers(1, 400))
        utterance = Utterance(
            f"toy_{i:05}" if i else "toy_" + "x" * 180,
            "toy",
            f"archive.tar::dir/ä {i}.mp3",
            text=None if i % 5 == 4 else f'Text "{i}" – ünïcode.',
            language="de",
            speaker=f"s{i % 3}",
            extra='{"dnsmos": 3.2}',
        )
        codes = draw.integers(0, 65_536, (books, frames)).astype(np.uint16)
        made.append(TokenRecord(utterance, codes, frames * 320 + i % 320))
    return made


def write(path, form, rows, spec):
    with Path(path).open("wb") as file:
        SINKS[form].write(file, iter(rows), spec)
    return str(path)


def same(left, right):
    return (left.utterance, left.num_samples) == (right.utterance, right.num_samples) and np.array_equal(
        left.codes, right.codes
    )


@pytest.mark.parametrize("books", [1, 3])
@pytest.mark.parametrize("form", SINKS)
def test_written_equals_read_and_twice_is_the_same_bytes(tmp_path, form, books):
    spec, rows = ToyCodec(books).spec, records(50, books)
    first = write(tmp_path / f"a{SINKS[form].SUFFIX}", form, rows, spec)
    second = write(tmp_path / f"b{SINKS[form].SUFFIX}", form, rows, spec)
    read = list(SINKS[form].read(first, spec))
    assert len(read) == 50 and all(map(same, read, rows))
    assert Path(first).read_bytes() == Path(second).read_bytes()


@pytest.mark.parametrize("form", SINKS)
def test_no_rows_are_a_shard_too(tmp_path, form):
    spec = ToyCodec().spec
    path = write(tmp_path / f"none{SINKS[form].SUFFIX}", form, [], spec)
    assert list(SINKS[form].read(path, spec)) == []


def test_load_dataset_opens_parquet_as_it_is(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = records(30)
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "u0.parquet", "parquet", rows[:20], ToyCodec().spec)
    write(tmp_path / "data" / "u1.parquet", "parquet", rows[20:], ToyCodec().spec)
    loaded = datasets.load_dataset(
        "parquet", data_dir=str(tmp_path / "data"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(loaded) == 30
    for row, record in zip(loaded, rows, strict=True):
        assert row["__key__"] == record.utterance.id and row["text"] == record.utterance.text
        assert row["codes"] == record.codes[0].tolist() and isinstance(row["codes"][0], int)
        assert row["duration"] == record.num_samples / 16_000
    stream = datasets.load_dataset("parquet", data_dir=str(tmp_path / "data"), split="train", streaming=True)
    assert [row["__key__"] for row in stream] == [record.utterance.id for record in rows]


def test_webdataset_opens_tars_as_they_are(tmp_path):
    rows = records(20)
    path = write(tmp_path / "u0.tar", "webdataset", rows, ToyCodec().spec)
    samples = list(webdataset.WebDataset(path, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == [record.utterance.id for record in rows]
    for sample, record in zip(samples, rows, strict=True):
        assert sample["npy"].dtype == np.uint16 and np.array_equal(sample["npy"], record.codes[0])
        assert sample["json"]["text"] == record.utterance.text and sample["json"]["num_samples"] == record.num_samples


def test_tar_members_have_no_time_and_no_owner(tmp_path):
    path = write(tmp_path / "u0.tar", "webdataset", records(3), ToyCodec().spec)
    with tarfile.open(path) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar} == {(0, 0, 0, "", "")}


def test_codes_are_frame_major(tmp_path):
    spec = ToyCodec(2).spec
    codes = np.array([[1, 2, 3], [10, 20, 30]], np.uint16)
    record = TokenRecord(Utterance("toy_0", "toy", "x"), codes, 960)
    write(tmp_path / "a.parquet", "parquet", [record], spec)
    assert pq.read_table(tmp_path / "a.parquet").to_pylist()[0]["codes"] == [1, 10, 2, 20, 3, 30]


def test_parquet_is_made_for_streaming_and_tells_its_origin(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_sink, "GROUP_ROWS", 16)
    spec = ToyCodec().spec
    path = write(tmp_path / "a.parquet", "parquet", records(40), spec)
    with pq.ParquetFile(path) as file:
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [16, 16, 8]
        column = file.metadata.row_group(0).column(0)
        assert column.compression == "ZSTD" and column.has_offset_index and column.has_column_index
        said = file.schema_arrow.metadata
    assert json.loads(said[b"codec"]) == spec.to_json() and b"neutok" in said
    assert json.loads(said[b"frames"]).startswith("floor(num_samples / 320), num_samples at 16000 Hz")


def test_random_codes_cost_about_their_16_bits(tmp_path):
    rows = [
        TokenRecord(record.utterance, np.random.default_rng(i).integers(0, 65_536, (1, 500)).astype(np.uint16), 160_000)
        for i, record in enumerate(records(2048))
    ]
    path = write(tmp_path / "a.parquet", "parquet", rows, ToyCodec().spec)
    codes = sum(pq.ParquetFile(path).metadata.row_group(0).column(i).total_compressed_size for i in (1,))
    assert codes < 2.4 * 2048 * 500


def test_rejects_are_written_also_when_there_are_none(tmp_path):
    some = [Reject(Utterance("toy_1", "toy", "a.tar::1"), "unreadable", "no decoder")]
    for rejects in (some, []):
        file = io.BytesIO()
        parquet_sink.write_rejects(file, reject_batch(rejects))
        rows = pq.read_table(io.BytesIO(file.getvalue())).to_pylist()
        assert rows == [
            {"__key__": r.utterance.id, "source": r.utterance.source, "reason": r.reason, "message": r.message}
            for r in rejects
        ]


@pytest.mark.parametrize("form", SINKS)
def test_a_shard_cut_short_does_not_read_as_a_whole_one(tmp_path, form):
    spec = ToyCodec().spec
    path = write(tmp_path / f"a{SINKS[form].SUFFIX}", form, records(20), spec)
    data = Path(path).read_bytes()
    for size in (len(data) // 2, len(data) // 3, 100):
        (tmp_path / "cut").write_bytes(data[:size])
        with pytest.raises(Exception):  # noqa: B017 - each reader has its own
            list(SINKS[form].read(str(tmp_path / "cut"), spec))
