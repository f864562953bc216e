"""Readers of the same token rows, each as its own documentation shows it: batches of 64 rows out of a torch DataLoader.

    python -m jobs.benches.stream_readers READER prepare|read ROWS FOLDER

A process of its own for each, so that the peers may live in an environment of their own
(tests/requirements-peers.txt): this file needs numpy, pyarrow, torch and the one peer it is asked for. Prints JSON.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader

BATCH_ROWS, SHUFFLE_ROWS, SEQUENCE = 64, 10_000, 2048
BASE = 1000  # of the ids that codes become in packed sequences


def as_list(rows: list[Any]) -> list[Any]:
    """Collate nothing: a batch is the list of its rows."""
    return rows


def rows_of(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(4096):
            lists = batch.column("codes")
            values, bounds = lists.values.to_numpy(), lists.offsets.to_numpy()
            labels = zip(batch.column("__key__").to_pylist(), batch.column("text").to_pylist(), strict=True)
            for i, (key, text) in enumerate(labels):
                yield {"__key__": key, "text": text, "codes": values[bounds[i] : bounds[i + 1]]}


def nothing(rows: Path, folder: Path) -> None:
    """For readers of the rows as they are."""


def neutok(rows: Path, folder: Path) -> Iterable[Any]:
    from pipeline.dataset import TokenDataset

    dataset = TokenDataset(str(rows), BATCH_ROWS, cache=str(folder), local=str(folder / "local"), rank=0, world=1)
    return DataLoader(dataset, batch_size=None, num_workers=1)


class Again:
    """A loader of which every iteration is a new one."""

    def __init__(self, make: Callable[[], Iterable[Any]]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        return iter(self.make())


def neutok_loader(rows: Path, folder: Path) -> Iterable[Any]:
    return Again(neutok(rows, folder).dataset.loader)


def neutok_direct(rows: Path, folder: Path) -> Iterable[Any]:
    from pipeline.dataset import TokenDataset

    return Again(TokenDataset(str(rows), BATCH_ROWS, cache=str(folder), rank=0, world=1).loader)


def datasets(rows: Path, folder: Path) -> Iterable[Any]:
    from datasets import load_dataset

    stream = load_dataset("parquet", data_files=str(rows / "*.parquet"), split="train", streaming=True)
    stream = stream.shuffle(seed=0, buffer_size=SHUFFLE_ROWS)
    return DataLoader(stream, batch_size=BATCH_ROWS, num_workers=1, collate_fn=as_list)


def datasets_numpy(rows: Path, folder: Path) -> Iterable[Any]:
    from datasets import load_dataset

    stream = load_dataset("parquet", data_files=str(rows / "*.parquet"), split="train", streaming=True)
    stream = stream.shuffle(seed=0, buffer_size=SHUFFLE_ROWS).with_format("numpy")
    return DataLoader(stream, batch_size=BATCH_ROWS, num_workers=1, collate_fn=as_list)


def write_webdataset(rows: Path, folder: Path) -> None:
    import webdataset

    with webdataset.ShardWriter(str(folder / "rows-%03d.tar"), maxcount=25_000, verbose=0) as sink:
        for row in rows_of(rows):
            sink.write({"__key__": row["__key__"], "txt": row["text"], "npy": row["codes"]})


def webdataset(rows: Path, folder: Path) -> Iterable[Any]:
    import webdataset

    shards = sorted(map(str, folder.glob("*.tar")))
    stream = webdataset.WebDataset(shards, shardshuffle=len(shards)).shuffle(SHUFFLE_ROWS).decode()
    stream = stream.to_tuple("__key__", "txt", "npy").batched(BATCH_ROWS, collation_fn=as_list)
    return webdataset.WebLoader(stream, batch_size=None, num_workers=1)


def write_mosaicml(rows: Path, folder: Path) -> None:
    from streaming import MDSWriter

    columns = {"__key__": "str", "text": "str", "codes": "ndarray:uint16"}
    with MDSWriter(out=str(folder), columns=columns) as sink:
        for row in rows_of(rows):
            sink.write(row)


def mosaicml(rows: Path, folder: Path) -> Iterable[Any]:
    from streaming import StreamingDataset

    dataset = StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH_ROWS)
    return DataLoader(dataset, batch_size=BATCH_ROWS, num_workers=1, collate_fn=as_list)


def shard_rows(path: str) -> Iterator[dict[str, Any]]:
    for batch in pq.ParquetFile(path).iter_batches(4096):
        for row in batch.to_pylist():
            yield {**row, "codes": np.array(row["codes"], np.uint16)}


def shard_tokens(path: str) -> Iterator[torch.Tensor]:
    for row in shard_rows(path):
        yield torch.from_numpy(row["codes"].astype(np.int32) + BASE)


def write_litdata(rows: Path, folder: Path) -> None:
    from litdata import optimize

    paths = sorted(map(str, rows.glob("*.parquet")))
    optimize(fn=shard_rows, inputs=paths, output_dir=str(folder), chunk_bytes="64MB", num_workers=1)


def litdata(rows: Path, folder: Path) -> Iterable[Any]:
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(str(folder), shuffle=True)
    return StreamingDataLoader(dataset, batch_size=BATCH_ROWS, num_workers=1, collate_fn=as_list)


def neutok_packed(rows: Path, folder: Path) -> Iterable[Any]:
    from pipeline.dataset import TokenDataset
    from pipeline.tokens.templates import Plain

    template = Plain(base=BASE, end_id=0)
    dataset = TokenDataset(
        str(rows), 16, template=template, sequence_length=SEQUENCE, cache=str(folder), rank=0, world=1
    )
    return DataLoader(dataset, batch_size=None, num_workers=0)


def write_litdata_tokens(rows: Path, folder: Path) -> None:
    from litdata import TokensLoader, optimize

    paths = sorted(map(str, rows.glob("*.parquet")))
    optimize(
        fn=shard_tokens,
        inputs=paths,
        output_dir=str(folder),
        chunk_size=SEQUENCE * 4096,
        item_loader=TokensLoader(block_size=SEQUENCE),
        num_workers=1,
    )


def litdata_tokens(rows: Path, folder: Path) -> Iterable[Any]:
    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader

    dataset = StreamingDataset(str(folder), item_loader=TokensLoader(block_size=SEQUENCE), shuffle=True)
    return StreamingDataLoader(dataset, batch_size=16, num_workers=0)


Prepare, Read = Callable[[Path, Path], None], Callable[[Path, Path], Iterable[Any]]
ROW_READERS: dict[str, tuple[Prepare, Read]] = {
    "neutok": (nothing, neutok),
    "neutok_loader": (nothing, neutok_loader),
    "neutok_direct": (nothing, neutok_direct),
    "datasets": (nothing, datasets),
    "datasets_numpy": (nothing, datasets_numpy),
    "webdataset": (write_webdataset, webdataset),
    "mosaicml": (write_mosaicml, mosaicml),
    "litdata": (write_litdata, litdata),
}
PACKED_READERS: dict[str, tuple[Prepare, Read]] = {
    "neutok_packed": (nothing, neutok_packed),
    "litdata_tokens": (write_litdata_tokens, litdata_tokens),
}


def count(batch: Any) -> tuple[int, int, int]:
    """Rows, tokens, and a sum that tells whether they are the right ones."""
    if isinstance(batch, torch.Tensor):
        return len(batch), batch.numel(), 0
    if isinstance(batch, dict):
        return len(batch["input_ids"]), int((batch["sequence_ids"] > 0).sum()), 0
    if isinstance(batch, list):
        codes = [row["codes"] if isinstance(row, dict) else row[2] for row in batch]
        fillers = [False] * len(batch)
    else:
        codes, fillers = batch["codes"], batch.filler
    kept = [row for row, filler in zip(codes, fillers, strict=True) if not filler]
    return len(kept), sum(map(len, kept)), sum(int(row[0]) + int(row[-1]) for row in kept)


def epoch(loader: Iterable[Any]) -> dict[str, Any]:
    """One epoch of a loader: its seconds, from asking for the first batch to the end, and what it held."""
    rows = tokens = total = 0
    start, used = time.perf_counter(), processor_seconds()
    for batch in loader:
        held = count(batch)
        rows, tokens, total = rows + held[0], tokens + held[1], total + held[2]
    seconds, used = time.perf_counter() - start, processor_seconds() - used
    return {"seconds": seconds, "cpu_seconds": used, "rows": rows, "tokens": tokens, "sum": total}


def processor_seconds() -> float:
    """Of this process and of its workers that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("reader", choices=[*ROW_READERS, *PACKED_READERS])
    parser.add_argument("what", choices=["prepare", "read"])
    parser.add_argument("rows", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    prepare, read = {**ROW_READERS, **PACKED_READERS}[given.reader]
    if given.what == "prepare":
        given.folder.mkdir(parents=True, exist_ok=True)
        prepare(given.rows, given.folder)
        return
    torch.set_num_threads(1)
    if given.reader in PACKED_READERS:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # per core
    loader = read(given.rows, given.folder)
    epoch(loader)  # fills the caches
    print(json.dumps(epoch(loader)))


if __name__ == "__main__":
    main()
