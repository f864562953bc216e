"""The layouts that weights are stored in, turned into each other: the published one, transformers' own, and ours.

A state is a plain dict of names and tensors. `from_reference` is strict: it uses every tensor or knows why not.
"""

import re
import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from codec.config import BigCodecConfig, CodecConfig, W2VBertConfig
from codec.names import NEW_NORM, OLD_NORM, UNUSED, Reference, reference_names
from codec.seeded import fuse_weight_norm

State = dict[str, Tensor]
# convolutions of one tap, which we hold as linear layers: the published ones have a third axis, of length 1
ONE_TAP = re.compile(r".*\.pointwise_conv[12]")
SHOWN = 8  # names in an error


class WeightsError(ValueError):
    """Weights that cannot be had, or do not fit the codec."""


def from_reference(state: Mapping[str, Tensor], config: CodecConfig, shapes: Mapping[str, torch.Size]) -> State:
    """Our parameters (names and shapes in `shapes`) out of a state in the published layout, in float32.

    A weight may lie there whole, or as a weight norm of either style; it is fused in float32.
    Raises: WeightsError for missing, unexpected or misshapen tensors.
    """
    ours, used, missing, misshapen = {}, set(), [], []
    for name, reference in reference_names(config, shapes).items():
        tensor, keys = _find(state, reference)
        used.update(keys)
        if tensor is not None and ONE_TAP.fullmatch(reference.module) and tensor.shape == (*shapes[name], 1):
            tensor = tensor[..., 0]
        if tensor is None:
            missing.append(reference.key)
        elif tensor.shape != shapes[name]:
            misshapen.append(f"{reference.key} {list(tensor.shape)} instead of {list(shapes[name])}")
        else:
            ours[name] = tensor
    unexpected = [key for key in state if key not in used and not any(re.fullmatch(rule, key) for rule in UNUSED)]
    complain(missing, unexpected, misshapen)
    return ours


def complain(missing: list[str], unexpected: list[str], misshapen: list[str]) -> None:
    """Raises: WeightsError that names the first of each kind, if there are any."""
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
    if found := [f"{len(names)} {kind}: {_shorten(names)}" for kind, names in kinds if names]:
        raise WeightsError(f"the weights do not fit this codec; {'; '.join(found)}")


def to_reference(state: Mapping[str, Tensor], config: CodecConfig) -> State:
    """Our parameters in the published layout: each weight norm's direction is the weight itself."""
    published = {}
    for name, reference in reference_names(config, state).items():
        tensor = _with_tap(state[name].detach(), reference)
        if reference.norm is None:
            published[reference.key] = tensor
        else:
            others = [axis for axis in range(tensor.dim()) if axis != reference.norm.axis]
            published[reference.length_key] = tensor.norm(dim=others, keepdim=True)
            published[reference.direction_key] = tensor
    return published


def is_transformers(state: Iterable[str]) -> bool:
    """Whether these names are of transformers' own layout."""
    return any(key.startswith(("acoustic_encoder.", "acoustic_decoder.")) for key in state)


def from_transformers(state: Mapping[str, Tensor], config: CodecConfig) -> State:
    """A state in transformers' layout, in the published one. Names it does not know stay as they are."""
    published = {}
    heads = config.decoder.heads
    names = {theirs: reference for reference, theirs in _transformers_modules(config)}
    for key, tensor in state.items():
        module, _, leaf = key.rpartition(".")
        published[f"{names.get(module, module)}.{leaf}"] = tensor
    for layer in range(config.decoder.layers):
        parts = [published.pop(f"acoustic_decoder.layers.{layer}.self_attn.{part}_proj.weight", None) for part in "qkv"]
        if all(part is not None for part in parts):
            query, key, value = parts
            whole = torch.cat([_interleave(query, heads), _interleave(key, heads), value])
            published[f"generator.backbone.transformers.{layer}.att.c_attn.weight"] = whole
    return {re.sub(r"^semantic_encoder\.", "semantic_model.", key): tensor for key, tensor in published.items()}


def to_transformers(state: Mapping[str, Tensor], config: CodecConfig) -> State:
    """Our parameters in transformers' layout, weight norms fused. Raises: WeightsError where it has no such model."""
    if not isinstance(config.acoustic, BigCodecConfig) or not isinstance(config.semantic, W2VBertConfig):
        raise WeightsError("transformers has NeuCodec alone, not its distilled or acoustic-only kin")
    names = dict(_transformers_modules(config))
    native = {}
    for name, reference in reference_names(config, state).items():
        tensor = _with_tap(state[name].detach(), reference)
        if layer := re.fullmatch(r"generator\.backbone\.transformers\.(\d+)\.att\.c_attn", reference.module):
            query, key, value = tensor.chunk(3)
            parts = (_split_halves(query, config.decoder.heads), _split_halves(key, config.decoder.heads), value)
            for part, rows in zip("qkv", parts, strict=True):
                native[f"acoustic_decoder.layers.{layer[1]}.self_attn.{part}_proj.weight"] = rows
        else:
            module = names.get(reference.module) or reference.module.replace("semantic_model.", "semantic_encoder.", 1)
            native[f"{module}.{reference.leaf}"] = tensor
    return native


