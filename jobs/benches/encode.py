"""How fast a codec encodes, how near that is to what the device can do, and where the time goes.

    python -m jobs.bench encode --model neucodec,distill-neucodec --precision float32,bfloat16 --device cuda

Clips of different lengths are encoded in ragged batches, as tokenizing does it. Needs torch alone, no Ray.
"""

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import codec
from codec.neucodec import NeuCodec
from codec.nn import native, w2v_bert
from codec.nn.fbank import fbank
from codec.nn.linear import Linear
from jobs.benches.machine import clock, describe, machine, synchronize
from jobs.options import COMPLETE, option, parse, usage_error
from jobs.parity import note
from jobs.parity_clips import RATE, Clip, first_clips
from pipeline.batch import plan, usual_batch_seconds

MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}  # of the product that tells the device's peak


@dataclass(frozen=True)
class EncodeOptions:
    model: tuple[str, ...] = option("which codecs", ("neucodec", "distill-neucodec"), separator=",")
    precision: tuple[str, ...] = option("which precisions", ("float32",), separator=",")
    device: str = option("where to encode", "cpu")
    threads: int | None = option("processor threads; default: torch's own choice", None)
    input: tuple[str, ...] = option("audio files, or folders of them; none: the sample that neutok ships", ())
    weights: str = option("a Hub id, file or folder of weights, or 'seeded'", "seeded")
    max_seconds: float = option("leave out longer clips", 30.0)
    total_seconds: float | None = option("repeat the clips up to this much sound; default: each clip once", None)
    batch_seconds: float | None = option("padded sound in a batch (default: by the device)", None)
    rounds: int = option("how often the whole is encoded; the median counts", 3)
    json: str | None = option("write the result here as well", None, written=True)


@dataclass(frozen=True)
class Speed:
    model: str
    precision: str
    seconds: float  # of sound
    first: float  # seconds of the first pass, when a GPU's libraries plan for every new shape of a batch
    took: float  # seconds, median of the rounds after it
    times_real_time: float
    gflops: float  # 10^9 operations a second, of what the model asks for (padding not counted)
    share_of_peak: float
    padding: float  # share of what was encoded that is padding
    parts: dict[str, float]  # share of the time, by part


def main(argv: Sequence[str] | None = None) -> int:
    try:
        options = parse(EncodeOptions, argv, "neutok bench encode", __doc__.splitlines()[0])
        if options.threads:
            torch.set_num_threads(options.threads)
        clips = repeat(first_clips(options.input, options.max_seconds), options.total_seconds)
        waveforms = [clip.waveform for clip in clips]
        speeds = [
            measure(name, precision, waveforms, options) for name in options.model for precision in options.precision
        ]
    except ValueError as error:
        return usage_error("neutok bench encode", error)
    print(table(speeds, options))
    if options.json:
        record = {"options": asdict(options), "machine": machine(options.device), "speeds": [asdict(s) for s in speeds]}
        Path(options.json).write_text(json.dumps(record, indent=2) + "\n")
    return COMPLETE


def repeat(clips: list[Clip], total_seconds: float | None) -> list[Clip]:
    """The clips again and again until they last `total_seconds`."""
    if total_seconds is None:
        return clips
    chosen: list[Clip] = []
    left = total_seconds * RATE
    while left > 0:
        chosen.append(clips[len(chosen) % len(clips)])
        left -= len(chosen[-1].waveform)
    return chosen


def measure(name: str, precision: str, clips: Sequence[Tensor], options: EncodeOptions) -> Speed:
    """Encode everything `rounds` times, then once more with a clock around each part."""
    note(f"loading {name} in {precision}")
    model = codec.load(name, options.device, options.weights, precision)
    assert isinstance(model, NeuCodec), f"{name} has no parts to look into"
    batches, _ = make_batches(clips, options.batch_seconds, options.device)
    seconds = sum(len(clip) for clip in clips) / RATE
    padding = 1 - seconds * RATE / sum(waveforms.numel() for waveforms, _ in batches)

    def encode_all() -> None:
        for waveforms, num_samples in batches:
            model.encode(waveforms, num_samples)

    first = clock(encode_all, options.device)[1]
    note(f"warm-up, left out: {first:.2f} s")
    took = [clock(encode_all, options.device)[1] for _ in range(options.rounds)]
    median = statistics.median(took)
    gflops = count_flops(model) * seconds / median / 1e9
    return Speed(
        name,
        precision,
        seconds,
        first,
        median,
        seconds / median,
        gflops,
        gflops / matrix_peak(precision, options.device),
        padding,
        time_parts(model, encode_all, options.device),
    )


