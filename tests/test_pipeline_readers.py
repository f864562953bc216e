"""What readers ask of a store and make of its bytes: packed streams in a row, tables of one large row group."""

import bz2
import gzip
import io
import lzma
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import storage
from pipeline.readers import parquet
from pipeline.readers.packed import Packed

PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
FIRST, SECOND = b"first " * 50, b"second " * 50


class Pieces:
    """A store that gives its bytes in these pieces, however many are asked for."""

    def __init__(self, *pieces):
        self.pieces = [piece for piece in pieces if piece]

    def read(self, num_bytes):
        return self.pieces.pop(0) if self.pieces else b""

    def close(self):
        pass


def unpacked(packing, *pieces):
    stream = Packed(Pieces(*pieces), packing)
    found = stream.read(1 << 20)
    assert stream.read(1) == stream.read(1) == b""  # the end stays the end
    return found


@pytest.mark.parametrize("padding", [0, 4, 12])
@pytest.mark.parametrize("packing", PACKERS)
def test_streams_in_a_row_are_one_wherever_reading_cuts_them(packing, padding):
    first, second = (PACKERS[packing](data) + bytes(padding) for data in (FIRST, SECOND))
    whole = first + second
    for cut in range(len(first) - padding - 8, len(first) + 9):
        assert unpacked(packing, whole[:cut], whole[cut:]) == FIRST + SECOND, cut - len(first)
    assert unpacked(packing, *(whole[at : at + 1] for at in range(len(whole)))) == FIRST + SECOND


@pytest.mark.parametrize("packing", PACKERS)
def test_rubbish_behind_the_last_stream_is_passed_over(packing):
    whole = PACKERS[packing](FIRST)
    magic = whole[:6]
    for rubbish in (b"r", magic[:1] + b"rubbish", b"rubbish" + whole, bytes(9) + b"rubbish"):
        assert unpacked(packing, whole + rubbish) == FIRST
        assert unpacked(packing, whole, rubbish) == FIRST
        assert unpacked(packing, whole + rubbish[:1], rubbish[1:]) == FIRST
    assert unpacked(packing, whole, b"rubbish", whole) == FIRST


class Counting(io.FileIO):
    """A file that remembers the most that was asked of it at once."""

    most = 0

    def read(self, size=-1):
        data = super().read(size)
        Counting.most = max(Counting.most, len(data))
        return data


def test_a_row_group_is_read_piece_by_piece(tmp_path, monkeypatch):
    clips = [os.urandom(100_000) for _ in range(100)]
    table = pa.table({"audio": [{"bytes": data, "path": None} for data in clips]})
    pq.write_table(table, path := tmp_path / "one.parquet", row_group_size=100, write_batch_size=4)
    monkeypatch.setattr(storage, "open_read", lambda path: Counting(path))
    assert [data for _, data, _, _ in parquet.read(str(path), range(100))] == clips
    assert 0 < Counting.most <= 2 * parquet.BUFFER_BYTES
