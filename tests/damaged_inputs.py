"""Clips and corpora damaged in every way we know, each drawn from a generator: the same seed, the same damage."""

import io
import struct
import tarfile
import zipfile
from functools import cache

import av
import numpy as np
import soundfile

from tests.corpora_fixtures import BUILDERS
from tests.toys import noise, stored


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
