"""Packed byte streams: what several compressed files in a row hold, wherever reading cuts them."""

import bz2
import gzip
import lzma

import pytest

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
