"""Builds the C++ of this folder once, for this processor, and loads it.

It shares torch's own OpenMP threads: after a layer these look out for more work for some milliseconds before they
sleep, and threads of our own would have to wait for their cores just as long.

A compiler is a help, not a need: without one the plain forms run, and one notice says so.
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
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from codec.nn.layers import Conv1d, on_cpu_for_good

HERE = Path(__file__).parent
SOURCES = tuple(HERE / name for name in ("snake.cpp", "snake_conv.cpp", "wide_conv.cpp"))
HEADERS = tuple(HERE / name for name in ("snake.h", "multiply.h"))
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
OPENMP = ("-fopenmp",)  # not every compiler has it; built without, the kernels run on one core
CHANNELS = 48  # the kernels of convolutions take multiples of it
PER_THREAD = 20_000  # numbers, at least: for fewer, a thread is not worth waking


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None (with one warning) where they cannot be built. NEUTOK_NO_COMPILER=1 asks for None.

    `call` calls one.
    """
    compiler = shutil.which(os.environ.get("CXX") or "c++") or shutil.which("g++") or shutil.which("clang++")
    if os.environ.get("NEUTOK_NO_COMPILER") == "1":
        compiler = None
    if compiler is None:
        warnings.warn("no C++ compiler found: layers run in their plain form, same codes, slower", stacklevel=2)
        return None
    try:
        return ctypes.CDLL(str(_build(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        warnings.warn(
            f"the C++ layers do not build ({said[-1] if said else error}): they run in their plain form", stacklevel=2
        )
        return None


def call(name: str, *arguments: Tensor | int | None) -> None:
    """Call a kernel: of tensors, which must be contiguous and on the CPU, it gets the addresses, of None a null one.

    Raises: RuntimeError where the kernels are not built (ask `library()` first).
    """
    kernels = library()
    if kernels is None:
        raise RuntimeError("the compiled layers are not available; use their plain forms")
    getattr(kernels, name)(*map(_as_c, arguments))


def _as_c(argument: Tensor | int | None) -> ctypes.c_void_p | ctypes.c_int64:
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    return ctypes.c_void_p(None if argument is None else argument.data_ptr())


def takes(x: Tensor, layer: Conv1d) -> bool:
    """Whether the kernels of convolutions can take `x` [B, C, T], and are faster: where it is time-major.

    And where the weight tells when it changes: what was made in inference mode does not.
    """
    fits = x.dtype == layer.weight.dtype == torch.float32 and x.stride(1) == 1
    fits = fits and layer.in_channels % CHANNELS == layer.out_channels % CHANNELS == 0
    return fits and on_cpu_for_good(x) and not layer.weight.is_inference() and library() is not None


def scratch(name: str, threads: int, *sizes: int) -> Tensor:
    """Memory for all threads of a kernel, as much as its `name`_scratch asks for."""
    size_for = getattr(library(), f"{name}_scratch")
    size_for.restype = ctypes.c_int64
    return torch.empty(threads * size_for(*map(_as_c, sizes)))


class Packed:
    """A convolution's weight in the order in which a kernel reads it; made anew when the weight has changed."""

    def __init__(self, name: str, order: Callable[[Tensor], Tensor]) -> None:
        """order: weight [out, in, width] -> contiguous float32 [..., out], what `name`_pack takes with its sizes."""
        self.name, self.order = name, order
        self.known: tuple[Tensor, int, Tensor] | None = None  # a weight, its version, and what was made of it

    def __call__(self, weight: Tensor) -> Tensor:
        weight = weight.detach()  # kept beside what is made of it, so that no other can come to lie where it lay
        if self.known is not None:
            known, version, packed = self.known
            if known.data_ptr() == weight.data_ptr() and version == weight._version:
                return packed
        ordered = self.order(weight)
        packed = torch.empty_like(ordered)
        call(f"{self.name}_pack", ordered, packed, *ordered.shape[-2:])
        self.known = weight, weight._version, packed
        return packed


def threads_for(numbers: int) -> int:
    """How many of torch's threads are worth it for so many numbers."""
    return min(torch.get_num_threads(), max(1, numbers // PER_THREAD))


def _build(compiler: str) -> Path:
    """The shared library, from the user's cache or built now. Its name follows sources, compiler and processor."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    sources = [source.read_text() for source in (*SOURCES, *HEADERS)]
    identity = "\n".join((*sources, version, *FLAGS, *OPENMP, platform.machine(), _processor()))
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neutok"
    target = folder / f"layers-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            built = Path(scratch) / "layers.so"
            command = [compiler, *FLAGS, *map(str, SOURCES), "-o", str(built)]
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
