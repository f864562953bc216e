"""What sizes every part of a codec: one frozen record per part, the published sizes as one value of each.

Sources: NeuCodec (arXiv 2509.09550) and its published checkpoints. A small codec of the same family is another
value of `CodecConfig`; leaving `semantic` out gives an acoustic-only one.
"""

from dataclasses import asdict, dataclass
from math import prod
from typing import Any


@dataclass(frozen=True, slots=True)
class BigCodecConfig:
    """Convolutional acoustic encoder with anti-aliased SnakeBeta; every stride doubles the width."""

    width: int = 48  # channels at the input rate
    strides: tuple[int, ...] = (2, 2, 4, 4, 5)
    dilations: tuple[int, ...] = (1, 3, 9)  # of the residual units before each stride
    out_width: int = 1024

    @property
    def hop_length(self) -> int:
        return prod(self.strides)


@dataclass(frozen=True, slots=True)
class L3ACConfig:
    """Convolutional acoustic encoder with local attention: the distilled model's."""

    widths: tuple[int, ...] = (32, 64, 128, 256)
    strides: tuple[int, ...] = (4, 4, 4)  # between the widths
    depths: tuple[int, ...] = (1, 1, 1, 2)  # residual units at each width
    pools: tuple[int, ...] = (1, 5, 11, 21, 45)  # trend pools of the first block, in samples
    pool_width: int = 4
    expansion: int = 4
    out_width: int = 512
    fast_layers: int = 2  # local attention before the last stride
    fast_window: int = 1500
    last_stride: int = 5
    slow_layers: int = 3  # and after it
    slow_window: int = 300
    heads: int = 6
    head_width: int = 128

    @property
    def hop_length(self) -> int:
        return prod(self.strides) * self.last_stride


@dataclass(frozen=True, slots=True)
class SpectralConfig:
    """Acoustic encoder of the small codec: log-mel spectra, then blocks at the frame rate. Not a published one."""

    hop_length: int = 320
    spectra: tuple[tuple[int, int, int], ...] = ((1024, 160, 2), (256, 40, 4))  # FFT size, mel bands, steps per hop
    width: int = 256
    blocks: int = 5
    kernel: int = 7
    expansion: int = 4
    out_width: int = 256

    @property
    def num_features(self) -> int:
        return sum(mels * steps for _, mels, steps in self.spectra)


@dataclass(frozen=True, slots=True)
class W2VBertConfig:
    """w2v-BERT 2.0, cut after the layer whose output is used (24 layers are published, 16 are read)."""

    mel_bins: int = 80
    stack: int = 2  # mel frames per frame
    width: int = 1024
    layers: int = 16
    heads: int = 16
    ffn_width: int = 4096
    kernel: int = 31
    left: int = 64  # relative positions are told apart from -left to +right frames
    right: int = 8

    @property
    def out_width(self) -> int:
        return self.width


@dataclass(frozen=True, slots=True)
class HubertConfig:
    """DistilHuBERT."""

    conv_width: int = 512
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    width: int = 768
    layers: int = 2
    heads: int = 12
    ffn_width: int = 3072
    position_kernel: int = 128
    position_groups: int = 16

    @property
    def out_width(self) -> int:
        return self.width


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Vocos-style decoder: convolutions, attention without positions, inverse STFT. Its hop sets the output rate."""

    width: int = 1024
    layers: int = 12
    heads: int = 16
    expansion: int = 4
    norm_groups: int = 32
    kernel: int = 7
    resnet_blocks: int = 2  # before the attention layers, and again after them
    dropout: float = 0.1  # in training, inside the resnet blocks
    hop_length: int = 480  # output samples per frame: 480 at 24 kHz, 320 at 16 kHz

    @property
    def n_fft(self) -> int:
        return 4 * self.hop_length


@dataclass(frozen=True, slots=True)
class CodecConfig:
    """A whole codec. `extra_frames` is 1 where the last, half padded frame is kept (the distilled model)."""

    acoustic: BigCodecConfig | L3ACConfig | SpectralConfig
    semantic: W2VBertConfig | HubertConfig | None
    decoder: DecoderConfig
    acoustic_width: int | None = None  # a linear layer brings the acoustic features to this width; None: no layer
    adapter_width: int = 1024  # hidden channels of the semantic adapter
    latent_width: int = 2048
    levels: tuple[int, ...] = (4,) * 8
    input_rate: int = 16_000
    extra_frames: int = 0

    def __post_init__(self) -> None:
        if self.semantic is not None and (self.hop_length, self.input_rate) != (320, 16_000):
            raise ValueError(
                f"the semantic encoders give 50 frames per second of 16 kHz sound, not {self.input_rate} Hz in hops of "
                f"{self.hop_length}; choose strides whose product is 320, or leave the semantic branch out"
            )
        if (self.input_rate * self.decoder.hop_length) % self.hop_length:
            raise ValueError(
                f"a decoder hop of {self.decoder.hop_length} for an encoder hop of {self.hop_length} at "
                f"{self.input_rate} Hz gives no whole output rate; choose hops whose quotient divides the rate"
            )

    @property
    def hop_length(self) -> int:
        """Input samples per frame."""
        return self.acoustic.hop_length

    @property
    def output_rate(self) -> int:
        return self.input_rate * self.decoder.hop_length // self.hop_length

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file; each encoder says its kind."""
        fields = asdict(self)
        for part in ("acoustic", "semantic"):
            if fields[part] is not None:
                fields[part] = {"kind": _kind(getattr(self, part)), **fields[part]}
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "CodecConfig":
        """The inverse of `to_json`. Raises: ValueError for an unknown kind or field."""
        fields = dict(fields)
        try:
            for part in ("acoustic", "semantic"):
                if fields[part] is not None:
                    own = dict(fields[part])
                    kind = own.pop("kind")
                    if kind not in KINDS[part]:
                        raise ValueError(f"unknown {part} encoder {kind!r}; known: {', '.join(sorted(KINDS[part]))}")
                    fields[part] = KINDS[part][kind](**_tuples(own))
            fields["decoder"] = DecoderConfig(**_tuples(fields["decoder"]))
            return cls(**_tuples(fields))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a codec configuration of this version: {error}") from error


KINDS: dict[str, dict[str, type]] = {
    "acoustic": {"bigcodec": BigCodecConfig, "l3ac": L3ACConfig, "spectral": SpectralConfig},
    "semantic": {"w2v-bert": W2VBertConfig, "hubert": HubertConfig},
}


def _kind(part: Any) -> str:
    return next(kind for kinds in KINDS.values() for kind, record in kinds.items() if type(part) is record)


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    def whole(value: Any) -> Any:
        return tuple(whole(item) for item in value) if isinstance(value, list | tuple) else value

    return {name: whole(value) for name, value in fields.items()}


NEUCODEC = CodecConfig(acoustic=BigCodecConfig(), semantic=W2VBertConfig(), decoder=DecoderConfig())
DISTILL_NEUCODEC = CodecConfig(
    acoustic=L3ACConfig(), semantic=HubertConfig(), decoder=DecoderConfig(), acoustic_width=768, extra_frames=1
)
