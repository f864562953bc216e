"""A run may stop anywhere and go on with any number of ranks and workers: the batches are those of one that did not."""

import numpy as np
import pytest

from pipeline.dataset import TokenDataset
from tests.elastic import trial
from tests.token_toys import write_set


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_disturbed_run_equals_an_undisturbed_one(seed, tmp_path):
    trial(seed, tmp_path)


def test_mixed_sets_keep_their_shares_at_every_prefix_and_end_their_epochs_before_they_repeat(tmp_path):
    sizes = {"a": [90, 31], "b": [40], "c": [7]}
    inputs = {
        name: write_set(tmp_path / name, size, first=1000 * i, corpus=name)
        for i, (name, size) in enumerate(sizes.items())
    }
    weights = {"a": 0.55, "b": 0.35, "c": 0.1}
    ranks = [
        TokenDataset(inputs, 12, steps=50, weights=weights, columns=("__key__",), rank=rank, world=3)
        for rank in range(3)
    ]
    keys = [key for items in zip(*ranks, strict=True) for item in items for key in item["__key__"]]
    assert len(keys) == 600
    for name, weight in weights.items():
        mine = [key for key in keys if key.startswith(name)]
        counts = np.cumsum([key.startswith(name) for key in keys])
        assert np.abs(counts - weight * np.arange(1, 601)).max() < 1
        rows = sum(sizes[name])
        for first in range(0, len(mine) - rows, rows):
            assert len(set(mine[first : first + rows])) == rows
