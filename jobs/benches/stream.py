"""Token rows per second against the streams that others use: the same rows, one run, one machine, each reader alone.

    python -m venv .venv-peers && .venv-peers/bin/pip install -r tests/requirements-peers.txt
    python -m jobs.bench stream --peers-python .venv-peers/bin/python

Rows of `__key__`, `text`, `codes` in batches of 64 as lists, one DataLoader worker, shuffled over at least 10,000 rows,
caches warm, the second epoch. Then packed sequences of 2,048 ids on one core, with no worker. Seconds of the clock
count; those of the processor, of all processes of a reader, stand beside them. `neutok` is a TokenDataset in a
DataLoader, its blocks kept decoded on the local disk, as MosaicML and litdata keep theirs in a form of their own;
`neutok_loader` has the worker send eight steps at once; `neutok_direct` does, too, and decodes its shards each epoch.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.benches.stream_readers import PACKED_READERS, ROW_READERS, nothing
from jobs.options import COMPLETE, INCOMPLETE, option, parse

SHARD_ROWS, GROUP_ROWS = 25_000, 4096
AS_THEY_ARE = [name for name, (prepare, _) in {**ROW_READERS, **PACKED_READERS}.items() if prepare is nothing]
PEERS_APART = ("mosaicml", "litdata", "litdata_tokens")  # the others are dependencies of neutok itself


@dataclass(frozen=True)
class StreamOptions:
    tokens: int = option("how many codes the rows hold, about", 100_000_000)
    readers: tuple[str, ...] = option("which to run", (*ROW_READERS, *PACKED_READERS), separator=",")
    peers_python: str = option("the interpreter of an environment that has the peers", sys.executable)
    folder: str = option("where rows and the peers' own formats are kept; none: a temporary one", "")
    json: bool = option("print one JSON object", False)


def main(argv: Sequence[str] | None = None) -> int:
    given = parse(StreamOptions, argv, "neutok bench stream", __doc__ or "")
    with tempfile.TemporaryDirectory(prefix="neutok-bench-") as temporary:
        folder = Path(given.folder or temporary)
        write_rows(folder / "rows", given.tokens)
        results = {name: measure(name, folder, given.peers_python, given.json) for name in given.readers}
    report(results, given.json)
    return COMPLETE if all(results.values()) else INCOMPLETE


def write_rows(folder: Path, tokens: int) -> None:
    """Random codes in rows as long as utterances are, as a published data set stores them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, left, number = np.random.default_rng(0), tokens, 0
    while left > 0:
        lengths = np.clip(rng.lognormal(1.9, 0.6, SHARD_ROWS) * 50, 50, 1500).astype(np.int32)
        lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), left)) + 1]
        codes = rng.integers(0, 65_536, lengths.sum(), np.uint16)
        table = pa.table(
            {
                "__key__": [f"bench_EN_B{number:05d}_S00000_W{row:06d}" for row in range(len(lengths))],
                "text": ["something that someone once said, " * (length // 150 + 1) for length in lengths.tolist()],
                "codes": pa.ListArray.from_arrays(pa.array(np.append(0, np.cumsum(lengths)).astype(np.int32)), codes),
            }
        )
        path = folder / f"rows-{number:05d}.parquet"
        if not path.exists():
            pq.write_table(table, path, row_group_size=GROUP_ROWS, compression="zstd")
        left, number = left - int(lengths.sum()), number + 1


def measure(name: str, folder: Path, peers_python: str, quiet: bool) -> dict[str, Any] | None:
    """What a reader says of its second epoch; None if it could not run, and why on the screen."""
    python = peers_python if name in PEERS_APART else sys.executable
    own = folder / name
    command = [python, "-W", "ignore", "-m", "jobs.benches.stream_readers", name]
    for what in ("prepare", "read"):
        if what == "prepare" and ((own / "prepared").exists() or name in AS_THEY_ARE):
            continue
        try:
            environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
            done = subprocess.run(
                [*command, what, str(folder / "rows"), str(own)], capture_output=True, text=True, env=environment,
                check=True, cwd=Path(__file__).parents[2],
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError) as error:
            lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            print(f"{name} does not run here: {lines[-1]}", file=sys.stderr)
            return None
        if what == "prepare":
            (own / "prepared").touch()
    result = json.loads(done.stdout.strip().splitlines()[-1])
    if not quiet:
        print(f"{name:16} {line(result)}", flush=True)
    return result


def line(result: dict[str, Any]) -> str:
    seconds, used = result["seconds"], result["cpu_seconds"]
    rows, tokens = result["rows"] / seconds, result["tokens"] / seconds / 1e6
    return f"{rows:10,.0f} rows/s {tokens:8.1f} M tokens/s {seconds:8.2f} s ({used:.2f} s of processor)"


def report(results: dict[str, dict[str, Any] | None], as_json: bool) -> None:
    ran = {name: result for name, result in results.items() if result}
    rows = {name: result for name, result in ran.items() if name in ROW_READERS}
    peers = {name: result for name, result in rows.items() if not name.startswith("neutok")}
    same = len({(result["rows"], result["tokens"], result["sum"]) for result in rows.values()}) <= 1
    fastest = min(peers, key=lambda name: peers[name]["seconds"], default=None)
    ours = rows.keys() - peers.keys() if fastest else ()
    ratios = {name: peers[fastest]["seconds"] / rows[name]["seconds"] for name in sorted(ours)}
    if as_json:
        print(json.dumps({"results": results, "same_rows": same, "times_the_fastest_peer": ratios}, indent=1))
        return
    print(f"all gave the same rows: {'yes' if same else 'NO'}")
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.1f} times the fastest peer, {fastest}")


if __name__ == "__main__":
    sys.exit(main())
