"""What a shard or a whole output holds: counted into one dictionary, told in lines for a terminal, drawn as plots."""

import json
import posixpath
from collections import Counter
from typing import Any

import pyarrow.parquet as pq

from pipeline import finding, storage
from pipeline.reporting import plots
from pipeline.reporting.amounts import lasting
from pipeline.reporting.statistics import Statistics
from pipeline.shards import ENDINGS, find_shards, maker, provenance, read_shard


def inspect(path: str) -> dict[str, Any]:
    """Read every row at `path` once and count. Raises: FileNotFoundError if no shard is there, ValueError if broken."""
    shards = find_shards(path)
    codec = maker(shards[0])
    statistics = Statistics(codec.get("num_codebooks", 1), codec.get("codebook_size", 65_536))
    first_rows: list[int] = []
    samples: list[dict[str, Any]] = []
    for shard in shards:
        first_rows.append(statistics.rows)
        for batch in read_shard(shard):
            statistics.add(batch)
            if len(samples) < 8:
                shown = batch.slice(0, 8 - len(samples)).select(["__key__", "text", "language", "speaker", "duration"])
                samples += shown.to_pylist()
    report = {"path": path, "shards": len(shards), **statistics.summary()}
    report["duplicates"]["examples"] = [
        [f"{posixpath.basename(shards[shard])} row {row}" for shard, row in _places(group, first_rows)]
        for group in statistics.duplicates()[1]
    ]
    return {**report, "rejects": count_rejects(path), "provenance": provenance(shards[0]), "first_rows": samples}


def _places(rows: list[int], first_rows: list[int]) -> list[tuple[int, int]]:
    """(shard, row in it) of rows numbered over all shards."""
    shards = [max(i for i, first in enumerate(first_rows) if first <= row) for row in rows]
    return [(shard, row - first_rows[shard]) for shard, row in zip(shards, rows, strict=True)]


def count_rejects(path: str) -> dict[str, Any]:
    """Rejects of an output by reason, or of the one shard `path` if its output is around it."""
    path = storage.plain(path)
    if path.endswith(ENDINGS):
        stem = posixpath.basename(path).rsplit(".", 1)[0]
        beside = storage.join(storage.parent(storage.parent(path)), "rejects", f"{stem}.parquet")
        files = [beside] if storage.exists(beside) else []
    else:
        files = finding.list_files(storage.join(path, "rejects"))
    reasons: Counter[str] = Counter()
    for name in files:
        with storage.open_read(name) as file:
            for batch in pq.ParquetFile(file).iter_batches(columns=["reason"]):
                reasons.update(batch.column("reason").to_pylist())
    return {"clips": reasons.total(), "by_reason": dict(reasons.most_common())}


def to_text(report: dict[str, Any]) -> str:
    """The report in a few lines of plain text."""
    lines = [f"{report['path']}: {report['shards']:,} shard{'s' * (report['shards'] != 1)}"]
    lines += [f"  {name:<14}{value}" for name, value in facts(report).items()]
    for name in ("language", "corpus", "license", "split"):
        shares = [f"{label or 'not given'} {lasting(entry['hours'])}" for label, entry in report[f"by_{name}"].items()]
        lines.append(f"  {name:<14}{', '.join(shares[:8])}{' …' if len(shares) > 8 else ''}")
    for name, rows in (("near-silent", report["near_silent"]), ("duplicates", report["duplicates"])):
        lines.append(f"  {name:<14}{rows['rows']:,} ({rows['meaning']})")
    codec = report["provenance"].get("codec", "not recorded")
    lines.append(f"  {'made by':<14}{json.dumps(codec, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def facts(report: dict[str, Any]) -> dict[str, str]:
    """The numbers one asks for first, in words."""
    lengths, rejects = report["durations"], report["rejects"]
    found = {
        "rows": f"{report['rows']:,}",
        "hours": f"{report['hours']:,.3f}" + (f" ({lasting(report['hours'])})" if report["hours"] < 1 else ""),
        "tokens": f"{report['tokens']:,}",
        "speakers": f"{report['speakers']['named']:,} named, {report['speakers']['rows_without']:,} rows without one",
        "with text": f"{report['text']['rows_with']:,} rows",
    }
    if lengths["quantiles"]:
        middle = ", ".join(f"{name} {value:.2f}" for name, value in lengths["quantiles"].items())
        found["seconds"] = f"{lengths['min']:.2f} to {lengths['max']:.2f}, mean {lengths['mean']:.2f} ({middle})"
    for place, book in enumerate(report["codebooks"]):
        name = "codebook" if len(report["codebooks"]) == 1 else f"codebook {place}"
        found[name] = f"{book['used']:,} of {book['size']:,} codes used, entropy {book['entropy_bits']:.2f} bits"
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in rejects["by_reason"].items())
    found["rejects"] = f"{rejects['clips']:,}" + (f" ({reasons})" if reasons else "")
    return found


def draw(report: dict[str, Any]) -> dict[str, str]:
    """The report's plots as SVG, by file name."""
    shape = report["durations"]["histogram"]
    hours = {label or "not given": entry["hours"] for label, entry in list(report["by_language"].items())[:15]}
    drawn = {"durations.svg": plots.histogram("Durations", shape["edges"], shape["counts"], "seconds", "rows")}
    for place, book in enumerate(report["codebooks"]):
        name = "codebook.svg" if len(report["codebooks"]) == 1 else f"codebook-{place}.svg"
        title = "Codebook use" if len(report["codebooks"]) == 1 else f"Use of codebook {place}"
        drawn[name] = plots.curve(title, book["share_by_rank"], "rank of the code", "share of tokens")
    drawn["languages.svg"] = plots.bars("Sound by language", hours, lasting)
    return drawn
