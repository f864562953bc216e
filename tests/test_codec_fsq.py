"""The quantizer rounds where the published one rounds, and spells codes as it does."""

import math

import pytest
import torch

from codec.fsq import FSQ

BOUNDARIES = (-0.80943018, -0.24340693, 0.40788173)  # in the latent, between levels 0/1, 1/2 and 2/3


@pytest.fixture(scope="module")
def fsq():
    torch.manual_seed(0)
    return FSQ(32, (4,) * 8)


def levels_of(fsq, latent):
    return fsq.to_levels(fsq._spell(fsq.bound(latent)))


@pytest.mark.parametrize("lower", range(3))
def test_levels_change_at_the_published_boundaries(fsq, lower):
    boundary = BOUNDARIES[lower]
    below, above = (torch.full((1, 8), boundary + side) for side in (-1e-6, 1e-6))
    assert levels_of(fsq, below).tolist() == [[lower] * 8]
    assert levels_of(fsq, above).tolist() == [[lower + 1] * 8]


def test_bounded_twice_reaches_every_level_and_no_further(fsq):
    ends = fsq.bound(torch.tensor([[-50.0] * 8, [50.0] * 8]))
    assert ends[:, 0].tolist() == pytest.approx([-1.8958, 0.8116], abs=1e-4)
    assert levels_of(fsq, torch.tensor([[-50.0] * 8, [50.0] * 8])).tolist() == [[0] * 8, [3] * 8]


@pytest.mark.parametrize(
    ("code", "levels"),
    [
        (50569, (1, 2, 0, 2, 1, 1, 0, 3)),
        (39138, (2, 0, 2, 3, 0, 2, 1, 2)),
        (43690, (2,) * 8),
        (65535, (3,) * 8),
        (0, (0,) * 8),
    ],
)
def test_codes_are_levels_in_base_four_least_first(fsq, code, levels):
    assert tuple(fsq.to_levels(torch.tensor([[code]]))[0, 0].tolist()) == levels
    assert int(fsq.to_codes(torch.tensor(levels))) == code


def test_every_code_survives_the_way_there_and_back(fsq):
    codes = torch.arange(4**8)[None]
    assert torch.equal(fsq.to_codes(fsq.to_levels(codes)), codes.to(torch.int32))


def test_the_middle_code_is_the_zero_vector(fsq):
    assert torch.equal(fsq.decode(torch.tensor([[43690]]))[0, 0], fsq.project_out.bias)


def test_forward_gives_what_encode_and_decode_give(fsq):
    features = torch.randn(2, 50, 32) * 3
    quantized, codes = fsq(features)
    assert codes.dtype == torch.int32
    assert torch.equal(codes, fsq.encode(features))
    torch.testing.assert_close(quantized, fsq.decode(codes), atol=1e-6, rtol=0)


def test_gradients_pass_the_rounding_and_both_bounds(fsq):
    latent = torch.zeros(1, 8, requires_grad=True)
    bounded = fsq.bound(latent)
    (bounded + (bounded.round() - bounded).detach()).div(2).sum().backward()
    assert latent.grad[0].tolist() == pytest.approx([0.8911] * 8, abs=1e-4)


def test_features_in_bfloat16_are_quantized_in_float32(fsq):
    features = torch.randn(1, 9, 32)
    assert fsq.latent(features.bfloat16()).dtype == torch.float32
    assert fsq(features.bfloat16())[0].dtype == torch.float32


@pytest.mark.parametrize("levels", [(5, 3), (8, 5, 5), (3, 7)])
def test_other_levels_are_all_reached(levels):
    fsq = FSQ(4, levels)
    sweep = torch.linspace(-20, 20, 4001)[:, None].expand(-1, len(levels))
    seen = levels_of(fsq, sweep)
    assert [sorted(set(column.tolist())) for column in seen.T] == [list(range(n)) for n in levels]
    codes = torch.arange(math.prod(levels))
    assert torch.equal(fsq.to_codes(fsq.to_levels(codes)), codes.to(torch.int32))


def test_two_levels_are_refused():
    with pytest.raises(ValueError, match="3 levels or more"):
        FSQ(4, (4, 2))
