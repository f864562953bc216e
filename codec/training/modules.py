"""What learns, put together: a codec with what only training needs around it.

Here a batch is whole crops of one length, so no row needs a mask.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from codec.neucodec import NeuCodec
from codec.nn.adapter import SemanticAdapter

TEACHER = "teacher"  # among the hashes of what is frozen; no module of the codec is called so


class SemanticHead(nn.Module):
    """Tells the semantic features from the quantized ones: training only, dropped from what is shipped.

    The decoder half has the adapter's layers and its in-place ReLU (XCodec2).
    """

    def __init__(self, latent_width: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(latent_width, width)
        self.decoder = SemanticAdapter(width, width)

    def forward(self, quantized: Tensor) -> Tensor:
        """[B, F, latent] -> [B, F, width]."""
        return self.decoder(self.project(quantized), None)


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an encoder gives for a batch of crops: features before quantization, and the semantic model's own."""

    features: Tensor  # [B, F, latent]
    semantic: Tensor | None  # [B, F, C]


def encode(codec: NeuCodec, waveforms: Tensor) -> Encoded:
    """`NeuCodec.features` of whole crops, keeping the semantic features, which are the semantic loss's target.

    Training pads as encoding does: XCodec2 puts 160 zeros on each side before the semantic features, NeuCodec's
    released encoder does not. So 96,000 samples give 300 frames and every sample has a frame to be decoded from.
    """
    config = codec.config
    frames = waveforms.shape[2] // config.hop_length + config.extra_frames
    padded = nn.functional.pad(waveforms, (0, config.hop_length))
    branches, semantic = [], None
    if codec.semantic is not None:
        semantic = codec.semantic(padded, None)[:, :frames]
        branches.append(codec.adapter(semantic, None))
    branches.append(codec.acoustic_projection(codec.acoustic(padded, None)[:, :frames]))
    return Encoded(codec.fuse(torch.cat(branches, 2)), semantic)


@dataclass(frozen=True, slots=True)
class Generated:
    """What the generator made of a batch; features are [B, F, D], None where the recipe has no use for them."""

    waveforms: Tensor  # float32 [B, 1, T]
    codes: Tensor  # int32 [B, F]
    features: Tensor  # before quantization
    semantic: Tensor | None  # predicted
    semantic_target: Tensor | None
    teacher_features: Tensor | None


class Generator(nn.Module):
    """The codec in training. Only the modules named in `trains` learn; the others compute as they do in use.

    Args: trains: attributes of the codec ("decoder", ...), or "semantic_head".
    Raises: ValueError for a name that is no module of this codec.
    """

    def __init__(
        self, codec: NeuCodec, trains: tuple[str, ...], semantic_head: SemanticHead | None, teacher: NeuCodec | None
    ) -> None:
        super().__init__()
        self.codec, self.semantic_head, self.teacher, self.trains = codec, semantic_head, teacher, trains
        known = [name for name, _ in self.parts()]
        if unknown := set(trains) - set(known):
            raise ValueError(f"cannot train {', '.join(sorted(unknown))}; this codec has: {', '.join(known)}")
        for name, part in self.parts():
            part.requires_grad_(name in trains)
        if teacher is not None:
            teacher.requires_grad_(False)
        self.encoder_learns = bool({"acoustic", "acoustic_projection", "semantic", "adapter", "fuse"} & set(trains))
        self.train()

    def parts(self) -> list[tuple[str, nn.Module]]:
        """Every module that holds parameters of its own, by the name that `trains` and the hashes call it."""
        parts = [
            (name, part) for name, part in self.codec.named_children() if next(part.parameters(), None) is not None
        ]
        return parts + ([("semantic_head", self.semantic_head)] if self.semantic_head is not None else [])

    def frozen(self) -> list[tuple[str, nn.Module]]:
        """What a run must not change, nor be given otherwise when it goes on; the teacher is one such module."""
        frozen = [(name, part) for name, part in self.parts() if name not in self.trains]
        return frozen + ([(TEACHER, self.teacher)] if self.teacher is not None else [])

    def train(self, mode: bool = True) -> "Generator":
        """Dropout acts only where something learns; what is frozen always computes as it does in use."""
        super().train(mode)
        for name, part in self.parts():
            part.train(mode and name in self.trains)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(self, waveforms: Tensor) -> Generated:
        """Crops there and back.

        Args: waveforms: float32 [B, 1, T] at the input rate, T a whole number of hops.
        The quantizer, the spectrum and its inverse are computed in float32 under any autocast: a phase in bfloat16 is
        off by up to 0.02 radians.
        """
        codec, device = self.codec, waveforms.device.type
        with torch.set_grad_enabled(self.encoder_learns and torch.is_grad_enabled()), parametrize.cached():
            encoded = encode(codec, waveforms)
        with torch.autocast(device, enabled=False):
            quantized, codes = codec.quantizer(encoded.features.float())
        frames = min(codes.shape[1], waveforms.shape[2] // codec.config.hop_length)
        quantized, codes = quantized[:, :frames], codes[:, :frames]
        hidden = codec.decoder.backbone(codec.decoder.project(quantized), None)
        with torch.autocast(device, enabled=False):
            sound = codec.decoder.synthesize(hidden.float(), None)
        semantic_target, teacher_features = encoded.semantic, None
        if self.teacher is not None:
            with torch.no_grad():
                taught = encode(self.teacher, waveforms)
            semantic_target, teacher_features = taught.semantic, taught.features
        semantic = None
        if self.semantic_head is not None:
            semantic = self.semantic_head(quantized)
        return Generated(sound, codes, encoded.features, semantic, semantic_target, teacher_features)
