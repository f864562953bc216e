"""The recipes: a base and its differences, each with the paper's numbers. Source: arXiv 2509.09550, and XCodec2.

What neither states is settled here, in one place:
- A step is one batch. (XCodec2's framework counts two per batch; the paper does not say which it counts.)
- Losses over sub-discriminators are summed, as the code does; the prose says averaged.
- Adam's epsilon, betas and weight decay: XCodec2's.
- upsample_24k: the new decoder, its input projection included, starts from the 16 kHz decoder wherever a tensor's
  shape fits, and so do the bins of its head up to 8 kHz; judges start fresh; the learning rate restarts. The semantic
  loss has nothing to train, so it is off.
- distill: the weight of Eq. 2 is not printed; it is that of the semantic loss, the other error between features.
  DistilHuBERT stays frozen, as its published weights suggest; the semantic head learns, because no decoder that could
  be reused for it is published.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from codec.config import (
    DISTILL_NEUCODEC,
    NEUCODEC,
    CodecConfig,
    DecoderConfig,
    SpectralConfig,
)
from codec.training.discriminators import DiscriminatorConfig
from codec.training.losses import MEL_RESOLUTIONS
from codec.training.schedules import Schedule


@dataclass(frozen=True, slots=True)
class Weights:
    """What each part counts in the total, Eq. 3; 0 leaves a part out."""

    mel: float = 15.0
    adversarial: float = 1.0
    feature_matching: float = 1.0
    semantic: float = 5.0
    distillation: float = 0.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to train: which codec, who learns, what counts, for how long."""

    name: str
    codec: CodecConfig
    trains: tuple[str, ...]  # modules of the codec that learn, and "semantic_head"
    starts_from: str | None = None  # the recipe whose result this one begins with ("teacher" of a distillation)
    teacher: bool = False  # that result also teaches
    weights: Weights = field(default_factory=Weights)
    judges: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    mel_resolutions: tuple[tuple[int, int], ...] = MEL_RESOLUTIONS
    schedule: Schedule = field(default_factory=Schedule)
    steps: int = 800_000
    batch_size: int = 96  # over all ranks
    crop_seconds: float = 6.0
    adversarial_after: int = 0  # the judges begin at this step
    judged_seconds: float | None = None  # judges hear so much of each crop, from a hop that moves; None: all of it
    latent_spread: float = 1.0  # factor on the first weights into the quantizer: how many levels its codes begin with
    distillation_after: int = 0
    betas: tuple[float, float] = (0.8, 0.9)
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    judge_rate: float = 1.0  # the learning rate of the judges, as a multiple of the schedule
    seed: int = 1024

    def __post_init__(self) -> None:
        if self.crop_samples % self.codec.hop_length:
            raise ValueError(
                f"a crop of {self.crop_seconds} s is not a whole number of hops of {self.codec.hop_length} samples; "
                f"choose a multiple of {self.codec.hop_length / self.codec.input_rate} s"
            )
        heard = self.crop_seconds if self.judged_seconds is None else min(self.judged_seconds, self.crop_seconds)
        for seconds, n_ffts in (
            (self.crop_seconds, [n_fft for n_fft, _ in self.mel_resolutions]),
            (heard, self.judges.n_ffts),
        ):
            least = max(n_ffts) / 2 / self.codec.output_rate  # reflected at both ends
            if seconds <= least:
                raise ValueError(
                    f"{seconds} s of sound are too short for a spectrum of {max(n_ffts)} samples; more than {least} s "
                    "are wanted of a crop, and of what judges hear of it"
                )

    @property
    def crop_samples(self) -> int:
        """Of the input, at its rate."""
        return round(self.crop_seconds * self.codec.input_rate)

    @property
    def has_semantic_loss(self) -> bool:
        return self.weights.semantic > 0

    def to_json(self) -> dict[str, Any]:
        """What was chosen, for the record beside what it produced."""
        return {**asdict(self), "codec": self.codec.to_json()}


ENCODER = ("acoustic", "adapter", "fuse")  # w2v-BERT stays frozen
STUDENT_ENCODER = ("acoustic", "acoustic_projection", "adapter", "fuse")

DECODER_16K = replace(NEUCODEC.decoder, hop_length=320)

NEUCODEC_16K = Recipe(
    name="neucodec_16k",
    codec=replace(NEUCODEC, decoder=DECODER_16K),
    trains=(*ENCODER, "quantizer", "decoder", "semantic_head"),
)

UPSAMPLE_24K = replace(
    NEUCODEC_16K,
    name="upsample_24k",
    codec=NEUCODEC,
    trains=("decoder",),
    starts_from="neucodec_16k",
    weights=replace(NEUCODEC_16K.weights, semantic=0.0),
    steps=200_000,
)

DISTILL = replace(
    NEUCODEC_16K,
    name="distill",
    codec=replace(DISTILL_NEUCODEC, decoder=DECODER_16K),
    trains=(*STUDENT_ENCODER, "semantic_head"),
    starts_from="neucodec_16k",
    teacher=True,
    weights=replace(NEUCODEC_16K.weights, distillation=5.0),
    distillation_after=20_000,  # earlier the loss diverges (Section 4.1)
    steps=400_000,
    batch_size=192,
)

# The small forms: what a laptop can train in hours and a GPU in minutes. Their rates are larger, as small models bear.
NANO = Recipe(
    name="nano",
    codec=CodecConfig(
        acoustic=SpectralConfig(),
        semantic=None,
        # no attention: what it would learn from crops of 2 s does not hold for clips of 20
        decoder=DecoderConfig(width=320, layers=0, resnet_blocks=3, dropout=0.0, hop_length=320),
        latent_width=256,
    ),
    trains=("acoustic", "fuse", "quantizer", "decoder"),
    weights=Weights(semantic=0.0),
    judges=DiscriminatorConfig(period_width=8, period_max_width=128, n_ffts=(126, 334, 876), spectrum_width=8),
    judged_seconds=0.5,
    judge_rate=0.3,
    latent_spread=3.0,
    schedule=Schedule(start=1e-5, peak=1e-3, end=5e-5, warmup=300, decay=59_700),
    steps=60_000,
    batch_size=8,
    crop_seconds=2.0,
    adversarial_after=10_000,
)

NANO_24K = replace(
    NANO,
    name="nano_24k",
    codec=replace(NANO.codec, decoder=replace(NANO.codec.decoder, hop_length=480)),
    trains=("decoder",),
    starts_from="nano",
    steps=20_000,
    adversarial_after=0,
)

NANO_DISTILL = replace(
    NANO,
    name="nano_distill",
    codec=replace(NANO.codec, acoustic=SpectralConfig(spectra=((512, 64, 2),), width=160, blocks=3, out_width=160)),
    trains=("acoustic", "fuse"),
    starts_from="nano",
    teacher=True,
    # few steps, and a decoder that is frozen: the teacher's features say more to an encoder than judges of sound could
    weights=Weights(adversarial=0.0, feature_matching=0.0, semantic=0.0, distillation=100.0),
    adversarial_after=10_000,
    steps=10_000,
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (NEUCODEC_16K, UPSAMPLE_24K, DISTILL, NANO, NANO_24K, NANO_DISTILL)
}
