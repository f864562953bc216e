"""Convolutions of width 7 by blocks give what plain sums give, whatever the length, the batch and the threads."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from codec.nn.layers import Conv1d
from codec.nn.native import CHANNELS, library, takes
from codec.nn.wide_conv import OUT, WideConv1d, matrices

needs_compiler = pytest.mark.skipif(library() is None, reason="no C++ compiler here")


def example(channels: int, dilation: int, length: int, batch: int = 2) -> tuple[WideConv1d, torch.Tensor]:
    """A layer and its input [B, C, T], time-major."""
    generator = torch.Generator().manual_seed(length)
    layer = WideConv1d(channels, dilation)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return layer, torch.randn(batch, length, channels, generator=generator).transpose(1, 2)


def exact(layer: WideConv1d, x: torch.Tensor) -> torch.Tensor:
    weight, bias = layer.weight.double(), layer.bias.double()
    return torch.nn.functional.conv1d(x.double(), weight, bias, padding=layer.padding, dilation=layer.dilation)


def relative_error(y: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((y - wanted).norm() / wanted.norm())


def test_the_numbers_of_a_block_give_its_filtered_samples():
    before, weights, after = matrices()
    random = np.random.default_rng(0)
    samples, taps = random.normal(size=18), random.normal(size=7)
    filtered = after @ ((before @ samples) * (weights @ taps))
    np.testing.assert_allclose(filtered, np.correlate(samples, taps, "valid"), atol=1e-13)


@needs_compiler
@pytest.mark.parametrize("dilation", (1, 3, 9))
@pytest.mark.parametrize("length", (1, 2, OUT - 1, OUT, OUT + 1, 9 * OUT, 1000))
def test_blocks_equal_plain_sums(length, dilation):
    layer, x = example(96, dilation, length)
    with torch.inference_mode():
        assert takes(x, layer)
        wanted = exact(layer, x)
        torch.testing.assert_close(layer(x).double(), wanted, atol=1e-5, rtol=1e-5)


@needs_compiler
@pytest.mark.parametrize("channels", (48, 384))
def test_rounding_stays_near_that_of_plain_sums(channels):
    layer, x = example(channels, 3, 2000, batch=1)
    with torch.inference_mode():
        wanted = exact(layer, x)
        plain, blocks = (relative_error(y, wanted) for y in (Conv1d.forward(layer, x), layer(x)))
    assert 0 < blocks < 2.5 * plain, (blocks, plain)


@needs_compiler
def test_a_row_has_the_same_bits_alone_in_a_batch_and_on_any_number_of_threads():
    layer, x = example(48, 9, 5000, batch=3)
    before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            torch.set_num_threads(1)
            together = layer(x)
            for row in range(3):
                assert torch.equal(layer(x[row : row + 1]), together[row : row + 1])
            torch.set_num_threads(3)
            assert torch.equal(layer(x), together)
    finally:
        torch.set_num_threads(before)


@needs_compiler
def test_new_weights_are_seen_however_they_came():
    layer, x = example(48, 1, 100)
    other, _ = example(48, 1, 101)
    with torch.inference_mode():
        first = layer(x)
    layer.load_state_dict(other.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), Conv1d.forward(other, x), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(layer(x), first)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-4)
    layer(x).square().sum().backward()
    optimizer.step()
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), Conv1d.forward(layer, x), atol=1e-5, rtol=1e-5)
    layer.weight = torch.nn.Parameter(other.weight.detach().clone())
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), Conv1d.forward(layer, x), atol=1e-5, rtol=1e-5)


def test_what_the_kernel_does_not_know_goes_the_plain_way():
    layer, x = example(48, 1, 50)
    assert not takes(x, layer), "something is learned"
    with torch.inference_mode():
        assert not takes(x.contiguous(), layer), "channel-major"
        odd, wide = example(CHANNELS + 16, 1, 50)
        assert not takes(wide, odd)
        torch.testing.assert_close(odd(wide).double(), exact(odd, wide), atol=1e-5, rtol=1e-5)
        half = layer.to(torch.bfloat16)
        assert not takes(x, half) and half(x).dtype == torch.bfloat16
        silent, x = example(48, 1, 50)  # what is made in here has no count of its changes
        assert not takes(x, silent)


def test_without_a_compiler_plain_sums_run():
    script = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from tests.test_codec_wide_conv import *\n"
        "layer, x = example(96, 3, 700)\n"
        "with torch.inference_mode():\n"
        "    assert not takes(x, layer)\n"
        "    torch.testing.assert_close(layer(x).double(), exact(layer, x), atol=1e-5, rtol=1e-5)\n"
        "print('equal')"
    )
    environment = {**os.environ, "NEUTOK_NO_COMPILER": "1"}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert run.stdout.strip() == "equal", run.stderr


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are an x86's registers")
@pytest.mark.parametrize("narrower", ("-mno-avx512f", "-mno-avx"))
def test_processors_of_narrower_registers_get_the_same_sums(narrower, tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text(f'#!/bin/sh\nexec c++ "$@" {narrower}\n')
    compiler.chmod(0o755)
    environment = {**os.environ, "CXX": str(compiler), "XDG_CACHE_HOME": str(tmp_path)}
    files = (__file__, __file__.replace("wide_conv", "snake_conv"))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rs",
        "-p",
        "no:cacheprovider",
        *files,
        "-k",
        "equal or bits or own_end",
    ]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0 and "SKIPPED" not in run.stdout, run.stdout
