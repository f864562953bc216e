"""Stored bytes become exactly the sound they hold, at the rate asked for, or a reject that says why."""

import errno
import io
import itertools
import json
import struct

import av
import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from pipeline.audio import decode_clip, load_audio
from pipeline.decoding import load as decoding
from pipeline.decoding.load import Limits, NoRoom, Refused, load
from pipeline.decoding.resample import SparseResample, _resampler, resample
from schemas.audio import REASONS, AudioSegment, Reject
from tests.toys import clip, noise, shared_clips, sine, stored

LIMITS = Limits(16_000)


def loaded(data, limits=LIMITS):
    [piece] = load(data, limits)
    return piece.waveform


def refused(data, limits=LIMITS):
    with pytest.raises(Refused) as caught:
        list(load(data, limits))
    assert caught.value.reason in REASONS
    return caught.value


@pytest.mark.parametrize("rate", [8000, 11025, 12000, 22050, 24000, 32000, 44100, 48000, 96000])
def test_usual_rates_resample_bit_for_bit_as_torchaudio(rate):
    waveform = noise(1.3, rate)
    wanted = torchaudio.functional.resample(torch.from_numpy(waveform), rate, 16_000).numpy()
    assert np.array_equal(resample(waveform, rate, 16_000), wanted)


@pytest.mark.parametrize(("source", "target"), [(441, 160), (799, 800), (4451, 3200), (1, 2), (480, 1)])
def test_the_sparse_form_is_torchaudio_up_to_rounding(source, target):
    waveform = noise(0.7, 22_255)
    wanted = torchaudio.functional.resample(torch.from_numpy(waveform), source, target).numpy()
    found = SparseResample(source, target)(torch.from_numpy(waveform)).numpy()
    assert found.shape == wanted.shape and np.abs(found - wanted).max() < 1e-6


def test_rates_with_little_in_common_take_the_sparse_form_and_little_memory():
    assert isinstance(_resampler(47_999, 16_000), SparseResample)
    slow, fast = resample(sine(1.0, 47_999), 47_999, 16_000), resample(sine(1.0, 48_000), 48_000, 16_000)
    assert len(slow) == len(fast) == 16_000 and np.abs(slow - fast)[200:-200].max() < 1e-3


def test_equal_rates_change_nothing():
    waveform = noise(0.5)
    assert np.array_equal(loaded(stored(waveform, subtype="FLOAT")), waveform)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
def test_sample_formats_become_float(subtype):
    waveform = sine(0.5)
    assert np.abs(loaded(stored(waveform, subtype=subtype)) - waveform).max() < 0.02


def test_sound_beyond_full_scale_is_not_clipped():
    assert loaded(stored(sine(0.5, level=3.0), subtype="FLOAT")).max() > 2.9


def test_channels_are_averaged_before_resampling():
    left, right = noise(1.0, 24_000, 1), noise(1.0, 24_000, 2)
    both = stored(np.stack([left, right], 1), 24_000, subtype="FLOAT")
    assert np.array_equal(loaded(both), resample((left + right) / 2, 24_000, 16_000))
    six = np.stack([noise(0.2, 16_000, seed) for seed in range(6)], 1)
    assert np.allclose(loaded(stored(six, subtype="FLOAT")), six.mean(1), atol=1e-7)


