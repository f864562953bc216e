"""From options to a run: data, models, the checkpoint found at the output, and what is written at the end."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

import codec
from codec import CODECS, weights
from codec.evaluation import metrics
from codec.layouts import State
from codec.neucodec import NeuCodec
from codec.seeded import seed
from codec.training.recipes import RECIPES, Recipe
from codec.training.start import begin, folded
from codec.training.step import Models, build_models, build_optimizers, module_hashes
from jobs.training import checkpoints, validation
from jobs.training.checkpoints import Position
from jobs.training.data import Data, open_data, open_validation
from jobs.training.log import TrainingLog, beginning
from jobs.training.loop import Cadence, Run
from jobs.training.options import TrainOptions
from jobs.training.ranks import Ranks
from pipeline import storage
from pipeline.crops import Shape
from pipeline.order import Order

HEARD = 4  # clips of a validation that are kept as sound and pictures
MAY_CHANGE = {"steps", "schedule", "crop_seconds", "adversarial_after", "distillation_after", "judge_rate", "clip_norm"}
MAY_CHANGE |= {"weights", "judged_seconds", "mel_resolutions"}
"""What a run may change when it goes on: its length and its rates. The order refuses what would change past batches."""


def set_up(options: TrainOptions, ranks: Ranks, say: Callable[[str], None] = print) -> tuple[Run, Data]:
    """A run ready to train, at its first step or where its latest checkpoint stands, and what it trains on.

    Raises: ValueError for options that contradict themselves or the run that is found.
    """
    recipe = options.chosen()
    ranks.check(recipe.batch_size)
    if ranks.rank:
        say = _silent
    generator = begin(recipe, *given(recipe, options)).to(ranks.device)  # before corpora are listed, which takes long
    data = open_data(options, ranks)
    order = Order([clips.rows for clips in data.clips], recipe.batch_size, recipe.seed, mixture=data.weights)
    models = build_models(recipe, generator)
    models.judges.to(ranks.device)
    models.mel_loss.to(ranks.device)
    optimizers = build_optimizers(recipe, models)
    position = Position(0, order.state(0), recipe.to_json(), module_hashes(generator.frozen()))
    run = Run(
        output=options.output,
        recipe=recipe,
        precision=options.precision,
        ranks=ranks,
        order=order,
        models=models,
        optimizers=optimizers,
        position=position,
        cadence=Cadence(
            log=options.log_every,
            validate=options.validate_every if options.validation else None,
            save=options.save_every,
            hours=options.hours,
            keep=options.keep,
        ),
        say=say,
    )
    if path := checkpoints.find(options.output):
        tensors, found = checkpoints.load(path)
        _compare(found, position, say)
        order.resume(found.order)
        models_by_name, optimizers_by_name = run.trained()
        checkpoints.unpack(tensors, models_by_name, optimizers_by_name)
        run.position = replace(found, recipe=position.recipe)
        say(f"going on from step {found.step} of {path}")
    run.models = Models(ranks.wrap(models.generator), ranks.wrap(models.judges), models.mel_loss)
    if ranks.rank == 0:
        run.log = TrainingLog(options.output, run.position.step)
        run.log.write(run.position.step, "began", beginning(options, ranks))
        if options.validation:
            run.validate = _validator(run, options)
    return run, data


def given(recipe: Recipe, options: TrainOptions) -> tuple[NeuCodec | None, State | str | None]:
    """The codec to begin with, and where a frozen speech model comes from."""
    base, semantic = None, None
    if options.start is not None:
        source = RECIPES[recipe.starts_from or recipe.name]
        if options.start == "seeded":
            base = seed(NeuCodec(source.codec, source.name))
        elif options.start in CODECS:
            base = codec.load(options.start)
            if not isinstance(base, NeuCodec):
                raise ValueError(f"--start {options.start} has no weights to begin with")
        else:
            base = weights.load_codec(source.name, weights=options.start)
        if base.config.hop_length != recipe.codec.hop_length:
            raise ValueError(f"--start holds a codec of another hop than recipe {recipe.name} has")
    if recipe.codec.semantic is not None and (base is None or base.config.semantic != recipe.codec.semantic):
        semantic = options.semantic
        if semantic != "seeded":
            semantic = weights.load_speech_model(recipe.codec, semantic)
    return base, semantic


def _compare(found: Position, now: Position, say: Callable[[str], None]) -> None:
    """Raises: ValueError if the run found is another one than the options ask to go on with."""
    if found.frozen != now.frozen:
        raise ValueError(
            "the frozen weights are not those this run began with; give its --start and --semantic, or another --output"
        )
    for name in (field.name for field in fields(Recipe)):
        then, asked = found.recipe.get(name), now.recipe.get(name)
        if json.dumps(then, sort_keys=True) == json.dumps(asked, sort_keys=True):
            continue
        if name not in MAY_CHANGE:
            raise ValueError(f"the run at --output has {name} {then}, this recipe {asked}; give another --output")
        say(f"going on with {name} {asked}, until now {then}")


def _validator(run: Run, options: TrainOptions) -> Callable[[int], dict[str, float]]:
    """Measures the codec on fixed clips, and keeps what it sounds like."""
    generator, codec = run.generator, run.generator.codec
    names = metrics.available()
    if missing := set(metrics.METRICS) - set(names):
        run.say(f"not measured, because the eval extra is not installed: {', '.join(sorted(missing))}")
    clips = open_validation(options, codec.spec.input_rate)

    def validate(step: int) -> dict[str, float]:
        generator.eval()
        result = validation.validate(codec, clips, names, run.ranks.device)
        generator.train()
        folder = storage.join(options.output, "samples", f"step-{step:08d}")
        validation.keep(folder, clips, result, codec, most=HEARD)
        if run.log:
            for clip, output in list(zip(clips, result.outputs, strict=True))[:HEARD]:
                run.log.sound(step, clip.utterance.id, output, codec.spec.output_rate)
        return result.means()

    return validate


def export(codec: NeuCodec, folder: str) -> None:
    """The codec as `codec.load` reads it, at any path or URL."""
    codec = folded(codec)
    if storage.is_local(folder):
        weights.save(codec, folder)
        return
    with tempfile.TemporaryDirectory(prefix="neutok-") as scratch:
        weights.save(codec, scratch)
        for name in (weights.OWN_TENSORS, weights.OWN_RECORD):  # the record last: it says that all is there
            data = (Path(scratch) / name).read_bytes()
            storage.write_atomic(storage.join(folder, name), lambda file, data=data: file.write(data))


def _silent(line: str) -> None:
    """What ranks other than the first say."""


def peak_memory(device: torch.device) -> dict[str, float]:
    """The most this process has held, in GiB."""
    import resource

    peak: dict[str, Any] = {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    if device.type == "cuda":
        peak["gpu"] = torch.cuda.max_memory_allocated(device) / 2**30
    return peak


def shape_of(recipe: Recipe) -> Shape:
    """What a crop of this recipe is."""
    codec = recipe.codec
    return Shape(recipe.crop_samples, codec.hop_length, codec.input_rate, codec.output_rate)
