"""Encoding speed against the published packages: the same clips, the same weights, in one run, in alternation.

    python -m jobs.bench peers --model neucodec --input ../shared/speech

Each peer encodes as its users call it: one clip at a time, the neucodec package with all 24 layers of its speech
model. Speeds are given as ratios, because they were taken in the same minutes on the same machine. Needs
tests/requirements-oracles.txt, and no Ray.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

import codec
from codec.neucodec import NeuCodec
from codec.precision import computing
from jobs.benches.machine import clock, describe, machine
from jobs.options import COMPLETE, INCOMPLETE, option, parse, usage_error
from jobs.parity import Agreement, agree, encode_together, note
from jobs.parity_clips import RATE, Clip, load_clips
from pipeline.batch import plan, usual_batch_seconds

PUBLISHED_LAYERS = 24  # what the neucodec package runs, though it reads the sixteenth


@dataclass(frozen=True)
class PeerOptions:
    model: Literal["neucodec", "distill-neucodec"] = option("which codec", "neucodec")
    against: tuple[str, ...] = option("packages to compare with", ("neucodec", "transformers"), separator=",")
    precision: tuple[str, ...] = option("our precisions", ("float32",), separator=",")
    input: tuple[str, ...] = option("audio files, or folders of them; none: the sample that neutok ships", ())
    weights: str = option("a Hub id, file or folder of weights, or 'seeded'", "seeded")
    min_seconds: float = option("leave out shorter clips", 3.0)
    max_seconds: float = option("leave out longer clips", 12.0)
    crop_seconds: float | None = option("cut or loop every clip to this length", None)
    batch_seconds: float | None = option("sound in our batches; 0: no such row (default: by the device)", None)
    limit: int | None = option("take only the first so many clips", None)
    rounds: int = option("how often every contender encodes every clip", 3)
    threads: int = option("processor threads of every contender", 2)
    device: str = option("where to encode", "cpu")
    json: str | None = option("write the result here as well", None, written=True)

    def __post_init__(self) -> None:
        if self.model != "neucodec" and self.against == ("neucodec", "transformers"):
            object.__setattr__(self, "against", ("neucodec",))  # transformers has no distilled model


class Contender(Protocol):
    name: str
    ours: bool

    def encode(self, clips: Sequence[Clip]) -> list[Tensor]:
        """The codes int64 [F] of each clip."""
        ...


class Peer:
    """A published package, one clip at a time, as its users call it."""

    ours = False

    def __init__(self, package: str, options: PeerOptions, weights: NeuCodec) -> None:
        from jobs.parity_oracles import build_oracle

        self.name = package
        self.oracle = build_oracle(package, options.model, weights, options.device, PUBLISHED_LAYERS)

    def encode(self, clips: Sequence[Clip]) -> list[Tensor]:
        return [self.oracle.encode(clip.waveform).long() for clip in clips]


class Ours:
    """Our codec: one clip at a time, or clips of like length together, as tokenizing does it."""

    ours = True

    def __init__(self, model: NeuCodec, batch_seconds: float) -> None:
        self.model, self.batch_samples = model, round(batch_seconds * RATE)
        how = f"batches of {batch_seconds:g} s" if batch_seconds else "one by one"
        self.name = f"neutok {model.precision}, {how}"

    def encode(self, clips: Sequence[Clip]) -> list[Tensor]:
        batches = [[i] for i in range(len(clips))]
        if self.batch_samples:
            batches = plan([len(clip.waveform) for clip in clips], self.batch_samples)
        codes: dict[int, Tensor] = {}
        for batch in batches:
            together = encode_together(self.model, [clips[i] for i in batch])
            codes |= dict(zip(batch, together, strict=True))
        return [codes[i] for i in range(len(clips))]


@dataclass(frozen=True)
class Result:
    contender: str
    seconds: float  # median over the rounds, all clips
    times_real_time: float
    ratios: dict[str, float]  # to each peer: how many times as fast
    differing_codes: dict[str, int]  # from each peer's


def main(argv: Sequence[str] | None = None) -> int:
    try:
        options = parse(PeerOptions, argv, "neutok bench peers", __doc__.splitlines()[0])
        clips = choose(options)
        contenders, judge = build(options)
    except ValueError as error:
        return usage_error("neutok bench peers", error)
    seconds = sum(len(clip.waveform) for clip in clips) / RATE
    codes, totals = measure(contenders, clips, options)
    results, agreements = compare(contenders, codes, totals, seconds, judge, clips)
    print(table(results, agreements, seconds, len(clips), options))
    if options.json:
        record = {
            "options": asdict(options),
            "machine": machine(options.device),
            "clips": len(clips),
            "seconds": seconds,
            "rounds": totals,
            "results": [asdict(result) for result in results],
            "agreement": [{**asdict(a), "within_bound": a.within_bound} for a in agreements],
        }
        Path(options.json).write_text(json.dumps(record, indent=2) + "\n")
    return COMPLETE if all(a.within_bound for a in agreements if "float32" in a.comparison) else INCOMPLETE


def choose(options: PeerOptions) -> list[Clip]:
    """The clips, all decoded before anything is timed. Raises: ValueError if there are none."""
    clips = [c for c in load_clips(options.input, options.max_seconds) if len(c.waveform) >= options.min_seconds * RATE]
    clips = clips[: options.limit]
    if not clips:
        raise ValueError(f"no clip of {options.min_seconds} to {options.max_seconds} s in {options.input}")
    if options.crop_seconds:
        length = round(options.crop_seconds * RATE)
        clips = [Clip(c.name, c.waveform.repeat(-(-length // len(c.waveform)))[:length]) for c in clips]
    return clips


def build(options: PeerOptions) -> tuple[list[Contender], NeuCodec]:
    """Every contender with the same weights, and our float32 codec to judge codes by."""
    torch.set_num_threads(options.threads)
    note(f"loading {options.model}")
    judge = codec.load(options.model, options.device, options.weights)
    assert isinstance(judge, NeuCodec)
    contenders: list[Contender] = [Peer(package, options, judge) for package in options.against]
    for precision in options.precision:
        model = judge
        if precision != "float32":
            model = codec.load(options.model, options.device, options.weights, precision)
        contenders.append(Ours(model, 0))
        together = usual_batch_seconds(options.device) if options.batch_seconds is None else options.batch_seconds
        if together:
            contenders.append(Ours(model, together))
    return contenders, judge


def measure(
    contenders: Sequence[Contender], clips: Sequence[Clip], options: PeerOptions
) -> tuple[dict[str, list[Tensor]], dict[str, list[float]]]:
    """Codes of each contender, and its time over all clips in each round; contenders take turns."""
    for contender in contenders:
        took = clock(lambda c=contender: c.encode(clips[:3]), options.device)[1]
        note(f"warm-up, left out: {contender.name} {took:.2f} s")
    codes: dict[str, list[Tensor]] = {}
    totals: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for turn in range(options.rounds):
        # who begins changes from round to round, so that a machine that slows down favours nobody
        for contender in [*contenders[turn % len(contenders) :], *contenders[: turn % len(contenders)]]:
            codes[contender.name], took = clock(lambda c=contender: c.encode(clips), options.device)
            totals[contender.name].append(took)
            note(f"round {turn + 1}: {contender.name} {took:.2f} s")
    if options.device.startswith("cuda"):
        # as users call it, a package's convolutions round to TF32 there: its codes are compared without that
        with computing("float32"):
            codes |= {peer.name: peer.encode(clips) for peer in contenders if not peer.ours}
    return codes, totals


def compare(
    contenders: Sequence[Contender],
    codes: dict[str, list[Tensor]],
    totals: dict[str, list[float]],
    seconds: float,
    judge: NeuCodec,
    clips: Sequence[Clip],
) -> tuple[list[Result], list[Agreement]]:
    median = {name: statistics.median(times) for name, times in totals.items()}
    peers = [contender.name for contender in contenders if not contender.ours]
    results, agreements = [], []
    for contender in contenders:
        name = contender.name
        differing = {}
        for peer in peers if contender.ours else []:
            agreement = agree(f"{name} and {peer}", judge, clips, codes[name], codes[peer])
            agreements.append(agreement)
            differing[peer] = agreement.differing
        ratios = {peer: median[peer] / median[name] for peer in peers if peer != name}
        results.append(Result(name, median[name], seconds / median[name], ratios, differing))
    return results, agreements


def table(
    results: Sequence[Result], agreements: Sequence[Agreement], seconds: float, count: int, options: PeerOptions
) -> str:
    lines = [
        f"{options.model}, {count} clips, {seconds:.1f} s of sound, {options.rounds} rounds, median; "
        f"{describe(options.device)}, weights {options.weights}",
        f"{'':34} {'seconds':>9} {'x real time':>12}  " + "  ".join(f"{'x ' + peer:>14}" for peer in options.against),
    ]
    for result in results:
        ratios = "  ".join(f"{result.ratios.get(peer, 1.0):>14.2f}" for peer in options.against)
        lines.append(f"{result.contender:34} {result.seconds:>9.2f} {result.times_real_time:>12.2f}  {ratios}")
    for agreement in agreements:
        verdict = "within the bound" if agreement.within_bound else f"farthest {agreement.farthest:.1e} from a boundary"
        lines.append(f"{agreement.comparison}: {agreement.differing} of {agreement.codes} codes differ, {verdict}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
