"""Token outputs made without audio or codec: random codes in the real layout, for tests of what reads them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline.sinks import SINKS
from schemas.audio import Reject, Utterance
from schemas.manifest import ShardInfo, ShardManifest
from schemas.spec import CodecSpec
from schemas.tokens import TokenRecord, reject_batch

CODEC = {
    "name": "neucodec",
    "revision": "0123abcd",
    "precision": "float32",
    "input_rate": 16000,
    "output_rate": 24000,
    "hop_length": 320,
    "num_codebooks": 1,
    "codebook_size": 65536,
    "levels": [4] * 8,
    "extra_frames": 0,
}


class Humming:
    """Each frame sounds its own code: constant at code / 32768, so a moved or mixed frame shows; loud above 1."""

    def __init__(self, revision):
        self.spec = CodecSpec.from_json({**CODEC, "revision": revision})

    def decode(self, codes, num_frames=None):
        num_frames = torch.full(codes.shape[:1], codes.shape[2]) if num_frames is None else num_frames
        keep = torch.arange(codes.shape[2])[None] < num_frames[:, None]
        return (codes.float() / 32768 * keep[:, None]).repeat_interleave(480, dim=2)


def records(number, seed=0, corpus="toy", frames=(50, 500), **labels):
    """Rows of random codes; labels may be values or functions of the row's number."""
    draw = np.random.default_rng(seed)
    made = []
    for row in range(number):
        length = int(draw.integers(*frames))
        known = {name: value(row) if callable(value) else value for name, value in labels.items()}
        known.setdefault("text", f"Sentence {row}.")
        known.setdefault("language", "en")
        known.setdefault("speaker", f"speaker {row % 3}")
        known.setdefault("license", "CC-BY-4.0")
        key = f"{corpus}_{seed}_{row:05}"
        utterance = Utterance(key, corpus, f"/private/place/{corpus}-{seed}.tar::{key}.mp3", **known)
        made.append(TokenRecord(utterance, draw.integers(0, 65536, (1, length), np.uint16), length * 320 + 7))
    return made


def write_output(folder, units, rejects=(), kind="parquet"):
    """An output of one shard a unit (name -> records), with rejects, sidecars, run.json and manifest.json."""
    folder = Path(folder)
    for name in ("data", "rejects", "done"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shards = []
    for name, rows in units.items():
        data = f"data/{name}{SINKS[kind].SUFFIX}"
        with (folder / data).open("wb") as file:
            SINKS[kind].write(file, rows, CodecSpec.from_json(CODEC))
        lost = [Reject(Utterance(f"{name}_{i}", "toy", "x.tar"), reason, "seen") for i, reason in enumerate(rejects)]
        pq.write_table(pa.Table.from_batches([reject_batch(lost)]), folder / "rejects" / f"{name}.parquet")
        frames = sum(record.codes.shape[1] for record in rows)
        samples = sum(record.num_samples for record in rows)
        shards.append(shard_info(folder, name, data, len(rows), frames, rejects, samples))
        (folder / "done" / f"{name}.json").write_text(shards[-1].to_json())
    run = {"codec": CODEC, "index": "abc"}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "manifest.json").write_text(ShardManifest(1, run, tuple(shards), {}).to_json())
    return folder


def shard_info(folder, name, data, num_records, num_frames, rejects, num_samples=None):
    """The sidecar of a shard that is there."""
    stored = (folder / data).read_bytes()
    samples = num_frames * 320 if num_samples is None else num_samples
    return ShardInfo(
        name=name,
        num_clips=num_records + len(rejects),
        num_records=num_records,
        num_frames=num_frames,
        num_samples=samples,
        seconds=samples / 16000,
        data=data,
        rejects=f"rejects/{name}.parquet",
        num_bytes=len(stored),
        sha256=hashlib.sha256(stored).hexdigest(),
        rejects_sha256="",
        skipped={reason: list(rejects).count(reason) for reason in set(rejects)},
        corpus="toy",
    )
