"""Corpora for the benches, made here: speech-like sound in the layouts of Emilia, CMU Arctic and a Hub parquet."""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf

MP3_COMPRESSION = 0.85  # of libsndfile's scale: 32 kbit/s at 24 kHz, as Emilia is stored


@dataclass(frozen=True, slots=True)
class Sound:
    """One encoded clip, to be stored under as many keys as wanted."""

    data: bytes
    seconds: float


def speechlike(seconds: float, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Voiced syllables with pauses: harmonics of a gliding pitch under two formants, and breath. float32 [T]."""
    time = np.arange(round(seconds * rate)) / rate
    pitch = rng.uniform(90, 240) * (1 + 0.2 * np.sin(2 * np.pi * rng.uniform(0.3, 1.0) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    formants = [centre * (1 + 0.3 * np.sin(2 * np.pi * rng.uniform(1, 3) * time)) for centre in (600, 1800)]
    wave = np.zeros_like(time)
    for harmonic in range(1, 16):
        gain = sum(np.exp(-(((harmonic * pitch - formant) / 400) ** 2)) for formant in formants)
        wave += gain * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(2, 4) * time + rng.uniform(0, 6)), 0, None)
    wave = wave * syllables + 0.01 * rng.standard_normal(len(time))
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def encode(wave: np.ndarray, rate: int, kind: str) -> bytes:
    """The bytes of a `wave` as "MP3", "FLAC" or "WAV"."""
    buffer = io.BytesIO()
    levels = {"compression_level": MP3_COMPRESSION, "bitrate_mode": "CONSTANT"} if kind == "MP3" else {}
    with sf.SoundFile(buffer, "w", rate, 1, format=kind, **levels) as file:
        file.write(wave)
    return buffer.getvalue()


def sounds(count: int, rate: int, kind: str, rng: np.random.Generator, shortest: float, longest: float) -> list[Sound]:
    """Clips of all lengths between two, in seconds."""
    lengths = rng.uniform(shortest, longest, count)
    return [Sound(encode(speechlike(seconds, rate, rng), rate, kind), float(seconds)) for seconds in lengths]


def take(clips: Iterator[Sound], hours: float) -> Iterator[Sound]:
    """The next ones, until so many hours are full."""
    seconds = 0.0
    while seconds < hours * 3600:
        sound = next(clips)
        seconds += sound.seconds
        yield sound


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_emilia(folder: Path, stock: Sequence[Sound], hours: float, archives: int) -> Path:
    """Emilia-YODAS as it is published today: `<key>.mp3` and `<key>.json` at the root of plain tars.

    The stock is gone through over and over, from archive to archive.
    """
    clips = cycle(stock)
    for archive in range(archives):
        path = folder / "Emilia-YODAS" / "EN" / f"EN-B{archive:06d}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for number, sound in enumerate(take(clips, hours / archives)):
                key = f"EN_bench{archive:03d}vid{number // 50:03d}_W{number % 50:06d}"
                label = {
                    "_id": key,
                    "text": f" Sentence number {number}.",
                    "duration": round(sound.seconds, 3),
                    "speaker": key.rpartition("_W")[0] + "_SPEAKER_00",
                    "language": "en",
                    "dnsmos": 3.3,
                    "phone_count": 20,
                }
                add(tar, f"{key}.json", json.dumps(label).encode())
                add(tar, f"{key}.mp3", sound.data)
    return folder


def write_arctic(folder: Path, stock: Sequence[Sound], clips: int, speakers: Sequence[str]) -> Path:
    """CMU Arctic: one .tar.bz2 per speaker, that can only be read front to back."""
    folder.mkdir(parents=True, exist_ok=True)
    for speaker in speakers:
        with tarfile.open(folder / f"cmu_us_{speaker}_arctic.tar.bz2", "w:bz2") as tar:
            names = [f"arctic_a{number + 1:04d}" for number in range(clips)]
            prompts = "".join(f'( {name} "Prompt {name}." )\n' for name in names)
            add(tar, f"cmu_us_{speaker}_arctic/etc/txt.done.data", prompts.encode())
            for number, name in enumerate(names):
                add(tar, f"cmu_us_{speaker}_arctic/wav/{name}.wav", stock[number % len(stock)].data)
    return folder


def write_parquet(folder: Path, stock: Sequence[Sound], hours: float, files: int, row_group: int = 200) -> Path:
    """A Hub data set: an Audio column of stored bytes, and its text; the stock is gone through as above."""
    clips = cycle(stock)
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("id", pa.string()), ("audio", audio), ("text", pa.string())])
    features = {name: {"dtype": "string", "_type": "Value"} for name in ("id", "text")} | {"audio": {"_type": "Audio"}}
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    folder.mkdir(parents=True, exist_ok=True)
    for file in range(files):
        rows = [
            {
                "id": f"{file:03d}-{number:06d}",
                "audio": {"bytes": sound.data, "path": f"{file:03d}-{number:06d}.flac"},
                "text": f"Sentence number {number}.",
            }
            for number, sound in enumerate(take(clips, hours / files))
        ]
        with pq.ParquetWriter(folder / f"train-{file:05d}-of-{files:05d}.parquet", schema) as writer:
            for start in range(0, len(rows), row_group):
                writer.write_table(pa.Table.from_pylist(rows[start : start + row_group], schema=schema))
    return folder