def make_batches(
    clips: Sequence[Tensor], batch_seconds: float | None, device: str
) -> tuple[list[tuple[Tensor, Tensor]], list[list[int]]]:
    """Waveforms [B, 1, T] on the device and lengths [B] of each batch, and which clips are its rows."""
    order = plan([len(clip) for clip in clips], round((batch_seconds or usual_batch_seconds(device)) * RATE))
    batches = []
    for rows in order:
        waveforms = torch.nn.utils.rnn.pad_sequence([clips[i] for i in rows], batch_first=True)[:, None]
        # lengths stay on the CPU, where the codec wants to see them: asking a GPU would wait for it
        batches.append((waveforms.to(device), torch.tensor([len(clips[i]) for i in rows])))
    return batches, order


def count_flops(model: NeuCodec) -> float:
    """Operations per second of sound of the encoder, as torch counts those of its products, on 6 s.

    All of them through torch: our own kernels are unknown to it, and may need fewer (codec/nn/wide_conv.py).
    """
    from torch.utils.flop_counter import FlopCounterMode

    library = torch.ops.mkldnn  # its own linear, as codec/nn/linear.py calls it, is unknown to the counter
    unknown = {library._linear_pointwise: linear_flops} if hasattr(library, "_linear_pointwise") else {}
    counter = FlopCounterMode(display=False, custom_mapping=unknown)
    no_kernels = patch.object(native, "library", return_value=None)
    with torch.compiler.set_stance("force_eager"), no_kernels, counter:
        model.encode(torch.zeros(1, 1, 6 * RATE, device=model.device), torch.tensor([6 * RATE]))
    return counter.get_total_flops() / 6


def linear_flops(inputs: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    """Of inputs [..., D] and a weight [E, D], given their shapes."""
    return 2 * math.prod(inputs) * weight[0]


def matrix_peak(precision: str, device: str) -> float:
    """10^9 operations a second of one large matrix product: what this device does at its best."""
    from codec.precision import computing

    dtype = torch.bfloat16 if precision.startswith("bfloat16") else torch.float32
    size = MATRIX_SIZE[torch.device(device).type]
    left = torch.randn(size, size, dtype=dtype, device=device)
    product = Linear(size, size, bias=False, dtype=dtype, device=device)  # by what the codec's go through
    with torch.inference_mode(), computing(precision):
        best = min(clock(lambda: product(left), device)[1] for _ in range(5))
    return 2 * size**3 / best / 1e9


def time_parts(model: NeuCodec, encode_all: Callable[[], None], device: str) -> dict[str, float]:
    """Share of the time in each part. A clock around a part waits for the device, so this is a run of its own."""
    spent: dict[str, float] = {}

    def timed_fbank(*args: Any) -> Tensor:
        mel, took = clock(lambda: fbank(*args), device)
        spent["fbank"] = spent.get("fbank", 0.0) + took
        return mel

    hooks = [hook for name, part in parts_of(model).items() for hook in watch(name, part, spent, device)]
    with patch.object(w2v_bert, "fbank", timed_fbank):
        total = clock(encode_all, device)[1]
    for hook in hooks:
        hook.remove()
    if "fbank" in spent:  # it runs inside the semantic encoder
        spent["semantic"] -= spent["fbank"]
    shares = {name: seconds / total for name, seconds in spent.items()}
    return {**shares, "rest": 1 - sum(shares.values())}


def parts_of(model: NeuCodec) -> dict[str, nn.Module]:
    named = {"acoustic": model.acoustic, "semantic": model.semantic, "adapter": model.adapter, "fuse": model.fuse}
    return {name: part for name, part in named.items() if part is not None}


def watch(name: str, part: nn.Module, spent: dict[str, float], device: str) -> list[Any]:
    """Two hooks that add a part's seconds to `spent[name]`."""
    began = [0.0]

    def before(*_: Any) -> None:
        synchronize(device)
        began[0] = time.perf_counter()

    def after(*_: Any) -> None:
        synchronize(device)
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - began[0]

    return [part.register_forward_pre_hook(before), part.register_forward_hook(after)]


def table(speeds: Sequence[Speed], options: EncodeOptions) -> str:
    lines = [
        f"{describe(options.device)}; {speeds[0].seconds:.0f} s of sound in batches of "
        f"{options.batch_seconds or usual_batch_seconds(options.device):g} s, "
        f"median of {options.rounds} rounds, weights {options.weights}",
        f"{'':18} {'precision':10} {'x real time':>12} {'GFLOP/s':>9} {'of peak':>8} {'padding':>8}  time in",
    ]
    for s in speeds:
        parts = ", ".join(f"{name} {share:.0%}" for name, share in s.parts.items())
        lines.append(
            f"{s.model:18} {s.precision:10} {s.times_real_time:>12.2f} {s.gflops:>9.0f} {s.share_of_peak:>8.0%} "
            f"{s.padding:>8.1%}  {parts}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