def test_all_shared_clips_are_the_mean_of_channels_resampled():
    files = shared_clips()
    if not files:
        pytest.skip("no clips beside this checkout")
    segments = list(load_audio(files, LIMITS))
    assert all(isinstance(segment, AudioSegment) for segment in segments) and len(segments) == 128
    for file, segment in list(zip(files, segments, strict=True))[::9]:
        try:
            sound, rate = soundfile.read(io.BytesIO(file.data), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            continue
        wanted = torchaudio.functional.resample(torch.from_numpy(sound.mean(1)), rate, 16_000).numpy()
        assert np.abs(segment.waveform - wanted).max() < 1e-6 and len(segment.waveform) == len(wanted)


def test_aac_m4a_and_webm_are_read_through_ffmpeg():
    sound = sine(1.0, 48_000, level=0.5)
    for form, codec in (("adts", "aac"), ("mp4", "aac"), ("webm", "libopus"), ("matroska", "pcm_s16le")):
        file = io.BytesIO()
        with av.open(file, "w", format=form) as container:
            stream = container.add_stream(codec, rate=48_000, layout="mono")
            wanted = "s16" if codec != "aac" else "fltp"
            values = sound if wanted == "fltp" else (sound * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(values[None], format=wanted, layout="mono")
            frame.sample_rate = 48_000
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
        found = loaded(file.getvalue())
        assert abs(len(found) - 16_000) < 3000, form
        assert 0.3 < np.abs(found[4000:12000]).max() < 0.7, form


def test_a_clip_of_exactly_the_longest_length_passes_and_one_sample_more_does_not():
    limits = Limits(16_000, max_seconds=1.0)
    assert len(loaded(stored(np.zeros(16_000, np.float32)), limits)) == 16_000
    assert refused(stored(np.zeros(16_001, np.float32)), limits).reason == "too_long"


def test_decoding_stops_where_a_clip_is_too_long():
    nothing = io.BytesIO()
    with soundfile.SoundFile(nothing, "w", 16_000, 1, format="FLAC") as file:
        for _ in range(60):
            file.write(np.zeros(16_000 * 10, np.float32))  # ten minutes of nothing in a few kilobytes
    data = nothing.getvalue()
    assert len(data) < 60_000
    assert refused(data).reason == "too_long"


def test_silence_is_sound():
    assert not loaded(stored(np.zeros(8000, np.float32))).any()


def wav_header(rate=16_000, channels=1, bits=16, data=0, tag=1):
    block = channels * bits // 8
    fmt = struct.pack("<HHIIHH", tag, channels, rate, (rate * block) & 0xFFFFFFFF, block & 0xFFFF, bits)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + data)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + fmt
        + b"data"
        + struct.pack("<I", data)
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (wav_header(), "empty"),
        (b"no sound at all " * 50, "unreadable"),
        (b"RIFF", "unreadable"),
        (stored(noise(1.0), ending="flac")[:5000], "unreadable"),
        (wav_header(rate=7, data=3200) + b"\1" * 3200, "bad_rate"),
        (wav_header(rate=500_000, data=3200) + b"\1" * 3200, "bad_rate"),
        (stored(np.array([0.0, np.nan] * 800, np.float32), subtype="FLOAT"), "not_finite"),
        (stored(np.array([0.0, np.inf] * 800, np.float32), subtype="FLOAT"), "not_finite"),
    ],
)
def test_what_cannot_become_sound_is_refused_with_its_reason(data, reason):
    error = refused(data)
    assert error.reason == reason
    assert "0x" not in error.message and "/" not in error.message and "BytesIO" not in error.message
    assert refused(data).message == error.message


def test_a_header_that_promises_more_than_there_is_gives_what_there_is():
    data = wav_header(data=0x7FFFFFF0) + stored(sine(0.5))[44:]
    assert len(loaded(data)) == 8000


def test_many_channels_cost_no_memory():
    block = 1000 * 2
    data = wav_header(channels=1000, data=block * 2000) + b"\1\0" * 1000 * 2000
    assert len(loaded(data)) == 2000


@pytest.mark.parametrize(
    "text",
    ["#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile '{}'\n", "{}\n"],
)
def test_bytes_that_name_another_file_do_not_get_it(tmp_path, text):
    (tmp_path / "secret.wav").write_bytes(stored(sine(0.5)))
    for place in (str(tmp_path / "secret.wav"), f"file://{tmp_path}/secret.wav"):
        assert refused(text.format(place).encode()).reason == "unreadable"


