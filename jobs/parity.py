"""Our codes against those of the reference packages, on the same clips with the same weights, float32 on the CPU.

    python -m jobs.parity --model neucodec --against neucodec,transformers --input clips/

Needs tests/requirements-oracles.txt. NeuCodec and its oracle together take about 7 GB of memory.
"""

import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

import codec
from codec.fsq import FSQ
from codec.neucodec import NeuCodec
from codec.precision import DEFINITION, computing
from jobs.options import COMPLETE, WRONG, option, parse, usage_error
from jobs.parity_clips import Clip, first_clips

if TYPE_CHECKING:
    from jobs.parity_oracles import Oracle

ORACLES = ("neucodec", "transformers")
CODES_PER_FLIP = 20_000  # of as many codes, one may differ,
NEAR = 1e-4  # if every level it differs in lies this close to a boundary between levels
OUT_OF_BOUND = 1  # the exit code where the codes are not equal enough


@dataclass(frozen=True)
class ParityOptions:
    model: Literal["neucodec", "distill-neucodec"] = option("which codec", "distill-neucodec")
    against: tuple[str, ...] = option("which packages are right: neucodec, transformers", ("neucodec",), separator=",")
    input: tuple[str, ...] = option("audio files, or folders of them; none: the sample that neutok ships", ())
    weights: str = option("a Hub id, file or folder of weights, or 'seeded'", "seeded")
    max_seconds: float = option("leave out longer clips", 12.0)
    limit: int | None = option("take only the first so many clips", None)
    ragged: bool = option("compare also the codes of batches of clips of different lengths", True)
    batch_size: int = option("clips in such a batch", 8)
    json: str | None = option("write the result here as well", None, written=True)

    def __post_init__(self) -> None:
        if unknown := set(self.against) - set(ORACLES):
            raise ValueError(f"unknown packages {sorted(unknown)} in --against; known: {', '.join(ORACLES)}")
        if "transformers" in self.against and self.model != "neucodec":
            raise ValueError(f"transformers has no {self.model}; compare it --against neucodec")
        if self.batch_size < 2:
            raise ValueError(f"a ragged batch has at least 2 clips, got --batch-size {self.batch_size}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit takes at least 1 clip, got {self.limit}")


@dataclass(frozen=True)
class Agreement:
    """How two ways to the same codes compare. Distances are in units of the latent, before it is bounded."""

    comparison: str
    clips: int
    codes: int
    differing: int
    farthest: float  # the greatest distance from its boundary of a level that differs; 0 if none does
    examples: tuple[str, ...]  # the first differing codes

    @property
    def allowed(self) -> int:
        return math.ceil(self.codes / CODES_PER_FLIP)

    @property
    def within_bound(self) -> bool:
        return self.differing <= self.allowed and self.farthest <= NEAR


def main(argv: Sequence[str] | None = None) -> int:
    try:
        options = parse(ParityOptions, argv, "neutok parity", __doc__.splitlines()[0])
        if missing := [package for package in options.against if find_spec(package) is None]:
            raise ValueError(f"not installed: {', '.join(missing)}; pip install -r tests/requirements-oracles.txt")
        clips = first_clips(options.input, options.max_seconds, options.limit)
        ours = codec.load(options.model, weights=options.weights)
    except WRONG as error:
        return usage_error("neutok parity", error)
    assert isinstance(ours, NeuCodec)
    oracles = {package: partial(build_oracle, options, package, ours) for package in options.against}
    agreements = compare(ours, oracles, clips, options.batch_size if options.ragged else None)
    print(table(agreements))
    if options.json:
        results = [{**asdict(a), "allowed": a.allowed, "within_bound": a.within_bound} for a in agreements]
        Path(options.json).write_text(json.dumps({"options": asdict(options), "results": results}, indent=2) + "\n")
    return COMPLETE if all(agreement.within_bound for agreement in agreements) else OUT_OF_BOUND


def build_oracle(options: ParityOptions, package: str, ours: NeuCodec) -> "Oracle":
    """The oracle, with the weights of our codec."""
    from jobs import parity_oracles

    # seeded, the neucodec package fills its own weights by its own names, and shares nothing with ours
    shared = None if options.weights == "seeded" and package == "neucodec" else ours
    return parity_oracles.build_oracle(package, options.model, shared)


def compare(
    ours: NeuCodec, oracles: Mapping[str, Callable[[], "Oracle"]], clips: Sequence[Clip], batch_size: int | None
) -> list[Agreement]:
    """Encode every clip with each, one at a time and, given a batch size, in ragged batches; and compare.

    The oracles, by name, are built one after another: each may fill gigabytes.
    """
    alone = list(timed("ours", clips, lambda clip: encode_together(ours, [clip])[0]))
    ways = {"ours": alone}
    results = []
    if batch_size is not None:
        ways["ours in ragged batches"] = encode_ragged(ours, clips, batch_size)
        results.append(agree("ours in ragged batches and alone", ours, clips, ways["ours in ragged batches"], alone))
    for package, build in oracles.items():
        oracle = build()
        expected = list(timed(package, clips, lambda clip, oracle=oracle: oracle.encode(clip.waveform).long()))
        results += [agree(f"{way} and {package}", ours, clips, codes, expected) for way, codes in ways.items()]
        del oracle
    return results


