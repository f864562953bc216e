"""Tokens back to sound, as WAV files: `neutok decode out/data/x.parquet --limit 3 --output heard`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from codec import load
from codec.base import Codec
from jobs.options import COMPLETE, INCOMPLETE, WRONG, from_namespace, option, parser_of, usage_error
from pipeline.listen import decode_rows, file_name, pick_rows, write_wav
from pipeline.shards import find_shards, maker

PROG = "neutok decode"


@dataclass(frozen=True)
class Options:
    output: str = option("folder for the WAV files")
    keys: tuple[str, ...] = option("rows to decode, by their __key__; all if none is named", (), separator=",")
    limit: int | None = option("stop after so many rows", None)
    codec: str | None = option("the codec; if not given, the one the shard names", None)
    weights: str | None = option("Hub id, file or folder of the codec's weights", None)
    any_weights: bool = option("decode although these are not the weights that made the codes", False)
    device: str | None = option("cpu, cuda, cuda:1, …; a GPU if there is one", None)
    batch_seconds: float = option("sound decoded at once", 60.0)


def main(argv: Sequence[str] | None = None) -> int:
    parser = parser_of(Options, PROG, "Turn rows of token shards back into sound, as 16-bit WAV files.")
    parser.add_argument("shard", help="a token shard, or the folder of an output")
    parsed = parser.parse_args(argv)
    options = from_namespace(Options, parsed)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if options.limit is not None and options.limit < 1:
            raise ValueError(f"--limit must be at least 1, got {options.limit}")
        shards = find_shards(parsed.shard)
        codec = load_codec(shards[0], options, device)
        return listen(shards, codec, options, device)
    except WRONG as error:
        return usage_error(PROG, error)


def load_codec(shard: str, options: Options, device: str) -> Codec:
    """The codec a shard names, with the weights that made its codes. Raises: ValueError if they are others."""
    made_by = maker(shard)
    name = options.codec or made_by.get("name")
    if not name:
        raise ValueError(f"{shard} does not say which codec made it; name it with --codec")
    codec = load(name, device, options.weights)
    made = (made_by.get("name", name), made_by.get("revision", codec.spec.revision))
    if made != (name, codec.spec.revision) and not options.any_weights:
        raise ValueError(
            f"the codes were made by {made[0]} with weights {made[1]}, this is {name} with weights "
            f"{codec.spec.revision}; give those with --weights, or --any-weights to listen all the same"
        )
    return codec


def listen(shards: Sequence[str], codec: Codec, options: Options, device: str) -> int:
    """Write one WAV a row; returns the exit code."""
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = set(options.keys) or None
    limit = options.limit if wanted is None else min(options.limit or len(wanted), len(wanted))
    rows = pick_rows(shards, codec.spec.num_codebooks, wanted, limit)
    names: set[str] = set()
    found: set[str] = set()
    for row, waveform in decode_rows(rows, codec, device, options.batch_seconds):
        name = file_name(row.key, names)
        clipped = write_wav(folder / name, waveform, codec.spec.output_rate)
        names.add(name.lower())
        found.add(row.key)
        note = f", {clipped} samples clipped" if clipped else ""
        print(f"{folder / name}: {len(waveform) / codec.spec.output_rate:.2f} s{note}")
    missing = sorted((wanted or set()) - found) if options.limit is None else []
    if missing:
        print(f"{PROG}: no such row: {', '.join(missing)}", file=sys.stderr)
    return INCOMPLETE if missing else COMPLETE


if __name__ == "__main__":
    sys.exit(main())