def from_upstream(state: Mapping[str, Tensor]) -> State:
    """A speech model's own checkpoint, as the published layout holds it inside."""
    return {f"semantic_model.{re.sub(r'^(hubert|wav2vec2_bert)[.]', '', key)}": value for key, value in state.items()}


def _find(state: Mapping[str, Tensor], reference: Reference) -> tuple[Tensor | None, list[str]]:
    """The tensor of `reference`, and the names it lies under."""
    whole, keys = state.get(reference.key), [reference.key]
    for norm in (OLD_NORM, NEW_NORM) if reference.leaf == "weight" else ():
        length_key, direction_key = (f"{reference.module}.{leaf}" for leaf in (norm.length, norm.direction))
        if length_key in state and direction_key in state:
            keys += [length_key, direction_key]
            length = state[length_key]
            axis = next((axis for axis, size in enumerate(length.shape) if size > 1), 0)
            fused = fuse_weight_norm(length, state[direction_key], axis)
            if whole is None:
                whole = fused
            elif whole.shape != fused.shape or not torch.allclose(whole.float(), fused, rtol=1e-5, atol=1e-6):
                warnings.warn(
                    f"{reference.key} is stored twice, and its weight norm gives other numbers; taken whole",
                    stacklevel=2,
                )
    return (None if whole is None else whole.float()), keys


def _with_tap(tensor: Tensor, reference: Reference) -> Tensor:
    return tensor[..., None] if ONE_TAP.fullmatch(reference.module) else tensor


def _interleave(rows: Tensor, heads: int) -> Tensor:
    """Rows of a query or key projection from half-split to interleaved pairs, within each head."""
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _split_halves(rows: Tensor, heads: int) -> Tensor:
    """The inverse of `_interleave`."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _transformers_modules(config: CodecConfig) -> Iterable[tuple[str, str]]:
    """(published module, transformers' module) where more than the first word differs."""
    yield "SemanticEncoder_module.initial_conv", "semantic_adapter.conv1"
    yield "SemanticEncoder_module.residual_blocks.1", "semantic_adapter.conv2"
    yield "SemanticEncoder_module.residual_blocks.3", "semantic_adapter.conv3"
    yield "SemanticEncoder_module.final_conv", "semantic_adapter.conv4"
    yield "CodecEnc.conv_blocks.0", "acoustic_encoder.conv1"
    strides = config.acoustic.strides
    for i in range(len(strides)):
        block, theirs = f"CodecEnc.conv_blocks.{i + 1}.block", f"acoustic_encoder.block.{i}"
        for j in range(3):
            for k, part in enumerate(("snake1.act", "conv1", "snake2.act", "conv2")):
                inside = f"{k}.act" if "act" in part else str(k)
                yield f"{block}.{j}.block.{inside}", f"{theirs}.res_unit{j + 1}.{part}"
        yield f"{block}.3.act", f"{theirs}.snake1.act"
        yield f"{block}.4", f"{theirs}.conv1"
    yield "CodecEnc.conv_final_block.0.act", "acoustic_encoder.snake1.act"
    yield "CodecEnc.conv_final_block.1", "acoustic_encoder.conv2"
    yield "fc_prior", "fc_encoder"
    yield "generator.quantizer.project_in", "quantizer.project_in"
    yield "generator.quantizer.project_out", "quantizer.project_out"
    yield "fc_post_a", "acoustic_decoder.fc"
    ours, theirs = "generator.backbone", "acoustic_decoder"
    yield f"{ours}.embed", f"{theirs}.embed"
    for net in ("prior_net", "post_net"):
        for i in range(config.decoder.resnet_blocks):
            for part in ("norm1", "conv1", "norm2", "conv2"):
                yield f"{ours}.{net}.{i}.{part}", f"{theirs}.{net}.{i}.{part}"
    for i in range(config.decoder.layers):
        layer, native = f"{ours}.transformers.{i}", f"{theirs}.layers.{i}"
        yield f"{layer}.att_norm", f"{native}.input_layernorm"
        yield f"{layer}.att.c_proj", f"{native}.self_attn.o_proj"
        yield f"{layer}.ffn_norm", f"{native}.post_attention_layernorm"
        yield f"{layer}.mlp.fc1", f"{native}.mlp.fc1"
        yield f"{layer}.mlp.fc2", f"{native}.mlp.fc2"
    yield f"{ours}.final_layer_norm", f"{theirs}.norm"
    yield "generator.head.out", "acoustic_decoder.head.linear"


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
