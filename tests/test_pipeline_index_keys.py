"""Keys made unique: which clips get digits, and in no more time than sorting all of them once."""

import time

import numpy as np
import pyarrow as pa

from pipeline.indexing import keys, uniqueness


def test_resolving_many_keys_does_not_sort_all_clips_for_each():
    hashes = np.random.default_rng(0).integers(0, 2**63, 1_000_000, dtype=np.uint64)
    hashes.sort()
    begun = time.process_time()
    for number in range(100):
        uniqueness.distinct_keys(f"k{number}", ["a.tar::k.wav", "b.tar::k.wav"], hashes)
    assert time.process_time() - begun < 5  # sorting them a hundred times takes far longer


def test_a_longer_key_that_somebody_has_already_is_made_longer_still():
    sources = ["a.tar::k.wav", "b.tar::k.wav"]
    own = keys.with_source("k", sources[0])  # another clip is called so by its corpus
    taken = np.sort(keys.hash_keys(pa.array(["a", own, "k", "z"])))
    assert uniqueness.distinct_keys("k", sources, taken) == {s: keys.with_source("k", s, 16) for s in sources}
    others = np.sort(keys.hash_keys(pa.array(["a", "k", "z"])))
    assert uniqueness.distinct_keys("k", sources, others) == {s: keys.with_source("k", s) for s in sources}


def test_hashes_are_found_among_sorted_ones():
    ordered = np.array([2, 5, 5, 9], np.uint64)
    assert keys.repeated(ordered).tolist() == [5] and keys.repeated(ordered[:0]).tolist() == []
    asked = np.array([1, 2, 5, 9, 10], np.uint64)
    assert keys.among(asked, ordered).tolist() == [False, True, True, True, False]
    assert keys.among(ordered, ordered[:0]).tolist() == [False] * 4
