"""How well a codec keeps speech: `neutok evaluate --codec nano --input 'speech/*.wav'` prints Table 2's measures.

Every clip is encoded and decoded alone, and compared with itself at 16 kHz: per clip, per speaker and in total.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codec import load
from codec.base import Codec
from codec.evaluation import metrics
from codec.evaluation.metrics import METRICS, CodeUse, Scores, count_codes
from codec.precision import PRECISIONS
from jobs.clips import Clip, listed, read_clips, usable
from jobs.options import COMPLETE, WRONG, as_json, option, parse, usage_error
from jobs.training.validation import pair_of, there_and_back
from pipeline.listen import wav_bytes

PROG = "neutok evaluate"


@dataclass(frozen=True)
class Options:
    input: tuple[str, ...] = option("the corpus's files, folders, globs or URLs")
    codec: str = option("which codec", "nano")
    weights: str | None = option("Hub id, file or folder of its weights; default: the codec's own", None)
    corpus: str = option("how the input is laid out", "folder")
    list: str | None = option("a file that names the clips to measure, one a line; default: all", None)
    limit: int | None = option("measure at most so many clips", None)
    metrics: tuple[str, ...] = option("only some of the measures", tuple(METRICS), separator=",")
    device: str = option("cpu or cuda", "cpu")
    precision: str = option(f"of the codec's arithmetic: {', '.join(PRECISIONS)}; compiled is for GPUs", "float32")
    threads: int | None = option("CPU threads; 1 for a figure per core", None)
    clips: bool = option("also print every clip", True)
    json: str | None = option("write everything to this file as well", None, written=True)
    listen: str | None = option("keep what was decoded in this folder, as WAV files", None)


@dataclass(frozen=True, slots=True)
class Measured:
    """One clip through the codec."""

    key: str
    speaker: str
    seconds: float
    scores: Scores
    encode_seconds: float
    decode_seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(Options, argv, PROG, (__doc__ or "").splitlines()[0])
    try:
        metrics.require(options.metrics)
        if options.threads:
            torch.set_num_threads(options.threads)
        codec = load(options.codec, options.device, options.weights, options.precision)
        names = listed(options.list) if options.list else None
        measured, use, rejects = evaluate(codec, options, names)
        if not measured:
            raise ValueError(f"none of the input's clips could be read: {dict(rejects)}")
    except WRONG as error:
        return usage_error(PROG, error)
    print(report(measured, use, rejects, options))
    if options.json:
        result = as_dict(measured, use, rejects, options, codec)
        Path(options.json).write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    return COMPLETE


def evaluate(
    codec: Codec, options: Options, names: Sequence[str] | None
) -> tuple[list[Measured], CodeUse, Counter[str]]:
    """Every clip through the codec; clips that cannot be read or are shorter than a hop are counted by reason."""
    measured: list[Measured] = []
    rejects: Counter[str] = Counter()
    counts = np.zeros(codec.spec.codebook_size, np.int64)
    rate = codec.spec.input_rate
    warm = False
    clips = read_clips(options.corpus, options.input, rate, names, options.limit)
    for clip in usable(clips, codec.spec.hop_length, rejects):
        if not warm:  # the first call pays for what all others find ready
            there_and_back(codec, clip.waveform, options.device)
            warm = True
        heard = there_and_back(codec, clip.waveform, options.device)
        counts += count_codes(heard.codes, len(counts))
        scores = metrics.measure(pair_of(codec, clip.waveform, heard), options.metrics)
        seconds = len(clip.waveform) / rate
        speaker = clip.utterance.speaker or "?"
        measured.append(
            Measured(clip.utterance.id, speaker, seconds, scores, heard.encode_seconds, heard.decode_seconds)
        )
        if options.listen:
            keep(options.listen, clip, heard.sound, codec)
    return measured, CodeUse.of(counts), rejects


def keep(folder: str, clip: Clip, sound: np.ndarray, codec: Codec) -> None:
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / f"{clip.utterance.id}.wav").write_bytes(wav_bytes(sound, codec.spec.output_rate))


def report(measured: Sequence[Measured], use: CodeUse, rejects: Counter[str], options: Options) -> str:
    """The tables as text."""
    names = options.metrics
    lines = [row("clip", "seconds", names)] if options.clips else []
    if options.clips:
        lines += [line_of(each.key, [each], names) for each in measured] + [""]
    lines.append(row("speaker", "seconds", names))
    for speaker in sorted({each.speaker for each in measured}):
        lines.append(line_of(speaker, [each for each in measured if each.speaker == speaker], names))
    total = line_of(f"all {len(measured)} clips", measured, names)
    lines += ["", row("total", "seconds", names), total, ""]
    for name in names:
        mean = metrics.mean([each.scores for each in measured], name)
        lines += [f"{name}: no value for {count} clips: {reason}" for reason, count in mean.failed.items()]
    lines += [f"not measured: {count} clips, {reason}" for reason, count in sorted(rejects.items())]
    seconds = sum(each.seconds for each in measured)
    lines.append(
        f"codes: {use.distinct} used of {use.num_codes} sent ({use.share:.1%} of the book), {use.entropy:.2f} bits each"
    )
    encoding, decoding = (sum(getattr(each, f"{way}code_seconds") for each in measured) for way in ("en", "de"))
    lines.append(
        f"speed, one clip at a time on {options.device} ({torch.get_num_threads()} threads): encoding "
        f"{seconds / encoding:.0f} times real time, decoding {seconds / decoding:.0f}"
    )
    return "\n".join(lines)


def row(title: str, seconds: str, cells: Sequence[str]) -> str:
    return f"{title[:40]:40} {seconds:>8} " + " ".join(f"{cell:>8}" for cell in cells)


def line_of(title: str, measured: Sequence[Measured], names: Sequence[str]) -> str:
    means = [metrics.mean([each.scores for each in measured], name).mean for name in names]
    cells = ["-" if mean is None else f"{mean:.3f}" for mean in means]
    return row(title, f"{sum(each.seconds for each in measured):.1f}", cells)


def as_dict(
    measured: Sequence[Measured], use: CodeUse, rejects: Counter[str], options: Options, codec: Codec
) -> dict[str, Any]:
    """All of it, for the file."""
    scores = [each.scores for each in measured]
    return {
        "options": as_json(options),
        "codec": codec.spec.to_json(),
        "clips": [asdict(each) for each in measured],
        "means": {name: asdict(metrics.mean(scores, name)) for name in options.metrics},
        "codes": asdict(use),
        "rejects": dict(rejects),
        "seconds": sum(each.seconds for each in measured),
        "encode_seconds": sum(each.encode_seconds for each in measured),
        "decode_seconds": sum(each.decode_seconds for each in measured),
    }


if __name__ == "__main__":
    sys.exit(main())
