"""The reference implementations that our codes are compared with, built offline out of their installed packages.

Needs tests/requirements-oracles.txt. They are oracles only: nothing of neutok runs on them.
"""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Protocol
from unittest.mock import patch

import torch
from torch import Tensor, nn

from codec.layouts import to_reference, to_transformers
from codec.neucodec import NeuCodec
from codec.seeded import fill
from jobs.parity import ORACLES

LAYERS_READ = 16  # of w2v-BERT, though the neucodec package runs more
# parameters that no output depends on
IDLE = ("codec_encoder.en_encoder.cache_token", "semantic_model.masked_spec_embed")
# what transformers makes again by itself, and its masked_spec_embed
TRANSFORMERS_IDLE = ("semantic_encoder.masked_spec_embed",)


class Oracle(Protocol):
    def encode(self, waveform: Tensor) -> Tensor:
        """Codes int [F] of one clip, float32 [T] at 16 kHz."""
        ...


def build_oracle(
    package: str, model: str, weights: NeuCodec | None = None, device: str = "cpu", layers: int = LAYERS_READ
) -> Oracle:
    """`model` as `package` has it, with the weights of our codec, or seeded ones by the package's own names.

    Args: layers: of the speech model in the neucodec package, which runs all 24 and reads the sixteenth.
    Raises: ValueError for an unknown pair; ImportError where the packages are not installed.
    """
    if package not in ORACLES:
        raise ValueError(f"unknown oracle {package!r}; known: {', '.join(ORACLES)}")
    if package == "neucodec":
        return PublishedOracle(build_published(model, weights, layers).to(device))
    if model != "neucodec":
        raise ValueError(f"transformers has no {model!r}, only 'neucodec'; compare it with the neucodec package")
    if weights is None:
        raise ValueError("transformers names its weights in its own way: give the codec whose weights it shall take")
    return TransformersOracle(weights, device)


class PublishedOracle:
    """The `neucodec` package."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    @torch.no_grad()
    def encode(self, waveform: Tensor) -> Tensor:
        return self.model.encode_code(waveform[None, None])[0, 0].cpu()


class TransformersOracle:
    """The port in transformers, with its own feature extractor."""

    def __init__(self, weights: NeuCodec, device: str = "cpu") -> None:
        from transformers import NeuCodecConfig, NeuCodecModel
        from transformers.models.neucodec.feature_extraction_neucodec import NeuCodecFeatureExtractor

        config = NeuCodecConfig()
        config.semantic_model_config.apply_spec_augment = False
        with without_random_init():
            self.model = NeuCodecModel(config).eval()
        load_exactly(self.model, to_transformers(weights.state_dict(), weights.config), TRANSFORMERS_IDLE)
        self.model.to(device)
        self.extractor = NeuCodecFeatureExtractor()

    @torch.no_grad()
    def encode(self, waveform: Tensor) -> Tensor:
        inputs = self.extractor(waveform.numpy(), sampling_rate=16_000, return_tensors="pt")
        return self.model.encode(**inputs.to(self.model.device)).audio_codes[0, 0].cpu()


def build_published(model: str, weights: NeuCodec | None = None, layers: int = LAYERS_READ) -> nn.Module:
    """`NeuCodec` or `DistillNeuCodec` of the neucodec package, in eval mode, with `layers` of w2v-BERT's 24."""
    package = import_module("neucodec.model")
    classes = {"neucodec": package.NeuCodec, "distill-neucodec": package.DistillNeuCodec}
    if model not in classes:
        raise ValueError(f"the neucodec package has no {model!r}; it has: {', '.join(classes)}")
    with without_random_init(), _local_parts(package, layers):
        oracle = classes[model](24_000, 480).eval()
    if weights is None:
        with torch.no_grad():
            for name, parameter in oracle.named_parameters():
                parameter.copy_(fill(name, tuple(parameter.shape)))
    else:
        idle = {name for name, _ in oracle.named_buffers()}
        idle |= {name for name, _ in oracle.named_parameters() if _layer(name) >= LAYERS_READ}
        load_exactly(oracle, to_reference(weights.state_dict(), weights.config), (*IDLE, *idle))
    return oracle


def _layer(name: str) -> int:
    """The number of the w2v-BERT layer that a parameter belongs to, or -1."""
    prefix = "semantic_model.encoder.layers."
    return int(name[len(prefix) :].split(".", 1)[0]) if name.startswith(prefix) else -1


def load_exactly(model: nn.Module, state: dict[str, Tensor], idle: tuple[str, ...]) -> None:
    """Let `model` share the tensors of `state`, which must name all its parameters but the idle ones.

    Raises: ValueError for other names.
    """
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    if unexpected or set(missing) - set(idle):
        raise ValueError(f"the oracle misses {sorted(set(missing) - set(idle))} and does not know {unexpected}")


@contextmanager
def _local_parts(package: object, layers: int) -> Iterator[None]:
    """Speech models and their feature extractors from their known configurations instead of from the Hub."""
    from transformers import (
        HubertConfig,
        HubertModel,
        SeamlessM4TFeatureExtractor,
        Wav2Vec2BertConfig,
        Wav2Vec2BertModel,
        Wav2Vec2FeatureExtractor,
    )

    extractors = {
        "facebook/w2v-bert-2.0": SeamlessM4TFeatureExtractor(
            feature_size=80, num_mel_bins=80, sampling_rate=16_000, stride=2, padding_value=1.0
        ),
        "ntu-spml/distilhubert": Wav2Vec2FeatureExtractor(
            feature_size=1, sampling_rate=16_000, padding_value=0.0, do_normalize=False
        ),
    }

    def w2v_bert(name: str, **options: bool) -> nn.Module:
        return Wav2Vec2BertModel(Wav2Vec2BertConfig(num_hidden_layers=layers, apply_spec_augment=False, **options))

    def hubert(name: str, **options: bool) -> nn.Module:
        return HubertModel(
            HubertConfig(num_hidden_layers=2, feat_proj_layer_norm=False, apply_spec_augment=False, **options)
        )

    with ExitStack() as patches:
        for name, build in (
            ("Wav2Vec2BertModel", w2v_bert),
            ("HubertModel", hubert),
            ("AutoFeatureExtractor", extractors.__getitem__),
        ):
            patches.enter_context(patch.object(getattr(package, name), "from_pretrained", build))
        yield


@contextmanager
def without_random_init() -> Iterator[None]:
    """Leave new weights unset, which takes most of the time of building a large model; every one is set afterwards."""
    names = [name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")]
    with ExitStack() as patches, warnings.catch_warnings():
        for name in names:
            patches.enter_context(patch.object(nn.init, name, lambda tensor, *args, **kwargs: tensor))
        yield
