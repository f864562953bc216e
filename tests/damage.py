"""Damaged inputs of every kind, made from a seed, and what must hold for each: `python -m tests.damage --count 2000`.

A damaged clip becomes a reject, or a row where a decoder still finds sound in it; the clip after it comes out exactly.
A damaged corpus is a clear error, or comes out with every clip as a row or a reject. Nothing crashes or hangs, and
nothing is written but below the output folder.
"""

import argparse
import io
import shutil
import struct
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import av
import numpy as np
import soundfile
import torch

from codec.null import NullCodec
from pipeline.index import Selection, build_index
from pipeline.manifest import Output, merge, open_run, verify
from pipeline.sinks import SINKS
from pipeline.stream import read_unit
from pipeline.tokenize import Settings, tokenize_units
from schemas.audio import AudioFile, Reject, Utterance
from schemas.manifest import WorkUnit
from tests.corpora_fixtures import BUILDERS
from tests.toys import noise, sine, stored

SETTINGS = Settings(max_seconds=10.0, decode_workers=2)
UNIT_CLIPS = 200


@dataclass
class Outcome:
    """What came of all inputs; `wrong` must stay empty."""

    clips: Counter = field(default_factory=Counter)  # (kind of damage, "row" or reason)
    sources: Counter = field(default_factory=Counter)  # (kind of damage, "error" or "done")
    errors: set = field(default_factory=set)  # examples of clear errors
    wrong: list = field(default_factory=list)

    def __str__(self):
        lines = [f"{sum(self.clips.values())} damaged clips, {sum(self.sources.values())} damaged corpora"]
        for counts in (self.clips, self.sources):
            lines += [f"{count:6}  {kind:24} {end}" for (kind, end), count in sorted(counts.items())]
        lines += ["clear errors, some of them:", *(f"  {error}" for error in sorted(self.errors)[:12])]
        return "\n".join([*lines, f"WRONG: {len(self.wrong)}" if self.wrong else "nothing wrong", *self.wrong[:20]])


@cache
def whole_clips():
    """One healthy clip of each kind, by ending."""
    sound = noise(0.4, 24_000)
    made = {ending: stored(sound, 24_000, ending) for ending in ("wav", "flac", "mp3", "ogg")}
    made["opus"] = stored(sound, 24_000, "ogg", "OPUS")
    made["aiff"] = _soundfile(sound, "AIFF", "PCM_16")
    made["w64"] = _soundfile(sound, "W64", "FLOAT")
    made["caf"] = _soundfile(sound, "CAF", "ALAC_16")
    made |= {"m4a": _ffmpeg("mp4", "aac"), "aac": _ffmpeg("adts", "aac"), "webm": _ffmpeg("webm", "libopus")}
    made |= {"mkv": _ffmpeg("matroska", "flac"), "avi": _ffmpeg("avi", "mp2")}
    return made


def _soundfile(sound, form, subtype):
    file = io.BytesIO()
    soundfile.write(file, sound, 24_000, format=form, subtype=subtype)
    return file.getvalue()


def _ffmpeg(form, codec):
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        wanted = stream.codec_context.codec.audio_formats[0].name
        for start in range(0, 19_200, 960):
            values = noise(0.02, 48_000, start)[None]
            if wanted.startswith("s16"):
                values = (values * 32767).astype(np.int16)
            elif wanted.startswith("s32"):
                values = (values * 2**31).astype(np.int32)
            frame = av.AudioFrame.from_ndarray(values, format=wanted, layout="mono")
            frame.sample_rate, frame.pts = 48_000, start
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return file.getvalue()


@cache
def bombs():
    """Little that claims, or becomes, a lot."""
    silence = io.BytesIO()
    with soundfile.SoundFile(silence, "w", 48_000, 2, format="FLAC") as file:
        for _ in range(30):
            file.write(np.zeros((48_000 * 20, 2), np.float32))
    ogg = io.BytesIO()
    with soundfile.SoundFile(ogg, "w", 48_000, 1, format="OGG") as file:
        for _ in range(20):
            file.write(np.zeros(48_000 * 10, np.float32))
    made = [silence.getvalue(), ogg.getvalue()]
    made += [
        wav_header(rate, channels, bits, 2**32 - 1 - 36) + b"\1" * 5000
        for rate in (1, 16_000, 2**31)
        for channels, bits in ((1, 8), (1024, 32), (65_535, 64))
    ]
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.wav", bytes(20 << 20))
    return [*made, zipped.getvalue()]


