"""Measurements, each a command of its own: `python -m jobs.bench encode`, `python -m jobs.bench kill`, …"""

import sys
from collections.abc import Sequence

from jobs.commands import dispatch
from jobs.options import usage_error

BENCHES: dict[str, tuple[str, str]] = {
    "encode": (
        "jobs.benches.encode",
        "times real time of a codec, its share of the device's peak, where time goes",
    ),
    "peers": (
        "jobs.benches.peers",
        "encoding speed against the published packages, and whether codes agree",
    ),
    "engine": (
        "jobs.benches.engine",
        "what the engine around a codec leaves of its speed and its codes",
    ),
    "ragged": ("jobs.benches.ragged", "codes of random ragged batches against each clip's own"),
    "precision": ("jobs.benches.precision", "what a lower precision does to codes and sound, and what it gains"),
    "kernel": ("jobs.benches.kernel", "the fused activation: exactness, and its share of the device's copy bandwidth"),
    "gpu": ("jobs.benches.gpu", "all of these that a GPU needs, in one go, on a machine with torch alone"),
    "kill": ("jobs.benches.kill", "kill -9 actors, drivers and nodes; compare every byte with an undisturbed run"),
    "stream": ("jobs.benches.stream", "token rows per second against the streams others use"),
    "pipeline": ("jobs.benches.pipeline", "hours of audio per core-hour, with a codec that costs nothing"),
}


def main(argv: Sequence[str] | None = None) -> int:
    try:
        return dispatch("neutok bench", BENCHES, sys.argv[1:] if argv is None else argv)
    except ModuleNotFoundError as error:
        if error.name != "psutil":
            raise
        return usage_error("neutok bench", "this one watches processes by psutil: pip install 'neutok[dev]'")


if __name__ == "__main__":
    sys.exit(main())
