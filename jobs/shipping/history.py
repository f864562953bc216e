"""A training run as its own log tells it: every attempt's command and machine, and the curves over all of them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import finding, storage
from pipeline.reporting import plots

CURVES = (  # kind of record, name, title, file
    ("train", "mel", "Mel loss in training", "mel"),
    ("train", "code_entropy", "Entropy of the codes in training, bits", "entropy"),
    ("validation", "pesq_wb", "Wide-band PESQ of the validation clips", "pesq"),
    ("validation", "stoi", "STOI of the validation clips", "stoi"),
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """From which step, by which command, on what; the latter two are None where the log does not tell.

    Attempts that only went on as the one before them are one.
    """

    first_step: int
    command: str | None
    hardware: str | None


@dataclass(frozen=True, slots=True)
class History:
    """All attempts of a run, and what they logged."""

    attempts: tuple[Attempt, ...]
    records: tuple[dict[str, Any], ...]  # of kind "train" and "validation", by step, what was repeated only once

    def points(self, kind: str, name: str) -> list[tuple[float, float]]:
        """(step, value) of one curve."""
        return [(each["step"], each[name]) for each in self.records if each["kind"] == kind and name in each]

    def curves(self) -> dict[str, str]:
        """The curves that the log has, as SVG by file name."""
        drawn = {}
        for kind, name, title, file in CURVES:
            if points := self.points(kind, name):
                drawn[f"{file}.svg"] = plots.line(title, points, "step", "")
        return drawn


def read_history(run: str, last_step: int) -> History:
    """The log of a run up to a step.

    An attempt that went on from an earlier step than its forerunner had reached repeats what that one did: its records
    count, the forerunner's beyond that step do not; nor does a forerunner of which nothing is left.
    Raises: ValueError for a run without a log.
    """
    paths = finding.list_files(storage.join(run, "log"))
    files = sorted((path for path in paths if path.endswith(".jsonl")), key=finding.natural)  # the tenth comes last
    begins = [int(Path(path).stem.removeprefix("train-").partition("_")[0]) for path in files]
    kept = [(path, begin) for path, begin in zip(files, begins, strict=True) if begin < last_step]
    if not kept:
        raise ValueError(f"{run} has no log of how it was trained; wanted {run}/log/train-*.jsonl")
    attempts, records = [], []
    for number, (path, begin) in enumerate(kept):
        end = kept[number + 1][1] if number + 1 < len(kept) else last_step
        if end == begin:
            continue
        said = _lines(path)
        told = next((each for each in said if each["kind"] == "began"), {})
        attempt = Attempt(begin, told.get("command"), _machine(told))
        if not attempts or (attempt.command, attempt.hardware) != (attempts[-1].command, attempts[-1].hardware):
            attempts.append(attempt)
        records += [each for each in said if each["kind"] in ("train", "validation") and each["step"] <= end]
    return History(tuple(attempts), tuple(records))


def _lines(path: str) -> list[dict[str, Any]]:
    """The records of one file; a last line that a kill cut short is left out."""
    found = []
    for line in storage.read_bytes(path).decode().split("\n")[:-1]:
        found.append(json.loads(line))
    return found


def _machine(told: dict[str, Any]) -> str | None:
    """What an attempt ran on, in words."""
    if "hardware" not in told:
        return None
    known, ranks = told["hardware"], told["ranks"]
    each = f"{device_of(known)}, torch {known['torch']}"
    return f"{ranks} × {each}" if ranks > 1 else each


def device_of(known: dict[str, Any]) -> str:
    """What `hardware` found, in a few words."""
    threads = known["threads"]
    return known["gpu"] or f"{known['processor']}, {threads} thread{'s' * (threads > 1)}"
