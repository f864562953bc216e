"""What a shard or a whole output holds: `neutok inspect out --html out.html`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.options import COMPLETE, WRONG, from_namespace, option, parser_of, usage_error
from pipeline.reporting.page import to_html
from pipeline.reporting.report import inspect, to_text

PROG = "neutok inspect"


@dataclass(frozen=True)
class Options:
    json: bool = option("print the report as JSON", False)
    html: str | None = option("write the report as one page with plots, for any browser", None, written=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(Options, PROG, "What a token shard or a whole output holds: hours, labels, codes, rejects.")
    parser.add_argument("path", help="a token shard, or the folder of an output; local or any URL fsspec knows")
    parsed = parser.parse_args(argv)
    options = from_namespace(Options, parsed)
    try:
        report = inspect(parsed.path)
    except WRONG as error:
        return usage_error(PROG, error)
    print(json.dumps(report, indent=1, ensure_ascii=False) if options.json else to_text(report), end="")
    if options.html:
        Path(options.html).write_text(to_html(report))
        print(f"wrote {options.html}", file=sys.stderr)
    return COMPLETE


if __name__ == "__main__":
    sys.exit(main())
