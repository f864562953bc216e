"""Two encoders' codes compared: `neutok agreement --teacher nano --student nano_distill --input 'speech/*.wav'`.

Section 4.2 of the paper: code match, projection similarity, level accuracy, within one level, and Fig. 2's confusion.
Both must spell their codes alike and share a quantizer; the paper's figures stand beside.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from codec import load
from codec.base import Codec
from codec.evaluation.agreement import PAPER, Agreement, code_vectors
from jobs.clips import read_clips
from jobs.options import COMPLETE, option, parse, usage_error
from schemas.audio import Reject

PROG = "neutok agreement"


@dataclass(frozen=True)
class Options:
    input: tuple[str, ...] = option("the corpus's files, folders, globs or URLs")
    teacher: str = option("the codec whose codes are taken for right")
    student: str = option("the codec compared with it")
    teacher_weights: str | None = option("Hub id, file or folder", None)
    student_weights: str | None = option("Hub id, file or folder", None)
    corpus: str = option("how the input is laid out", "folder")
    list: str | None = option("a file that names the clips, one a line; default: all", None)
    limit: int | None = option("compare at most so many clips", None)
    device: str = option("cpu or cuda", "cpu")
    json: str | None = option("write the figures and the confusion to this file", None)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(Options, argv, PROG, (__doc__ or "").splitlines()[0])
    try:
        teacher = load(options.teacher, options.device, options.teacher_weights)
        student = load(options.student, options.device, options.student_weights)
        found, rejects = compare(teacher, student, options)
    except (ValueError, FileNotFoundError) as error:
        return usage_error(PROG, error)
    print(table(found))
    for reason, count in sorted(rejects.items()):
        print(f"not compared: {count} clips, {reason}")
    if options.json:
        Path(options.json).write_text(json.dumps({**found, "rejects": dict(rejects)}, indent=1, sort_keys=True) + "\n")
    return COMPLETE


def compare(teacher: Codec, student: Codec, options: Options) -> tuple[dict[str, Any], Counter[str]]:
    """The report over all clips, and what could not be read by reason. Raises: ValueError for codecs unlike."""
    a, b = teacher.spec, student.spec
    if (a.levels, a.hop_length, a.input_rate) != (b.levels, b.hop_length, b.input_rate) or not a.levels:
        raise ValueError(
            f"{a.name} and {b.name} cannot be compared code by code: levels {a.levels} and {b.levels}, hops "
            f"{a.hop_length} and {b.hop_length}, rates {a.input_rate} and {b.input_rate}"
        )
    agreement = Agreement(a.levels, code_vectors(teacher))
    rejects: Counter[str] = Counter()
    names = Path(options.list).read_text().split() if options.list else None
    for clip in read_clips(options.corpus, options.input, a.input_rate, names, options.limit):
        if isinstance(clip, Reject):
            rejects[clip.reason] += 1
        elif len(clip.waveform) < a.hop_length:
            rejects["too_short"] += 1
        else:
            batch = torch.from_numpy(clip.waveform)[None, None].to(options.device)
            length = torch.tensor([len(clip.waveform)], device=options.device)
            codes = [codec.encode(batch, length)[0, 0].cpu().numpy() for codec in (teacher, student)]
            agreement.add(*codes, num_frames=len(clip.waveform) // a.hop_length)
    return agreement.report(), rejects


def table(found: dict[str, Any]) -> str:
    lines = [f"{'':24} {'here':>8} {'paper':>8}"]
    for name, paper in PAPER.items():
        here = "-" if found[name] is None else f"{found[name]:.3f}"
        lines.append(f"{name.replace('_', ' '):24} {here:>8} {paper:>8.2f}")
    return "\n".join([*lines, f"over {found['frames']} frames"])


if __name__ == "__main__":
    sys.exit(main())
