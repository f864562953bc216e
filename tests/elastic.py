"""Trials of elastic resume: a run stopped at random and continued on other ranks and workers equals one undisturbed.

python -m tests.elastic --trials 50
"""

import argparse
import hashlib
import json
import os
import random
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader

from pipeline.dataset import TokenDataset
from pipeline.tokens.index import Keep
from pipeline.tokens.templates import Plain
from tests.token_toys import write_set

WORLDS = range(1, 9)
WORKERS = range(5)
MOST_PROCESSES = 4  # real loader processes of one leg; beyond that workers are played in turn, as a loader takes them


def contents(item):
    """The rows of an item, each as bytes."""
    if isinstance(item, dict):
        tensors = [value for value in item.values() if isinstance(value, torch.Tensor)]
        return [b"".join(tensor[i].numpy().tobytes() for tensor in tensors) for i in range(len(item["filler"]))]
    values = [item[name] for name in item.columns]
    plain = [[v.tobytes() if isinstance(v, np.ndarray) else repr(v).encode() for v in column] for column in values]
    return [b"|".join(row) + bytes([filler]) for *row, filler in zip(*plain, item.filler, strict=True)]


def play(dataset, workers, count):
    """The first items as a loader with this many workers gives them, without the processes."""
    streams = []
    for worker in range(max(1, workers)):
        info = SimpleNamespace(id=worker, num_workers=workers) if workers else None
        with mock.patch("pipeline.dataset.get_worker_info", lambda info=info: info):
            stream = iter(dataset)
            streams.append((stream, [next(stream)] if worker < count else []))  # asks which worker it is at its first
    for i in range(count):
        stream, waiting = streams[i % len(streams)]
        yield waiting.pop() if waiting else next(stream)
    for stream, _ in streams:
        stream.close()


def read(dataset, workers, count, real, together):
    if not real:
        yield from play(dataset, workers, count)
        return
    if together:
        items = dataset.loader(workers, together)
    else:
        items = iter(DataLoader(dataset, batch_size=None, num_workers=workers))
    for _ in range(count):
        yield next(items)
    del items  # and with it what was loaded ahead


def damage(path):
    """One row group unreadable, and nothing of it to be seen from outside."""
    data, written = bytearray(path.read_bytes()), path.stat().st_mtime_ns
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(1)
    first = chunk.dictionary_page_offset or chunk.data_page_offset
    data[first : first + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    path.write_bytes(data)
    os.utime(path, ns=(written, written))


def options(chance, folder):
    """A random stream, and its number of steps."""
    names = ["a", "b", "c"][: chance.randint(1, 3)]
    inputs = {}
    for i, name in enumerate(names):
        sizes = [chance.randint(30, 250) for _ in range(chance.randint(1, 4))]
        kind = chance.choice(["parquet", "parquet", "tar"])
        inputs[name] = write_set(folder / name, sizes, 1000 * i, name, chance.choice([20, 50, 400]), kind)
    given = {"batch_size": chance.choice([8, 12, 24, 30, 42, 60]), "seed": chance.randint(0, 9)}
    if len(names) > 1 and chance.random() < 0.7:
        parts = [{name: chance.choice([1, 2, 0.3]) for name in names} for _ in range(2)]
        given["weights"] = chance.choice([parts[0], [(0, parts[0]), (7, parts[1])]])
    if chance.random() < 0.5:
        given["keep"] = Keep(min_codes=chance.randint(0, 60), licenses=chance.choice([(), ("CC0-1.0",)]))
    if chance.random() < 0.5:
        given |= {"template": Plain(base=5, end_id=3), "sequence_length": chance.choice([128, 512])}
    elif chance.random() < 0.3:
        given["template"] = Plain(base=5, end_id=3)
    return {"inputs": inputs, "window": chance.choice([64, 300, 10_000]), **given}, chance.randint(12, 30)


def trial(seed, folder):
    """One trial. Returns what it was, in a line. Raises: AssertionError."""
    chance = random.Random(seed)
    given, steps = options(chance, folder)

    def make(rank, world):
        return TokenDataset(**given, steps=steps, rank=rank, world=world)

    make(0, 1)
    # where a set is one row group, nothing of it could stand in for it
    shards = [path for path in sorted(folder.rglob("?-*.parquet")) if pq.ParquetFile(path).num_row_groups > 1]
    broken = bool(shards) and chance.random() < 0.4
    if broken:
        damage(chance.choice(shards))
    undisturbed = [contents(item) for item in make(0, 1)]
    assert len(undisturbed) == steps and len(set(map(tuple, undisturbed))) > steps // 2

    state, done, legs = None, 0, []
    while done < steps:
        world = chance.choice([world for world in WORLDS if given["batch_size"] % world == 0])
        workers, count = chance.choice(WORKERS), chance.randint(1, min(9, steps - done))
        real = workers > 0 and world * workers <= MOST_PROCESSES
        ranks = [make(rank, world) for rank in range(world)]
        for dataset in ranks if state else []:
            dataset.load_state_dict(json.loads(state))
        together = chance.choice([0, 1, 3])
        parts = [list(read(dataset, workers, count, real, together)) for dataset in ranks]
        for i, items in enumerate(zip(*parts, strict=True)):
            assert all(item["step"] == done + i for item in items)
            together = [row for item in items for row in contents(item)]
            assert together == undisturbed[done + i], f"step {done + i} differs on {world} ranks x {workers} workers"
        done += count
        state = json.dumps(ranks[0].state_dict(done))
        legs.append(f"{count}@{world}x{workers}{'' if real or not workers else 'p'}")
    what = [f"{len(given['inputs'])} sets", *sorted(set(given) & {"weights", "keep", "template", "sequence_length"})]
    digest = hashlib.sha256(b"".join(row for step in undisturbed for row in step)).hexdigest()[:8]
    return f"{', '.join(what)}{', broken' if broken else ''}: {' '.join(legs)} = {digest}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the first trial")
    given = parser.parse_args()
    start = time.monotonic()
    for seed in range(given.seed, given.seed + given.trials):
        with tempfile.TemporaryDirectory() as folder:
            print(f"trial {seed}: {trial(seed, Path(folder))}", flush=True)
    print(f"{given.trials} trials equal their undisturbed runs, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
