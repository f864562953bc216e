"""Crops: the same global batches whatever the ranks and workers, whole hops, pairs of rates, bad rows replaced."""

import multiprocessing
import os

import numpy as np
import torch

from jobs.training.setup import shape_of
from pipeline.crops import Shape, crops
from pipeline.order import Order
from tests.training_toys import TINY, MemoryClips, voice


def batches(world, steps, workers=0, clips=None, batch_size=4):
    clips = clips or [MemoryClips.of("toy", 11), MemoryClips.of("other", 7)]
    order = Order([each.rows for each in clips], batch_size, seed=3)
    readers = [crops(order, clips, shape_of(TINY), steps, rank, world, workers) for rank in range(world)]
    return [torch.cat([batch.inputs for batch in parts]) for parts in zip(*readers, strict=True)]


def test_global_batches_do_not_depend_on_the_number_of_ranks():
    one = batches(1, range(6))
    for world in (2, 4):
        for a, b in zip(one, batches(world, range(6)), strict=True):
            assert torch.equal(a, b)


def test_a_resume_on_other_ranks_goes_on_with_the_same_batches():
    straight = batches(1, range(6))
    resumed = batches(4, range(3)) + batches(2, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


def test_worker_processes_change_nothing():
    assert all(torch.equal(a, b) for a, b in zip(batches(1, range(5)), batches(1, range(5), workers=2), strict=True))


def test_a_signal_to_the_trainers_group_does_not_reach_its_workers():
    clips = [MemoryClips.of("toy", 11)]
    others = {child.pid for child in multiprocessing.active_children()}
    reader = crops(Order([clips[0].rows], 4, seed=3), clips, shape_of(TINY), range(9), workers=1)
    next(reader)
    groups = {os.getpgid(child.pid) for child in multiprocessing.active_children() if child.pid not in others}
    assert groups and os.getpgid(0) not in groups


def test_bad_rows_are_replaced_inside_their_slots_and_named():
    good = MemoryClips.of("toy", 11)
    bad = MemoryClips.of("toy", 11, broken=(2, 5))
    order = Order([good.rows], 4, seed=3)
    replaced = 0
    for a, b in zip(
        crops(order, [good], shape_of(TINY), range(6)), crops(order, [bad], shape_of(TINY), range(6)), strict=True
    ):
        rows = order.step(a.step).row
        for slot, row in enumerate(rows.tolist()):
            same = torch.equal(a.inputs[slot], b.inputs[slot])
            assert same == (row not in bad.broken)
        replaced += len(b.replaced)
        assert all("unreadable" in note for note in b.replaced) and not a.replaced
    assert replaced > 0


def test_crops_begin_on_whole_hops_and_short_clips_are_padded_right():
    clips = [MemoryClips.of("toy", 6, seconds=0.3)]
    order = Order([clips[0].rows], 3, seed=1)
    for batch in crops(order, clips, shape_of(TINY), range(4)):
        assert batch.inputs.shape == (3, 1, 6400)
        assert torch.equal(batch.inputs, batch.targets)
        for slot, row in enumerate(order.step(batch.step).row.tolist()):
            sound = voice(row, 0.3 * (1 + row % 3 / 3))
            crop = batch.inputs[slot, 0].numpy()
            starts = range(0, max(len(sound) - 6400, 0) + 1, 320)
            inside = [s for s in starts if np.allclose(sound[s : s + 6400], crop[: len(sound) - s], atol=2e-4)]
            assert inside, "no crop of this clip begins on a hop"
            assert not crop[len(sound) :].any()


def test_a_pair_of_rates_is_the_same_stretch_of_sound():
    clips = [MemoryClips.of("toy", 4, seconds=1.0, rate=24_000)]
    order = Order([clips[0].rows], 2, seed=1)
    shape = Shape(samples=6400, hop_length=320, input_rate=16_000, output_rate=24_000)
    for batch in crops(order, clips, shape, range(3)):
        assert batch.inputs.shape == (2, 1, 6400) and batch.targets.shape == (2, 1, 9600)
        every_third = batch.targets[:, 0, 300:-300:3]
        every_second = batch.inputs[:, 0, 200:-200:2]
        assert (every_third - every_second).abs().max() < 0.02 * every_third.abs().max()
