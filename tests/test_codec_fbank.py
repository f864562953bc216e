"""Mel features are those the published weights saw, for each row of a batch as for the clip alone."""

import pytest
import torch

from codec.nn.fbank import fbank, mel_filters


@pytest.mark.oracle
@pytest.mark.parametrize("length", [640, 960, 16320, 96320])
def test_features_equal_those_of_transformers(length):
    transformers = pytest.importorskip("transformers")
    reference = transformers.SeamlessM4TFeatureExtractor(
        feature_size=80, num_mel_bins=80, sampling_rate=16000, padding_value=1, stride=2
    )
    sound = 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(length))
    sound[-320:] = 0  # clips are padded
    wanted = reference(sound.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    torch.testing.assert_close(fbank(sound[None], None, 80, 2), wanted, atol=2e-5, rtol=0)


def test_filters_are_kaldis():
    filters = mel_filters(80, torch.device("cpu"))
    assert filters.shape == (257, 80)
    assert float(filters.sum()) == pytest.approx(250.750822, abs=1e-6)
    assert filters.any(1).nonzero().flatten().tolist() == list(range(1, 256))


def test_two_frames_of_features_are_opposite():
    features = fbank(torch.randn(1, 640) * torch.logspace(-3, 0, 640), None, 80, 2)
    assert features.shape == (1, 1, 160)
    assert features[0, 0].abs().flatten().tolist() == pytest.approx([0.5**0.5] * 160, abs=1e-4)


def test_a_row_does_not_depend_on_its_batch_mates():
    lengths = torch.tensor([16320, 640, 8000, 960])
    sound = torch.randn(4, 16320)
    for row, length in enumerate(lengths.tolist()):
        sound[row, length:] = 0
    together = fbank(sound, lengths, 80, 2)
    for row, length in enumerate(lengths.tolist()):
        alone = fbank(sound[row : row + 1, :length], None, 80, 2)[0]
        torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-6, rtol=0)
        assert not together[row, len(alone) :].any()


def test_silence_is_finite():
    assert torch.isfinite(fbank(torch.zeros(1, 3200), None, 80, 2)).all()
