"""Two encoders' codes compared: `neutok agreement --teacher nano --student nano_distill --input 'speech/*.wav'`.

Section 4.2 of the paper: code match, projection similarity, level accuracy, within one level, and Fig. 2's confusion;
and how well either keeps speech. Both must spell their codes alike and share a quantizer; the paper's figures stand
beside. `--card` also puts the table into the card of the shipped teacher, with the student's training where
`--student-weights` is its run.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codec import load
from codec.base import Codec
from codec.evaluation import metrics
from codec.evaluation.agreement import PAPER, Agreement, code_vectors
from codec.evaluation.metrics import METRICS, PAPER_RECONSTRUCTION, Scores
from codec.training.step import module_hashes
from jobs.clips import listed, read_clips, usable
from jobs.options import COMPLETE, WRONG, option, parse, usage_error
from jobs.shipping import card
from jobs.shipping.history import read_history
from jobs.training import checkpoints
from jobs.training.validation import pair_of, there_and_back

PROG = "neutok agreement"


@dataclass(frozen=True)
class Options:
    input: tuple[str, ...] = option("the corpus's files, folders, globs or URLs")
    teacher: str = option("the codec whose codes are taken for right")
    student: str = option("the codec compared with it")
    teacher_weights: str | None = option("Hub id, file or folder", None)
    student_weights: str | None = option("Hub id, file or folder, also that of a training run", None)
    corpus: str = option("how the input is laid out", "folder")
    list: str | None = option("a file that names the clips, one a line; default: all", None)
    limit: int | None = option("compare at most so many clips", None)
    metrics: tuple[str, ...] = option(
        f"how well both keep speech, by which of {', '.join(METRICS)}; default: what is installed", (), separator=","
    )
    device: str = option("cpu or cuda", "cpu")
    json: str | None = option("write the figures and the confusion to this file", None, written=True)
    card: str | None = option("put the table into the card in this folder, where the teacher was shipped to", None)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(Options, argv, PROG, (__doc__ or "").splitlines()[0])
    try:
        metrics.require(options.metrics)
        teacher = load(options.teacher, options.device, options.teacher_weights)
        student = load(options.student, options.device, options.student_weights)
        record = card.read(options.card) if options.card else None
        if record and record["codec"]["revision"] != teacher.spec.revision:
            raise ValueError(
                f"{options.card} is the card of weights {record['codec']['revision']}, the teacher has "
                f"{teacher.spec.revision}; ship it first, or give that folder as --teacher-weights"
            )
        if record and not share(teacher, student, ("quantizer", "decoder")):
            raise ValueError(
                f"{options.student} has another quantizer or decoder than the weights in {options.card}, so it is no "
                f"student of theirs; train one with --start {options.card}"
            )
        found, rejects = compare(teacher, student, options)
    except WRONG as error:
        return usage_error(PROG, error)
    print(table(found))
    for reason, count in sorted(rejects.items()):
        print(f"not compared: {count} clips, {reason}")
    if options.json:
        Path(options.json).write_text(json.dumps({**found, "rejects": dict(rejects)}, indent=1, sort_keys=True) + "\n")
    if record:
        kept = {name: value for name, value in found.items() if name != "confusion"}
        size = card.count_parameters(student)["encoder_parameters"]
        training = training_of(options.student_weights)
        card.write(options.card, {**record, "agreement": {**kept, "student_parameters": size, "training": training}})
    return COMPLETE


def share(teacher: Codec, student: Codec, parts: Sequence[str]) -> bool:
    """Whether both have the same weights in these parts."""
    hashes = [module_hashes([(name, getattr(codec, name)) for name in parts]) for codec in (teacher, student)]
    return hashes[0] == hashes[1]


def training_of(run: str | None) -> dict[str, Any] | None:
    """How a student was trained, if its weights were named by its run's folder."""
    path = checkpoints.find(run) if run else None
    if path is None:
        return None
    position = checkpoints.load(path)[1]
    attempts = [asdict(attempt) for attempt in read_history(run, position.step).attempts]
    return {"step": position.step, "seconds": position.seconds, "recipe": position.recipe, "attempts": attempts}


def compare(teacher: Codec, student: Codec, options: Options) -> tuple[dict[str, Any], Counter[str]]:
    """The report over all clips, and what could not be read by reason. Raises: ValueError for codecs unlike."""
    a, b = teacher.spec, student.spec
    if (a.levels, a.hop_length, a.input_rate) != (b.levels, b.hop_length, b.input_rate) or not a.levels:
        raise ValueError(
            f"{a.name} and {b.name} cannot be compared code by code: levels {a.levels} and {b.levels}, hops "
            f"{a.hop_length} and {b.hop_length}, rates {a.input_rate} and {b.input_rate}"
        )
    agreement = Agreement(a.levels, code_vectors(teacher))
    names = listed(options.list) if options.list else None
    measures = options.metrics or metrics.available()
    rejects: Counter[str] = Counter()
    scores: tuple[list[Scores], list[Scores]] = ([], [])
    clips = read_clips(options.corpus, options.input, a.input_rate, names, options.limit)
    for clip in usable(clips, a.hop_length, rejects):
        heard = [there_and_back(codec, clip.waveform, options.device) for codec in (teacher, student)]
        agreement.add(*(each.codes[0] for each in heard), num_frames=len(clip.waveform) // a.hop_length)
        for codec, each, kept in zip((teacher, student), heard, scores, strict=True):
            kept.append(metrics.measure(pair_of(codec, clip.waveform, each), measures))
    means = {name: [metrics.mean(kept, name).mean for kept in scores] for name in measures}
    codecs = {"teacher": a.to_json(), "student": b.to_json()}
    return {**agreement.report(), **codecs, "clips": len(scores[0]), "reconstruction": means}, rejects


def table(found: dict[str, Any]) -> str:
    """What `compare` found as text, the paper's figures beside it."""
    lines = [f"{'codes':24} {'here':>8} {'paper':>8}"]
    lines += [line_of(name.replace("_", " "), [found[name], paper]) for name, paper in PAPER.items()]
    lines.append(f"over {found['frames']} frames of {found['clips']} clips")
    lines += ["", f"{'there and back':24} {'teacher':>8} {'student':>8}   the paper's"]
    for name, means in found["reconstruction"].items():
        lines.append(line_of(name, [*means, *PAPER_RECONSTRUCTION.get(name, ())]))
    return "\n".join(lines)


def line_of(name: str, values: Sequence[float | None]) -> str:
    cells = ["-" if value is None else f"{value:.3f}" for value in values]
    return " ".join([f"{name:24}", *(f"{cell:>8}" for cell in cells)])


if __name__ == "__main__":
    sys.exit(main())
