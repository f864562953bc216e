"""The order of training: every row once an epoch, exact shares, any rank and any position at once."""

import numpy as np
import pytest

from pipeline.mixture import Mixture
from pipeline.order import Order, crop_start
from pipeline.shuffle import Rows, Shuffle, scramble


def rows(name, *sizes):
    return Rows(name, f"hash of {name}", np.cumsum([0, *sizes]))


def sequence(order, steps):
    return order.at(np.arange(steps * order.batch_size))


def test_every_row_comes_once_an_epoch_and_the_last_batch_is_filled_with_marked_rows():
    order = Order([rows("a", 300, 7, 1, 512, 90)], batch_size=64, window=256)
    assert order.steps_per_epoch == 15  # 910 rows
    first, second = (order.at(np.arange(e * 960, (e + 1) * 960)) for e in range(2))
    for epoch, slots in enumerate((first, second)):
        assert sorted(slots.row[~slots.filler]) == list(range(910))
        assert slots.filler.sum() == 50 and slots.filler[910:].all()
        assert set(slots.epoch) == {epoch}
    assert (first.row != second.row).mean() > 0.9


def test_ranks_together_read_the_batch_of_one():
    order = Order([rows("a", *[100] * 30), rows("b", *[50] * 9)], 24, seed=3, mixture=(0.6, 0.4), window=500)
    for step in (0, 1, 77, 100_003):
        whole = order.step(step)
        for world in (1, 2, 3, 4, 6, 8):
            parts = [order.step(step, rank, world) for rank in range(world)]
            for field in ("number", "dataset", "row", "epoch", "filler", "luck"):
                np.testing.assert_array_equal(
                    np.concatenate([getattr(p, field) for p in parts]), getattr(whole, field), err_msg=field
                )


def test_any_position_is_found_without_those_before_it():
    def make():
        return Order([rows("a", *[97] * 40), rows("b", 1000)], 16, mixture=[(0, (1, 2)), (50, (3, 1))], window=300)

    whole = sequence(make(), 400)
    rng = np.random.default_rng(0)
    for numbers in rng.integers(0, 6400, (20, 5)):
        slots = make().at(numbers)  # a new order each time: nothing remembered
        np.testing.assert_array_equal(slots.row, whole.row[numbers])
        np.testing.assert_array_equal(slots.dataset, whole.dataset[numbers])


def test_shares_are_exact_at_every_prefix():
    rng = np.random.default_rng(5)
    cases = [(0.3, 0.7), (1, 1, 43, 76, 76, 3, 1, 3), (0.001, 0.999), (5,), (2, 0, 1)]
    cases += [tuple(rng.integers(1, 200, rng.integers(2, 9)).tolist()) for _ in range(30)]
    for weights in cases:
        mixture = Mixture.of(weights)
        draws = np.arange(1, 3 * sum(mixture.shares) + 50)
        dataset, before = mixture.at(draws - 1)
        for d, weight in enumerate(weights):
            counts = np.cumsum(dataset == d)
            assert np.abs(counts - draws * (weight / sum(weights))).max() < 1, (weights, d)
            np.testing.assert_array_equal(before[dataset == d], np.arange(counts[-1]))
            assert mixture.counts(len(draws))[d] == counts[-1]


def test_weights_finer_than_the_parts_are_rounded_and_none_is_lost():
    mixture = Mixture.of((0.123456789, 1234.5, 1e-9, 0))
    assert sum(mixture.shares) <= 100_001 and mixture.shares[2] == 1 and mixture.shares[3] == 0


