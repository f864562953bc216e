"""A codec that costs nothing: for measuring the pipeline around a codec, and for testing it."""

import time

import torch
from torch import Tensor

from schemas.spec import CodecSpec


class NullCodec:
    """Codes are a cheap fingerprint of each frame's own samples, so a lost, moved or mixed sample shows.

    `pause` seconds pass in every batch, for tests of what happens meanwhile; its weights, as it were.
    """

    def __init__(self, device: str = "cpu", pause: float = 0.0) -> None:
        self.device, self.pause = torch.device(device), pause
        self.spec = CodecSpec(
            name="null",
            revision="1",
            input_rate=16_000,
            output_rate=16_000,
            hop_length=320,
            num_codebooks=1,
            codebook_size=65_536,
            levels=(),
        )

    def encode(self, waveforms: Tensor, num_samples: Tensor) -> Tensor:
        if waveforms.dim() != 3 or waveforms.shape[1] != 1:
            raise ValueError(f"waveforms must be [B, 1, T], got {list(waveforms.shape)}")
        frames = [self.spec.num_frames(int(n)) for n in num_samples]
        if self.pause:
            time.sleep(self.pause)
        hop = self.spec.hop_length
        whole = waveforms[:, 0, : waveforms.shape[2] // hop * hop].unflatten(1, (-1, hop))
        # two taps of the frame, at 16 bits each: integers, so no batch shape can round them differently
        picked = (whole[:, :, [0, hop // 2]] * 32768.0).round().to(torch.int32)
        codes = (picked[:, :, 0] + 31 * picked[:, :, 1]) & 0xFFFF
        keep = torch.arange(codes.shape[1])[None] < torch.tensor(frames)[:, None]
        return (codes * keep.to(codes.device))[:, None, : max(frames)]

    def decode(self, codes: Tensor, num_frames: Tensor | None = None) -> Tensor:
        raise NotImplementedError("the null codec keeps no sound; use neucodec, distill-neucodec or nano")
