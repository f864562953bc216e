"""What token rows hold, counted batch by batch in bounded memory: durations, labels, codebook use, odd rows."""

import hashlib
from array import array
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
NEAR_SILENT = (
    "rows of which one code of the first codebook makes up more than half. Silence and steady hum look like this in "
    "codes, and so does any sound under weights that were never trained; the sound itself was not listened to"
)
LABELLED = ("corpus", "language", "license", "split")


@dataclass
class Statistics:
    """Feed it batches of rows with `add`, ask for the `summary` whenever wanted.

    Memory: the codebook's counts, one entry per 10 ms of duration and per speaker, and 8 bytes a row, by which rows of
    equal codes are found.
    """

    num_codebooks: int = 1
    codebook_size: int = 65_536
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0
    characters: int = 0
    rows_with_text: int = 0
    rows_without_speaker: int = 0
    durations: Counter[int] = field(default_factory=Counter)  # in steps of 10 ms
    speakers: Counter[str] = field(default_factory=Counter)
    labels: dict[str, dict[str, list[float]]] = field(default_factory=lambda: {name: {} for name in LABELLED})
    hashes: array = field(default_factory=lambda: array("Q"))
    near_silent: int = 0
    near_silent_keys: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = np.zeros((self.num_codebooks, self.codebook_size), np.int64)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count one batch with the columns of TOKEN_SCHEMA. Raises: ValueError on a code outside the codebook."""
        codes = batch.column("codes")
        ends = codes.offsets.to_numpy()
        flat = codes.values.to_numpy(zero_copy_only=False)[ends[0] : ends[-1]]
        ends = ends - ends[0]
        if len(flat) and flat.max() >= self.codebook_size:
            raise ValueError(f"code {flat.max()} in a codebook of {self.codebook_size}; is this another codec's shard?")
        for book in range(self.num_codebooks):
            self.counts[book] += np.bincount(flat[book :: self.num_codebooks], minlength=self.codebook_size)
        self.rows += len(batch)
        self.tokens += len(flat)
        for start, end in pairwise(ends.tolist()):
            self.hashes.append(int.from_bytes(hashlib.blake2b(flat[start:end].data, digest_size=8).digest(), "big"))
        self._count_static(flat, ends, batch.column("__key__"))
        self._count_labels(batch)

    def _count_static(self, flat: np.ndarray, ends: np.ndarray, keys: pa.Array) -> None:
        frames = np.diff(ends) // self.num_codebooks
        static = np.flatnonzero(2 * majority_counts(flat[:: self.num_codebooks], frames) > frames)
        self.near_silent += len(static)
        for row in static[: 5 - len(self.near_silent_keys)]:
            self.near_silent_keys.append(keys[int(row)].as_py())

    def _count_labels(self, batch: pa.RecordBatch) -> None:
        seconds = batch.column("duration").to_numpy(zero_copy_only=False)
        self.seconds += float(seconds.sum())
        self.durations.update(np.rint(seconds * 100).astype(np.int64).tolist())
        for name in LABELLED:
            totals = self.labels[name]
            for label, length in zip(batch.column(name).to_pylist(), seconds.tolist(), strict=True):
                entry = totals.setdefault(label or "", [0, 0.0])
                entry[0] += 1
                entry[1] += length
        for speaker, length in zip(batch.column("speaker").to_pylist(), seconds.tolist(), strict=True):
            if speaker is None:
                self.rows_without_speaker += 1
            else:
                self.speakers[speaker] += length
        texts = [text for text in batch.column("text").to_pylist() if text]
        self.rows_with_text += len(texts)
        self.characters += sum(map(len, texts))

    def duplicates(self) -> tuple[int, list[list[int]]]:
        """Rows whose codes an earlier row has, and up to five groups of such rows, as places in feeding order."""
        hashes = np.frombuffer(self.hashes, np.uint64) if self.hashes else np.empty(0, np.uint64)
        order = np.argsort(hashes, kind="stable")
        same = hashes[order][1:] == hashes[order][:-1]
        groups: list[list[int]] = []
        for place in np.flatnonzero(same).tolist():
            first, second = int(order[place]), int(order[place + 1])
            if groups and groups[-1][-1] == first:
                groups[-1].append(second)
            elif len(groups) == 5:
                break
            else:
                groups.append([first, second])
        return int(same.sum()), groups

    def summary(self) -> dict[str, Any]:
        """Everything counted, as plain JSON values; seconds and hours say so in their names."""
        return {
            "rows": self.rows,
            "hours": self.seconds / 3600,
            "tokens": self.tokens,
            "speakers": {
                "named": len(self.speakers),
                "rows_without": self.rows_without_speaker,
                "most_hours": {name: total / 3600 for name, total in self.speakers.most_common(10)},
            },
            **{f"by_{name}": _by_hours(self.labels[name]) for name in LABELLED},
            "text": {"rows_with": self.rows_with_text, "characters": self.characters},
            "durations": _duration_summary(self.durations, self.seconds, self.rows),
            "codebooks": [_codebook_summary(counts) for counts in self.counts],
            "near_silent": {
                "rows": self.near_silent,
                "meaning": NEAR_SILENT,
                "examples": self.near_silent_keys,
            },
            "duplicates": {"rows": self.duplicates()[0], "meaning": "rows whose codes equal those of an earlier row"},
        }


def majority_counts(codes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """How often the code that makes up more than half of a row stands in it; for other rows some number up to half.

    Args: codes: uint16 [sum of lengths], row after row. lengths: [rows]. Returns: int64 [rows].
    """
    counts = np.zeros(len(lengths), np.int64)
    filled = np.flatnonzero(lengths)
    if len(filled):
        lengths = lengths[filled]
        starts = np.cumsum(lengths) - lengths
        majority = np.zeros(len(lengths), np.uint16)
        for bit in range(16):  # a code that is most of a row has its way in each of its bits: no sorting needed
            ones = np.add.reduceat((codes >> bit) & 1, starts, dtype=np.int64)
            majority |= (2 * ones > lengths).astype(np.uint16) << bit
        counts[filled] = np.add.reduceat(codes == np.repeat(majority, lengths), starts, dtype=np.int64)
    return counts


def _by_hours(totals: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Labels by falling hours; "" is no label."""
    ranked = sorted(totals.items(), key=lambda item: (-item[1][1], item[0]))
    return {label: {"rows": int(rows), "hours": seconds / 3600} for label, (rows, seconds) in ranked}


