"""What every codec keeps: three promises, and one alphabet of shapes.

B batch, C channels, T samples, F frames, K codebooks, D features, L levels.
"""

from typing import Protocol

import torch
from torch import Tensor

from schemas.spec import CodecSpec


class Codec(Protocol):
    spec: CodecSpec
    device: torch.device  # where waveforms and codes should lie

    def encode(self, waveforms: Tensor, num_samples: Tensor) -> Tensor:
        """Codes of a batch of clips of different lengths; a row's codes do not depend on its batch mates.

        Args: waveforms: float32 [B, 1, T] at spec.input_rate. num_samples: int64 [B], each row's own length,
            best on the CPU.
        Returns: int32 [B, K, F]; codes past a row's own spec.num_frames(num_samples) are 0.
        Raises: ValueError if not [B, 1, T], or if a row is shorter than one hop.
        """
        ...

    def decode(self, codes: Tensor, num_frames: Tensor | None = None) -> Tensor:
        """Sound of a batch of codes; samples past a row's own length are 0.

        Args: codes: int [B, K, F]. num_frames: int64 [B], each row's own count; default all of F.
        Returns: float32 [B, 1, T] at spec.output_rate, T = spec.num_output_samples(F).
        """
        ...
