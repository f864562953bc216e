"""Damaged inputs of every kind, made from a seed, and what must hold for each: `python -m tests.damage --count 2000`.

A damaged clip becomes a reject, or a row where a decoder still finds sound in it; the clip after it comes out exactly.
A damaged corpus is a clear error, or comes out with every clip as a row or a reject. Nothing crashes or hangs, and
nothing is written but below the output folder.
"""

import argparse
import io
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import soundfile
import torch

from codec.null import NullCodec
from pipeline.index import Selection, build_index
from pipeline.manifest import Output, merge, open_run, verify
from pipeline.sinks import SINKS
from pipeline.stream import read_unit
from pipeline.tokenize import Settings, tokenize_units
from schemas.audio import AudioFile, Reject, Utterance
from schemas.manifest import WorkUnit
from tests.damaged_inputs import damaged_clip, damaged_corpus
from tests.toys import sine, stored

SETTINGS = Settings(max_seconds=10.0, decode_workers=2)
UNIT_CLIPS = 200


@dataclass
class Outcome:
    """What came of all inputs; `wrong` must stay empty."""

    clips: Counter = field(default_factory=Counter)  # (kind of damage, "row" or reason)
    sources: Counter = field(default_factory=Counter)  # (kind of damage, "error" or "done")
    errors: set = field(default_factory=set)  # examples of clear errors
    wrong: list = field(default_factory=list)

    def __str__(self):
        lines = [f"{sum(self.clips.values())} damaged clips, {sum(self.sources.values())} damaged corpora"]
        for counts in (self.clips, self.sources):
            lines += [f"{count:6}  {kind:24} {end}" for (kind, end), count in sorted(counts.items())]
        lines += ["clear errors, some of them:", *(f"  {error}" for error in sorted(self.errors)[:12])]
        return "\n".join([*lines, f"WRONG: {len(self.wrong)}" if self.wrong else "nothing wrong", *self.wrong[:20]])


