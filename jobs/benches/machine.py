"""What a figure was taken on, and how a call is timed: shared by the benches of a codec."""

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from codec.nn import native

T = TypeVar("T")


def clock(call: Callable[[], T], device: str) -> tuple[T, float]:
    """What `call` returns, and its seconds, with the device's queue empty before and after."""
    synchronize(device)
    start = time.perf_counter()
    result = call()
    synchronize(device)
    return result, time.perf_counter() - start


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def hardware(device: str) -> dict[str, object]:
    """Processor or GPU, what it can do, and the version of torch."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    features = fields.get("flags", "").split()
    return {
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        "processor": fields.get("model name", platform.processor()),
        "instructions": [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in features],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def machine(device: str) -> dict[str, object]:
    """The hardware, and whether layers run in C++, which is built here if it was not."""
    return {**hardware(device), "compiled_layers": device == "cpu" and native.library() is not None}


def describe(device: str) -> str:
    """One line of `machine`."""
    known = machine(device)
    if known["gpu"]:
        return f"{known['gpu']}, torch {known['torch']}"
    compiled = "compiled" if known["compiled_layers"] else "plain"
    best = known["instructions"][-1] if known["instructions"] else "no vector instructions known"
    return f"{known['processor']} ({best}), {known['threads']} threads, torch {known['torch']}, {compiled} layers"
