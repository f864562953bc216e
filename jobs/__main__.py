"""`neutok <command>` is `python -m jobs.<command>`."""

import sys
from collections.abc import Sequence

from jobs.commands import dispatch

COMMANDS: dict[str, tuple[str, str]] = {
    "tokenize": ("jobs.tokenize", "a speech corpus to token shards, on every GPU there is"),
    "index": ("jobs.index", "list what a corpus holds, without decoding any of it"),
    "verify": ("jobs.verify", "hold a finished output against itself, every byte of it"),
    "inspect": ("jobs.inspect", "what a shard or a whole output holds"),
    "publish": ("jobs.publish", "finished outputs as one dataset, on the Hub or in a folder"),
    "decode": ("jobs.decode", "tokens back to sound, as WAV files"),
    "train": ("jobs.train", "learn a codec over the stream: any recipe, on one machine or a cluster"),
    "ship": ("jobs.ship", "a trained codec into the package: weights, and a card of what was measured"),
    "evaluate": ("jobs.evaluate", "how well a codec keeps speech: STOI, PESQ, SI-SDR, mel error, codes used"),
    "agreement": ("jobs.agreement", "two encoders' codes compared, code by code and level by level"),
    "parity": ("jobs.parity", "our codes against those of the reference packages"),
    "bench": ("jobs.bench", "measurements: speed, and what survives kill -9"),
}


def main(argv: Sequence[str] | None = None) -> int:
    return dispatch("neutok", COMMANDS, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