def _duration_summary(steps: Counter[int], seconds: float, rows: int) -> dict[str, Any]:
    """Quantiles to 10 ms, and a histogram of at most forty equal bins from 0."""
    if not rows:
        return {"quantiles": {}, "histogram": {"edges": [0.0, 1.0], "counts": [0]}}
    values = np.array(sorted(steps))
    counts = np.array([steps[value] for value in values.tolist()])
    below = np.cumsum(counts)
    quantiles = {f"p{round(q * 100)}": float(values[np.searchsorted(below, q * rows)]) / 100 for q in QUANTILES}
    widths = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
    width = next((w for w in widths if values[-1] < 4000 * w), float(values[-1]) / 3900)
    bins = np.bincount((values / (100 * width)).astype(np.int64), weights=counts).astype(np.int64)
    return {
        "min": float(values[0]) / 100,
        "mean": seconds / rows,
        "max": float(values[-1]) / 100,
        "quantiles": quantiles,
        "histogram": {"edges": [i * width for i in range(len(bins) + 1)], "counts": bins.tolist()},
    }


def _codebook_summary(counts: np.ndarray) -> dict[str, Any]:
    """Use of one codebook: the entropy is of single codes, in bits, and at most log2 of the size."""
    total = int(counts.sum())
    used = np.sort(counts[counts > 0])[::-1]
    shares = used / max(total, 1)
    entropy = float(-(shares * np.log2(shares)).sum()) if total else 0.0
    ranks = sorted({round(1.3**power) for power in range(60)} | {1, 2, 3, len(used)})
    return {
        "size": len(counts),
        "used": len(used),
        "entropy_bits": max(entropy, 0.0),
        "most_frequent": int(counts.argmax()) if total else None,
        "most_frequent_share": float(shares[0]) if total else 0.0,
        "share_by_rank": [[rank, float(shares[rank - 1])] for rank in ranks if 1 <= rank <= len(used)],
    }
