"""The engine around a codec against the codec itself, batch after batch: the same codes, and how much speed is left.

    python -m jobs.bench engine --model neucodec --device cuda --input ../shared/speech

The engine stacks clips in page-locked memory, queues each batch behind the one at work and looks at codes once they
have arrived; were a buffer used again too early, codes would differ. The codec itself is given batches that lie on the
device already. Needs Arrow, for the engine gives rows, and no Ray.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import codec
from codec.neucodec import NeuCodec
from jobs.benches.encode import make_batches, repeat
from jobs.benches.machine import clock, describe, machine
from jobs.options import COMPLETE, option, parse, usage_error
from jobs.parity import OUT_OF_BOUND, Agreement, agree, note
from jobs.parity import table as agreement_table
from jobs.parity_clips import RATE, Clip, first_clips
from pipeline.batch import usual_batch_seconds, windows
from pipeline.encode import encode
from schemas.audio import AudioSegment, Utterance

WINDOW_SECONDS = 1200.0  # as tokenizing plans batches
PROG = "neutok bench engine"


@dataclass(frozen=True)
class EngineOptions:
    model: tuple[str, ...] = option("which codecs", ("neucodec", "distill-neucodec"), separator=",")
    precision: str = option("of the codec's arithmetic", "float32")
    device: str = option("where to encode", "cpu")
    input: tuple[str, ...] = option("audio files, or folders of them; none: the sample that neutok ships", ())
    weights: str = option("a Hub id, file or folder of weights, or 'seeded'", "seeded")
    max_seconds: float = option("leave out longer clips", 30.0)
    total_seconds: float | None = option("repeat the clips up to this much sound; default: each clip once", None)
    batch_seconds: float | None = option("padded sound in a batch (default: by the device)", None)
    rounds: int = option("how often each encodes the whole, in alternation; the median counts", 3)
    json: str | None = option("write the result here as well", None, written=True)


@dataclass(frozen=True)
class Share:
    """How the engine did with one codec."""

    model: str
    seconds: float  # of sound
    codec_took: float  # seconds, median of the rounds
    engine_took: float
    share: float  # of the codec's own speed
    agreement: Agreement


def main(argv: Sequence[str] | None = None) -> int:
    try:
        options = parse(EngineOptions, argv, PROG, __doc__.splitlines()[0])
        clips = repeat(first_clips(options.input, options.max_seconds), options.total_seconds)
        shares = [measure(name, clips, options) for name in options.model]
    except ValueError as error:
        return usage_error(PROG, error)
    print(
        f"{describe(options.device)}; {options.precision}, weights {options.weights}, median of {options.rounds} rounds"
    )
    for each in shares:
        ours, alone = (each.seconds / took for took in (each.engine_took, each.codec_took))
        print(
            f"{each.model}: {each.share:.3f} of the codec's own speed, {ours:.1f} times real time against {alone:.1f}, "
            f"over {each.seconds:.0f} s of sound"
        )
    print(agreement_table([each.agreement for each in shares]))
    if options.json:
        record = {"options": asdict(options), "machine": machine(options.device), "shares": [asdict(s) for s in shares]}
        Path(options.json).write_text(json.dumps(record, indent=2) + "\n")
    return COMPLETE if all(each.agreement.within_bound for each in shares) else OUT_OF_BOUND


def measure(name: str, clips: Sequence[Clip], options: EngineOptions) -> Share:
    """Encode everything both ways, once for warmth, then in alternation."""
    note(f"loading {name} in {options.precision}")
    model = codec.load(name, options.device, options.weights, options.precision)
    if not isinstance(model, NeuCodec):
        raise ValueError(f"{name} has no latents to judge codes by")
    batches, order = make_batches([clip.waveform for clip in clips], options.batch_seconds, options.device)
    size = options.batch_seconds or usual_batch_seconds(options.device)
    segments = [
        AudioSegment(Utterance(str(number), "bench", clip.name), clip.waveform.numpy(), RATE)
        for number, clip in enumerate(clips)
    ]

    def by_codec() -> list[Tensor]:
        return [model.encode(*batch) for batch in batches]

    def by_engine() -> list[Tensor]:
        return [torch.from_numpy(row.codes[0]).long() for row in encode(windows(segments, WINDOW_SECONDS), model, size)]

    ways = {"codec": by_codec, "engine": by_engine}
    made = {}
    took: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(options.rounds + 1):
        for way, call in ways.items():
            made[way], seconds = clock(call, options.device)
            note(f"{name}: {way}, {'warm-up, left out' if not number else f'round {number}'}: {seconds:.2f} s")
            took[way] += [seconds] if number else []
    alone: list[Tensor] = [torch.empty(0)] * len(clips)
    for rows, codes in zip(order, made["codec"], strict=True):
        for row, number in enumerate(rows):
            alone[number] = codes[row, 0, : model.spec.num_frames(len(clips[number].waveform))].long().cpu()
    agreement = agree(f"{name} through the engine and batch after batch", model, clips, made["engine"], alone)
    codec_took, engine_took = (statistics.median(took[way]) for way in ways)
    seconds = sum(len(clip.waveform) for clip in clips) / RATE
    return Share(name, seconds, codec_took, engine_took, codec_took / engine_took, agreement)


if __name__ == "__main__":
    sys.exit(main())
