"""Layers of bfloat16 by tile registers give what their plain forms give, and a row the same bits in any company."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, linear, silu

from codec.config import BigCodecConfig, W2VBertConfig
from codec.neucodec import NeuCodec
from codec.nn import tiles
from codec.nn.activations import SnakeBeta, plain_snake_beta
from codec.nn.linear import Linear
from codec.nn.native import Packed
from codec.nn.relative_attention import HEAD, relative_attention, takes
from codec.nn.residual_unit import ResidualUnit
from codec.nn.snake_conv import SnakeConv1d
from codec.nn.w2v_bert import Attention
from codec.nn.wide_conv import WideConv1d
from codec.precision import convert
from codec.seeded import seed
from tests.codec_toys import SMALL_NEUCODEC

needs_tiles = pytest.mark.skipif(not tiles.ready(), reason="no tile registers (AMX) here, or no C++ compiler")
HALF = torch.bfloat16
ROUNDED = {"atol": 1e-2, "rtol": 2**-8}  # where a result is rounded to bfloat16


def drawn(module: torch.nn.Module, seed: int, std: float = 0.2) -> torch.nn.Module:
    """A module of bfloat16 weights, but for what is no weight of a product."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=std, generator=generator)
    for part in module.modules():
        if isinstance(part, (torch.nn.Linear, torch.nn.Conv1d)):
            part.to(HALF)
    return module


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def on_threads(count: int, call: Callable[[], Tensor]) -> Tensor:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return call()
    finally:
        torch.set_num_threads(before)


def sums_of(layer: Linear, x: Tensor) -> Tensor:
    """Of what the layer multiplies, without an error of summing."""
    return linear(x.to(HALF).double(), layer.weight.double(), None if layer.bias is None else layer.bias.double())


@needs_tiles
@pytest.mark.parametrize("inputs", (32, 256, 1024, 1056, 2080))
@pytest.mark.parametrize("rows", (1, 15, 16, 17, 33, 600))
def test_linear_sums_equal_plain_sums(rows, inputs):
    for bias in (True, False):
        layer, x = drawn(Linear(inputs, 96, bias), rows, inputs**-0.5), noise(rows, inputs)
        with torch.inference_mode():
            assert tiles.takes_linear(x, layer)
            wanted = sums_of(layer, x)
            for given in (x, x.to(HALF)):
                y, more = layer(given), layer(given, added=torch.zeros_like(wanted).float())
                assert y.dtype == HALF and more.dtype == torch.float32
                torch.testing.assert_close(y.double(), wanted, **ROUNDED)
                torch.testing.assert_close(more.double(), wanted, atol=1e-5, rtol=1e-5)


@needs_tiles
@pytest.mark.parametrize("inputs", (64, 2080))
def test_what_follows_a_linear_layer_equals_what_follows_one_after_the_other(inputs):
    layer, x = drawn(Linear(inputs, 192), 1, 40 * inputs**-0.5), noise(50, inputs)
    added = noise(50, 192)
    with torch.inference_mode():
        wanted = sums_of(layer, x)  # where the exponential of a silu would overflow, too
        torch.testing.assert_close(layer(x, silu=True).double(), silu(wanted), **ROUNDED)
        both = layer(x, silu=True, added=added, scale=0.5)
        torch.testing.assert_close(both.double(), added + 0.5 * silu(wanted), atol=1e-4, rtol=1e-5)


@needs_tiles
@pytest.mark.parametrize("inputs", (1024, 2080))
def test_a_row_of_a_linear_layer_has_the_same_bits_alone_in_a_batch_and_on_any_number_of_threads(inputs):
    layer, x = drawn(Linear(inputs, 96), 2), noise(700, inputs)
    added = torch.zeros(700, 96)
    with torch.inference_mode():
        for follow in ({}, {"added": added}):
            together = on_threads(1, lambda follow=follow: layer(x, silu=True, **follow))
            for row in (0, 30, 31, 32, 699):
                alone = layer(x[row : row + 1], silu=True, **{name: part[:1] for name, part in follow.items()})
                assert torch.equal(alone, together[row : row + 1])
            # more threads than panels: these deal out rows as well
            assert torch.equal(on_threads(7, lambda follow=follow: layer(x, silu=True, **follow)), together)


@needs_tiles
def test_new_weights_are_laid_out_anew():
    layer, x = drawn(Linear(64, 64), 3), noise(5, 64)
    with torch.inference_mode():
        before = layer(x)
    layer.load_state_dict({name: 2 * value for name, value in layer.state_dict().items()})
    with torch.inference_mode():
        torch.testing.assert_close(layer(x).float(), 2 * before.float(), **ROUNDED)


