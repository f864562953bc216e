"""Clips of very different lengths in one batch against each clip alone: how many codes differ, and how near a boundary.

    python -m jobs.bench ragged --model neucodec --batches 100 --input ../shared/speech

Lengths are log-uniform, cut out of real speech, so most rows of a batch are mostly padding: the hardest case.
"""

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import codec
from codec.neucodec import NeuCodec
from jobs.benches.machine import describe, machine
from jobs.options import COMPLETE, option, parse, usage_error
from jobs.parity import OUT_OF_BOUND, Agreement, agree, encode_together, note, table
from jobs.parity_clips import HOP, RATE, Clip, load_clips

LONG_ROWS = 2  # of a batch with long clips; a few short mates go with them
LONG_MATES = 3


@dataclass(frozen=True)
class RaggedOptions:
    model: tuple[str, ...] = option("which codecs", ("neucodec", "distill-neucodec"), separator=",")
    batches: int = option("random batches of each codec", 100)
    batch_seconds: float = option("such a batch holds at most this much sound, padding not counted", 20.0)
    shortest: float = option("seconds of the shortest clip", HOP / RATE)
    longest: float = option("seconds of the longest clip; lengths between are log-uniform", 12.0)
    long_batches: int = option("more batches, each with two long clips and three of the others", 5)
    long_seconds: float = option("seconds of a long clip", 30.0)
    minutes: float | None = option("begin no batch after so long; what has been done is judged", None)
    skip: int = option("leave out the first so many batches, which another process does", 0)
    seed: int = option("of all that is drawn by lot", 0)
    input: tuple[str, ...] = option("audio files, or folders of them; none: the sample that neutok ships", ())
    limit: int | None = option("cut from only the first so many files", None)
    weights: str = option("a Hub id, file or folder of weights, or 'seeded'", "seeded")
    device: str = option("where to encode", "cpu")
    threads: int | None = option("processor threads; default: torch's own choice", None)
    json: str | None = option("write the result here as well", None, written=True)

    def __post_init__(self) -> None:
        if not 0 <= self.skip < self.batches + self.long_batches or min(self.batches, self.long_batches) < 0:
            raise ValueError(
                f"nothing to do: --batches {self.batches}, --long-batches {self.long_batches}, --skip {self.skip}"
            )
        if not HOP / RATE <= self.shortest <= self.longest <= self.batch_seconds - self.shortest:
            raise ValueError(
                f"lengths from {self.shortest} to {self.longest} s do not fit {self.batch_seconds} s; wanted "
                f"{HOP / RATE} <= --shortest <= --longest, and room for one of each in --batch-seconds"
            )


def main(argv: Sequence[str] | None = None) -> int:
    try:
        options = parse(RaggedOptions, argv, "neutok bench ragged", __doc__.splitlines()[0])
        if options.threads:
            torch.set_num_threads(options.threads)
        clips = list(load_clips(options.input, math.inf))[: options.limit]
        if not clips:
            raise ValueError(f"no clip in {options.input}")
        batches = list(draw(clips, options))[options.skip :]
        seconds = 60 * options.minutes if options.minutes else math.inf
        results = [check(name, load(name, options), batches, seconds) for name in options.model]
    except ValueError as error:
        return usage_error("neutok bench ragged", error)
    print(f"{describe(options.device)}, weights {options.weights}, seed {options.seed}")
    print(table(results))
    if options.json:
        record = {
            "options": asdict(options),
            "machine": machine(options.device),
            "results": [{**asdict(a), "allowed": a.allowed, "within_bound": a.within_bound} for a in results],
        }
        Path(options.json).write_text(json.dumps(record, indent=2) + "\n")
    return COMPLETE if all(each.within_bound for each in results) else OUT_OF_BOUND


def load(name: str, options: RaggedOptions) -> NeuCodec:
    note(f"loading {name}")
    model = codec.load(name, options.device, options.weights)
    if not isinstance(model, NeuCodec):
        raise ValueError(f"{name} has no latents to judge codes by")
    return model


def draw(clips: Sequence[Clip], options: RaggedOptions) -> Iterator[list[Clip]]:
    """The batches, a pure function of clips and options: each row a stretch of speech that no other batch has."""
    rng = np.random.default_rng(options.seed)
    for number in range(options.batches):
        yield [cut(clips, length, rng, f"batch {number}") for length in draw_lengths(options, rng)]
    for number in range(options.long_batches):
        lengths = [round(options.long_seconds * RATE)] * LONG_ROWS
        lengths += [draw_length(options, rng) for _ in range(LONG_MATES)]
        yield [cut(clips, length, rng, f"long batch {number}") for length in lengths]


def draw_lengths(options: RaggedOptions, rng: np.random.Generator) -> list[int]:
    """Samples of each row of one batch: as many as fit, and two at least."""
    while True:
        lengths = [draw_length(options, rng)]
        while sum(lengths) <= options.batch_seconds * RATE:
            lengths.append(draw_length(options, rng))
        if len(lengths) > 2:
            return lengths[:-1]


def draw_length(options: RaggedOptions, rng: np.random.Generator) -> int:
    return round(math.exp(rng.uniform(math.log(options.shortest), math.log(options.longest))) * RATE)


def cut(clips: Sequence[Clip], length: int, rng: np.random.Generator, place: str) -> Clip:
    """`length` samples from anywhere in a clip drawn by lot; others are joined to it where it is shorter."""
    chosen = [clips[rng.integers(len(clips))]]
    while sum(len(clip.waveform) for clip in chosen) < length:
        chosen.append(clips[rng.integers(len(clips))])
    sound = torch.cat([clip.waveform for clip in chosen])
    start = int(rng.integers(len(sound) - length + 1))
    return Clip(f"{place}: {length} samples of {chosen[0].name}", sound[start : start + length])


def check(name: str, model: NeuCodec, batches: Sequence[Sequence[Clip]], seconds: float = math.inf) -> Agreement:
    """Encode every batch that is begun in so many seconds, and every row of it alone, once; and compare all of them."""
    together: list[Tensor] = []
    alone: list[Tensor] = []
    done: list[Clip] = []
    codes = differing = 0
    began = time.perf_counter()
    for number, batch in enumerate(batches, 1):
        if done and time.perf_counter() - began > seconds:
            note(f"{name}: {len(batches) - number + 1} of {len(batches)} batches are left out, for lack of time")
            break
        done += batch
        for row, clip in zip(encode_together(model, batch), batch, strict=True):
            together.append(row)
            alone.append(encode_together(model, [clip])[0])
            codes += len(row)
            differing += int((row != alone[-1]).sum())
        note(
            f"{name}: {number} of {len(batches)} batches, {differing} of {codes} codes differ; "
            f"{time.perf_counter() - began:.0f} s so far"
        )
    return agree(f"{name} in ragged batches and alone", model, done, together, alone)


if __name__ == "__main__":
    sys.exit(main())
