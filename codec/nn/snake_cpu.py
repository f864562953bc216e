"""Anti-aliased SnakeBeta on a CPU in one pass over memory: builds `snake.cpp` once, calls it on every core.

It shares torch's own OpenMP threads: after a layer these look out for more work for some milliseconds before they
sleep, and threads of our own would have to wait for their cores just as long.

A compiler is a help, not a need: without one the plain form of activations.py runs, and one notice says so.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("snake.cpp")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
OPENMP = ("-fopenmp",)  # not every compiler has it; built without, the kernel runs on one core
ENTRIES = {torch.float32: "snake_float32", torch.bfloat16: "snake_bfloat16"}


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernel, or None (with one warning) where it cannot be built. NEUTOK_NO_COMPILER=1 asks for None."""
    compiler = shutil.which(os.environ.get("CXX") or "c++") or shutil.which("g++") or shutil.which("clang++")
    if os.environ.get("NEUTOK_NO_COMPILER") == "1":
        compiler = None
    if compiler is None:
        warnings.warn("no C++ compiler found: activations run in their plain form, same codes, slower", stacklevel=2)
        return None
    try:
        return ctypes.CDLL(str(_build(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        warnings.warn(
            f"snake.cpp does not build ({said[-1] if said else error}): activations run in their plain form",
            stacklevel=2,
        )
        return None


def _build(compiler: str) -> Path:
    """The shared library, from the user's cache or built now. Its name follows source, compiler and processor."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    identity = "\n".join((SOURCE.read_text(), version, *FLAGS, *OPENMP, platform.machine(), _processor()))
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neutok"
    target = folder / f"snake-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            built = Path(scratch) / "snake.so"
            command = [compiler, *FLAGS, str(SOURCE), "-o", str(built)]
            try:
                _compile([*command, *OPENMP])
            except subprocess.CalledProcessError:
                _compile(command)
            built.replace(target)  # whole or not at all, whoever builds at the same time
    return target


def _compile(command: Sequence[str]) -> None:
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def _processor() -> str:
    """What `-march=native` depends on: a home shared by unlike machines must not share the library."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def snake_cpu(
    x: Tensor, alpha: Tensor, inverse_beta: Tensor, taps: Sequence[float], num_valid: Tensor | None
) -> Tensor:
    """Up-sample, snake, down-sample; each row ends at its own last sample and is zero beyond.

    Args: x: float32 or bfloat16 [B, C, T]; fastest where the channels of one time lie side by side (`time_major` in
        layers.py). alpha, inverse_beta: float32 [C], linear scale. taps: the 12 of the filter. num_valid: int64 [B],
        default T for every row.
    Returns: like x, time-major. Raises: RuntimeError where the kernel is not built (ask `library()` first).
    """
    kernel = library()
    if kernel is None:
        raise RuntimeError("the compiled activation is not available; use the plain form")
    batch, channels, length = x.shape
    x = x.transpose(1, 2).contiguous()
    y = torch.empty_like(x)
    valid = torch.full((batch,), length) if num_valid is None else num_valid.to(torch.int64).contiguous()
    alpha, inverse_beta = alpha.float().contiguous(), inverse_beta.float().contiguous()
    filter_taps = torch.tensor(taps, dtype=torch.float32)
    threads = min(torch.get_num_threads(), max(1, x.numel() // 20_000))
    getattr(kernel, ENTRIES[x.dtype])(
        *(ctypes.c_void_p(t.data_ptr()) for t in (x, y, alpha, inverse_beta, filter_taps, valid)),
        *(ctypes.c_int64(n) for n in (batch, channels, length, threads)),
    )
    return y.transpose(1, 2)
