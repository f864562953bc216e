"""An activation and the convolution after it give in one pass what they give one after the other."""

import pytest
import torch

from codec.nn.activations import SnakeBeta, plain_snake_beta
from codec.nn.native import library, takes
from codec.nn.snake_conv import SnakeConv1d

needs_compiler = pytest.mark.skipif(library() is None, reason="no C++ compiler here")
SHAPES = {
    "same": (48, 48, 1, 1, 0),
    "halved": (48, 96, 4, 2, 1),
    "fifth": (96, 192, 10, 5, 3),
    "three": (48, 96, 3, 1, 1),
}


def example(shape: str, length: int, batch: int = 2) -> tuple[SnakeBeta, SnakeConv1d, torch.Tensor]:
    """An activation, a convolution, and what goes in [B, C, T], time-major."""
    channels, out, width, stride, padding = SHAPES[shape]
    generator = torch.Generator().manual_seed(length)
    act, conv = SnakeBeta(channels), SnakeConv1d(channels, out, width, stride=stride, padding=padding)
    for parameter in (*act.parameters(), *conv.parameters()):
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return act, conv, torch.randn(batch, length, channels, generator=generator).transpose(1, 2)


def one_after_the_other(act, conv, x, num_valid=None) -> torch.Tensor:
    bent = plain_snake_beta(x, act.alpha, act.beta, num_valid).double()
    weight, bias = conv.weight.double(), conv.bias.double()
    return torch.nn.functional.conv1d(bent, weight, bias, conv.stride, conv.padding).float()


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("length", (10, 63, 64, 65, 320, 1000))
def test_one_pass_equals_two(shape, length):
    act, conv, x = example(shape, length)
    with torch.inference_mode():
        assert takes(x, conv)
        wanted = one_after_the_other(act, conv, x)
        torch.testing.assert_close(conv.after(act, x, None), wanted, atol=1e-4, rtol=1e-4)
        added = torch.randn(wanted.shape)
        torch.testing.assert_close(conv.after(act, x, None, added), wanted + added, atol=1e-4, rtol=1e-4)


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES)
def test_each_row_ends_at_its_own_end(shape):
    act, conv, x = example(shape, 1000, batch=4)
    num_valid = torch.tensor([1000, 640, 130, 5])
    with torch.inference_mode():
        wanted = one_after_the_other(act, conv, x, num_valid)
        torch.testing.assert_close(conv.after(act, x, num_valid), wanted, atol=1e-4, rtol=1e-4)


@needs_compiler
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_has_the_same_bits_alone_in_a_batch_and_on_any_number_of_threads(shape):
    act, conv, x = example(shape, 3000, batch=3)
    before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            torch.set_num_threads(1)
            together = conv.after(act, x, None)
            for row in range(3):
                assert torch.equal(conv.after(act, x[row : row + 1], None), together[row : row + 1])
            torch.set_num_threads(3)
            assert torch.equal(conv.after(act, x, None), together)
    finally:
        torch.set_num_threads(before)


def test_learning_goes_through_both():
    act, conv, x = example("same", 50)
    conv.after(act, x.requires_grad_(), None, added=x).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in (*act.parameters(), *conv.parameters(), x))
