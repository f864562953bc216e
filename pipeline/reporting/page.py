"""The report as one page for any browser: no script, no outside file, light or dark."""

import json
from html import escape
from typing import Any

from pipeline.reporting.amounts import lasting
from pipeline.reporting.report import draw

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>
:root{{--ink:#1b1f24;--soft:#68717d;--line:#e3e6ea;--paper:#fff;--card:#f7f8fa;color-scheme:light dark}}
@media (prefers-color-scheme:dark){{
:root{{--ink:#e6e9ed;--soft:#99a3ae;--line:#343b44;--paper:#14181d;--card:#1b2027}}}}
body{{margin:0 auto;max-width:1180px;padding:28px 20px 60px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,sans-serif}}
h1{{font-size:22px;margin:0 0 4px;overflow-wrap:anywhere}}h2{{font-size:16px;margin:32px 0 10px}}
p{{color:var(--soft);margin:4px 0}}
.tiles{{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin-top:20px}}
.tiles div{{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px}}
.tiles b{{display:block;font-size:21px;font-variant-numeric:tabular-nums}}
.tiles span{{color:var(--soft);font-size:13px}}
.plots{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:16px;margin-top:20px}}
.plots figure{{margin:0;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px}}
.plots svg{{width:100%;height:auto;display:block}}
.tables{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,270px),1fr));gap:28px}}
.wide{{overflow-x:auto}}table{{border-collapse:collapse;width:100%;font-size:13.5px}}
td,th{{text-align:left;padding:4px 10px 4px 0;border-bottom:1px solid var(--line);vertical-align:top}}
th{{color:var(--soft);font-weight:500}}.n{{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}}
code,pre{{font:12.5px ui-monospace,monospace}}pre{{background:var(--card);border:1px solid var(--line);
border-radius:10px;padding:12px;overflow-x:auto}}
</style></head><body>
{body}
</body></html>
"""


def to_html(report: dict[str, Any]) -> str:
    """One self-contained page: no script, no outside file; every text of the data is escaped."""
    quantiles, odd = report["durations"]["quantiles"], report["near_silent"]
    tiles = {
        "sound": lasting(report["hours"]),
        "rows": f"{report['rows']:,}",
        "tokens": f"{report['tokens']:,}",
        "speakers named": f"{report['speakers']['named']:,}",
        "languages": f"{len(report['by_language'].keys() - {''}):,}",
        "median seconds": f"{quantiles.get('p50', 0):.2f}",
        "rejects": f"{report['rejects']['clips']:,}",
        "near-silent rows": f"{odd['rows']:,}",
        "duplicate rows": f"{report['duplicates']['rows']:,}",
    }
    by_label = [
        (name, ["rows", "sound"], [(k or "not given", f"{v['rows']:,}", lasting(v["hours"])) for k, v in shown])
        for name in ("language", "corpus", "license", "split")
        for shown in [list(report[f"by_{name}"].items())[:30]]
    ]
    speakers = [(name, lasting(hours)) for name, hours in report["speakers"]["most_hours"].items()]
    reasons = [(reason, f"{count:,}") for reason, count in report["rejects"]["by_reason"].items()]
    lengths = [(name, f"{value:.2f}") for name, value in quantiles.items()]
    books = [
        (str(place), f"{b['used']:,}", f"{b['entropy_bits']:.2f}", f"{b['most_frequent_share']:.2%}")
        for place, b in enumerate(report["codebooks"])
    ]
    rows = [
        (r["__key__"], r["language"] or "", r["speaker"] or "", f"{r['duration']:.2f}", r["text"] or "")
        for r in report["first_rows"]
    ]
    odd_rows = [(key, "near-silent") for key in odd["examples"]]
    odd_rows += [(" = ".join(group), "equal codes") for group in report["duplicates"]["examples"]]
    body = [
        f"<h1>{escape(str(report['path']))}</h1><p>{report['shards']:,} token shard{'s' * (report['shards'] != 1)}</p>",
        '<div class="tiles">'
        + "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in tiles.items())
        + "</div>",
        '<div class="plots">' + "".join(f"<figure>{svg}</figure>" for svg in draw(report).values()) + "</div>",
        '<h2>By label</h2><div class="tables">' + "".join(_table([n, *h], r) for n, h, r in by_label) + "</div>",
        '<h2>More numbers</h2><div class="tables">'
        + _table(["codebook", "codes used", "bits", "top code"], books)
        + _table(["quantile", "seconds"], lengths)
        + _table(["speaker", "sound"], speakers)
        + _table(["rejects", "clips"], reasons)
        + "</div>",
        f"<h2>Odd rows</h2><p>Near-silent: {escape(odd['meaning'])}.</p>"
        f"<p>Duplicates: {escape(report['duplicates']['meaning'])}.</p>" + _table(["row", "what"], odd_rows, 0),
        '<h2>First rows</h2><div class="wide">'
        + _table(["key", "language", "speaker", "seconds", "text"], rows, 0)
        + "</div>",
        f"<h2>Provenance</h2><pre>{escape(json.dumps(report['provenance'], indent=1, ensure_ascii=False))}</pre>",
    ]
    return PAGE.format(title=escape(f"neutok: {report['path']}"), body="\n".join(body))


def _table(head: list[str], rows: list[tuple[str, ...]], numbers_from: int = 1) -> str:
    """A table, or nothing where there are no rows. Columns from `numbers_from` on are set right, 0 for none."""
    if not rows:
        return ""
    side = [' class="n"' if numbers_from and place >= numbers_from else "" for place in range(len(head))]
    top = "".join(f"<th{c}>{escape(name)}</th>" for c, name in zip(side, head, strict=True))
    lines = ["".join(f"<td{c}>{escape(cell)}</td>" for c, cell in zip(side, row, strict=True)) for row in rows]
    return f"<div><table><tr>{top}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table></div>"
