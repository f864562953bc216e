"""Windows and batches: a pure function of lengths, bounded, with little padding and nobody left out."""

import numpy as np
import pytest

from pipeline.batch import WINDOW_ITEMS, plan, stack, windows
from schemas.audio import AudioSegment, Reject, Utterance

LIMIT = 16_000 * 60


def utterance(key):
    return Utterance(str(key), "toy", "toy")


def segment(key, seconds):
    return AudioSegment(utterance(key), np.full(round(seconds * 16_000), key, np.float32), 16_000)


def lengths(kind, seed=0, seconds=1200):
    """A window's worth of lengths as some corpus has them, in samples."""
    draw = np.random.default_rng(seed)
    one = {
        "emilia": lambda: draw.uniform(3, 30),
        "mls": lambda: draw.uniform(10, 20),
        "common voice": lambda: draw.gamma(6, 0.85),
        "libritts": lambda: min(35, draw.lognormal(1.4, 0.8)),
        "tiny": lambda: draw.uniform(0.02, 0.5),
    }[kind]
    made, total = [], 0.0
    while total < seconds:
        made.append(max(320, int(one() * 16_000)))
        total += made[-1] / 16_000
    return made[:-1]


@pytest.mark.parametrize("kind", ["emilia", "mls", "common voice", "libritts", "tiny"])
def test_every_clip_is_in_one_batch_and_padding_stays_below_five_percent(kind):
    for seed in range(3):
        clips = lengths(kind, seed)
        batches = plan(clips, LIMIT)
        assert sorted(i for batch in batches for i in batch) == list(range(len(clips)))
        padded = [max(clips[i] for i in batch) * len(batch) for batch in batches]
        assert all(size <= LIMIT for size in padded)
        assert sum(padded) - sum(clips) <= 0.05 * sum(padded)
        assert len(batches) < len(clips)  # and they are batches
        assert plan(list(clips), LIMIT) == batches


def test_clips_of_equal_length_fill_a_batch():
    assert [len(batch) for batch in plan([160_000] * 24, LIMIT)] == [6, 6, 6, 6]


def test_a_clip_longer_than_a_batch_goes_alone():
    assert [batch for batch in plan([16_000, 16_000, 2 * LIMIT], LIMIT) if 2 in batch] == [[2]]


def test_nothing_makes_no_batch():
    assert plan([], LIMIT) == [] and list(windows([], 1200.0)) == []


def test_windows_are_consecutive_and_bounded():
    items = [segment(i, 1 + i % 7) for i in range(60)]
    items.insert(5, Reject(utterance("r"), "missing", "gone"))
    made = list(windows(items, 20.0))
    assert [item for window in made for item in window] == items
    seconds = [sum(i.seconds for i in window if isinstance(i, AudioSegment)) for window in made]
    assert max(seconds) <= 20.0 and min(seconds[:-1]) > 13.0


def test_a_clip_longer_than_a_window_has_one_to_itself():
    assert [len(window) for window in windows([segment(0, 1), segment(1, 9), segment(2, 1)], 5.0)] == [1, 1, 1]


def test_windows_of_rejects_end_too():
    rejects = [Reject(utterance(i), "missing", "gone") for i in range(2 * WINDOW_ITEMS + 1)]
    assert [len(window) for window in windows(iter(rejects), 20.0)] == [WINDOW_ITEMS, WINDOW_ITEMS, 1]


def test_a_batch_holds_each_clip_and_zeros_behind_it():
    window = [segment(1, 0.1), Reject(utterance("r"), "missing", "gone"), segment(2, 0.3), segment(3, 0.2)]
    batch = stack(window, [0, 3, 2])
    assert batch.waveforms.shape == (3, 1, 4800) and batch.positions == (0, 3, 2)
    assert batch.num_samples.tolist() == [1600, 3200, 4800]
    for row, (value, length) in enumerate([(1, 1600), (3, 3200), (2, 4800)]):
        assert (batch.waveforms[row, 0, :length] == value).all() and not batch.waveforms[row, 0, length:].any()
