"""The layers in C++ of this folder: loads them, calls them, and gives them weights in the order that they read.

A compiler is a help, not a need: without one the plain forms run, and one notice says so.
"""

import ctypes
import functools
import os
import shutil
import subprocess
import threading
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from codec.nn.compiler import build
from codec.nn.conv import Conv1d, on_cpu_for_good

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
        return ctypes.CDLL(str(build(compiler)))
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:  # the last where there is no home to cache in
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        warnings.warn(
            f"the C++ layers do not build ({said[-1] if said else error}): they run in their plain form", stacklevel=2
        )
        return None


def available() -> bool:
    """Whether layers may call kernels: not while torch compiles, which could not look into them."""
    return not torch.compiler.is_compiling() and library() is not None


def call(name: str, *arguments: Tensor | float | None) -> None:
    """Call a kernel: of tensors, which must be contiguous and on the CPU, it gets the addresses, of None a null one.

    Raises: RuntimeError where the kernels are not built (ask `library()` first).
    """
    kernels = library()
    if kernels is None:
        raise RuntimeError("the compiled layers are not available; use their plain forms")
    getattr(kernels, name)(*map(_as_c, arguments))


def _as_c(argument: Tensor | float | None) -> ctypes.c_void_p | ctypes.c_int64 | ctypes.c_double:
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    if isinstance(argument, float):
        return ctypes.c_double(argument)
    return ctypes.c_void_p(None if argument is None else argument.data_ptr())


def takes(x: Tensor, layer: Conv1d) -> bool:
    """Whether the kernels of convolutions can take `x` [B, C, T], and are faster: where it is time-major.

    And where the weight tells when it changes: what was made in inference mode does not.
    """
    fits = x.dtype == layer.weight.dtype == torch.float32 and x.stride(1) == 1
    fits = fits and layer.in_channels % CHANNELS == layer.out_channels % CHANNELS == 0
    fits = fits and x.shape[1] == layer.in_channels
    return fits and on_cpu_for_good(x) and not layer.weight.is_inference() and available()


_own = threading.local()


def scratch(name: str, threads: int, *sizes: int) -> Tensor:
    """Memory for all threads of a kernel, as much as its `name`_scratch asks for, or more; until the next is asked for.

    It is kept: new memory would be faulted in page by page, at each call.
    """
    size_for = getattr(library(), f"{name}_scratch")
    size_for.restype = ctypes.c_int64
    size = threads * size_for(*map(_as_c, sizes))
    if getattr(_own, "memory", None) is None or len(_own.memory) < size:
        # whatever the process has made torch's defaults
        _own.memory = torch.empty(size, dtype=torch.float32, device="cpu")
    return _own.memory


class Packed:
    """A weight in the order in which a kernel reads it; made anew when the weight has changed."""

    def __init__(self, pack: Callable[[Tensor], Tensor]) -> None:
        """pack: a weight -> what the kernel reads."""
        self.pack = pack
        self.known: tuple[Tensor, int, Tensor] | None = None  # a weight, its version, and what was made of it

    def __call__(self, weight: Tensor) -> Tensor:
        weight = weight.detach()  # kept beside what is made of it, so that no other can come to lie where it lay
        if self.known is not None:
            known, version, packed = self.known
            if known.data_ptr() == weight.data_ptr() and version == weight._version:
                return packed
        packed = self.pack(weight)
        self.known = weight, weight._version, packed
        return packed


def pack(name: str, ordered: Tensor) -> Tensor:
    """float32 [..., in, out], contiguous -> the same in panels, as the kernel `name` reads it."""
    packed = torch.empty_like(ordered)
    call(f"{name}_pack", ordered, packed, *ordered.shape[-2:])
    return packed


def threads_for(numbers: int) -> int:
    """How many of torch's threads are worth it for so many numbers."""
    return min(torch.get_num_threads(), max(1, numbers // PER_THREAD))
