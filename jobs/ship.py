"""Put a trained codec into the package: `neutok ship --run out/nano --to codec/shipped/nano --input 'speech/*.tar' …`.

Its weights in float16, and a card with where it comes from, how good it is and how it sounds. Every figure in the card
is measured here, on the weights as they are shipped; nothing is put in place before all of it is known.
"""

import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from codec import weights
from codec.evaluation import metrics
from codec.evaluation.metrics import METRICS
from codec.neucodec import NeuCodec
from jobs import clips, evaluate
from jobs.benches.machine import hardware
from jobs.options import COMPLETE, option, parse, usage_error
from jobs.shipping import card, samples, sources
from jobs.shipping.history import History, device_of, read_history
from jobs.shipping.samples import Sample
from jobs.shipping.sources import Learned
from jobs.training.checkpoints import Position
from jobs.training.data import Data, open_data
from jobs.training.export import checkpoint_of, codec_at
from jobs.training.options import TrainOptions
from jobs.training.ranks import Ranks

PROG = "neutok ship"
LISTED = "heldout.txt"
SAMPLE_FOLDER = str(Path(__file__).parents[1] / "pipeline" / "sample")
SAMPLES = ("librispeech_61_1.flac", "vctk_p240_1.mp3", "ohf_paola-it_1.mp3", "ohf_dimitar-bg_1.mp3")  # never trained on
MOST_BYTES = 15 << 20  # of weights in the package


@dataclass(frozen=True)
class Options:
    run: str = option("folder or URL of the training run")
    to: str = option("folder to ship to: weights, card, curves, samples")
    input: tuple[str, ...] = option("what the run was trained on, as `neutok train` had it")
    evaluate: tuple[str, ...] = option("clips to measure on, that the run never heard")
    corpus: str = option("the corpus that --input without a name of its own belongs to", "folder")
    mixture: tuple[str, ...] = option("as `neutok train` had it", ())
    split: tuple[str, ...] = option("as `neutok train` had it", (), separator=",")
    language: tuple[str, ...] = option("as `neutok train` had it", (), separator=",")
    checkpoint: str = option("best, latest, or the path of one", "best")
    start: str | None = option("the run's own --start, where it kept a part of that frozen", None)
    attributions: tuple[str, ...] = option("Markdown tables headed Source, Attribution, …: whom to thank", ())
    commands: str | None = option("a file with the commands of attempts that the run's log does not tell", None)
    list: str | None = option(f"a file that names the clips to measure; default: {LISTED} at --to, or all", None)
    metrics: tuple[str, ...] = option("only some of the measures", tuple(METRICS), separator=",")
    samples: tuple[str, ...] = option("clips to listen to", SAMPLES, separator=",")
    samples_from: str = option("their folder, with licences and attributions", SAMPLE_FOLDER)
    sample_seconds: float = option("how much of each", 3.0)
    device: str = option("cpu or cuda", "cpu")
    threads: int = option("CPU threads; 1 for a figure per core", 1)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(Options, argv, PROG, (__doc__ or "").splitlines()[0])
    try:
        ship(options)
    except (ValueError, FileNotFoundError) as error:
        return usage_error(PROG, error)
    print(f"shipped to {options.to}: {weights.OWN_TENSORS}, {card.CARD}, {card.RECORD}")
    return COMPLETE


def ship(options: Options) -> dict[str, Any]:
    """The record of what was put in place. Raises: ValueError before anything is."""
    metrics.require(options.metrics)
    torch.set_num_threads(options.threads)
    codec, position = codec_at(checkpoint_of(options.run, options.checkpoint), options.start)
    history = read_history(options.run, position.step)
    listed = Path(options.list or Path(options.to) / LISTED)
    told = Path(options.commands).read_text().strip() if options.commands else None
    if options.list and not listed.is_file():
        raise ValueError(f"no list of clips at {listed}")
    with tempfile.TemporaryDirectory(prefix="neutok-") as scratch:
        data = _training_data(options, position, scratch)
        thanked = sources.sources_of(data, sources.read_thanks(options.attributions))
        folder = Path(scratch) / "shipped"
        codec, load_seconds = _stored(codec, folder, options)
        heard = samples.make_samples(
            codec, options.samples_from, options.samples, options.sample_seconds, options.device
        )
        _say(f"measuring {codec.spec.name} {codec.spec.revision} of step {position.step}")
        quality, speed = _measure(codec, options, listed, sources.speakers_of(data))
        _say("hearing all it learned from")
        learned = sources.hear(data, codec, thanked, options.device)
        record = {
            "codec": codec.spec.to_json(),
            "size": {**card.count_parameters(codec), "num_bytes": (folder / weights.OWN_TENSORS).stat().st_size},
            "training": _training(position, history, told, options),
            "data": _data(learned),
            "quality": quality,
            "speed": {**speed, "load_seconds": load_seconds},
            "listed": listed.is_file(),
            "samples": [_credit(sample) for sample in heard],
        }
        _write_sounds(folder, heard, codec.spec.output_rate)
        (folder / "curves").mkdir()
        for name, drawn in history.curves().items():
            (folder / "curves" / name).write_text(drawn)
        if listed.is_file():
            (folder / LISTED).write_bytes(listed.read_bytes())
        card.write(folder, record)
        _put_in_place(folder, Path(options.to))
    return record