def timed(name: str, clips: Sequence[Clip], encode: Callable[[Clip], Tensor]) -> Iterator[Tensor]:
    """The codes of each clip, saying how far one is and how long it took."""
    seconds = 0.0
    for number, clip in enumerate(clips, 1):
        start = time.perf_counter()
        codes = encode(clip)
        seconds += time.perf_counter() - start
        note(f"{name}: {number} of {len(clips)} clips, {clip.name}, {len(codes)} codes; {seconds:.1f} s so far")
        yield codes


def encode_together(ours: NeuCodec, clips: Sequence[Clip]) -> list[Tensor]:
    """The codes int64 [F] of each clip, all encoded as one batch where the codec lies."""
    lengths = torch.tensor([len(clip.waveform) for clip in clips])
    waveforms = torch.nn.utils.rnn.pad_sequence([clip.waveform for clip in clips], batch_first=True)[:, None]
    codes = ours.encode(waveforms.to(ours.device), lengths)[:, 0].long().cpu()
    return [row[: ours.spec.num_frames(int(length))] for row, length in zip(codes, lengths, strict=True)]


def encode_ragged(ours: NeuCodec, clips: Sequence[Clip], batch_size: int) -> list[Tensor]:
    """The codes of each clip, encoded in batches of clips drawn by lot."""
    order = random.Random(0).sample(range(len(clips)), len(clips))
    codes: dict[int, Tensor] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        codes |= dict(zip(batch, encode_together(ours, [clips[i] for i in batch]), strict=True))
        note(f"ragged batches: {len(codes)} of {len(clips)} clips")
    return [codes[i] for i in range(len(clips))]


def agree(name: str, ours: NeuCodec, clips: Sequence[Clip], given: list[Tensor], wanted: list[Tensor]) -> Agreement:
    """Compare the codes of all clips; where they differ, look how far our latent is from the boundary between."""
    farthest, examples, differing = 0.0, [], 0
    for clip, one, other in zip(clips, given, wanted, strict=True):
        if one.shape != other.shape:
            raise ValueError(f"{clip.name}: {len(one)} codes against {len(other)}; the frame rules differ")
        frames = (one != other).nonzero()[:, 0]
        if not len(frames):
            continue
        differing += len(frames)
        with torch.inference_mode(), computing(DEFINITION):  # a GPU's own choice of precision would blur the distance
            latent = ours.quantizer.latent(ours.features(clip.waveform[None, None].to(ours.device)))[0].cpu()
            spelled = [ours.quantizer.to_levels(codes[frames].to(ours.device)).cpu() for codes in (one, other)]
        distances = boundary_distances(ours.quantizer, latent)[frames]
        changed = spelled[0] != spelled[1]
        worst = torch.where(changed, distances, 0.0).amax(1)
        farthest = max(farthest, float(worst.max()))
        for frame, distance in zip(frames.tolist(), worst.tolist(), strict=True):
            examples.append(f"{clip.name} frame {frame}: {int(one[frame])} and {int(other[frame])}, at {distance:.1e}")
    return Agreement(name, len(clips), sum(map(len, given)), differing, farthest, tuple(examples[:20]))


def boundary_distances(quantizer: FSQ, latent: Tensor) -> Tensor:
    """How far each dimension [F, L] is from the nearest boundary between two of its levels, before it is bounded."""
    distances = []
    for dim, size in enumerate(quantizer.levels):
        edges = torch.arange(size - 1, dtype=torch.float64) - size // 2 + 0.5
        reach, offset, shift = (float(part[dim]) for part in (quantizer.reach, quantizer.offset, quantizer.shift))
        for _ in range(2):  # bounded twice
            edges = torch.atanh((edges + offset) / reach) - shift
        distances.append((latent[:, dim, None].double() - edges).abs().amin(1))
    return torch.stack(distances, 1)


def table(agreements: Sequence[Agreement]) -> str:
    rows = [("comparison", "clips", "codes", "differing", "allowed", "farthest", "verdict")]
    for each in agreements:
        verdict = "within the bound" if each.within_bound else "NOT within the bound"
        counts = (str(number) for number in (each.clips, each.codes, each.differing, each.allowed))
        rows.append((each.comparison, *counts, f"{each.farthest:.1e}", verdict))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    examples = [f"  {each.comparison}: {example}" for each in agreements for example in each.examples]
    return "\n".join([*lines, *examples])


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