def test_each_dataset_ends_its_epoch_before_it_repeats():
    order = Order([rows("a", 60, 40), rows("b", 30), rows("c", 7)], 10, mixture=(5, 3, 2), window=50)
    slots = sequence(order, 60)
    assert not slots.filler.any()
    for d, size in enumerate((100, 30, 7)):
        read = slots.row[slots.dataset == d]
        for first in range(0, len(read) - size, size):
            assert sorted(read[first : first + size]) == list(range(size))
        np.testing.assert_array_equal(slots.epoch[slots.dataset == d], np.arange(len(read)) // size)


def test_a_schedule_changes_the_shares_from_its_step_on_and_keeps_the_epochs():
    order = Order([rows("a", 1000), rows("b", 1000)], 10, mixture=[(0, (1, 0)), (7, (1, 3)), (20, (0, 1))], window=100)
    dataset = sequence(order, 30).dataset.reshape(30, 10)
    assert not dataset[:7].any() and dataset[20:].all()
    assert abs(dataset[7:20].sum() - 130 * 0.75) < 1
    read = sequence(order, 30)
    for d in (0, 1):
        assert len(set(read.row[read.dataset == d])) == (read.dataset == d).sum()


def test_what_is_mixed_in_does_not_change_the_way_of_a_dataset():
    alone = Order([rows("a", 64, 64)], 16, seed=9)
    mixed = Order([rows("b", 10), rows("a", 64, 64)], 16, seed=9, mixture=(1, 1))
    slots = sequence(mixed, 16)
    np.testing.assert_array_equal(slots.row[slots.dataset == 1], sequence(alone, 8).row)


def test_neighbours_come_from_few_blocks_and_blocks_are_shuffled():
    blocks = rows("a", *[1000] * 400)
    order = Order([blocks], 100, window=16_000)
    read = sequence(order, 1000).row
    block = np.searchsorted(blocks.borders, read, "right") - 1
    for first in range(0, 96_000, 8000):
        assert len(set(block[first : first + 8000])) <= 32  # two windows of 16 blocks
    first_window = read[:16_000]
    assert set(np.bincount(np.unique(block[:16_000]), minlength=400)) <= {0, 1} and len(set(block[:16_000])) == 16
    assert np.ptp(np.unique(block[:16_000])) > 200  # from all over the dataset
    # shuffled over at least 10,000 rows: where a row comes says nothing of where it lies in its block
    assert abs(np.corrcoef(np.arange(16_000), first_window % 1000)[0, 1]) < 0.03
    assert abs(np.corrcoef(np.arange(16_000), block[:16_000])[0, 1]) < 0.03


@pytest.mark.parametrize("size", [1, 100, 5000, 8193, 10_000, 20_000, 40_000])
def test_every_window_shuffles_more_than_ten_thousand_rows(size):
    borders = np.append(np.arange(0, 300_000, size), 300_000)
    shuffle = Shuffle(Rows("a", "", borders), key=1, window=32_768)
    firsts = shuffle._epoch(0)[0]
    assert np.diff(firsts).min() > 10_000


def test_fillers_follow_a_rule_and_stay_near():
    order = Order([rows("a", *[100] * 50)], 8, seed=1, window=1000)
    near = set(order.at(np.arange(1000)).row)
    fillers = [order.filler(n, attempt) for n in range(50) for attempt in range(1, 9)]
    assert set(fillers) <= near and len(set(fillers)) > 200
    assert not {order.filler(3, attempt) for attempt in range(9, 60)} <= near
    assert fillers == [order.filler(n, attempt) for n in range(50) for attempt in range(1, 9)]


def test_a_state_resumes_only_its_own_order():
    def make(size=100, batch=4, seed=0, name="a", mixture=None, epoch=0):
        return Order([rows(name, size), rows("b", 50)], batch, seed=seed, mixture=mixture, epoch=epoch)

    state = make().state(17)
    assert make().resume(state) == 17
    assert all(isinstance(value, int) for key, value in state.items() if key != "index")
    for other in (make(size=101), make(batch=8), make(name="c"), make(mixture=(1, 5))):
        with pytest.raises(ValueError, match=f"the index changed.*index {state['index'][:12]}, now"):
            other.resume(state)
    with pytest.raises(ValueError, match="the seed changed"):
        make(seed=1).resume(state)
    with pytest.raises(ValueError, match="the epoch changed"):
        make(epoch=1).resume(state)


def test_weights_of_steps_to_come_may_change_and_those_used_may_not():
    def make(mixture):
        return Order([rows("a", 100), rows("b", 50)], 4, mixture=mixture)

    state = make([(0, (1, 1)), (40, (1, 2))]).state(30)
    assert make([(0, (1, 1)), (35, (1, 9))]).resume(state) == 30
    with pytest.raises(ValueError, match="index changed"):
        make([(0, (1, 1)), (29, (1, 2))]).resume(state)


def test_bad_options_are_refused():
    a, b = rows("a", 10), rows("b", 10)
    with pytest.raises(ValueError, match="batch of 10 cannot be shared evenly by 4 ranks"):
        Order([a], 10).step(0, 0, 4)
    with pytest.raises(ValueError, match="rank 2"):
        Order([a], 10).step(0, 2, 2)
    with pytest.raises(ValueError, match="no rows"):
        Order([a, rows("none", 0)], 4)
    with pytest.raises(ValueError, match="name of its own"):
        Order([a, a], 4)
    with pytest.raises(ValueError, match="begin at step 0"):
        Order([a, b], 4, mixture=[(1, (1, 1))])
    with pytest.raises(ValueError, match="2 numbers"):
        Order([a, b], 4, mixture=(1, 1, 1))
    with pytest.raises(ValueError, match="not negative"):
        Order([a, b], 4, mixture=(1, -1))


def test_crops_start_on_borders_and_reach_the_whole_clip():
    luck = scramble(0, np.arange(5000))
    starts = crop_start(luck, 160_000, 96_000, 320)
    assert set(starts) == set(range(0, 64_001, 320))
    assert not crop_start(luck, 96_319, 96_000, 320).any() and not crop_start(luck, 100, 96_000, 320).any()


def test_random_numbers_stay_what_they_are():
    # a change here changes every run's batches: then VERSION of the order must rise
    assert [int(x) for x in scramble(1, 2, np.arange(3))] == SCRAMBLED
    order = Order([rows("a", 50, 50), rows("b", 9)], 6, seed=7, mixture=(2, 1), window=40)
    assert order.step(11).row.tolist() == STEP_11


SCRAMBLED = [16613338946343043936, 13264548337748323810, 16803123258551283528]
STEP_11 = [75, 82, 8, 99, 94, 6]
