"""Packed sequences: every id once, no row cut that may not be, little padding, and arrays a model can train on."""

from itertools import pairwise

import numpy as np
import pytest

from pipeline.tokens.packing import IGNORED, best_fit, lay_out, plan


def speech_lengths(count, seed=0):
    """Codes of utterances as corpora have them: 2 to 30 s, most of them short, 50 a second, a prompt on top."""
    rng = np.random.default_rng(seed)
    return (np.clip(rng.lognormal(1.9, 0.6, count), 1, 35) * 50 + rng.integers(20, 200, count)).astype(np.int32)


@pytest.mark.parametrize("size", [2048, 4096, 8192])
def test_padding_stays_below_two_percent(size):
    lengths = speech_lengths(20_000)
    packs = plan(np.arange(20_000), lengths, np.arange(0, 20_001, 2000), size, splits=False)
    assert packs.padding(size) < 0.02
    assert packs.count.sum() == lengths.sum()


def test_each_row_is_packed_once_whole_and_near_its_neighbours():
    lengths = speech_lengths(30_000, 1)
    rows = np.flatnonzero(np.arange(30_000) % 3 != 1)
    packs = plan(rows, lengths[rows], np.arange(0, 30_001, 500), 2048, splits=False)
    np.testing.assert_array_equal(np.sort(packs.row), rows)
    np.testing.assert_array_equal(packs.count, lengths[packs.row])
    assert not packs.start.any()
    sizes = np.add.reduceat(packs.count, packs.bounds[:-1])
    assert sizes.max() <= 2048
    for first, last in pairwise(packs.borders):
        assert np.ptp(packs.row[packs.bounds[first] : packs.bounds[last]]) < 7000


def test_long_rows_are_cut_in_pieces_that_cover_them_where_that_is_allowed():
    lengths = np.array([5, 100, 250, 99, 101])
    packs = plan(np.arange(5), lengths, np.array([0, 2, 5]), 100, splits=True)
    for row, length in enumerate(lengths):
        mine = packs.row == row
        ids = np.concatenate([np.arange(s, s + c) for s, c in zip(packs.start[mine], packs.count[mine], strict=True)])
        np.testing.assert_array_equal(np.sort(ids), np.arange(length))
    with pytest.raises(ValueError, match="a row of 250 ids does not fit a sequence of 100"):
        plan(np.arange(5), lengths, np.array([0, 5]), 100, splits=False)


def test_a_piece_goes_where_it_leaves_least_room():
    packs = best_fit(np.arange(5), np.array([60, 50, 40, 30, 20]), 100)
    assert sorted(map(sorted, packs)) == [[0, 2], [1, 3, 4]]


def test_blocks_may_be_empty():
    packs = plan(np.array([7, 8]), np.array([3, 4]), np.array([0, 3, 5, 10, 12]), 10, splits=False)
    assert len(packs) == 1 and packs.borders.tolist() == [0, 1]
    assert len(plan(np.array([], int), np.array([], int), np.array([0, 3]), 10, splits=False)) == 0


def test_arrays_mark_prompts_padding_positions_and_borders():
    arrays = lay_out([[(np.array([7, 8, 9]), 1), (np.array([5, 6]), 0)], [(np.array([4]), 1)]], 6, pad=99)
    assert arrays["input_ids"].tolist() == [[7, 8, 9, 5, 6, 99], [4, 99, 99, 99, 99, 99]]
    assert arrays["labels"].tolist() == [[IGNORED, 8, 9, 5, 6, IGNORED], [IGNORED] * 6]
    assert arrays["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0], [0] * 6]
    assert arrays["sequence_ids"].tolist() == [[1, 1, 1, 2, 2, 0], [1, 0, 0, 0, 0, 0]]
