"""Small codecs of both families, and the seeded published one, for tests of the distilled half and of weights."""

import warnings
from functools import cache

import numpy as np
import torch

import codec
from codec.config import BigCodecConfig, CodecConfig, DecoderConfig, HubertConfig, L3ACConfig, W2VBertConfig
from codec.neucodec import NeuCodec
from codec.seeded import seed

SMALL_NEUCODEC = CodecConfig(
    acoustic=BigCodecConfig(width=2, out_width=64),
    semantic=W2VBertConfig(width=32, layers=2, heads=4, ffn_width=64),
    decoder=DecoderConfig(width=64, layers=2, heads=2),
    adapter_width=32,
    latent_width=96,
)
SMALL_DISTILL = CodecConfig(
    acoustic=L3ACConfig(
        widths=(4, 8, 8, 12), depths=(1, 1, 1, 2), pools=(1, 5, 11), pool_width=2, expansion=2, out_width=24,
        fast_layers=1, fast_window=40, slow_layers=2, slow_window=8, heads=2, head_width=8,
    ),
    semantic=HubertConfig(
        conv_width=16, width=32, heads=4, ffn_width=64, position_kernel=16, position_groups=4,
    ),
    decoder=DecoderConfig(width=64, layers=1, heads=4),
    acoustic_width=32,
    adapter_width=32,
    latent_width=64,
    extra_frames=1,
)  # fmt: skip


def small(name: str) -> NeuCodec:
    """A small codec under a published name, seeded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return seed(NeuCodec({"neucodec": SMALL_NEUCODEC, "distill-neucodec": SMALL_DISTILL}[name], name)).eval()


@cache
def seeded_distill() -> NeuCodec:
    """The published size, made once for all tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return codec.load("distill-neucodec", weights="seeded")


def conformance_waveform() -> torch.Tensor:
    """float32 [1, 1, 16000]: the sound that the reference values are of."""
    n = np.arange(16000)
    tone = 0.3 * np.sin(2 * np.pi * 220 * n / 16000) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * n / 16000))
    noise = 0.05 * np.random.RandomState(0).standard_normal(16000)
    return torch.from_numpy((tone + noise).astype(np.float32))[None, None]
