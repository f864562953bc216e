"""`neutok decode`: rows become WAV files of the right length, from the right weights, under harmless names."""

import wave

import numpy as np
import pytest

import codec
from jobs import decode as job
from pipeline.listen import file_name, wav_bytes, write_wav
from tests import output_toys


@pytest.fixture(autouse=True)
def toy_codec(monkeypatch):
    load = lambda device, weights, precision: output_toys.Humming(weights or output_toys.CODEC["revision"])  # noqa: E731
    monkeypatch.setitem(codec.CODECS, "neucodec", load)


def heard(path):
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_rows_become_sound_of_their_own_length(tmp_path, kind, capsys):
    rows = output_toys.records(30)
    out = output_toys.write_output(tmp_path / "out", {"a": rows}, kind=kind)
    keys = [rows[place].utterance.id for place in (3, 17, 29)]
    assert (
        job.main([str(out), "--keys", ",".join(keys), "--output", str(tmp_path / "wav"), "--batch-seconds", "9"]) == 0
    )
    assert sorted(path.name for path in (tmp_path / "wav").iterdir()) == sorted(f"{key}.wav" for key in keys)
    for place, key in zip((3, 17, 29), keys, strict=True):
        expected = np.clip(rows[place].codes[0].astype(np.float32) / 32768, -1, 1).repeat(480)
        assert np.abs(heard(tmp_path / "wav" / f"{key}.wav") - expected * 32767).max() <= 0.5
    assert "samples clipped" in capsys.readouterr().out


def test_limit_takes_the_first_rows(tmp_path):
    rows = output_toys.records(5)
    out = output_toys.write_output(tmp_path / "out", {"a": rows[:2], "b": rows[2:]})
    assert job.main([str(out), "--limit", "3", "--output", str(tmp_path / "wav")]) == 0
    assert {path.stem for path in (tmp_path / "wav").iterdir()} == {record.utterance.id for record in rows[:3]}


def test_other_weights_are_refused_unless_asked_for(tmp_path, capsys):
    shard = str(output_toys.write_output(tmp_path / "out", {"a": output_toys.records(2)}) / "data" / "a.parquet")
    command = [shard, "--output", str(tmp_path / "wav"), "--weights", "others"]
    assert job.main(command) == 2
    said = capsys.readouterr().err
    assert output_toys.CODEC["revision"] in said and "others" in said and "--any-weights" in said
    assert not (tmp_path / "wav").exists()
    assert job.main([*command, "--any-weights"]) == 0


def test_a_key_that_is_not_there_is_named(tmp_path, capsys):
    rows = output_toys.records(2)
    out = output_toys.write_output(tmp_path / "out", {"a": rows})
    assert job.main([str(out), "--keys", rows[0].utterance.id, "nobody", "--output", str(tmp_path / "wav")]) == 4
    assert "nobody" in capsys.readouterr().err
    assert len(list((tmp_path / "wav").iterdir())) == 1


def test_no_key_leads_out_of_the_folder_or_onto_another_file():
    taken = set()
    for key in ["a", "A", "../../etc/passwd", "..", "", "a/b", "a\\b", "a b", "ü" * 400, "x" * 4000, "con\0"]:
        name = file_name(key, taken)
        assert "/" not in name and "\\" not in name and not name.startswith(".") and len(name.encode()) < 255
        assert name.lower() not in taken
        taken.add(name.lower())


def test_loud_samples_are_cut_off_and_counted(tmp_path):
    clipped = write_wav(tmp_path / "x.wav", np.array([0, 0.5, 1.0, -1.0, 1.5, -7.0], np.float32), 24000)
    assert clipped == 2
    assert heard(tmp_path / "x.wav").tolist() == [0, 16384, 32767, -32767, 32767, -32767]


def test_what_is_no_number_is_written_as_silence_without_a_warning(tmp_path, recwarn):
    (tmp_path / "x.wav").write_bytes(wav_bytes(np.array([0.5, np.nan, np.inf], np.float32), 24000))
    assert heard(tmp_path / "x.wav").tolist() == [16384, 0, 32767] and not recwarn
