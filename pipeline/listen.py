"""Token rows back to sound: batches through a codec's decoder, and WAV files with names that cannot surprise."""

import hashlib
import io
import re
import wave
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from codec.base import Codec
from pipeline.shards import read_shard


@dataclass(frozen=True, slots=True)
class CodeRow:
    """One row to be heard: codes [K, F]."""

    key: str
    codes: np.ndarray


def pick_rows(
    shards: Iterable[str], num_codebooks: int, keys: Container[str] | None, limit: int | None
) -> Iterator[CodeRow]:
    """Rows of `shards` in order: those named in `keys` (None for all), at most `limit`."""
    left = limit
    for shard in shards:
        for batch in read_shard(shard, ["__key__", "codes"]):
            for place, key in enumerate(batch.column("__key__").to_pylist()):
                if left == 0:
                    return
                if keys is None or key in keys:
                    flat = batch.column("codes")[place].values.to_numpy(zero_copy_only=False)
                    yield CodeRow(key, flat.reshape(-1, num_codebooks).T)
                    left = None if left is None else left - 1


def decode_rows(
    rows: Iterable[CodeRow], codec: Codec, device: str, batch_seconds: float
) -> Iterator[tuple[CodeRow, np.ndarray]]:
    """Each row with its sound, float32 [T] at the codec's output rate, in order, about `batch_seconds` at a time."""
    most_frames = max(1, int(batch_seconds * codec.spec.frame_rate))
    waiting: list[CodeRow] = []
    longest = 0
    for row in rows:
        longest = max(longest, row.codes.shape[1])
        if waiting and longest * (len(waiting) + 1) > most_frames:
            yield from _decode_batch(waiting, codec, device)
            waiting, longest = [], row.codes.shape[1]
        waiting.append(row)
    if waiting:
        yield from _decode_batch(waiting, codec, device)


def _decode_batch(rows: list[CodeRow], codec: Codec, device: str) -> Iterator[tuple[CodeRow, np.ndarray]]:
    num_frames = torch.tensor([row.codes.shape[1] for row in rows])
    codes = torch.zeros(len(rows), codec.spec.num_codebooks, int(num_frames.max()), dtype=torch.int32)
    for place, row in enumerate(rows):
        codes[place, :, : row.codes.shape[1]] = torch.from_numpy(row.codes.astype(np.int32))
    with torch.inference_mode():
        sound = codec.decode(codes.to(device), num_frames.to(device)).float().cpu().numpy()
    for row, frames, waveform in zip(rows, num_frames.tolist(), sound, strict=True):
        yield row, waveform[0, : codec.spec.num_output_samples(frames)]


def write_wav(path: Path, waveform: np.ndarray, sample_rate: int) -> int:
    """Write float32 [T] as `wav_bytes`; returns how many samples were beyond full scale."""
    path.write_bytes(wav_bytes(waveform, sample_rate))
    return int((np.abs(waveform) > 1).sum())


def wav_bytes(waveform: np.ndarray, sample_rate: int) -> bytes:
    """float32 [T] as a 16-bit WAV file, cut off at full scale; what is no number becomes silence."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, sample_rate, 0, "NONE", ""))
        file.writeframes(np.rint(np.clip(np.nan_to_num(waveform), -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def file_name(key: str, taken: Container[str]) -> str:
    """A WAV's name for `key`, whatever that holds; unlike `taken` (lower case) even where case does not count."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", key)[:150]
    if safe != key or not safe or f"{safe}.wav".lower() in taken:
        safe = f"{safe}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    return f"{safe}.wav"
