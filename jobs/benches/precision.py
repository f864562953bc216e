"""What a lower precision does to the codes and to the sound they spell, and what it gains, against float32.

    python -m jobs.bench precision --model nano --weights out/nano/codec --precision bfloat16 --input ../shared/speech

Sound is decoded in float32 from the codes of either precision, so that the codes alone make the difference.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import codec
from codec.base import Codec
from codec.evaluation.agreement import Agreement, code_vectors
from codec.evaluation.metrics import RATE as METRIC_RATE
from codec.evaluation.metrics import Mean, Pair, Scores, available, mean
from codec.evaluation.metrics import measure as score
from codec.precision import DEFINITION
from codec.weights import PUBLISHED
from jobs.benches.encode import make_batches
from jobs.benches.machine import clock, describe, machine
from jobs.options import COMPLETE, option, parse, usage_error
from jobs.parity import note
from jobs.parity_clips import Clip, first_clips


@dataclass(frozen=True)
class PrecisionOptions:
    model: tuple[str, ...] = option("which codecs", ("neucodec", "distill-neucodec"), separator=",")
    precision: tuple[str, ...] | None = option(
        "which precisions, beside float32 (default: bfloat16, and on a GPU tf32)", None, separator=","
    )
    weights: str | None = option(
        "a Hub id, file or folder of weights, or 'seeded' (default: seeded for the published codecs, ours as shipped)",
        None,
    )
    input: tuple[str, ...] = option("audio files, or folders of them; none: the sample that neutok ships", ())
    max_seconds: float = option("leave out longer clips", 30.0)
    limit: int | None = option("take only the first so many clips", None)
    batch_seconds: float | None = option("padded sound in a batch (default: by the device)", None)
    rounds: int = option("how often the whole is encoded by either; the median counts", 3)
    device: str = option("where to encode", "cpu")
    threads: int | None = option("processor threads; default: torch's own choice", None)
    json: str | None = option("write the result here as well", None, written=True)

    def __post_init__(self) -> None:
        if self.precision is None:
            on_gpu = torch.device(self.device).type == "cuda"
            object.__setattr__(self, "precision", ("tf32", "bfloat16") if on_gpu else ("bfloat16",))
        if DEFINITION in self.precision:
            raise ValueError(f"{DEFINITION} is what the others are compared with; leave it out of --precision")


@dataclass(frozen=True)
class Change:
    """What one precision changes; shares are of 1."""

    model: str
    precision: str
    weights: str
    frames: int
    same_codes: float
    same_levels: float
    within_one_level: float
    cosine: float  # of the quantized vectors
    stoi: (
        float | None
    )  # of the sound of these codes against that of float32's; None where pystoi or torchaudio is not installed
    stoi_clips: int  # that have a value
    speed: float  # times float32's


def main(argv: Sequence[str] | None = None) -> int:
    try:
        options = parse(PrecisionOptions, argv, "neutok bench precision", __doc__.splitlines()[0])
        if options.threads:
            torch.set_num_threads(options.threads)
        clips = first_clips(options.input, options.max_seconds, options.limit)
        changes = [change for name in options.model for change in measure(name, clips, options)]
    except ValueError as error:
        return usage_error("neutok bench precision", error)
    print(table(changes, options))
    if options.json:
        record = {
            "options": asdict(options),
            "machine": machine(options.device),
            "changes": [asdict(change) for change in changes],
        }
        Path(options.json).write_text(json.dumps(record, indent=2) + "\n")
    return COMPLETE


def measure(name: str, clips: Sequence[Clip], options: PrecisionOptions) -> list[Change]:
    """One codec in every precision. Raises: ValueError for a codec without levels, or one at another rate."""
    weights = options.weights or ("seeded" if name in PUBLISHED else None)
    note(f"loading {name} in {DEFINITION}")
    exact = codec.load(name, options.device, weights)
    if not exact.spec.levels:
        raise ValueError(f"{name} has no levels to compare")
    batches = Batches(clips, options)
    wanted = batches.codes(exact)
    vectors = code_vectors(exact)
    changes = []
    for precision in options.precision:
        note(f"loading {name} in {precision}")
        rough = codec.load(name, options.device, weights, precision)
        given = batches.codes(rough)
        agreement = Agreement(exact.spec.levels, vectors)
        for one, other in zip(wanted, given, strict=True):
            agreement.add(one, other, len(one))
        found, sound = agreement.report(), compare_sound(exact, wanted, given)
        changes.append(
            Change(
                model=name,
                precision=precision,
                weights=weights or "as shipped",
                frames=found["frames"],
                same_codes=found["code_match"],
                same_levels=found["level_accuracy"],
                within_one_level=found["within_one_level"],
                cosine=found["projection_similarity"],
                stoi=sound.mean,
                stoi_clips=sound.count,
                speed=batches.speed(rough, exact),
            )
        )
    return changes


class Batches:
    """All clips in ragged batches on the device, as tokenizing makes them."""

    def __init__(self, clips: Sequence[Clip], options: PrecisionOptions) -> None:
        waveforms = [clip.waveform for clip in clips]
        self.lengths = [len(waveform) for waveform in waveforms]
        self.options = options
        self.batches, self.order = make_batches(waveforms, options.batch_seconds, options.device)

    def encode(self, model: Codec) -> list[Tensor]:
        return [model.encode(waveforms, num_samples) for waveforms, num_samples in self.batches]

    def codes(self, model: Codec) -> list[np.ndarray]:
        """int [F] of each clip, in the order given."""
        rows = [row[0].cpu().numpy() for batch in self.encode(model) for row in batch]
        found = dict(zip((i for batch in self.order for i in batch), rows, strict=True))
        return [found[i][: model.spec.num_frames(length)] for i, length in enumerate(self.lengths)]

    def speed(self, model: Codec, than: Codec) -> float:
        """How many times as fast one encodes as the other; they take turns, both warmed up by then."""
        took: dict[Codec, list[float]] = {model: [], than: []}
        for _ in range(self.options.rounds):
            for each, times in took.items():
                times.append(clock(lambda each=each: self.encode(each), self.options.device)[1])
        return statistics.median(took[than]) / statistics.median(took[model])


def compare_sound(exact: Codec, wanted: Sequence[np.ndarray], given: Sequence[np.ndarray]) -> Mean:
    """STOI of what the given codes decode to against what the wanted ones do, a clip at a time."""
    names, scores = available(["stoi"]), list[Scores]()
    if not names or find_spec("torchaudio") is None:  # as on a machine that neutok is not installed on
        return mean(scores, "stoi")
    from pipeline.decoding.resample import resample

    for one, other in zip(wanted, given, strict=True):
        both = torch.from_numpy(np.stack([one, other])[:, None]).to(exact.device)
        sounds = [
            resample(sound, exact.spec.output_rate, METRIC_RATE) for sound in exact.decode(both)[:, 0].cpu().numpy()
        ]
        scores.append(score(Pair.of(*sounds), names))
        if len(scores) % 10 == 0:
            note(f"sound of {len(scores)} of {len(wanted)} clips compared")
    return mean(scores, "stoi")


def table(changes: Sequence[Change], options: PrecisionOptions) -> str:
    lines = [
        f"{describe(options.device)}; each precision against {DEFINITION}, {options.rounds} rounds, median",
        f"{'':18} {'precision':18} {'same codes':>11} {'same levels':>12} {'within one':>11} {'cosine':>8} {'STOI':>8} "
        f"{'speed':>7}  weights",
    ]
    for c in changes:
        stoi = "-" if c.stoi is None else f"{c.stoi:.4f}"
        said = "seeded: the codes mean nothing" if c.weights == "seeded" else c.weights
        lines.append(
            f"{c.model:18} {c.precision:18} {c.same_codes:>11.2%} {c.same_levels:>12.3%} {c.within_one_level:>11.3%} "
            f"{c.cosine:>8.5f} {stoi:>8} {c.speed:>6.2f}x  {said}"
        )
    frames = max(change.frames for change in changes)
    return "\n".join([*lines, f"over {frames} frames; STOI of the sound that the codes decode to in {DEFINITION}"])


if __name__ == "__main__":
    sys.exit(main())
