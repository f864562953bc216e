"""What a training run is told: data, recipe, where it begins, how often it saves."""

from dataclasses import dataclass, replace
from typing import Literal

from codec.training.discriminators import DiscriminatorConfig
from codec.training.recipes import RECIPES, Recipe
from jobs.options import option


@dataclass(frozen=True)
class TrainOptions:
    recipe: str = option(f"which codec to train, and how: {', '.join(RECIPES)}")
    input: tuple[str, ...] = option(
        "the corpora's files, folders, globs or URLs; `CORPUS=PATH` for others than --corpus"
    )
    output: str = option("folder or URL of the run: checkpoints, logs, samples; a run found there goes on")
    corpus: str = option("the corpus that --input without a name of its own belongs to", "folder")
    mixture: tuple[str, ...] = option("share of each corpus, as CORPUS=WEIGHT; default: by its number of clips", ())
    split: tuple[str, ...] = option("only these splits", (), separator=",")
    language: tuple[str, ...] = option("only these languages", (), separator=",")
    validation: tuple[str, ...] = option(
        "clips to listen to while training, given as --input is; leave them out of that", ()
    )
    validation_clips: int = option("how many of them", 16)
    start: str | None = option(
        "the codec that the recipe goes on with, begins with or learns from: a name like `nano`, weights, or `seeded` "
        "(which nano's kind cannot be)",
        None,
    )
    semantic: str | None = option("weights that hold the frozen speech model; or `seeded`", None)
    steps: int | None = option("stop after this step; default: the recipe's", None)
    hours: float | None = option("stop after this many hours of this attempt, with a checkpoint", None)
    batch_size: int | None = option("crops of a step, over all ranks; default: the recipe's", None)
    crop_seconds: float | None = option("length of a crop; default: the recipe's", None)
    adversarial_after: int | None = option("the step at which the judges begin; default: the recipe's", None)
    judges: Literal["recipe", "published"] = option("the recipe's judges, or the paper's large ones", "recipe")
    judged_seconds: float | None = option("how much of each crop judges hear; default: the recipe's", None)
    peak_rate: float | None = option("the highest learning rate; default: the recipe's", None)
    seed: int | None = option("of weights, order and crops; default: the recipe's", None)
    precision: Literal["float32", "bfloat16"] = option("how the networks compute; spectra stay in float32", "float32")
    device: str = option("cpu, cuda, or auto: a GPU if there is one", "auto")
    workers: int = option("processes of each rank that decode ahead; 0: in the training process", 1)
    log_every: int = option("steps between two lines of the log", 50)
    save_every: int = option("steps between two checkpoints", 1_000)
    validate_every: int = option("steps between two validations", 1_000)
    keep: int = option("how many of the latest checkpoints stay, beside the best", 2)
    hashes: bool = option("print a hash of every module before and after", False)
    ray_workers: int = option("train on this many Ray workers; 0: in this process, or under torchrun", 0)
    ray_address: str | None = option(
        "of a Ray cluster; `local` for one of its own (default: RAY_ADDRESS, else the cluster that `ray start` began "
        "on this machine, else one of its own)",
        None,
    )

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise ValueError(f"unknown recipe {self.recipe!r}; known: {', '.join(RECIPES)}")
        for name in ("steps", "batch_size", "log_every", "save_every", "validate_every", "validation_clips", "keep"):
            self._check(name, 1)
        for name in ("adversarial_after", "workers", "ray_workers"):
            self._check(name, 0)
        for name in ("hours", "peak_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"--{name.replace('_', '-')} must be above 0, got {value}")
        self.chosen()

    def _check(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")

    def chosen(self) -> Recipe:
        """The recipe, with what was asked to differ. Raises: ValueError for a crop that its losses cannot judge."""
        recipe = RECIPES[self.recipe]
        changes = {
            name: value
            for name in ("steps", "batch_size", "crop_seconds", "adversarial_after", "judged_seconds", "seed")
            if (value := getattr(self, name)) is not None
        }
        if self.peak_rate is not None:
            changes["schedule"] = replace(recipe.schedule, peak=self.peak_rate)
        if self.judges == "published":
            changes["judges"] = DiscriminatorConfig()
        return replace(recipe, **changes)
