"""The codec that a checkpoint holds, as it is used and stored: whole weights, no judges, no optimizers."""

import torch

from codec import weights
from codec.config import CodecConfig
from codec.neucodec import NeuCodec
from codec.training.modules import TEACHER
from codec.training.start import folded, norm_weights
from codec.training.step import module_hashes
from jobs.training import checkpoints
from jobs.training.checkpoints import Position


def checkpoint_of(run: str, which: str) -> str:
    """The path of a run's `best` or `latest` checkpoint, or the path given. Raises: ValueError where there is none."""
    if which not in ("best", "latest"):
        return which
    path = checkpoints.find(run, which)
    if path is None:
        why = "; only validation judges which is best, so it needs --validation" if which == "best" else ""
        raise ValueError(f"{run} has no {which} checkpoint{why}")
    return path


def codec_at(path: str, start: str | None) -> tuple[NeuCodec, Position]:
    """A checkpoint's codec, in float32, and where its run stood.

    Its sizes are those the checkpoint was trained with, whatever the recipe of that name says by now.

    Args: start: weights of the codec that the run began with; needed where it kept a part of that frozen.
    Raises: ValueError if the checkpoint and `start` do not make one whole codec.
    """
    tensors, position = checkpoints.load(path)
    recipe = position.recipe
    codec = NeuCodec(CodecConfig.from_json(recipe["codec"]), recipe["name"])
    frozen = {name: known for name, known in position.frozen.items() if name != TEACHER}
    if frozen:
        _take_frozen(codec, frozen, recipe["starts_from"], start)
    norm_weights(codec, tuple(recipe["trains"]))
    prefix = "generator/codec."
    learned = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    own = dict(codec.named_parameters())
    wanted = {name for name in own if name.split(".")[0] in recipe["trains"]}
    if learned.keys() != wanted or any(own[name].shape != value.shape for name, value in learned.items()):
        raise ValueError(
            f"{path} does not hold what recipe {recipe['name']} trains; was it written by another version?"
        )
    with torch.no_grad():
        for name, value in learned.items():
            own[name].copy_(value)
    return folded(codec), position


def _take_frozen(codec: NeuCodec, frozen: dict[str, str], source: str, start: str | None) -> None:
    """What the run kept as it was given: modules, by their hashes. Raises: ValueError if `start` does not hold them."""
    names = ", ".join(frozen)
    if start is None:
        raise ValueError(f"the run kept {names} of {source} frozen and did not save it; give the run's --start")
    base = weights.load_codec(source, weights=start)
    for name in frozen:
        ours, theirs = codec.get_submodule(name).state_dict(), base.state_dict()
        for key in ours:
            found = theirs.get(f"{name}.{key}")
            if found is not None and found.shape == ours[key].shape:
                ours[key].copy_(found)
    if module_hashes([(name, codec.get_submodule(name)) for name in frozen]) != frozen:
        raise ValueError(f"{start} does not hold the {names} that this run began with; give the run's own --start")