@needs_tiles
def test_what_tiles_do_not_take_goes_the_plain_way():
    layer, x = drawn(Linear(64, 64), 4), noise(5, 64)
    assert not tiles.takes_linear(x, layer), "something is learned"
    with torch.inference_mode():
        assert not tiles.takes_linear(x[:0], layer) and layer(x[:0]).shape == (0, 64)
        assert not tiles.takes_linear(x, Linear(64, 64)), "float32"
        odd = drawn(Linear(64, 50), 5)
        assert not tiles.takes_linear(x, odd)
        torch.testing.assert_close(odd(x).double(), sums_of(odd, x), **ROUNDED)


SHAPES = {
    "same": (48, 48, 1, 1, 0),
    "halved": (48, 96, 4, 2, 1),
    "fifth": (96, 192, 10, 5, 3),
    "three": (1536, 1040, 3, 1, 1),
}
LENGTHS = (10, 31, 32, 33, 320, 3000)


def convolved(act: torch.nn.Module, conv: torch.nn.Conv1d, x: Tensor, num_valid: Tensor | None) -> Tensor:
    """A convolution of an activation rounded to bfloat16, without an error of summing; itself rounded."""
    bent = plain_snake_beta(x.float(), act.alpha, act.beta, num_valid).to(HALF).double()
    weight, bias = conv.weight.double(), conv.bias.double()
    return conv1d(bent, weight, bias, conv.stride, conv.padding, conv.dilation).to(HALF)


def example(shape: str, length: int, batch: int = 2) -> tuple[torch.nn.Module, SnakeConv1d, Tensor]:
    """An activation, a convolution, and what goes in [B, C, T], time-major."""
    channels, out, width, stride, padding = SHAPES[shape]
    conv = SnakeConv1d(channels, out, width, stride=stride, padding=padding)
    act, conv = drawn(SnakeBeta(channels), length), drawn(conv, length, (channels * width) ** -0.5)
    return act, conv, noise(batch, length, channels).transpose(1, 2).to(HALF)


def assert_close_rounded(y: Tensor, wanted: Tensor) -> None:
    """Some activations round to the other neighbour, so sums of many of them differ a little."""
    torch.testing.assert_close(y.float(), wanted.float(), atol=0.03, rtol=2**-6)
    assert (y.float() - wanted.float()).abs().mean() < 2e-3


@needs_tiles
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("length", LENGTHS)
def test_an_activation_and_a_convolution_equal_one_after_the_other(shape, length):
    act, conv, x = example(shape, length)
    with torch.inference_mode():
        assert tiles.takes_conv(x, conv)
        wanted = convolved(act, conv, x, None)
        assert_close_rounded(conv.after(act, x, None), wanted)
        added = noise(*wanted.shape).to(HALF)
        assert_close_rounded(conv.after(act, x, None, added), wanted + added)


@needs_tiles
@pytest.mark.parametrize("shape", SHAPES)
def test_each_row_ends_at_its_own_end(shape):
    act, conv, x = example(shape, 1000, batch=4)
    num_valid = torch.tensor([1000, 640, 130, 5])
    with torch.inference_mode():
        assert_close_rounded(conv.after(act, x, num_valid), convolved(act, conv, x, num_valid))


def unit_of(channels: int, dilation: int) -> ResidualUnit:
    unit = drawn(ResidualUnit(channels, dilation), channels, channels**-0.5)
    torch.nn.init.normal_(unit.conv1.weight, std=(7 * channels) ** -0.5)
    return unit


