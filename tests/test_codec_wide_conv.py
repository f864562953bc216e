"""An activation and a convolution of width 7 give by blocks what they give by plain sums, one after the other."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from codec.nn.activations import SnakeBeta, plain_snake_beta
from codec.nn.native import CHANNELS, library, takes
from codec.nn.wide_conv import OUT, WideConv1d, matrices

needs_compiler = pytest.mark.skipif(library() is None, reason="no C++ compiler here")


Example = tuple[SnakeBeta, WideConv1d, torch.Tensor]


def example(channels: int, dilation: int, length: int, batch: int = 2) -> Example:
    """An activation, a convolution, and what goes in [B, C, T], time-major."""
    generator = torch.Generator().manual_seed(length)
    act, conv = SnakeBeta(channels), WideConv1d(channels, dilation)
    for parameter in (*act.parameters(), *conv.parameters()):
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return act, conv, torch.randn(batch, length, channels, generator=generator).transpose(1, 2)


def exact(act: SnakeBeta, conv: WideConv1d, x: torch.Tensor, num_valid: torch.Tensor | None = None) -> torch.Tensor:
    bent = plain_snake_beta(x, act.alpha, act.beta, num_valid).double()
    weight, bias = conv.weight.double(), conv.bias.double()
    return torch.nn.functional.conv1d(bent, weight, bias, padding=conv.padding, dilation=conv.dilation)


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
    act, conv, x = example(96, dilation, length)
    with torch.inference_mode():
        assert takes(x, conv)
        torch.testing.assert_close(conv.after(act, x, None).double(), exact(act, conv, x), atol=1e-5, rtol=1e-5)


@needs_compiler
@pytest.mark.parametrize("dilation", (1, 3, 9))
def test_each_row_ends_at_its_own_end(dilation):
    act, conv, x = example(144, dilation, 1000, batch=4)
    num_valid = torch.tensor([1000, 640, 130, 1])
    with torch.inference_mode():
        wanted = exact(act, conv, x, num_valid)
        torch.testing.assert_close(conv.after(act, x, num_valid).double(), wanted, atol=1e-5, rtol=1e-5)


@needs_compiler
@pytest.mark.parametrize("channels", (48, 384))
def test_rounding_stays_near_that_of_plain_sums(channels):
    act, conv, x = example(channels, 3, 2000, batch=1)
    with torch.inference_mode():
        wanted = exact(act, conv, x)
        plain, blocks = (relative_error(y, wanted) for y in (conv(act(x, None)), conv.after(act, x, None)))
    assert 0 < blocks < 2.5 * plain, (blocks, plain)


@needs_compiler
@pytest.mark.parametrize("dilation", (1, 9))
def test_a_row_has_the_same_bits_alone_in_a_batch_and_on_any_number_of_threads(dilation):
    act, conv, x = example(48, dilation, 5000, batch=3)
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


@needs_compiler
def test_new_weights_are_seen_however_they_came():
    act, conv, x = example(48, 1, 100)
    _, other, _ = example(48, 1, 101)
    with torch.inference_mode():
        first = conv.after(act, x, None)
    conv.load_state_dict(other.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(conv.after(act, x, None), other(act(x, None)), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(conv.after(act, x, None), first)
    optimizer = torch.optim.SGD(conv.parameters(), lr=1e-4)
    conv.after(act, x, None).square().sum().backward()
    optimizer.step()
    with torch.inference_mode():
        torch.testing.assert_close(conv.after(act, x, None), conv(act(x, None)), atol=1e-5, rtol=1e-5)
    conv.weight = torch.nn.Parameter(other.weight.detach().clone())
    with torch.inference_mode():
        torch.testing.assert_close(conv.after(act, x, None), conv(act(x, None)), atol=1e-5, rtol=1e-5)


def test_what_the_kernel_does_not_know_goes_the_plain_way():
    act, conv, x = example(48, 1, 50)
    assert not takes(x, conv), "something is learned"
    with torch.inference_mode():
        assert not takes(x.contiguous(), conv), "channel-major"
        strange, odd, wide = example(CHANNELS + 16, 1, 50)
        assert not takes(wide, odd)
        wanted = exact(strange, odd, wide)
        torch.testing.assert_close(odd.after(strange, wide, None).double(), wanted, atol=1e-5, rtol=1e-5)
        half = conv.to(torch.bfloat16)
        assert not takes(x, half) and half.after(act, x, None).dtype == torch.bfloat16
        _, silent, x = example(48, 1, 50)  # what is made in here has no count of its changes
        assert not takes(x, silent)


def test_without_a_compiler_plain_sums_run():
    script = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from tests.test_codec_wide_conv import *\n"
        "act, conv, x = example(96, 3, 700)\n"
        "with torch.inference_mode():\n"
        "    assert not takes(x, conv)\n"
        "    bent = conv.after(act, x, None).double()\n"
        "    torch.testing.assert_close(bent, exact(act, conv, x), atol=1e-5, rtol=1e-5)\n"
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
    kernels = ("wide_conv", "snake_conv", "linear", "relative_attention")
    files = (__file__.replace("wide_conv", kernel) for kernel in kernels)
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
        "equal or bits or own",
    ]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0 and "SKIPPED" not in run.stdout, run.stdout