def run(count, seed, folder):
    """`count` damaged inputs, four clips to each corpus. Writes below `folder`."""
    folder, draw, outcome = Path(folder), np.random.default_rng(seed), Outcome()
    (folder / "canary").write_text("alive")
    clips_in(count - count // 5, draw, folder / "clips", outcome)
    corpora_in(count // 5, draw, folder, outcome)
    if sorted(path.name for path in folder.iterdir()) != ["canary", "clips", "corpora", "out"]:
        outcome.wrong.append(f"files outside the output: {sorted(folder.iterdir())}")
    for path in (Path("/tmp/neutok-escaped.wav"), Path("escaped.wav"), folder.parent / "escaped.wav"):
        if path.exists():
            outcome.wrong.append(f"{path} was written")
    return outcome


def clips_in(count, draw, folder, outcome):
    """Damaged clips, each followed by a healthy one of its own sound."""
    damaged = [damaged_clip(draw) for _ in range(count)]
    healthy = [sine(0.1, hertz=200 + number % 997, level=0.2 + 0.5 * (number % 89) / 89) for number in range(count)]
    units = []
    for first in range(0, count, UNIT_CLIPS):
        files = []
        for number in range(first, min(first + UNIT_CLIPS, count)):
            files.append(AudioFile(Utterance(f"bad_{number}", "toy", f"bad::{number}"), damaged[number][1]))
            files.append(AudioFile(Utterance(f"good_{number}", "toy", f"good::{number}"), stored(healthy[number])))
        units.append((WorkUnit(f"u{first:06}", "toy", "s", "i", 0, len(files), 1), files))
    codec, output = NullCodec(), Output(str(folder))
    open_run(output, {"codec": codec.spec.to_json()})
    done = list(tokenize_units(units, codec, output, SETTINGS))
    merge(output, [unit for unit, _ in units])
    rows, rejects = read_back(output, done, codec.spec)
    for number, (kind, _) in enumerate(damaged):
        key = f"bad_{number}"
        if (key in rows) == (key in rejects):
            outcome.wrong.append(f"{kind} clip {number} of this seed is neither a row nor a reject, or both")
        outcome.clips[kind, rejects.get(key, "row")] += 1
        whole = torch.from_numpy(soundfile.read(io.BytesIO(stored(healthy[number])), dtype="float32")[0])
        wanted = codec.encode(whole[None, None], torch.tensor([len(whole)]))[0, 0].numpy()
        if not np.array_equal(rows.get(f"good_{number}"), wanted):
            outcome.wrong.append(f"the neighbour of {kind} clip {number} did not come out")
    for hung in ("decoder_crash", "decoder_hang"):
        outcome.errors |= {f"{kind} clips: {hung}" for (kind, reason) in outcome.clips if reason == hung}


def read_back(output, done, spec):
    import pyarrow.parquet as pq

    rows, rejects = {}, {}
    for info in done:
        for record in SINKS[output.format].read(output.path(info.data), spec):
            rows[record.utterance.id] = record.codes[0]
        table = pq.read_table(output.path(info.rejects)).to_pydict()
        rejects |= dict(zip(table["__key__"], table["reason"], strict=True))
    return rows, rejects


def corpora_in(count, draw, folder, outcome):
    """Damaged corpora: each indexed for itself, then all units that came of it tokenized into one output."""
    codec, output, failed = NullCodec(), Output(str(folder / "out")), {}
    open_run(output, {"codec": codec.spec.to_json()})
    units, kinds, healthy = [], {}, set()
    for number in range(count):
        place = folder / "corpora" / f"{number:05}"
        kind, corpus, inputs = damaged_corpus(draw, place)
        try:
            index = build_index(corpus, inputs, str(folder / "out" / f"{number:05}"), Selection(), 4_000)
        except (ValueError, OSError) as error:
            outcome.errors.add(f"{kind}: {type(error).__name__}: {str(error).replace(str(folder), '')[:150]}")
            outcome.sources[kind, "error"] += 1
            continue
        except Exception as error:
            outcome.wrong.append(f"{kind} corpus {number}: {type(error).__name__}: {error}")
            continue
        for unit in index.units:
            kinds[f"{number:05}-{unit.name}"] = kind
            units.append((replace(unit, name=f"{number:05}-{unit.name}"), prefixed(unit, f"{number:05}-")))
            if kind.startswith("hostile"):
                healthy.add(f"{number:05}-")
        outcome.sources[kind, "done"] += 1
    done = list(
        tokenize_units(units, codec, output, SETTINGS, failed=lambda unit, error: failed.update({unit.name: error}))
    )
    for name, error in failed.items():
        clear = isinstance(error, (ValueError, OSError)) and "went in" not in str(error)
        (outcome.errors.add if clear else outcome.wrong.append)(
            f"{kinds[name]}: {type(error).__name__}: {str(error)[:200]}"
        )
    whole = {info.name for info in done}
    if whole | set(failed) != set(kinds):
        outcome.wrong.append("a unit was neither done nor failed")
    merge(output, [unit for unit, _ in units if unit.name in whole])
    verdict = verify(output)
    outcome.wrong += verdict.problems
    rows, _ = read_back(output, done, codec.spec)
    for number in healthy:
        if not any(key.startswith(number) and "healthy" in key for key in rows):
            outcome.wrong.append(f"the healthy neighbour in hostile archive {number} was lost")


def prefixed(unit, prefix):
    """The clips of a unit under keys that are unique over all corpora of the run."""
    for item in read_unit(unit):
        utterance = replace(item.utterance, id=prefix + item.utterance.id)
        yield replace(item, utterance=utterance) if isinstance(item, AudioFile | Reject) else item


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder, start = tempfile.mkdtemp(prefix="neutok-damage-"), time.monotonic()
    try:
        outcome = run(options.count, options.seed, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(outcome)
    print(f"{time.monotonic() - start:.0f} s")
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
