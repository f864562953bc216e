"""What a run begins with: fresh weights, a frozen speech model, and the codec its recipe builds on or learns from."""

from math import log

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from codec.layouts import State
from codec.names import module_names
from codec.neucodec import NeuCodec, unset
from codec.nn.vocos import VocosDecoder
from codec.seeded import seed
from codec.training.modules import Generator, SemanticHead
from codec.training.recipes import Recipe


def fresh_codec(recipe: Recipe) -> NeuCodec:
    """Weights drawn from the recipe's seed: torch's defaults, and where XCodec2 departs from them, as it does."""
    torch.manual_seed(recipe.seed)
    codec = NeuCodec(recipe.codec, recipe.name)
    for module in codec.acoustic.modules():
        if isinstance(module, nn.Conv1d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    _start_decoder(codec.decoder)
    with torch.no_grad():
        codec.quantizer.project_in.weight *= recipe.latent_spread
    return codec


def _start_decoder(decoder: VocosDecoder) -> None:
    for module in decoder.modules():
        if isinstance(module, nn.Conv1d):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)


def begin(recipe: Recipe, base: NeuCodec | None, semantic: State | str | None) -> Generator:
    """The generator of a recipe, before its first step.

    Args: base: the codec of `recipe.starts_from`, which also teaches if the recipe says so; or, for a recipe that
        starts from none, one of its own to go on with. semantic: where the frozen speech model of this codec comes
        from when the base has none that fits: its parameters, or "seeded".
    Raises: ValueError if what the recipe needs is not given.
    """
    codec = fresh_codec(recipe)
    head = None
    teaches = recipe.teacher and base is not None
    if recipe.has_semantic_loss:
        speech = base.config.semantic if teaches else recipe.codec.semantic
        if speech is None:
            raise ValueError(f"recipe {recipe.name} has a semantic loss, but no semantic model in codec or teacher")
        head = SemanticHead(recipe.codec.latent_width, speech.out_width)
    if recipe.starts_from is not None:
        if base is None:
            raise ValueError(
                f"recipe {recipe.name} begins with a codec of recipe {recipe.starts_from}; give it by --start"
            )
        _take_over(codec, base, recipe)
    elif base is not None:  # goes on from weights alone: judges, optimizers and schedule begin anew
        if base.config != recipe.codec:
            raise ValueError(f"the codec {base.name!r} given to go on with has other sizes than recipe {recipe.name}")
        codec.load_state_dict(base.state_dict())
    has_own = base is not None and base.config.semantic == recipe.codec.semantic
    if recipe.codec.semantic is not None and "semantic" not in recipe.trains and not has_own:
        if semantic is None:
            raise ValueError(
                f"recipe {recipe.name} needs the weights of its frozen speech model; give them by --semantic"
            )
        _take_semantic(codec, semantic)
    norm_weights(codec, recipe.trains)
    return Generator(codec, recipe.trains, head, base if teaches else None)


def norm_weights(codec: NeuCodec, trains: tuple[str, ...]) -> None:
    """Train a weight's direction and length apart wherever the published model does (Salimans and Kingma 2016)."""
    for ours, _, norm in module_names(codec.config):
        if norm is not None and ours.split(".")[0] in trains:
            weight_norm(codec.get_submodule(ours), dim=norm.axis)


def folded(codec: NeuCodec) -> NeuCodec:
    """The codec as it is used and stored: every weight whole."""
    plain = unset(codec.config, codec.name)
    state = {name: value for name, value in codec.state_dict().items() if ".parametrizations." not in name}
    for name, module in codec.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            state[f"{name}.weight"] = module.weight.detach()
    plain.load_state_dict(state)
    return plain.eval()


def _take_over(codec: NeuCodec, base: NeuCodec, recipe: Recipe) -> None:
    """What is frozen comes from the base whole; what learns starts from it wherever a tensor of its name and shape is
    there. A student's encoder starts fresh: it is another model, and shapes that fit would fit by chance."""
    theirs = base.state_dict()
    own_speech = base.config.semantic != recipe.codec.semantic  # comes by `_take_semantic`
    for name, part in codec.named_children():
        if (name == "semantic" and own_speech) or (recipe.teacher and name in recipe.trains):
            continue
        state = part.state_dict()
        found = {key: theirs[f"{name}.{key}"] for key in state if f"{name}.{key}" in theirs}
        fits = {key: value for key, value in found.items() if value.shape == state[key].shape}
        if name not in recipe.trains and len(fits) < len(state):
            raise ValueError(
                f"recipe {recipe.name} keeps {name} frozen, but the codec {base.name!r} given to begin with has it in "
                "another shape; give a codec trained by the recipe this one starts from"
            )
        part.load_state_dict({**state, **fits})
    if "decoder" in recipe.trains:
        _take_over_head(codec.decoder, base.decoder)


@torch.no_grad()
def _take_over_head(decoder: VocosDecoder, base: VocosDecoder) -> None:
    """Start at a higher output rate with what the base sounds like.

    Both spectra are of the same frames, so their bins are equally far apart in hertz: each bin that the base has starts
    from its own, louder as a longer sum is. Those above, that it never heard, stay fresh.
    """
    ours, theirs = (each.config.n_fft // 2 + 1 for each in (decoder, base))
    if ours <= theirs or decoder.config.width != base.config.width:
        return
    for mine, known in ((decoder.head.weight, base.head.weight), (decoder.head.bias, base.head.bias)):
        mine.unflatten(0, (2, ours))[:, :theirs] = known.unflatten(0, (2, theirs))  # log-magnitudes, phases
    decoder.head.bias[:theirs] += log(decoder.config.n_fft / base.config.n_fft)


def _take_semantic(codec: NeuCodec, semantic: State | str) -> None:
    if isinstance(semantic, str):
        seed(codec, "semantic.")
    else:
        codec.semantic.load_state_dict({name.removeprefix("semantic."): value for name, value in semantic.items()})
