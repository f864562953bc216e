"""Small sounds, small codecs, small corpora, and decoders that misbehave: what tests of the pipeline are made of."""

import io
import os
import signal
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from pipeline.decoding import load as decoding
from schemas.audio import AudioFile, Utterance
from schemas.manifest import WorkUnit
from schemas.spec import CodecSpec

SHARED = Path(__file__).parents[2] / "shared"
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
}


def sine(seconds, rate=16_000, hertz=220.0, level=0.3):
    """float32 [T]."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def noise(seconds, rate=16_000, seed=0, level=0.1):
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


def stored(waveform, rate=16_000, ending="wav", subtype=None):
    """A waveform [T] or [T, C] as the bytes of a file."""
    form, usual = FORMATS[ending]
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format=form, subtype=subtype or usual)
    return file.getvalue()


def clip(key, data, source=None, **labels):
    return AudioFile(Utterance(f"toy_{key}", "toy", source or f"toy.tar::{key}", **labels), data)


def clips(number, seed=0, low=0.3, high=2.0, ending="wav", rate=16_000):
    """Clips of noise of different lengths, with labels."""
    draw = np.random.default_rng(seed)
    made = []
    for i in range(number):
        waveform = noise(draw.uniform(low, high), rate, seed * 1000 + i)
        made.append(clip(f"{seed}-{i:04}", stored(waveform, rate, ending), text=f"Number {i}.", language="en"))
    return made


def unit(files, name="toy-00000"):
    return WorkUnit(
        name, "toy", "toy.tar", "toy.index", 0, len(files), sum(len(getattr(f, "data", b"")) for f in files)
    )


def write_folder(folder, number=6):
    """A `folder` corpus on disk: sounds of three formats in two languages' folders, and their metadata.csv."""
    lines = ["file_name,text,speaker"]
    for i in range(number):
        ending, language = ("wav", "flac", "mp3")[i % 3], ("en", "de")[i % 2]
        path = Path(folder) / language / f"clip {i}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stored(noise(0.5 + 0.2 * i, 24_000, seed=i), 24_000, ending))
        lines.append(f"{language}/{path.name},This is number {i}.,speaker {i % 2}")
    (Path(folder) / "metadata.csv").write_text("\n".join(lines) + "\n")
    return Path(folder)


def shared_clips():
    """The 128 clips of real speech, or fewer where they are not at hand."""
    paths = sorted(p for p in (SHARED / "speech").glob("*") if p.suffix not in (".md", ".jsonl"))
    return [clip(path.name.replace(".", "_"), path.read_bytes(), path.name) for path in paths]


class ToyCodec:
    """Codes are a sum over all samples of a frame, each with a weight of its own: one changed sample changes a code."""

    def __init__(self, num_codebooks=1, extra_frames=0, device="cpu"):
        self.device = torch.device(device)
        self.spec = CodecSpec("toy", "7", 16_000, 24_000, 320, num_codebooks, 65_536, (), extra_frames)
        self.weights = torch.arange(1, 321, dtype=torch.int64) * 2 + 1
        self.batches = []

    def encode(self, waveforms, num_samples):
        assert waveforms.dtype == torch.float32 and waveforms.dim() == 3
        self.batches.append(tuple(waveforms.shape))
        frames = [self.spec.num_frames(int(n)) for n in num_samples]
        codes = torch.zeros(len(frames), self.spec.num_codebooks, max(frames), dtype=torch.int32)
        for row, (waveform, n, count) in enumerate(zip(waveforms[:, 0], num_samples, frames, strict=True)):
            whole = torch.zeros(count * 320)
            own = waveform[: min(int(n), count * 320)]
            whole[: len(own)] = own
            taps = (whole.reshape(count, 320) * 32768).round().to(torch.int64)
            for book in range(self.spec.num_codebooks):
                codes[row, book, :count] = ((taps * self.weights).sum(1) + 977 * book) & 0xFFFF
        return codes

    def decode(self, codes, num_frames=None):
        level = codes[:, 0].to(torch.float32) / 65_536 - 0.5
        return level.repeat_interleave(480, dim=1)[:, None]


def misbehaving(data, limits):
    """A decoder that crashes, hangs or grabs memory where the bytes say so, and else is ours."""
    word, _, rest = data.partition(b":")
    if word == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == b"hang":
        time.sleep(1000)
    if word == b"spin":
        while True:
            pass
    if word == b"once":  # crashes in the first process that sees it
        flag = Path(rest.split(b"\n")[0].decode())
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        data = rest.split(b"\n", 1)[1]
    if word == b"greedy":
        raise MemoryError if not np.ones(1 << 33, np.uint8).any() else ValueError
    if word == b"full":
        raise decoding.NoRoom("the disk is full")
    if word == b"print":
        os.write(1, b"a native library talks on standard output")
        data = rest
    yield from decoding.load(data, limits)


def same_decoder(data, limits):
    """A decoder that answers at once with as many samples as it is told: for tests of order and memory."""
    yield decoding.Piece(np.full(int(data), len(data), np.float32))
