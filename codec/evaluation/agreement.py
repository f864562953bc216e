"""Two encoders' codes of the same clips compared, code by code and level by level (arXiv 2509.09550, Section 4.2)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from codec.base import Codec


def code_levels(codes: np.ndarray, levels: Sequence[int]) -> np.ndarray:
    """The level of each dimension that a code spells, least significant digit first: int [...] -> int64 [..., D]."""
    bases = np.cumprod([1, *levels[:-1]])
    return np.asarray(codes, np.int64)[..., None] // bases % np.asarray(levels)


def code_vectors(codec: Codec) -> np.ndarray | None:
    """What every code stands for before the decoder, float [codebook, D]; None for a codec that does not tell."""
    quantizer = getattr(codec, "quantizer", None)
    if quantizer is None:
        return None
    with torch.inference_mode():
        codes = torch.arange(codec.spec.codebook_size, device=quantizer.project_out.weight.device)
        return torch.cat([quantizer.decode(part[None])[0].cpu() for part in codes.split(8192)]).numpy()


@dataclass
class Agreement:
    """Running sums over clips; `report()` turns them into the paper's figures.

    Args: levels: of each FSQ dimension. vectors: float [codebook, D], what each code decodes to before the decoder
    (project_out, bias included), for the projection similarity; or None to leave that out.
    """

    levels: tuple[int, ...]
    vectors: np.ndarray | None = None
    frames: int = 0
    same_codes: int = 0
    same_levels: int = 0
    near_levels: int = 0
    cosines: float = 0.0
    confusion: np.ndarray = field(init=False)  # int64 [D, L, L]: teacher level by student level (Fig. 2)

    def __post_init__(self) -> None:
        most = max(self.levels)
        self.confusion = np.zeros((len(self.levels), most, most), np.int64)

    def add(self, teacher: np.ndarray, student: np.ndarray, num_frames: int) -> None:
        """One clip: int [F] each, cut to `num_frames`, its whole hops: the distilled encoder gives one frame more.

        Raises: ValueError if one of them is shorter.
        """
        if min(len(teacher), len(student)) < num_frames:
            raise ValueError(
                f"{num_frames} frames to compare, but {len(teacher)} teacher and {len(student)} student codes given"
            )
        teacher, student = np.asarray(teacher)[:num_frames], np.asarray(student)[:num_frames]
        ours, theirs = code_levels(student, self.levels), code_levels(teacher, self.levels)
        self.frames += num_frames
        self.same_codes += int((teacher == student).sum())
        self.same_levels += int((ours == theirs).sum())
        self.near_levels += int((abs(ours - theirs) <= 1).sum())
        for dimension, table in enumerate(self.confusion):
            np.add.at(table, (theirs[:, dimension], ours[:, dimension]), 1)
        if self.vectors is not None:
            a, b = self.vectors[teacher].astype(np.float64), self.vectors[student].astype(np.float64)
            norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            self.cosines += float(((a * b).sum(1) / np.maximum(norms, 1e-12)).sum())

    def report(self) -> dict[str, Any]:
        """The figures of Section 4.2; shares are of 1. Raises: ValueError before the first frame."""
        if not self.frames:
            raise ValueError("no frames compared yet; add at least one clip of one whole hop")
        cells = self.frames * len(self.levels)
        return {
            "frames": self.frames,
            "code_match": self.same_codes / self.frames,
            "projection_similarity": None if self.vectors is None else self.cosines / self.frames,
            "level_accuracy": self.same_levels / cells,
            "within_one_level": self.near_levels / cells,
            "confusion": self.confusion.tolist(),
        }


PAPER = {"code_match": 0.02, "projection_similarity": 0.73, "level_accuracy": 0.53, "within_one_level": 0.93}
"""What the paper reports for its distilled encoder against NeuCodec."""
