"""Our parameter names, and the names the published checkpoints store the same numbers under.

One table, built from the configuration, serves the loader and the seeded fill rule. A reference tensor is stored
whole, or as a weight norm: a direction and, along one axis, its length (Salimans and Kingma 2016).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from codec.config import BigCodecConfig, CodecConfig, DecoderConfig, HubertConfig, L3ACConfig, W2VBertConfig

# What a reference file may hold and we do not: constants we compute, layers nobody reads, leftovers of its training.
UNUSED = (
    r".*\.(upsample\.filter|downsample\.lowpass\.filter)",
    r"generator\.head\.istft\.window",
    r"codec_encoder\.en_encoder\.cache_token",
    r"(.*\.)?(fc_post_s|SemanticDecoder).*",
    r"semantic_model\.masked_spec_embed",
    r"semantic_model\.encoder\.layers\.(1[6-9]|2[0-3])\..*",
)


@dataclass(frozen=True, slots=True)
class WeightNorm:
    """How a reference module stores a weight norm: the axis its length runs along, and the two leaf names."""

    axis: int
    length: str
    direction: str


OLD_NORM = WeightNorm(0, "weight_g", "weight_v")
NEW_NORM = WeightNorm(0, "parametrizations.weight.original0", "parametrizations.weight.original1")
TAP_NORM = WeightNorm(2, "parametrizations.weight.original0", "parametrizations.weight.original1")


@dataclass(frozen=True, slots=True)
class Reference:
    """Where one of our parameters lies in a reference checkpoint: `module`.`leaf` whole, or as `norm` stores it."""

    module: str
    leaf: str
    norm: WeightNorm | None = None

    @property
    def key(self) -> str:
        return f"{self.module}.{self.leaf}"

    @property
    def length_key(self) -> str:
        assert self.norm is not None
        return f"{self.module}.{self.norm.length}"

    @property
    def direction_key(self) -> str:
        assert self.norm is not None
        return f"{self.module}.{self.norm.direction}"


Module = tuple[str, str, WeightNorm | None]  # our module, the reference's, how its weight is stored


def reference_names(config: CodecConfig, parameters: Iterable[str]) -> dict[str, Reference]:
    """The reference of each of `parameters` (names in `NeuCodec(config)`), in their order.

    Raises: KeyError for a name that no published checkpoint has.
    """
    modules = {ours: (theirs, norm) for ours, theirs, norm in module_names(config)}
    references = {}
    for parameter in parameters:
        module, _, leaf = parameter.rpartition(".")
        theirs, norm = modules[module]
        references[parameter] = Reference(theirs, leaf, norm if leaf == "weight" else None)
    return references


def module_names(config: CodecConfig) -> Iterator[Module]:
    """Every module of a codec that holds parameters of its own."""
    match config.acoustic:
        case BigCodecConfig():
            yield from bigcodec_modules(config.acoustic)
        case L3ACConfig():
            yield from l3ac_modules(config.acoustic)
    match config.semantic:
        case W2VBertConfig():
            yield from w2v_bert_modules(config.semantic)
        case HubertConfig():
            yield from hubert_modules(config.semantic)
    yield "acoustic_projection", "fc_sq_prior", None
    yield "adapter.first", "SemanticEncoder_module.initial_conv", None
    yield "adapter.conv1", "SemanticEncoder_module.residual_blocks.1", None
    yield "adapter.conv2", "SemanticEncoder_module.residual_blocks.3", None
    yield "adapter.last", "SemanticEncoder_module.final_conv", None
    yield "fuse", "fc_prior", None
    yield "quantizer.project_in", "generator.quantizer.project_in", None
    yield "quantizer.project_out", "generator.quantizer.project_out", None
    yield from decoder_modules(config.decoder)


def bigcodec_modules(config: BigCodecConfig) -> Iterator[Module]:
    ours, theirs = "acoustic", "CodecEnc"
    yield f"{ours}.first", f"{theirs}.conv_blocks.0", OLD_NORM
    units = len(config.dilations)
    for i in range(len(config.strides)):
        block, reference = f"{ours}.blocks.{i}", f"{theirs}.conv_blocks.{i + 1}.block"
        for j in range(units):
            yield f"{block}.units.{j}.act1", f"{reference}.{j}.block.0.act", None
            yield f"{block}.units.{j}.conv1", f"{reference}.{j}.block.1", OLD_NORM
            yield f"{block}.units.{j}.act2", f"{reference}.{j}.block.2.act", None
            yield f"{block}.units.{j}.conv2", f"{reference}.{j}.block.3", OLD_NORM
        yield f"{block}.act", f"{reference}.{units}.act", None
        yield f"{block}.down", f"{reference}.{units + 1}", OLD_NORM
    yield f"{ours}.act", f"{theirs}.conv_final_block.0.act", None
    yield f"{ours}.last", f"{theirs}.conv_final_block.1", OLD_NORM


def l3ac_modules(config: L3ACConfig) -> Iterator[Module]:
    ours, theirs = "acoustic", "codec_encoder.encoder.blocks"
    for i in range(len(config.pools)):
        yield f"{ours}.first.branches.{i}", f"{theirs}.0.blocks.{i}.1", NEW_NORM
    yield f"{ours}.first.widen", f"{theirs}.0.conv_1", NEW_NORM
    yield f"{ours}.first.merge", f"{theirs}.0.conv_2", NEW_NORM
    for i, depth in enumerate(config.depths):
        for j in range(depth):
            unit, reference = f"{ours}.stages.{i}.{j}", f"{theirs}.{2 * i + 1}.{j}.module"
            yield f"{unit}.depthwise", f"{reference}.dw_conv", NEW_NORM
            yield f"{unit}.widen", f"{reference}.pw_conv1", NEW_NORM
            yield f"{unit}.act", f"{reference}.act", None
            yield f"{unit}.response", f"{reference}.grn", None
            yield f"{unit}.narrow", f"{reference}.pw_conv2", NEW_NORM
    for i in range(len(config.strides)):
        yield f"{ours}.downs.{i}", f"{theirs}.{2 * i + 2}.0", NEW_NORM
    yield f"{ours}.project", f"{theirs}.{2 * len(config.widths)}", NEW_NORM
    ends = "codec_encoder.en_encoder"
    yield from local_transformer_modules(f"{ours}.fast", f"{ends}.down_trans.trans", config.fast_layers)
    yield f"{ours}.last_down", f"{ends}.down_trans.down_layer", NEW_NORM
    yield from local_transformer_modules(f"{ours}.slow", f"{ends}.local_trans", config.slow_layers)


def local_transformer_modules(ours: str, theirs: str, layers: int) -> Iterator[Module]:
    for i in (0, 2, 4):
        yield f"{ours}.bias.mlp.{i}", f"{theirs}.dynamic_pos_bias.mlp.{i}", None
    inside = {
        "attention_norm": "0.norm",
        "qkv": "0.to_qkv",
        "out": "0.to_out",
        "ffn_norm": "1.0",
        "up": "1.1",
        "down": "1.4",
    }
    for i in range(layers):
        for mine, reference in inside.items():
            yield f"{ours}.layers.{i}.{mine}", f"{theirs}.layers.{i}.{reference}", None


def hubert_modules(config: HubertConfig) -> Iterator[Module]:
    ours, theirs = "semantic", "semantic_model"
    for i in range(len(config.conv_kernels)):
        yield f"{ours}.convs.{i}", f"{theirs}.feature_extractor.conv_layers.{i}.conv", None
    yield f"{ours}.wave_norm", f"{theirs}.feature_extractor.conv_layers.0.layer_norm", None
    yield f"{ours}.project", f"{theirs}.feature_projection.projection", None
    yield f"{ours}.position", f"{theirs}.encoder.pos_conv_embed.conv", TAP_NORM
    yield f"{ours}.norm", f"{theirs}.encoder.layer_norm", None
    inside = {
        "query": "attention.q_proj",
        "key": "attention.k_proj",
        "value": "attention.v_proj",
        "out": "attention.out_proj",
        "attention_norm": "layer_norm",
        "up": "feed_forward.intermediate_dense",
        "down": "feed_forward.output_dense",
        "ffn_norm": "final_layer_norm",
    }
    for i in range(config.layers):
        for mine, reference in inside.items():
            yield f"{ours}.layers.{i}.{mine}", f"{theirs}.encoder.layers.{i}.{reference}", None


def w2v_bert_modules(config: W2VBertConfig) -> Iterator[Module]:
    ours, theirs = "semantic", "semantic_model"
    yield f"{ours}.norm", f"{theirs}.feature_projection.layer_norm", None
    yield f"{ours}.project", f"{theirs}.feature_projection.projection", None
    inside = {
        "attention.norm": "self_attn_layer_norm",
        "attention.query": "self_attn.linear_q",
        "attention.key": "self_attn.linear_k",
        "attention.value": "self_attn.linear_v",
        "attention.distance": "self_attn.distance_embedding",
        "attention.out": "self_attn.linear_out",
        "conv.norm": "conv_module.layer_norm",
        "conv.expand": "conv_module.pointwise_conv1",
        "conv.depthwise": "conv_module.depthwise_conv",
        "conv.depthwise_norm": "conv_module.depthwise_layer_norm",
        "conv.project": "conv_module.pointwise_conv2",
        "norm": "final_layer_norm",
    }
    for n in ("1", "2"):
        inside[f"ffn{n}.norm"] = f"ffn{n}_layer_norm"
        inside[f"ffn{n}.up"] = f"ffn{n}.intermediate_dense"
        inside[f"ffn{n}.down"] = f"ffn{n}.output_dense"
    for i in range(config.layers):
        for mine, reference in inside.items():
            yield f"{ours}.layers.{i}.{mine}", f"{theirs}.encoder.layers.{i}.{reference}", None


def decoder_modules(config: DecoderConfig) -> Iterator[Module]:
    ours, theirs = "decoder", "generator.backbone"
    yield f"{ours}.project", "fc_post_a", None
    yield f"{ours}.embed", f"{theirs}.embed", None
    for part, reference in (("before", "prior_net"), ("after", "post_net")):
        for i in range(config.resnet_blocks):
            for inside in ("norm1", "conv1", "norm2", "conv2"):
                yield f"{ours}.{part}.{i}.{inside}", f"{theirs}.{reference}.{i}.{inside}", None
    inside_layer = {
        "attention_norm": "att_norm",
        "qkv": "att.c_attn",
        "out": "att.c_proj",
        "ffn_norm": "ffn_norm",
        "up": "mlp.fc1",
        "down": "mlp.fc2",
    }
    for i in range(config.layers):
        for mine, reference in inside_layer.items():
            yield f"{ours}.layers.{i}.{mine}", f"{theirs}.transformers.{i}.{reference}", None
    yield f"{ours}.norm", f"{theirs}.final_layer_norm", None
    yield f"{ours}.head", "generator.head.out", None
