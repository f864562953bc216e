"""NeuCodec and its distilled student: waveform <-> one code of 16 bits per 20 ms, read top to bottom.

Source: arXiv 2509.09550 and its published checkpoints. The two models are one class of two sizes; a configuration
without a semantic branch gives a small acoustic-only codec of the same family.
"""

import torch
from torch import Tensor, nn

from codec.config import BigCodecConfig, CodecConfig, HubertConfig, L3ACConfig, W2VBertConfig
from codec.fsq import FSQ
from codec.nn.layers import Linear
from codec.nn.masking import zero_tail
from schemas.spec import CodecSpec


class NeuCodec(nn.Module):
    """Acoustic and semantic features of a clip, fused and quantized; and back to sound.

    A row of a batch is encoded as if it were alone: every module knows each row's own length.
    """

    def __init__(self, config: CodecConfig, name: str = "neucodec", revision: str = "unset") -> None:
        super().__init__()
        self.config = config
        self.name, self.revision, self.precision = name, revision, "float32"
        self.acoustic = build_acoustic(config.acoustic)
        self.semantic = build_semantic(config.semantic)
        width = config.acoustic.out_width
        self.acoustic_projection = Linear(width, config.acoustic_width) if config.acoustic_width else None
        width = config.acoustic_width or width
        self.adapter = None
        if config.semantic is not None:
            self.adapter = SemanticAdapter(config.semantic.out_width, config.adapter_width, config.semantic.out_width)
            width += config.semantic.out_width
        self.fuse = Linear(width, config.latent_width)
        self.quantizer = FSQ(config.latent_width, config.levels)
        self.decoder = VocosDecoder(config.latent_width, config.decoder)

    @property
    def spec(self) -> CodecSpec: ...

    def features(self, waveforms: Tensor, num_samples: Tensor | None = None) -> Tensor:
        """Features before quantization, `h` in Eq. 2; differentiable.

        Args: waveforms: float32 [B, 1, T] at spec.input_rate. num_samples: int64 [B], each row's own length; None: T.
        Returns: float32 [B, F, D], F = spec.num_frames(T); what lies past a row's own frames is arbitrary.
        """
        ...

    # Parts, and what they take and give. `num_hops` [B] (or None: all rows full) counts whole hops of the padded
    # waveform, num_samples // hop + 1; masks derive from it at each part's own rate.
    #   acoustic(waveforms [B, 1, hops * 320], num_hops) -> [B, hops, C]
    #   semantic(waveforms [B, 1, hops * 320], num_hops) -> [B, num_frames, C]    does its own front end (fbank, 160+160)
    #   adapter(x [B, F, C], num_frames) -> [B, F, C]
    #   decoder(latent [B, F, D], num_frames) -> [B, 1, T]
