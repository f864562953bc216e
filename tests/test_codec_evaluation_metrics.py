"""Metrics: known values, ranges, and failures that are counted."""

import numpy as np
import pytest

from codec.evaluation import metrics
from codec.evaluation.agreement import Agreement, code_levels
from codec.evaluation.metrics import METRICS, CodeUse, Pair, Scores, count_codes, measure


def speechlike(seconds=3.0, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(int(16_000 * seconds)) / 16_000
    voice = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 20))
    return (0.1 * voice * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t)) + 0.002 * rng.standard_normal(len(t))).astype("f4")


def test_every_metric_puts_a_clip_itself_above_a_noisy_one():
    clean = speechlike()
    noisy = clean + 0.05 * np.random.default_rng(1).standard_normal(len(clean)).astype("f4")
    names = metrics.available()
    best, worse = measure(Pair.of(clean, clean), names), measure(Pair.of(clean, noisy), names)
    assert not best.failures and not worse.failures
    for name in names:
        lower_is_better = name == "mel_mse"
        assert (best.values[name] < worse.values[name]) == lower_is_better
    assert best.values["mel_mse"] == 0


def test_si_sdr_is_blind_to_gain_and_offset_and_has_the_right_scale():
    rng = np.random.default_rng(0)
    clean = rng.standard_normal(16_000).astype("f4")
    noise = rng.standard_normal(16_000).astype("f4")
    noise -= noise.mean() + clean * ((noise - noise.mean()) @ (clean - clean.mean())) / (clean @ clean)
    output = clean + 0.1 * noise
    value = METRICS["si_sdr"](Pair.of(clean, output))
    assert value == pytest.approx(20, abs=0.2)
    assert METRICS["si_sdr"](Pair.of(clean, 0.3 * output + 0.5)) == pytest.approx(value, abs=1e-3)


def test_what_cannot_be_measured_is_counted_with_its_reason():
    silent = np.zeros(16_000, "f4")
    tiny = speechlike(0.1)
    broken = speechlike()
    broken[5] = np.nan
    names = metrics.available()
    scores = [
        measure(Pair.of(silent, silent), names),
        measure(Pair.of(tiny, tiny), names),
        measure(Pair.of(speechlike(), broken), names),
        measure(Pair.of(speechlike(), speechlike()), names),
    ]
    for name in names:
        total = metrics.mean(scores, name)
        assert total.count + sum(total.failed.values()) == 4
        assert total.failed["output is not finite"] == 1
    assert "silent reference" in scores[0].failures["si_sdr"]
    assert "silent" in measure(Pair.of(speechlike(), silent), ["si_sdr"]).failures["si_sdr"]
    hop = speechlike()[:320]
    assert measure(Pair.of(hop, hop), names).failures.keys() == set(names) - {"si_sdr"}


def test_a_pair_is_cut_to_the_common_length():
    pair = Pair.of(np.ones(10), np.ones(7))
    assert len(pair.reference) == len(pair.output) == 7
    with pytest.raises(ValueError, match="nothing to compare"):
        Pair.of(np.ones(10), np.ones(0))


def test_unknown_metrics_are_refused_before_any_work():
    with pytest.raises(ValueError, match="unknown metric 'wer'"):
        metrics.require(["si_sdr", "wer"])


def test_a_mean_without_values_is_none():
    assert metrics.mean([Scores({}, {"stoi": "short"})], "stoi").mean is None


def test_code_use_knows_uniform_and_constant():
    uniform = CodeUse.of(count_codes(np.arange(256).repeat(3), 256))
    assert (uniform.distinct, uniform.share, uniform.num_codes) == (256, 1.0, 768)
    assert uniform.entropy == pytest.approx(8)
    constant = CodeUse.of(count_codes(np.full(100, 7), 256))
    assert (constant.distinct, constant.entropy) == (1, 0)
    assert CodeUse.of(np.zeros(256, int)).entropy == 0


def test_codes_spell_levels_least_significant_first():
    assert code_levels(np.array(50569), (4,) * 8).tolist() == [1, 2, 0, 2, 1, 1, 0, 3]
    assert code_levels(np.array(39138), (4,) * 8).tolist() == [2, 0, 2, 3, 0, 2, 1, 2]


def test_agreement_of_equal_and_of_random_codes():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 65_536, 20_000)
    vectors = rng.standard_normal((65_536, 16)).astype("f4")
    same = Agreement((4,) * 8, vectors)
    same.add(codes, np.append(codes, 5), 20_000)  # the student's one frame more is cut off
    report = same.report()
    assert report["code_match"] == report["level_accuracy"] == report["within_one_level"] == 1
    assert report["projection_similarity"] == pytest.approx(1)
    chance = Agreement((4,) * 8)
    chance.add(codes, rng.integers(0, 65_536, 20_000), 20_000)
    report = chance.report()
    assert report["level_accuracy"] == pytest.approx(0.25, abs=0.01)
    assert report["within_one_level"] == pytest.approx(0.625, abs=0.01)
    confusion = np.array(report["confusion"])
    assert confusion.shape == (8, 4, 4) and confusion.sum() == 160_000
    assert report["projection_similarity"] is None
    with pytest.raises(ValueError, match="to compare"):
        chance.add(codes[:3], codes[:2], 3)


def test_confusion_rows_are_the_teachers():
    agreement = Agreement((4, 4))
    agreement.add(np.array([0, 3]), np.array([1, 3]), 2)  # level of dimension 0: teacher 0, 3; student 1, 3
    assert agreement.confusion[0, 0, 1] == 1 and agreement.confusion[0, 1, 0] == 0
    assert agreement.report()["level_accuracy"] == 0.75
