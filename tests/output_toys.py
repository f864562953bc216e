"""Token outputs made without audio or codec: random codes in the real layout, for tests of what reads them."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.audio import Reject, Utterance
from schemas.manifest import ShardInfo, ShardManifest
from schemas.tokens import TokenRecord, reject_batch, token_batch

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
        data = f"data/{name}.{_ending(kind)}"
        (write_parquet if kind == "parquet" else write_tar)(folder / data, rows)
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
    )


def _ending(kind):
    return "parquet" if kind == "parquet" else "tar"


def write_parquet(path, rows):
    table = pa.Table.from_batches([token_batch(rows, 16000)])
    pq.write_table(table.replace_schema_metadata({"codec": json.dumps(CODEC)}), path, compression="zstd")


def write_tar(path, rows):
    batch = token_batch(rows, 16000).to_pylist()
    with tarfile.open(path, "w") as tar:
        for record, row in zip(rows, batch, strict=True):
            key, _ = row.pop("__key__"), row.pop("codes")
            file = io.BytesIO()
            np.save(file, np.ascontiguousarray(record.codes.T).reshape(-1))
            for ending, data in (("npy", file.getvalue()), ("json", json.dumps(row).encode())):
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
