"""A mel spectrogram as a PNG file, written with the standard library alone."""

import struct
import zlib

import numpy as np
import torch

from codec.training.losses import LogMel

# Control colours of a dark-to-light scale that keeps its order in grey print.
SCALE = np.array([(0, 0, 16), (60, 10, 110), (150, 40, 120), (230, 90, 70), (252, 180, 60), (252, 253, 190)], float)


def mel_picture(waveforms: list[np.ndarray], sample_rate: int) -> bytes:
    """Mel spectrograms of the sounds (float32 [T] each) as one PNG, the first on top, on one colour scale."""
    log_mel = LogMel(n_fft=1024, num_mels=128, hop_length=sample_rate // 100, sample_rate=sample_rate)
    pictures = [log_mel(torch.from_numpy(wave)[None])[0].numpy()[::-1] for wave in waveforms]
    top = max(float(picture.max()) for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    rows = []
    for picture in pictures:
        shade = np.clip((picture - top + 4) / 4, 0, 1)  # four decades, 80 dB
        rows += [np.pad(shade, ((0, 0), (0, width - shade.shape[1]))), np.ones((2, width))]
    return png(colour(np.concatenate(rows[:-1])))


def colour(shades: np.ndarray) -> np.ndarray:
    """float [H, W] within [0, 1] -> uint8 [H, W, 3]."""
    place = np.linspace(0, 1, len(SCALE))
    return np.stack([np.interp(shades, place, SCALE[:, c]) for c in range(3)], -1).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] -> the bytes of a PNG file."""
    height, width, _ = pixels.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, width * 3)], 1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