def wav_header(rate, channels, bits, size, tag=1):
    fields = struct.pack("<HHIIHH", tag, channels & 0xFFFF, rate, rate & 0xFFFF, channels * bits // 8 & 0xFFFF, bits)
    return (
        b"RIFF"
        + struct.pack("<I", size + 36 & 0xFFFFFFFF)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + fields
        + b"data"
        + struct.pack("<I", size)
    )


def damaged_clip(draw):
    """A kind of damage and bytes that have it."""
    ending = draw.choice(sorted(whole_clips()))
    data = bytearray(whole_clips()[ending])
    kind = str(
        draw.choice(
            [
                "truncated",
                "flipped",
                "overwritten",
                "zeros",
                "lying header",
                "foreign",
                "bomb",
                "spliced",
                "names another",
            ]
        )
    )
    if kind == "truncated":
        data = data[: int(draw.integers(0, len(data)))]
    elif kind == "flipped":
        for place in draw.integers(0, len(data), int(draw.integers(1, 60))):
            data[place] ^= 1 << int(draw.integers(8))
    elif kind == "overwritten":
        start = int(draw.integers(0, len(data)))
        data[start : start + 200] = draw.bytes(min(200, len(data) - start))
    elif kind == "zeros":
        data = bytearray(int(draw.choice([0, 1, 44, 5000])))
    elif kind == "lying header":  # numbers near the front become absurd ones
        for _ in range(int(draw.integers(1, 5))):
            start = int(draw.integers(4, min(160, len(data) - 8)))
            data[start : start + 4] = struct.pack(
                "<I", int(draw.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 65_535]))
            )
        if draw.random() < 0.4:
            data = (
                bytearray(
                    wav_header(
                        int(draw.integers(0, 2**32)),
                        int(draw.integers(0, 300)),
                        int(draw.choice([0, 3, 8, 16, 24, 64])),
                        int(draw.integers(0, 2**32)),
                        int(draw.integers(0, 90)),
                    )
                )
                + data[44:2000]
            )
    elif kind == "foreign":
        data = draw.choice(
            [
                b"<html><body>404</body></html>",
                b"\x89PNG\r\n\x1a\n" + draw.bytes(500),
                b"%PDF-1.7 ",
                draw.bytes(3000),
                "text, no sound, äöü".encode(),
                b"\xff\xfb" * 900,
            ]
        )
    elif kind == "bomb":
        data = bombs()[int(draw.integers(len(bombs())))]
    elif kind == "spliced":
        other = whole_clips()[draw.choice(sorted(whole_clips()))]
        data = data[: len(data) // 2] + other[len(other) // 2 :]
    else:
        text = draw.choice(
            [
                "#EXTM3U\n#EXTINF:1,\n/etc/hostname\n",
                "ffconcat version 1.0\nfile /etc/hostname\n",
                "v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio 9 RTP/AVP 0\r\n",
                '<?xml version="1.0"?><MPD><BaseURL>http://127.0.0.1:9/</BaseURL></MPD>',
            ]
        )
        data = str(text).encode()
    return kind, bytes(data)


HOSTILE = [
    "../../escaped.wav",
    "/tmp/neutok-escaped.wav",
    "..\\..\\escaped.wav",
    "C:\\escaped.wav",
    "a/../../b.wav",
    "~/x.wav",
    "-rf.wav",
    "new\nline.wav",
    "nul\0byte.wav",
    "w" * 3000 + ".wav",
    "\udcff.wav",
    "​​.wav",
    ".wav",
    "con.wav",
    "%2e%2e%2fescaped.wav",
    "$(touch escaped).wav",
]


def hostile_tar(draw, folder):
    with tarfile.open(folder / "hostile.tar", "w") as archive:
        for number in range(6):
            info = tarfile.TarInfo(
                HOSTILE[int(draw.integers(len(HOSTILE)))].replace("\0", "_") if number != 3 else "healthy.wav"
            )
            info.size = len(whole_clips()["wav"])
            archive.addfile(info, io.BytesIO(whole_clips()["wav"]))
            link = tarfile.TarInfo(f"link{number}.wav")
            link.type = draw.choice(
                [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
            )
            link.linkname = "/etc/hostname"
            archive.addfile(link)
    return "folder", [str(folder)]


def hostile_zip(draw, folder):
    with zipfile.ZipFile(folder / "hostile.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in {str(draw.choice([n for n in HOSTILE if n.isprintable() or "\n" in n])) for _ in range(6)} | {
            "healthy.wav"
        }:
            archive.writestr(zipfile.ZipInfo(name.encode("utf-8", "replace").decode()), whole_clips()["wav"])
        archive.writestr("bomb.wav", bytes(8 << 20), zipfile.ZIP_DEFLATED)
    return "folder", [str(folder)]


def damaged_corpus(draw, folder):
    """A kind of damage, a corpus name and its inputs: a corpus in its real layout with one file damaged."""
    folder.mkdir(parents=True)
    if draw.random() < 0.25:
        make = hostile_tar if draw.random() < 0.5 else hostile_zip
        return make.__name__.replace("_", " "), *make(draw, folder)
    built = BUILDERS[str(draw.choice(sorted(BUILDERS)))](folder / "corpus")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[int(draw.integers(len(files)))]
    data = bytearray(path.read_bytes())
    kind = str(
        draw.choice(
            ["cut short", "bits flipped", "emptied", "overwritten", "of another kind", "renamed", "bytes put in"]
        )
    )
    size = len(data)
    if kind == "cut short":
        data = data[: int(draw.integers(0, size + 1))]
    elif kind == "bits flipped" and size:
        for place in draw.integers(0, size, int(draw.integers(1, 30))):
            data[place] ^= 1 << int(draw.integers(8))
    elif kind == "emptied":
        data = bytearray()
    elif kind == "overwritten" and size:
        start = int(draw.integers(0, size))
        data[start : start + 300] = draw.bytes(len(data[start : start + 300]))
    elif kind == "of another kind":
        data = bytearray(files[int(draw.integers(len(files)))].read_bytes())
    elif kind == "bytes put in":
        start = int(draw.integers(0, size + 1))
        data[start:start] = draw.choice([b"\0" * 513, b'"', b"\t\t\t\t", b"{[", b"\xff\xfe\xff", draw.bytes(100)])
    if kind == "renamed":
        path.rename(
            path.with_name(
                str(
                    draw.choice(["x.tar", "x.tar.gz", "x.zip", "x.parquet", "metadata.csv", "metadata.jsonl", "x.flac"])
                )
            )
        )
    else:
        path.write_bytes(data)
    return f"{built.corpus} {kind}", built.corpus, built.inputs


def run(count, seed, folder):
    """`count` damaged inputs, four clips to each corpus. Writes below `folder`."""
    folder, draw, outcome = Path(folder), np.random.default_rng(seed), Outcome()
    (folder / "canary").write_text("alive")
    clips_in(count - count // 5, draw, folder / "clips", outcome)
    corpora_in(count // 5, draw, folder, outcome)
    if sorted(path.name for path in folder.iterdir()) != ["canary", "clips", "corpora", "out"]:
        outcome.wrong.append(f"files outside the output: {sorted(folder.iterdir())}")
    for path in (Path("/tmp/neutok-escaped.wav"), Path("escaped.wav"), folder.parent / "escaped.wav"):
        if path.exists():
            outcome.wrong.append(f"{path} was written")
    return outcome


def clips_in(count, draw, folder, outcome):
    """Damaged clips, each followed by a healthy one of its own sound."""
    damaged = [damaged_clip(draw) for _ in range(count)]
    healthy = [sine(0.1, hertz=200 + number % 997, level=0.2 + 0.5 * (number % 89) / 89) for number in range(count)]
    units = []
    for first in range(0, count, UNIT_CLIPS):
        files = []
        for number in range(first, min(first + UNIT_CLIPS, count)):
            files.append(AudioFile(Utterance(f"bad_{number}", "toy", f"bad::{number}"), damaged[number][1]))
            files.append(AudioFile(Utterance(f"good_{number}", "toy", f"good::{number}"), stored(healthy[number])))
        units.append((WorkUnit(f"u{first:06}", "toy", "s", "i", 0, len(files), 1), files))
    codec, output = NullCodec(), Output(str(folder))
    open_run(output, {"codec": codec.spec.to_json()})
    done = list(tokenize_units(units, codec, output, SETTINGS))
    merge(output, [unit for unit, _ in units])
    rows, rejects = read_back(output, done, codec.spec)
    for number, (kind, _) in enumerate(damaged):
        key = f"bad_{number}"
        if (key in rows) == (key in rejects):
            outcome.wrong.append(f"{kind} clip {number} of this seed is neither a row nor a reject, or both")
        outcome.clips[kind, rejects.get(key, "row")] += 1
        whole = torch.from_numpy(soundfile.read(io.BytesIO(stored(healthy[number])), dtype="float32")[0])
        wanted = codec.encode(whole[None, None], torch.tensor([len(whole)]))[0, 0].numpy()
        if not np.array_equal(rows.get(f"good_{number}"), wanted):
            outcome.wrong.append(f"the neighbour of {kind} clip {number} did not come out")
    for hung in ("decoder_crash", "decoder_hang"):
        outcome.errors |= {f"{kind} clips: {hung}" for (kind, reason) in outcome.clips if reason == hung}


def read_back(output, done, spec):
    import pyarrow.parquet as pq

    rows, rejects = {}, {}
    for info in done:
        for record in SINKS[output.format].read(output.path(info.data), spec):
            rows[record.utterance.id] = record.codes[0]
        table = pq.read_table(output.path(info.rejects)).to_pydict()
        rejects |= dict(zip(table["__key__"], table["reason"], strict=True))
    return rows, rejects


def corpora_in(count, draw, folder, outcome):
    """Damaged corpora: each indexed for itself, then all units that came of it tokenized into one output."""
    codec, output, failed = NullCodec(), Output(str(folder / "out")), {}
    open_run(output, {"codec": codec.spec.to_json()})
    units, kinds, healthy = [], {}, set()
    for number in range(count):
        place = folder / "corpora" / f"{number:05}"
        kind, corpus, inputs = damaged_corpus(draw, place)
        try:
            index = build_index(corpus, inputs, str(folder / "out" / f"{number:05}"), Selection(), 4_000)
        except (ValueError, OSError) as error:
            outcome.errors.add(f"{kind}: {type(error).__name__}: {str(error).replace(str(folder), '')[:150]}")
            outcome.sources[kind, "error"] += 1
            continue
        except Exception as error:
            outcome.wrong.append(f"{kind} corpus {number}: {type(error).__name__}: {error}")
            continue
        for unit in index.units:
            kinds[f"{number:05}-{unit.name}"] = kind
            units.append((replace(unit, name=f"{number:05}-{unit.name}"), prefixed(unit, f"{number:05}-")))
            if kind.startswith("hostile"):
                healthy.add(f"{number:05}-")
        outcome.sources[kind, "done"] += 1
    done = list(
        tokenize_units(units, codec, output, SETTINGS, failed=lambda unit, error: failed.update({unit.name: error}))
    )
    for name, error in failed.items():
        clear = isinstance(error, (ValueError, OSError)) and "went in" not in str(error)
        (outcome.errors.add if clear else outcome.wrong.append)(
            f"{kinds[name]}: {type(error).__name__}: {str(error)[:200]}"
        )
    whole = {info.name for info in done}
    if whole | set(failed) != set(kinds):
        outcome.wrong.append("a unit was neither done nor failed")
    merge(output, [unit for unit, _ in units if unit.name in whole])
    verdict = verify(output)
    outcome.wrong += verdict.problems
    rows, _ = read_back(output, done, codec.spec)
    for number in healthy:
        if not any(key.startswith(number) and "healthy" in key for key in rows):
            outcome.wrong.append(f"the healthy neighbour in hostile archive {number} was lost")


def prefixed(unit, prefix):
    """The clips of a unit under keys that are unique over all corpora of the run."""
    for item in read_unit(unit):
        utterance = replace(item.utterance, id=prefix + item.utterance.id)
        yield replace(item, utterance=utterance) if isinstance(item, AudioFile | Reject) else item


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder, start = tempfile.mkdtemp(prefix="neutok-damage-"), time.monotonic()
    try:
        outcome = run(options.count, options.seed, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(outcome)
    print(f"{time.monotonic() - start:.0f} s")
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
