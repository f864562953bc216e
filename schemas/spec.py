"""What a codec promises in numbers. Samples become frames, and frames samples, here and nowhere else."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CodecSpec:
    """Rates in hertz, lengths in samples at `input_rate`.

    `extra_frames` is 1 where a codec emits one frame more than whole hops fit (Distill-NeuCodec), else 0.
    """

    name: str
    revision: str  # content hash of the weights
    input_rate: int
    output_rate: int
    hop_length: int  # input samples per frame
    num_codebooks: int
    codebook_size: int
    levels: tuple[int, ...]  # levels of each FSQ dimension, least significant digit first; () if not FSQ
    extra_frames: int = 0
    precision: str = "float32"

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.input_rate / self.hop_length

    def num_frames(self, num_samples: int) -> int:
        """Frames of a clip of `num_samples`. Raises: ValueError below one hop, where there is no whole frame."""
        if num_samples < self.hop_length:
            raise ValueError(
                f"{self.name} needs at least {self.hop_length} samples at {self.input_rate} Hz, got {num_samples}"
            )
        return num_samples // self.hop_length + self.extra_frames

    def num_output_samples(self, num_frames: int) -> int:
        """Samples at `output_rate` that `num_frames` decode to."""
        return num_frames * self.hop_length * self.output_rate // self.input_rate

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "levels": list(self.levels)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "CodecSpec":
        return cls(**{**fields, "levels": tuple(fields["levels"])})
