"""List what a corpus holds, without decoding any of it: `neutok index`. `neutok tokenize` does it by itself."""

import sys
from collections.abc import Sequence

from jobs.corpus import Source, build, check_source, index_folder, plan, wrong_options
from jobs.options import COMPLETE, UsageError, parse, usage_error

PROG = "neutok index"


def main(argv: Sequence[str] | None = None) -> int:
    source = parse(Source, argv, PROG, __doc__)
    try:
        with wrong_options(), index_folder(source) as folder:
            check_source(source)
            print(plan(build(source, folder), source))
    except UsageError as error:
        return usage_error(PROG, error)
    return COMPLETE


if __name__ == "__main__":
    sys.exit(main())