def _training_data(options: Options, position: Position, scratch: str) -> Data:
    """The clips the run was trained on. Raises: ValueError if the options name others."""
    given = {name: getattr(options, name) for name in ("input", "corpus", "mixture", "split", "language")}
    same = TrainOptions(recipe=position.recipe["name"], output=scratch, **given)
    data = open_data(same, Ranks(0, 1, torch.device("cpu")))
    sources.check_order(data, position.order, position.recipe["batch_size"])
    return data


def _stored(codec: NeuCodec, folder: Path, options: Options) -> tuple[NeuCodec, float]:
    """The codec as whoever loads it gets it, rounded to float16, and the seconds that loading takes."""
    weights.save(codec, folder, half=True)
    size = (folder / weights.OWN_TENSORS).stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"the weights take {size:,} bytes; a codec in the package may have {MOST_BYTES:,}")
    began = time.perf_counter()
    loaded = weights.load_codec(codec.name, options.device, str(folder))
    return loaded, time.perf_counter() - began


def _measure(
    codec: NeuCodec, options: Options, listed: Path, learned_from: set[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Quality and speed over the held-out clips, as `neutok evaluate` has them.

    Raises: ValueError if none can be read, or one of their speakers is among those the codec learned from.
    """
    names = clips.listed(listed) if listed.is_file() else None
    asked = evaluate.Options(
        input=options.evaluate,
        codec=codec.name,
        metrics=options.metrics,
        device=options.device,
        threads=options.threads,
    )
    measured, use, rejects = evaluate.evaluate(codec, asked, names)
    if not measured:
        raise ValueError(f"none of the clips of --evaluate could be read: {dict(rejects)}")
    if known := sorted({each.speaker for each in measured} & learned_from):
        raise ValueError(f"the codec learned from {', '.join(known)}; name clips of others with --list")
    found = evaluate.as_dict(measured, use, rejects, asked, codec)
    quality = {
        "clips": len(measured),
        "speakers": len({each.speaker for each in measured}),
        **{name: found[name] for name in ("seconds", "means", "codes", "rejects")},
    }
    speed = {
        "encode": found["seconds"] / found["encode_seconds"],
        "decode": found["seconds"] / found["decode_seconds"],
        "hardware": device_of(hardware(options.device)),
    }
    return quality, speed


def _training(position: Position, history: History, told: str | None, options: Options) -> dict[str, Any]:
    last = history.attempts[-1].command
    return {
        "told": told,
        "goes_on": _going_on(last, options.to) if last else None,
        "recipe": position.recipe,
        "step": position.step,
        "steps": position.recipe["steps"],
        "audio_hours": position.hours,
        "seconds": position.seconds,
        "best": position.best,
        "attempts": [asdict(attempt) for attempt in history.attempts],
        "curves": list(history.curves()),
    }


def _going_on(command: str, to: str) -> str:
    """The command that trains further from what was shipped alone: another --output, and these weights as --start."""
    words = shlex.split(command)
    words[words.index("--output") + 1] += "-on"
    if "--start" in words:
        del words[words.index("--start") : words.index("--start") + 2]
    return shlex.join([*words, "--start", to])


def _data(learned: Learned) -> dict[str, Any]:
    found = []
    for source in learned.sources:
        fields = {**vars(source), "hours": source.seconds / 3600, "speakers": len(source.speakers)}
        found.append({**fields, "languages": [name for name, _ in source.languages.most_common()]})
    return {
        "sources": found,
        "clips": sum(source.clips for source in learned.sources),
        "hours": sum(source.seconds for source in learned.sources) / 3600,
        "codes": asdict(learned.codes),
        "rejects": dict(learned.rejects),
    }


def _credit(sample: Sample) -> dict[str, str]:
    return {name: getattr(sample, name) for name in ("name", "language", "speaker", "licence", "attribution")}


def _write_sounds(folder: Path, heard: Sequence[Sample], rate: int) -> None:
    (folder / "samples").mkdir()
    for sample in heard:
        (folder / "samples" / f"{sample.name}.original.flac").write_bytes(samples.flac_bytes(sample.original, rate))
        (folder / "samples" / f"{sample.name}.flac").write_bytes(samples.flac_bytes(sample.decoded, rate))


def _put_in_place(folder: Path, to: Path) -> None:
    """Everything at once, in the place of what was shipped there before; the record of the weights comes last."""
    (to / weights.OWN_RECORD).unlink(missing_ok=True)
    for name in ("samples", "curves"):
        shutil.rmtree(to / name, ignore_errors=True)
    record = (folder / weights.OWN_RECORD).read_bytes()
    (folder / weights.OWN_RECORD).unlink()
    shutil.copytree(folder, to, dirs_exist_ok=True, copy_function=shutil.copyfile)
    (to / weights.OWN_RECORD).write_bytes(record)


def _say(line: str) -> None:
    print(f"{PROG}: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
