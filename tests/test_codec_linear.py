"""The kernel of linear layers, with what follows them, gives what they give one after the other."""

import pytest
import torch
from torch.nn.functional import linear, silu

from codec.nn.linear import Linear, takes
from codec.nn.native import library

needs_compiler = pytest.mark.skipif(library() is None, reason="no C++ compiler here")


def example(rows: int, inputs: int = 1040, outputs: int = 192, bias: bool = True) -> tuple[Linear, torch.Tensor]:
    """A layer and its input [rows, inputs]; the default is more inputs than the kernel takes at once."""
    generator = torch.Generator().manual_seed(rows)
    layer = Linear(inputs, outputs, bias)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=inputs**-0.5, generator=generator)
    return layer, torch.randn(rows, inputs, generator=generator)


def exact(layer: Linear, x: torch.Tensor) -> torch.Tensor:
    return linear(x.double(), layer.weight.double(), None if layer.bias is None else layer.bias.double()).detach()


@needs_compiler
@pytest.mark.parametrize("inputs", (16, 1024, 1040, 2064))
@pytest.mark.parametrize("rows", (1, 5, 6, 7, 300))
def test_panels_equal_plain_sums(rows, inputs):
    for bias in (True, False):
        layer, x = example(rows, inputs, bias=bias)
        with torch.inference_mode():
            assert takes(x, layer)
            torch.testing.assert_close(layer(x).double(), exact(layer, x), atol=1e-5, rtol=1e-5)


@needs_compiler
def test_what_follows_equals_what_follows_one_after_the_other():
    layer, x = example(50)
    added = torch.randn(50, 192, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = 40 * exact(layer, x)  # where the exponential of a silu would overflow, too
        layer.load_state_dict({name: 40 * value for name, value in layer.state_dict().items()})
        torch.testing.assert_close(layer(x, silu=True).double(), silu(wanted), atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(layer(x, added=added).double(), wanted + added, atol=1e-4, rtol=1e-5)
        both = layer(x, silu=True, added=added, scale=0.5)
        torch.testing.assert_close(both.double(), added + 0.5 * silu(wanted), atol=1e-4, rtol=1e-5)


@needs_compiler
def test_a_row_has_the_same_bits_alone_in_a_batch_and_on_any_number_of_threads():
    layer, x = example(200)
    before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            torch.set_num_threads(1)
            together = layer(x, silu=True)
            for row in (0, 6, 198, 199):
                assert torch.equal(layer(x[row : row + 1], silu=True), together[row : row + 1])
            assert torch.equal(layer(x.view(4, 50, -1), silu=True).flatten(0, 1), together)
            torch.set_num_threads(7)  # more than panels: these deal out rows as well
            assert torch.equal(layer(x, silu=True), together)
    finally:
        torch.set_num_threads(before)


def test_what_the_kernel_does_not_know_goes_the_plain_way():
    layer, x = example(20)
    assert not takes(x, layer), "something is learned"
    with torch.inference_mode():
        assert not takes(x[:0], layer) and layer(x[:0]).shape == (0, 192)
        odd, _ = example(20, outputs=100)
        assert not takes(x, odd)
        torch.testing.assert_close(odd(x).double(), exact(odd, x), atol=1e-5, rtol=1e-5)
        half = layer.to(torch.bfloat16)
        assert not takes(x, half) and half(x).dtype == torch.bfloat16


def test_an_input_of_another_width_is_refused():
    layer, x = example(20)
    with torch.inference_mode(), pytest.raises(RuntimeError):
        layer(x.view(40, 520))


def test_learning_goes_through_all_that_follows():
    layer, x = example(20)
    added = torch.zeros(20, 192, requires_grad=True)
    layer(x.requires_grad_(), silu=True, added=added, scale=0.5).sum().backward()
    assert all(part.grad.abs().sum() > 0 for part in (*layer.parameters(), added, x))
