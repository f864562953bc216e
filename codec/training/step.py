"""One step of training: the judges learn on the codec's sound, then the codec learns from the judges and the losses."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from codec.training import losses
from codec.training.discriminators import Discriminators
from codec.training.modules import Generated, Generator
from codec.training.recipes import Recipe

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Models:
    """What a step works on; both may be wrapped for several ranks."""

    generator: nn.Module
    judges: nn.Module
    mel_loss: losses.MelLoss


@dataclass(frozen=True, slots=True)
class Optimizers:
    generator: AdamW
    judges: AdamW


@dataclass(frozen=True, slots=True)
class Update:
    """What a step did, on the device: the parts of the losses, unweighted, and the gradients' norms before clipping."""

    parts: dict[str, Tensor]
    codes: Tensor  # int32 [B, F]
    codebook_size: int


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside a wrapper for several ranks."""
    return getattr(model, "module", model)


def learning(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def build_models(recipe: Recipe, generator: Generator) -> Models:
    return Models(
        generator,
        Discriminators(recipe.judges),
        losses.MelLoss(recipe.codec.output_rate, recipe.mel_resolutions),
    )


def build_optimizers(recipe: Recipe, models: Models) -> Optimizers:
    def adam(model: nn.Module) -> AdamW:
        return AdamW(
            learning(model),
            recipe.schedule(0),
            betas=recipe.betas,
            eps=recipe.epsilon,
            weight_decay=recipe.weight_decay,
        )

    return Optimizers(adam(models.generator), adam(models.judges))


def update(
    models: Models, optimizers: Optimizers, inputs: Tensor, targets: Tensor, recipe: Recipe, step: int, precision: str
) -> Update:
    """One step for the judges, one for the generator, in this order.

    Args: inputs: float32 [B, 1, T] at the codec's input rate. targets: float32 [B, 1, T'] of the same crops at its
        output rate. step: counted from 0; the learning rate and what is switched on follow from it alone.
    """
    dtype = PRECISIONS[precision]
    rate = recipe.schedule(step)
    _set_rate(optimizers.generator, rate)
    _set_rate(optimizers.judges, rate * recipe.judge_rate)
    with torch.autocast(inputs.device.type, dtype, enabled=dtype is not None):
        made = models.generator(inputs)
        targets = targets[..., : made.waveforms.shape[2]]
        parts: dict[str, Tensor] = {}
        heard = judged_part(recipe, targets.shape[2], step) if step >= recipe.adversarial_after else None
        if heard is not None:
            real, fake = targets[..., heard], made.waveforms[..., heard].detach()
            parts |= _teach_judges(models.judges, optimizers.judges, real, fake, recipe)
        parts |= _generator_losses(models, made, targets, heard)
        total = sum(weight * parts[name] for name, weight in active_weights(recipe, step).items())
    optimizers.generator.zero_grad(set_to_none=True)
    total.backward()
    parts["generator_norm"] = nn.utils.clip_grad_norm_(learning(models.generator), recipe.clip_norm)
    optimizers.generator.step()
    parts["total"] = total
    codebook_size = unwrap(models.generator).codec.quantizer.codebook_size
    return Update({name: part.detach() for name, part in parts.items()}, made.codes, codebook_size)


def active_weights(recipe: Recipe, step: int) -> dict[str, float]:
    """The weights of Eq. 3 at a step, without what is off."""
    weights = recipe.weights
    active = {"mel": weights.mel, "semantic": weights.semantic}
    if step >= recipe.adversarial_after:
        active |= {"adversarial": weights.adversarial, "feature_matching": weights.feature_matching}
    if step >= recipe.distillation_after:
        active["distillation"] = weights.distillation
    return {name: weight for name, weight in active.items() if weight}


def _teach_judges(judges: nn.Module, optimizer: AdamW, real: Tensor, fake: Tensor, recipe: Recipe) -> dict[str, Tensor]:
    on_real, on_fake = losses.discriminator_loss(*judges(real, fake))
    optimizer.zero_grad(set_to_none=True)
    (on_real + on_fake).backward()
    norm = nn.utils.clip_grad_norm_(learning(judges), recipe.clip_norm)
    optimizer.step()
    return {"judges_real": on_real, "judges_fake": on_fake, "judges_norm": norm}


def judged_part(recipe: Recipe, length: int, step: int) -> slice:
    """The samples that judges hear of a crop of `length` output samples: all, or a window that moves with the step."""
    if recipe.judged_seconds is None:
        return slice(0, length)
    hop = recipe.codec.decoder.hop_length
    size = min(round(recipe.judged_seconds * recipe.codec.output_rate), length)
    start = step * 7919 % ((length - size) // hop + 1) * hop
    return slice(start, start + size)


def _generator_losses(models: Models, made: Generated, targets: Tensor, heard: slice | None) -> dict[str, Tensor]:
    parts = {"mel": models.mel_loss(made.waveforms, targets)}
    if heard is not None:
        judges = unwrap(models.judges)
        judges.requires_grad_(False)  # the judges are only asked here: no gradient of theirs is worked out
        with torch.no_grad():
            (real,) = judges(targets[..., heard])
        (fake,) = judges(made.waveforms[..., heard])
        judges.requires_grad_(True)
        parts["adversarial"] = losses.adversarial_loss(fake)
        parts["feature_matching"] = losses.feature_matching_loss(real, fake)
    if made.semantic is not None:
        parts["semantic"] = losses.feature_loss(made.semantic, made.semantic_target)
    if made.teacher_features is not None:  # measured from the first step, weighed later
        parts["distillation"] = losses.feature_loss(made.features, made.teacher_features)
    return parts


def _set_rate(optimizer: AdamW, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def module_hashes(parts: Iterable[tuple[str, nn.Module]]) -> dict[str, str]:
    """A short hash of each module's parameters: what tells whether exactly the intended ones changed."""
    hashes = {}
    for name, part in parts:
        digest = hashlib.sha256()
        for parameter in part.parameters():
            digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        hashes[name] = digest.hexdigest()[:12]
    return hashes