def words(lengths, pause=0.2, rate=16_000):
    """Loud stretches with silence between, and where the silences lie, in seconds."""
    parts, gaps, now = [], [], 0.0
    for seed, seconds in enumerate(lengths):
        parts += [noise(seconds, rate, seed, 0.2), np.zeros(round(pause * rate), np.float32)]
        gaps.append((now + seconds, now + seconds + pause))
        now += seconds + pause
    return np.concatenate(parts), gaps


def test_long_clips_are_cut_in_pauses_into_pieces_that_cover_them():
    waveform, gaps = words([1.7, 2.1, 1.2, 2.4, 0.9, 1.8, 2.2])
    file = clip("long", stored(waveform, ending="flac"), extra='{"dnsmos": 3.1}')
    segments = list(load_audio([file], Limits(16_000, split_seconds=5.0)))
    assert [s.utterance.id for s in segments] == [f"toy_long-{i:04}" for i in range(1, len(segments) + 1)] and len(
        segments
    ) > 2
    marks = [json.loads(s.utterance.extra) for s in segments]
    assert marks[0]["start"] == 0.0 and marks[-1]["end"] == len(waveform) / 16_000
    assert all(m["clip"] == "toy_long" and m["dnsmos"] == 3.1 for m in marks)
    for left, right in itertools.pairwise(marks):
        assert left["end"] == right["start"]
        assert any(start <= left["end"] <= end for start, end in gaps), left
    assert all(s.seconds <= 5.0 for s in segments)
    assert np.array_equal(np.concatenate([s.waveform for s in segments]), loaded(file.data))


def test_a_clip_short_enough_is_not_cut():
    file = clip("short", stored(noise(2.0)))
    [segment] = load_audio([file], Limits(16_000, max_seconds=1.0, split_seconds=5.0))
    assert segment.utterance == file.utterance and len(segment.waveform) == 32_000


def test_pieces_are_neither_long_nor_tiny_whatever_the_length():
    for seconds in (5.01, 5.3, 6.1, 9.9, 10.01, 14.7):
        waveform = noise(seconds, 8000, int(100 * seconds))
        lengths = [
            len(piece.waveform) / 16_000 for piece in load(stored(waveform, 8000), Limits(16_000, split_seconds=5.0))
        ]
        assert max(lengths) <= 5.0 and min(lengths) >= 1.2 and abs(sum(lengths) - seconds) < 0.001, (seconds, lengths)


def test_cutting_ends_where_a_clip_is_endless(monkeypatch):
    monkeypatch.setattr(decoding, "LONGEST_CUT_SECONDS", 300.0)
    monkeypatch.setattr(decoding, "SPOOL_BYTES", 1 << 20)
    data = io.BytesIO()
    with soundfile.SoundFile(data, "w", 8000, 1, format="FLAC") as file:
        file.write(np.zeros(8000 * 299, np.float32))
    pieces = list(load(data.getvalue(), Limits(16_000, split_seconds=30.0)))  # most of them were on disk meanwhile
    assert sum(len(piece.waveform) for piece in pieces) == 299 * 16_000 and pieces[-1].end == 299.0
    with soundfile.SoundFile(data, "w", 8000, 1, format="FLAC") as file:
        file.write(np.zeros(8000 * 301, np.float32))
    assert refused(data.getvalue(), Limits(16_000, split_seconds=30.0)).reason == "too_long"


def test_pieces_that_find_no_room_on_the_disk_are_no_fault_of_the_clip(monkeypatch):
    class Full(io.BytesIO):
        def __init__(self, max_size):
            super().__init__()

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(decoding.tempfile, "SpooledTemporaryFile", Full)
    with pytest.raises(NoRoom, match="No space left on device"):
        list(load(stored(noise(9.0)), Limits(16_000, split_seconds=2.0)))


def test_one_clip_at_its_own_rate():
    file = clip("one", stored(sine(0.5, 24_000), 24_000))
    segment = decode_clip(file)
    assert segment.sample_rate == 24_000 and len(segment.waveform) == 12_000
    assert decode_clip(clip("bad", b"bad")) == Reject(
        clip("bad", b"").utterance, "unreadable", decode_clip(clip("x", b"bad")).message
    )
