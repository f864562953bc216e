"""Codes at rest: one clip's tokens, and the Arrow columns that rows and rejects are written in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.audio import Reject, Utterance


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """One clip as codes: uint16 [K, F], of `num_samples` samples at the codec's input rate."""

    utterance: Utterance
    codes: np.ndarray
    num_samples: int


LABELS = ("text", "corpus", "language", "speaker", "recording", "split", "license")

TOKEN_SCHEMA = pa.schema(
    [pa.field("__key__", pa.string(), nullable=False), pa.field("codes", pa.list_(pa.uint16()), nullable=False)]
    + [pa.field(name, pa.string()) for name in LABELS]
    + [
        pa.field("num_samples", pa.int64(), nullable=False),
        pa.field("duration", pa.float64(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("extra", pa.string(), nullable=False),
    ]
)

REJECT_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("__key__", "source", "reason", "message")]
)


def token_batch(records: Sequence[TokenRecord], input_rate: int) -> pa.RecordBatch:
    """Rows of TOKEN_SCHEMA. Codes are flat and frame-major: frame 0 of every codebook, then frame 1."""
    flat = [np.ascontiguousarray(record.codes.T).reshape(-1) for record in records]
    ends = np.cumsum([0] + [len(codes) for codes in flat], dtype=np.int32)
    values = np.concatenate(flat) if flat else np.empty(0, np.uint16)
    columns = {
        "__key__": [record.utterance.id for record in records],
        "codes": pa.ListArray.from_arrays(pa.array(ends), pa.array(values, pa.uint16())),
        **{name: [getattr(record.utterance, name) for record in records] for name in LABELS},
        "num_samples": [record.num_samples for record in records],
        "duration": [record.num_samples / input_rate for record in records],
        "source": [record.utterance.source for record in records],
        "extra": [record.utterance.extra for record in records],
    }
    arrays = [pa.array(columns[f.name], f.type) if f.name != "codes" else columns["codes"] for f in TOKEN_SCHEMA]
    return pa.RecordBatch.from_arrays(arrays, schema=TOKEN_SCHEMA)


def record_of(row: Mapping[str, Any], codes: np.ndarray, num_codebooks: int) -> TokenRecord:
    """A row of TOKEN_SCHEMA as it was before it was one.

    Args: row: its columns but for the codes, by name. codes: uint16, frame-major in any shape.
    """
    labels = {name: row[name] for name in LABELS}
    utterance = Utterance(id=row["__key__"], source=row["source"], extra=row["extra"], **labels)
    return TokenRecord(utterance, np.ascontiguousarray(codes.reshape(-1, num_codebooks).T), row["num_samples"])


def reject_batch(rejects: Sequence[Reject]) -> pa.RecordBatch:
    """Rows of REJECT_SCHEMA."""
    rows = [(r.utterance.id, r.utterance.source, r.reason, r.message) for r in rejects]
    columns = list(zip(*rows, strict=True)) or [()] * len(REJECT_SCHEMA)
    return pa.RecordBatch.from_arrays([pa.array(c, pa.string()) for c in columns], schema=REJECT_SCHEMA)
