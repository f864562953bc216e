"""Losses, discriminators and schedules against their published vectors, shapes, counts and check values."""

import math

import numpy as np
import pytest
import torch

from codec.training import losses
from codec.training.discriminators import DiscriminatorConfig, Discriminators
from codec.training.schedules import Schedule


def two_sounds():
    t = np.arange(16_000) / 16_000
    x = 0.5 * np.sin(2 * np.pi * 440 * t)
    y = 0.25 * np.sin(2 * np.pi * 440 * t + 0.3) + 0.1 * np.sin(2 * np.pi * 1000 * t)
    return [torch.tensor(wave, dtype=torch.float32)[None, None] for wave in (x, y)]


@pytest.mark.parametrize(
    ("rate", "parts", "total"),
    [
        (16_000, [0.252085, 0.288329, 0.337771, 0.380205, 0.244356, 0.209350, 0.170988], 1.883084),
        (24_000, [0.193031, 0.266968, 0.338454, 0.349366, 0.257727, 0.205356, 0.176176], 1.787079),
    ],
)
def test_mel_loss_gives_the_reference_vector(rate, parts, total):
    loss = losses.MelLoss(rate)
    x, y = two_sounds()
    assert [float(part) for part in loss.parts(x, y)] == pytest.approx(parts, abs=2e-5)
    assert float(loss(x, y)) == pytest.approx(total, abs=3e-5)
    assert all((mel.filters.sum(0) > 0).all() for mel in loss.spectra), "a mel band without any bin"


def test_mel_loss_stays_in_float32_under_autocast():
    loss = losses.MelLoss(16_000)
    x, y = two_sounds()
    with torch.autocast("cpu", torch.bfloat16):
        assert float(loss(x, y)) == pytest.approx(1.883084, abs=3e-5)
    with pytest.raises(ValueError, match="one shape"):
        loss(x, y[..., :-1])


@pytest.fixture(scope="module")
def judges():
    torch.manual_seed(0)
    return Discriminators(DiscriminatorConfig())


def test_discriminators_have_the_published_sizes(judges):
    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert [count(judge) for judge in judges.periods] == [2_056_946] * 5
    assert [count(judge) for judge in judges.spectra] == [2_262_242] * 8
    assert (count(judges.periods), count(judges.spectra)) == (10_284_730, 18_097_936)


def test_discriminators_have_the_published_shapes(judges):
    with torch.no_grad():
        period = judges.periods[0](torch.randn(1, 1, 96_000))
        spectrum = judges.spectra[0](torch.randn(1, 1, 96_000))
    widths = [(16, 16_000, 2), (64, 5334, 2), (256, 1778, 2), (512, 593, 2), (512, 593, 2)]
    assert [tuple(layer.shape[1:]) for layer in period] == [*widths, (1188,)]
    shapes = [(32, 20, 1231), (64, 10, 616), (128, 5, 308), (256, 3, 154), (512, 3, 154), (1, 3, 154)]
    assert [tuple(layer.shape[1:]) for layer in spectrum] == shapes


def test_feature_matching_counts_every_layer_but_the_verdict():
    judges = Discriminators(DiscriminatorConfig(period_width=2, period_max_width=8, spectrum_width=1))
    with torch.no_grad():
        real, fake = judges(torch.randn(1, 1, 6000), torch.randn(1, 1, 6000))
    assert len(losses.feature_pairs(real[:5], fake[:5])) == 25
    assert len(losses.feature_pairs(real[5:], fake[5:])) == 40
    expected = sum(float((a - b).abs().mean()) for a, b in losses.feature_pairs(real, fake))
    assert float(losses.feature_matching_loss(real, fake)) == pytest.approx(expected, rel=1e-5)


def test_feature_matching_never_pulls_the_real_side():
    real, fake = [[torch.ones(2, requires_grad=True)] * 2], [[torch.zeros(2, requires_grad=True)] * 2]
    losses.feature_matching_loss(real, fake).backward()
    assert real[0][0].grad is None and fake[0][0].grad is not None


def test_adversarial_losses_are_sums_of_least_squares():
    fake = [[torch.zeros(3), torch.tensor([0.0, 2.0])], [torch.tensor([3.0])]]
    real = [[torch.zeros(3), torch.tensor([1.0, 0.0])], [torch.tensor([1.0])]]
    assert float(losses.adversarial_loss(fake)) == 1.0 + 4.0
    on_real, on_fake = losses.discriminator_loss(real, fake)
    assert (float(on_real), float(on_fake)) == (0.5, 2.0 + 9.0)


def test_feature_loss_cuts_to_the_common_frames_and_spares_the_target():
    student = torch.zeros(1, 4, 2, requires_grad=True)
    teacher = torch.full((1, 3, 2), 2.0, requires_grad=True)
    loss = losses.feature_loss(student, teacher)
    loss.backward()
    assert loss.item() == 4.0
    assert teacher.grad is None and student.grad[0, 3].abs().sum() == 0


def test_learning_rate_has_its_check_values():
    schedule = Schedule()
    steps = {0: 1e-5, 1500: 3.25e-5, 3000: 1e-4, 103_000: 8e-5, 203_000: 6e-5, 403_000: 2e-5, 9_000_000: 2e-5}
    assert all(math.isclose(schedule(step), rate, rel_tol=1e-9) for step, rate in steps.items())
