"""Tiny recipes and clips in memory, for the tests of training."""

import io
from dataclasses import dataclass, replace

import numpy as np
import soundfile

from codec.config import CodecConfig, DecoderConfig, HubertConfig, L3ACConfig, SpectralConfig, W2VBertConfig
from codec.training.discriminators import DiscriminatorConfig
from codec.training.recipes import NANO, Weights
from codec.training.schedules import Schedule
from pipeline.shuffle import Rows
from schemas.audio import AudioFile, Reject, Utterance

TINY_JUDGES = DiscriminatorConfig(
    periods=(2, 3), period_width=2, period_max_width=8, n_ffts=(126, 334), spectrum_width=2
)
TINY_CODEC = CodecConfig(
    acoustic=SpectralConfig(spectra=((512, 40, 2),), width=32, blocks=1, out_width=32),
    semantic=None,
    decoder=DecoderConfig(width=32, layers=1, heads=2, norm_groups=4, resnet_blocks=1, dropout=0.0, hop_length=320),
    latent_width=32,
)
TINY = replace(
    NANO,
    name="tiny",
    codec=TINY_CODEC,
    judges=TINY_JUDGES,
    mel_resolutions=((128, 20), (512, 80)),
    schedule=Schedule(start=1e-3, peak=3e-3, end=1e-3, warmup=5, decay=1000),
    steps=20,
    batch_size=4,
    crop_seconds=0.4,
    adversarial_after=4,
)


def voice(seed: int, seconds: float, rate: int = 16_000) -> np.ndarray:
    """A buzzing vowel with a melody, float32 [T]."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    pitch = 110 * 2 ** rng.uniform(0, 1.2) * (1 + 0.05 * np.sin(2 * np.pi * 3 * t))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    tones = sum(rng.uniform(0.2, 1) / k * np.sin(k * phase) for k in range(1, 12))
    return (0.1 * tones * (0.6 + 0.4 * np.sin(2 * np.pi * 2 * t + seed))).astype(np.float32)


def wav(waveform: np.ndarray, rate: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


@dataclass
class MemoryClips:
    """A dataset of clips in memory; `broken` rows cannot be read."""

    rows: Rows
    data: list[bytes]
    broken: frozenset[int] = frozenset()

    @classmethod
    def of(cls, name: str, num_clips: int, seconds: float = 0.8, broken=(), rate: int = 16_000) -> "MemoryClips":
        data = [wav(voice(i, seconds * (1 + i % 3 / 3), rate), rate) for i in range(num_clips)]
        borders = np.append(np.arange(0, num_clips, 4), num_clips)
        return cls(Rows(name, "toy", borders), data, frozenset(broken))

    def read(self, row: int) -> AudioFile | Reject:
        utterance = Utterance(id=f"{self.rows.name}_{row}", corpus=self.rows.name, source="memory")
        if row in self.broken:
            return Reject(utterance, "unreadable", "broken on purpose")
        return AudioFile(utterance, self.data[row])


TINY_W2V = W2VBertConfig(width=32, layers=1, heads=2, ffn_width=64, kernel=5, left=8, right=4)
TINY_HUBERT = HubertConfig(
    conv_width=16, width=32, layers=1, heads=2, ffn_width=64, position_kernel=16, position_groups=4
)
TINY_L3AC = L3ACConfig(
    widths=(4, 8, 8, 16), depths=(1, 1, 1, 1), out_width=32, heads=2, head_width=16, fast_layers=1, slow_layers=1
)
TINY_TEACHER = replace(
    TINY,
    name="tiny_teacher",
    codec=replace(TINY_CODEC, semantic=TINY_W2V, adapter_width=32),
    trains=("acoustic", "adapter", "fuse", "quantizer", "decoder", "semantic_head"),
    weights=Weights(),
)
TINY_DISTILL = replace(
    TINY,
    name="tiny_distill",
    codec=replace(
        TINY_CODEC, acoustic=TINY_L3AC, semantic=TINY_HUBERT, acoustic_width=32, adapter_width=32, extra_frames=1
    ),
    trains=("acoustic", "acoustic_projection", "adapter", "fuse", "semantic_head"),
    starts_from="tiny_teacher",
    teacher=True,
    weights=Weights(distillation=5.0),
    adversarial_after=0,
)
