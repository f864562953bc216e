"""The fused anti-aliased activation: how exactly it does what the plain form does, and how near it is to the memory.

    python -m jobs.bench kernel --device cuda

The kernel reads and writes each sample once, so a plain copy of the same tensor is the most that it can reach.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from codec.nn.activations import fused_kernel, plain_snake_beta, snake_beta
from jobs.benches.machine import clock, describe, machine
from jobs.options import COMPLETE, option, parse, usage_error

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
EXACT = {"float32": 1e-5, "bfloat16": 2**-8}  # the most by which |fused - plain| may exceed this much of 1 + |plain|
SHAPES = ((48, 16_000), (96, 8_000), (192, 4_000), (384, 1_000), (768, 250), (1536, 50))  # NeuCodec's channels, rates
ROWS = 16
REPEATS = 20
INEXACT = 1  # the exit code where the kernel is not the plain form


@dataclass(frozen=True)
class KernelOptions:
    device: str = option("where to run", "cpu")
    dtype: tuple[str, ...] = option("which types", tuple(DTYPES), separator=",")
    seconds: int = option(f"of sound, in {ROWS} rows", 240)
    json: str | None = option("write the result here as well", None, written=True)

    def __post_init__(self) -> None:
        if unknown := set(self.dtype) - set(DTYPES):
            raise ValueError(f"unknown types {sorted(unknown)} in --dtype; known: {', '.join(DTYPES)}")
        if self.seconds < 1:
            raise ValueError(f"--seconds must be 1 or more, got {self.seconds}")


@dataclass(frozen=True)
class Pass:
    channels: int
    dtype: str
    ragged: bool  # whether each row has an end of its own
    worst: float  # |fused - plain| as a share of 1 + |plain|, the greatest
    gigabytes_per_second: float  # read and written
    share_of_copy: float

    @property
    def exact(self) -> bool:
        return self.worst <= EXACT[self.dtype]


def main(argv: Sequence[str] | None = None) -> int:
    try:
        options = parse(KernelOptions, argv, "neutok bench kernel", __doc__.splitlines()[0])
        if fused_kernel(torch.empty(0, device=options.device)) is None:
            raise ValueError(f"no fused kernel on {options.device}: it needs a C++ compiler on a CPU, Triton on a GPU")
    except ValueError as error:
        return usage_error("neutok bench kernel", error)
    passes = [
        run(channels, rate, name, ragged, options)
        for name in options.dtype
        for channels, rate in SHAPES
        for ragged in (False, True)
    ]
    print(table(passes, options))
    if options.json:
        results = [{**asdict(each), "exact": each.exact} for each in passes]
        record = {"options": asdict(options), "machine": machine(options.device), "passes": results}
        Path(options.json).write_text(json.dumps(record, indent=2) + "\n")
    return COMPLETE if all(each.exact for each in passes) else INEXACT


@torch.inference_mode()
def run(channels: int, rate: int, name: str, ragged: bool, options: KernelOptions) -> Pass:
    """One layer's worth of sound through the kernel and through a copy."""
    generator = torch.Generator(options.device).manual_seed(channels)
    draw = lambda *shape: torch.randn(*shape, generator=generator, device=options.device)  # noqa: E731
    length = max(2, options.seconds * rate // ROWS)
    x = 3 * draw(ROWS, channels, length).to(DTYPES[name])
    alpha, beta = 0.3 * draw(channels), 0.3 * draw(channels)  # logarithms
    valid = None
    if ragged:
        valid = torch.linspace(1, length, ROWS, device=options.device).round().long()
    rows = slice(0, None, 5)  # enough of them to judge by, the first and the last among them
    few = None if valid is None else valid[rows]
    fused = snake_beta(x[rows].contiguous(), alpha, beta, few).float()
    plain = plain_snake_beta(x[rows].float(), alpha, beta, few)
    worst = float(((fused - plain).abs() / (1 + plain.abs())).max())
    y = torch.empty_like(x)
    copied = best(lambda: y.copy_(x), options.device)
    took = best(lambda: snake_beta(x, alpha, beta, valid), options.device)
    moved = 2 * x.numel() * x.element_size()
    return Pass(channels, name, ragged, worst, moved / took / 1e9, copied / took)


def best(call: Callable[[], Tensor], device: str) -> float:
    """Seconds of one call, queued many at a time on a GPU, where starting one would count as much as running it."""
    many = REPEATS if device.startswith("cuda") else 1

    def calls() -> None:
        for _ in range(many):
            call()

    return min(clock(calls, device)[1] for _ in range(3)) / many


def table(passes: Sequence[Pass], options: KernelOptions) -> str:
    lines = [
        f"{describe(options.device)}; {options.seconds} s of sound through each layer's activation",
        f"{'channels':>8} {'type':>9} {'rows':>7} {'GB/s':>8} {'of a copy':>10} {'off by':>9}",
    ]
    for p in passes:
        rows = "ragged" if p.ragged else "equal"
        verdict = "" if p.exact else f"  NOT within {EXACT[p.dtype]:.0e}"
        lines.append(
            f"{p.channels:>8} {p.dtype:>9} {rows:>7} {p.gigabytes_per_second:>8.0f} {p.share_of_copy:>10.0%} "
            f"{p.worst:>9.1e}{verdict}"
        )
    return "\n".join([*lines, "off by: the greatest |fused - plain| / (1 + |plain|), the plain form in float32"])


if __name__ == "__main__":
    sys.exit(main())
