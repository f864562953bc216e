"""The fused anti-aliased activation does what its plain form does, at every row's own end."""

import os
import subprocess
import sys

import pytest
import torch

from codec.nn.activations import SnakeBeta, gpu_kernel, low_pass_taps, plain_snake_beta, snake_beta
from codec.nn.native import library

needs_compiler = pytest.mark.skipif(library() is None, reason="no C++ compiler here")
LENGTHS = (1, 2, 5, 6, 7, 1023, 1024, 1025, 3000)


def example(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return 3 * draw(batch, 5, length), 0.7 * draw(5), 0.7 * draw(5)


@needs_compiler
@pytest.mark.parametrize("length", LENGTHS)
def test_the_compiled_form_equals_the_plain_form(length):
    x, alpha, beta = example(2, length)
    with torch.inference_mode():
        torch.testing.assert_close(snake_beta(x, alpha, beta), plain_snake_beta(x, alpha, beta), atol=1e-5, rtol=1e-5)


@needs_compiler
def test_the_compiled_form_takes_many_channels_and_either_memory_layout():
    x = 3 * torch.randn(2, 200, 70, generator=torch.Generator().manual_seed(0))
    alpha, beta = torch.linspace(-1, 1, 200), torch.linspace(1, -1, 200)
    with torch.inference_mode():
        y = snake_beta(x, alpha, beta)
        torch.testing.assert_close(y, plain_snake_beta(x, alpha, beta), atol=1e-5, rtol=1e-5)
        assert torch.equal(snake_beta(x.transpose(1, 2).contiguous().transpose(1, 2), alpha, beta), y)


@needs_compiler
def test_the_compiled_form_ends_each_row_at_its_own_end():
    x, alpha, beta = example(3, 2000)
    num_valid = torch.tensor([2000, 1030, 3])
    with torch.inference_mode():
        y = snake_beta(x, alpha, beta, num_valid)
        for row, count in enumerate(num_valid.tolist()):
            alone = snake_beta(x[row : row + 1, :, :count], alpha, beta)[0]
            assert torch.equal(y[row, :, :count], alone)
            assert not y[row, :, count:].any()
        torch.testing.assert_close(y, plain_snake_beta(x, alpha, beta, num_valid), atol=1e-5, rtol=1e-5)


@needs_compiler
def test_the_result_does_not_depend_on_the_number_of_threads():
    x, alpha, beta = example(2, 30_000)
    before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            torch.set_num_threads(1)
            one = snake_beta(x, alpha, beta)
            torch.set_num_threads(3)
            assert torch.equal(snake_beta(x, alpha, beta), one)
    finally:
        torch.set_num_threads(before)


@needs_compiler
def test_bfloat16_in_bfloat16_out():
    x, alpha, beta = example(2, 700)
    with torch.inference_mode():
        y = snake_beta(x.bfloat16(), alpha, beta)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), plain_snake_beta(x.bfloat16().float(), alpha, beta), atol=0.06, rtol=0.01)


def test_learning_goes_through_the_plain_form():
    act = SnakeBeta(5)
    x, _, _ = example(1, 50)
    act(x.requires_grad_()).sum().backward()
    assert act.alpha.grad.abs().sum() > 0 and x.grad.abs().sum() > 0


def test_without_a_compiler_the_plain_form_runs_with_one_notice():
    script = (
        "import warnings, torch; from codec.nn.activations import *; warnings.simplefilter('always')\n"
        "x = torch.randn(1, 2, 30); a = torch.zeros(2)\n"
        "with torch.inference_mode(), warnings.catch_warnings(record=True) as seen:\n"
        "    y = [snake_beta(x, a, a) for _ in range(3)]\n"
        "    assert torch.equal(y[0], plain_snake_beta(x, a, a))\n"
        "print(len(seen), seen[0].message)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "NEUTOK_NO_COMPILER": "1"}, capture_output=True, text=True
    )
    assert run.stdout.startswith("1 no C++ compiler found"), run.stdout + run.stderr


