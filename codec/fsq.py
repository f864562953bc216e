"""Finite scalar quantizer: latent <-> levels <-> code (Mentzer et al. 2023), bounded twice as published."""

from math import atanh, prod

import torch
from torch import Tensor, nn

SLACK = 1e-3  # the bound reaches a little beyond the outer levels, so that tanh can round onto them


class FSQ(nn.Module):
    """Each of a few projected dimensions rounds to one of its levels; the levels spell one code."""

    def __init__(self, width: int, levels: tuple[int, ...]) -> None:
        super().__init__()
        if min(levels) < 3:
            raise ValueError(f"bounded twice, a dimension needs 3 levels or more to reach them all, got {levels}")
        self.levels = levels
        self.codebook_size = prod(levels)
        self.project_in = nn.Linear(width, len(levels))
        self.project_out = nn.Linear(len(levels), width)
        sizes = torch.tensor(levels)
        reach = (sizes - 1) * (1 + SLACK) / 2
        offset = torch.where(sizes % 2 == 0, 0.5, 0.0)
        shift = torch.tensor([atanh(o / r) for o, r in zip(offset.tolist(), reach.tolist(), strict=True)])
        basis = torch.tensor([prod(levels[:i]) for i in range(len(levels))])
        for name, constant in (("sizes", sizes), ("reach", reach), ("offset", offset), ("shift", shift)):
            self.register_buffer(name, constant, persistent=False)
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Quantize, letting gradients pass the rounding straight through.

        Args: features: [B, F, D]. Returns: quantized features float32 [B, F, D], codes int32 [B, F].
        """
        bounded = self.bound(self.latent(features))
        rounded = bounded + (bounded.round() - bounded).detach()
        return self.project_out(rounded / (self.sizes // 2)), self._spell(bounded)

    def encode(self, features: Tensor) -> Tensor:
        """[B, F, D] -> codes int32 [B, F]."""
        return self._spell(self.bound(self.latent(features)))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes int [B, F] -> quantized features float32 [B, F, D]."""
        half = self.sizes // 2
        return self.project_out((self.to_levels(codes) - half) / half)

    def latent(self, features: Tensor) -> Tensor:
        """[B, F, D] -> the dimensions before bounding, float32 [B, F, L]."""
        return self.project_in(features.float())

    def bound(self, latent: Tensor) -> Tensor:
        """Into the range of the levels; twice, as the published weights were trained."""
        for _ in range(2):
            latent = self.reach * torch.tanh(latent + self.shift) - self.offset
        return latent

    def to_levels(self, codes: Tensor) -> Tensor:
        """Codes int [B, F] -> levels int64 [B, F, L], the first the least significant."""
        return codes[..., None].long() // self.basis % self.sizes

    def to_codes(self, levels: Tensor) -> Tensor:
        """Levels int [B, F, L] -> codes int32 [B, F]."""
        return (levels * self.basis).sum(-1).to(torch.int32)

    def _spell(self, bounded: Tensor) -> Tensor:
        return self.to_codes(bounded.round().long() + self.sizes // 2)
