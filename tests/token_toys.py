"""Small token shards for tests: rows that say by themselves which they are, as Parquet or WebDataset."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.audio import Utterance
from schemas.tokens import TokenRecord, token_batch


def record(number, corpus="toy", languages=("en", "de")):
    """Row `number`: its codes begin with it, and its labels follow from it."""
    rng = np.random.default_rng(number)
    codes = rng.integers(0, 65_536, (1, int(rng.integers(20, 200))), np.uint16)
    codes[0, :2] = number // 65_536, number % 65_536
    utterance = Utterance(
        id=f"{corpus}_{number:06d}",
        corpus=corpus,
        source=f"/data/{corpus}.tar::{number}.wav",
        text=f"Row number {number}.",
        language=languages[number % len(languages)],
        license="CC0-1.0" if number % 3 else "CC-BY-4.0",
        extra=json.dumps({"dnsmos": 2 + number % 5 / 2}) if number % 11 else "{}",
    )
    return TokenRecord(utterance, codes, 320 * codes.shape[1])


def write_parquet(path, records, group_rows=50, columns=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_batches([token_batch(records, 16_000)])
    pq.write_table(table.select(columns) if columns else table, path, row_group_size=group_rows, compression="zstd")


def write_tar(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for row in token_batch(records, 16_000).to_pylist():
            codes = io.BytesIO()
            np.save(codes, np.array(row.pop("codes"), np.uint16))
            key = row.pop("__key__")
            for kind, payload in (("json", json.dumps(row).encode()), ("npy", codes.getvalue())):
                member = tarfile.TarInfo(f"{key}.{kind}")
                member.size = len(payload)
                tar.addfile(member, io.BytesIO(payload))


def write_set(folder, sizes, first=0, corpus="toy", group_rows=50, kind="parquet"):
    """Shards of these sizes, rows numbered from `first` on. Returns the folder as text."""
    for i in range(len(sizes)):
        records = [record(first + n, corpus) for n in range(sum(sizes[:i]), sum(sizes[: i + 1]))]
        if kind == "parquet":
            write_parquet(folder / f"{corpus}-{i:03d}.parquet", records, group_rows)
        else:
            write_tar(folder / f"{corpus}-{i:03d}.tar", records)
    return str(folder)


def keys(batches):
    """The rows of batches, one after the other, by their keys."""
    return [key for batch in batches for key in batch["__key__"]]
