"""Hold a finished output against itself, every byte of it: `neutok verify out`."""

import argparse
import json
import sys
from collections.abc import Sequence

from jobs.options import COMPLETE, INCOMPLETE, usage_error

PROG = "neutok verify"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=PROG, description=__doc__, allow_abbrev=False)
    parser.add_argument("output", help="folder or URL of a finished output")
    folder = parser.parse_args(argv).output

    from pipeline import storage
    from pipeline.manifest import Output, verify

    try:
        run = json.loads(storage.read_bytes(storage.join(folder, "run.json")))
        verdict = verify(Output(folder, run["format"]))
    except (ValueError, KeyError, OSError) as error:
        return usage_error(PROG, f"{folder} is no finished output: {error}")
    print(verdict)
    return COMPLETE if verdict.whole else INCOMPLETE


if __name__ == "__main__":
    sys.exit(main())