@needs_tiles
@pytest.mark.parametrize(("channels", "dilation"), ((48, 1), (48, 9), (96, 3), (400, 9)))
@pytest.mark.parametrize("length", LENGTHS)
def test_a_residual_unit_equals_its_parts_one_after_the_other(channels, dilation, length):
    unit, x = unit_of(channels, dilation), noise(3, length, channels).transpose(1, 2).to(HALF)
    num_valid = torch.tensor([length, (length + 1) // 2, 1])
    with torch.inference_mode():
        for valid in (None, num_valid):
            y = convolved(unit.act1, unit.conv1, x, valid)
            assert_close_rounded(unit(x, valid), convolved(unit.act2, unit.conv2, y, valid) + x)


@needs_tiles
def test_a_row_of_a_residual_unit_has_the_same_bits_alone_in_a_batch_and_on_any_number_of_threads():
    unit, x = unit_of(96, 9), noise(2, 5000, 96).transpose(1, 2).to(HALF)
    num_valid = torch.tensor([5000, 1777])
    with torch.inference_mode():
        together = on_threads(1, lambda: unit(x, num_valid))
        assert torch.equal(on_threads(5, lambda: unit(x, num_valid)), together)
        assert torch.equal(unit(x[:1], None), together[:1])
        assert torch.equal(unit(x[1:, :, :1777], None), together[1:, :, :1777])


@needs_tiles
@pytest.mark.parametrize("length", (1, 31, 32, 33, 90, 300))
def test_attention_equals_scores_of_all_pairs(length):
    heads, left, right = 3, 20, 8
    config = W2VBertConfig(width=heads * HEAD, heads=heads, left=left, right=right)
    generator = torch.Generator().manual_seed(length)
    rows = [torch.randn(2, length, heads * HEAD, generator=generator).to(HALF) for _ in range(3)]
    distance = drawn(Attention(config), 1, 1.0).distance.weight
    num_valid = torch.tensor([length, (length + 1) // 2])
    with torch.inference_mode():
        assert takes(rows[0], heads)
        for valid in (None, num_valid):
            y = relative_attention(*rows, distance, right, valid)
            wanted = all_pairs(*rows, distance.to(HALF), left, right, num_valid if valid is not None else None)
            torch.testing.assert_close(y.float(), wanted, atol=0.02, rtol=2**-7)
        alone = relative_attention(*(part[1:, : num_valid[1]] for part in rows), distance, right, None)
        assert torch.equal(y[1:, : num_valid[1]], alone)
        assert torch.equal(on_threads(4, lambda: relative_attention(*rows, distance, right, num_valid)), y)


def all_pairs(query, key, value, distance, left, right, num_valid) -> Tensor:
    query, key, value = (part.double().unflatten(2, (-1, HEAD)).transpose(1, 2) for part in (query, key, value))
    time = torch.arange(query.shape[2])
    apart = (time - time[:, None]).clamp(-left, right) + left
    scores = query @ key.transpose(2, 3) + torch.einsum("bhic,ijc->bhij", query, distance.double()[apart])
    if num_valid is not None:
        scores = scores.masked_fill(time >= num_valid[:, None, None, None], float("-inf"))
    return ((scores / 8).softmax(3) @ value).transpose(1, 2).flatten(2).float()


@needs_tiles
def test_codes_of_a_batch_are_those_of_each_clip_alone_and_features_near_those_without_tiles(monkeypatch):
    acoustic, semantic = BigCodecConfig(width=16, out_width=64), W2VBertConfig(HEAD, 2, heads=1, ffn_width=128)
    config = replace(SMALL_NEUCODEC, acoustic=acoustic, semantic=semantic, adapter_width=64)
    model = convert(seed(NeuCodec(config)).eval(), "bfloat16")
    assert taken(model) > 40, "layers as wide as the kernels take them"
    waveforms, num_samples = 0.1 * noise(3, 1, 16_000), torch.tensor([16_000, 9_000, 350])
    together = model.encode(waveforms, num_samples)
    for row, samples in enumerate(num_samples.tolist()):
        alone = model.encode(waveforms[row : row + 1, :, :samples], num_samples[row : row + 1])[0, 0]
        assert torch.equal(together[row, 0, : len(alone)], alone)
    with torch.inference_mode():
        by_tiles = model.features(waveforms)
        monkeypatch.setattr(tiles, "ready", lambda: False)
        plain = model.features(waveforms)
    assert torch.cosine_similarity(by_tiles.float(), plain.float(), dim=2).min() > 0.99


def taken(model: NeuCodec) -> int:
    """How many of a model's layers the kernels take."""
    with torch.inference_mode():
        layers = [part for part in model.modules() if isinstance(part, Linear)]
        convs = [part for part in model.modules() if isinstance(part, (SnakeConv1d, WideConv1d))]
        taken = [tiles.takes_linear(torch.ones(1, layer.in_features), layer) for layer in layers]
        taken += [tiles.takes_conv(torch.ones(1, 2, conv.in_channels).transpose(1, 2), conv) for conv in convs]
        return sum(taken)


def test_a_process_without_tiles_says_so():
    script = (
        "from codec.nn import native, tiles\n"
        "native.library = lambda: None\n"
        "assert not tiles.ready()\n"
        "import torch\n"
        "from codec.nn.linear import Linear\n"
        "with torch.inference_mode():\n"
        "    print(Linear(64, 64).to(torch.bfloat16)(torch.ones(1, 64)).dtype)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout.strip() == "torch.bfloat16", run.stderr


def test_weights_lie_in_panels_of_tiles_of_pairs():
    weight = torch.arange(64 * 96.0).remainder(251).view(64, 96).to(HALF)  # [depth, out], each exact in bfloat16
    panels = tiles.laid_out(weight)
    assert panels.shape == (3, 2, 2, 16, 16, 2)
    for depth, out in ((0, 0), (1, 0), (33, 5), (62, 95), (31, 48)):
        place = (out // 32, depth // 32, out % 32 // 16, depth % 32 // 2, out % 16, depth % 2)
        assert panels[place] == weight[depth, out]
    assert Packed(tiles.laid_out_conv)(torch.ones(48, 16, 3)).shape == (2, 3, 2, 16, 16, 2)