@needs_compiler
def test_a_compiler_without_openmp_builds_the_kernel_for_one_core(tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text('#!/bin/sh\ncase "$*" in *-fopenmp*) exit 1;; esac\nexec c++ "$@"\n')
    compiler.chmod(0o755)
    script = (
        "import torch; from codec.nn.activations import *; from codec.nn.native import library\n"
        "x, a = torch.randn(2, 5, 9000), torch.zeros(5)\n"
        "with torch.inference_mode():\n"
        "    assert library()\n"
        "    torch.testing.assert_close(snake_beta(x, a, a), plain_snake_beta(x, a, a), atol=1e-5, rtol=1e-5)\n"
        "print('equal')"
    )
    env = {**os.environ, "CXX": str(compiler), "XDG_CACHE_HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert run.stdout.strip() == "equal", run.stdout + run.stderr


def test_the_gpu_kernel_equals_the_plain_form_in_tritons_interpreter():
    script = (
        "import torch; from codec.nn.snake_cuda import snake_cuda; from codec.nn.activations import *\n"
        "torch.manual_seed(0)\n"
        "alpha, beta = 0.7 * torch.randn(2), 0.7 * torch.randn(2)\n"
        "ends = (None, [40, 17, 2], [1, 16, 15]), (None, [2100, 2048, 2049]), (None, [600, 512, 513])\n"
        "for length, valid in ((length, v) for length, some in zip((40, 2100, 600), ends) for v in some):\n"
        "    valid = None if valid is None else torch.tensor(valid)\n"
        "    x = 3 * torch.randn(3, 2, length)\n"
        "    y = snake_cuda(x, alpha.exp(), 1 / (beta.exp() + 1e-9), low_pass_taps(), valid)\n"
        "    torch.testing.assert_close(y, plain_snake_beta(x, alpha, beta, valid), atol=1e-5, rtol=1e-5)\n"
        "print('equal')"
    )
    pytest.importorskip("triton")
    run = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert run.stdout.strip() == "equal", run.stdout + run.stderr


@pytest.mark.parametrize("threads", [32, 64, 128])
def test_the_gpu_kernel_compiles_for_a_gpu_that_is_not_here(threads):
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from codec.nn import snake_cuda

    constants = {f"f{i}": tap for i, tap in enumerate(low_pass_taps()[:6])}
    constants |= {"SPAN": snake_cuda.SPAN, "THREADS": threads}
    pointers = {"x_pointer": "*bf16", "y_pointer": "*bf16", "alpha_pointer": "*fp32", "inverse_beta_pointer": "*fp32"}
    signature = {**pointers, "valid_pointer": "*i64", "channels": "i32", "length": "i32"}
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(snake_cuda._snake_kernel, signature=signature, constexprs=constants)
    kernel = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": threads // 32})
    assert "ld.global" in kernel.asm["ptx"]


def test_a_gpu_whose_kernel_cannot_be_built_runs_the_plain_form_with_one_notice(monkeypatch, recwarn):
    pytest.importorskip("triton")
    from codec.nn import snake_cuda

    def fails(*_):
        raise RuntimeError("Failed to find C compiler")

    zeros = torch.zeros
    monkeypatch.setattr(snake_cuda, "snake_cuda", fails)
    monkeypatch.setattr(torch, "zeros", lambda *shape, **_: zeros(*shape))
    gpu_kernel.cache_clear()
    assert gpu_kernel() is gpu_kernel() is None
    gpu_kernel.cache_clear()
    (notice,) = [str(each.message) for each in recwarn if "plain form" in str(each.message)]
    assert "Failed to find C compiler" in notice


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gpu_kernel_equals_the_plain_form_on_a_gpu(dtype):
    x, alpha, beta = (t.cuda() for t in example(2, 5000))
    with torch.inference_mode():
        fused = snake_beta(x.to(dtype), alpha, beta).float()
        atol = 1e-5 if dtype == torch.float32 else 0.06
        torch.testing.assert_close(fused, plain_snake_beta(x.to(dtype).float(), alpha, beta), atol=atol, rtol=0.01)
