"""`neutok evaluate` and `neutok agreement` over real files: tables, lists, counted failures."""

import json

import numpy as np
import pytest
import torch

import codec
from codec.neucodec import NeuCodec
from codec.training import start
from jobs import agreement, evaluate
from jobs.training.pictures import mel_picture, png
from tests.training_toys import TINY, TINY_DISTILL, TINY_TEACHER, voice, wav


@pytest.fixture(autouse=True)
def tiny_codecs(monkeypatch):
    def tiny(recipe):
        torch.manual_seed(0)
        model = NeuCodec(recipe.codec, recipe.name).eval()
        model.revision = "0"
        return model

    models = {
        "tiny": tiny(TINY),
        "other": start.fresh_codec(TINY).eval(),
        "student": tiny(TINY_DISTILL),
        "teacher": tiny(TINY_TEACHER),
    }
    for name, model in models.items():
        monkeypatch.setitem(codec.CODECS, name, lambda *_, model=model: model)


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    lines = ["file_name,speaker"]
    for i in range(4):
        (folder / f"clip{i}.wav").write_bytes(wav(voice(i, 1.0 + 0.3 * i)))
        lines.append(f"clip{i}.wav,speaker{i % 2}")
    (folder / "silent.wav").write_bytes(wav(np.zeros(16_000, np.float32)))
    (folder / "broken.wav").write_bytes(b"RIFFnothing")
    (folder / "tiny.wav").write_bytes(wav(voice(0, 0.01)))
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_evaluate_prints_clips_speakers_total_and_what_failed(corpus, tmp_path, capsys):
    result = tmp_path / "result.json"
    flags = ["--codec", "tiny", "--input", str(corpus), "--json", str(result), "--listen", str(tmp_path / "heard")]
    assert evaluate.main([*flags, "--metrics", "si_sdr,mel_mse"]) == 0
    said = capsys.readouterr().out
    assert "speaker0" in said and "speaker1" in said and "all 5 clips" in said
    assert "si_sdr: no value for 1 clips: silent reference" in said
    assert "not measured: 1 clips, too_short" in said and "not measured: 1 clips, unreadable" in said
    found = json.loads(result.read_text())
    assert len(found["clips"]) == 5 and found["means"]["si_sdr"]["count"] == 4
    assert found["codes"]["num_codes"] == sum(int(clip["seconds"] * 50 + 1e-6) for clip in found["clips"])
    assert len(list((tmp_path / "heard").glob("*.wav"))) == 5


def test_a_list_picks_its_clips_and_a_missing_one_is_told(corpus, tmp_path, capsys):
    names = tmp_path / "list.txt"
    names.write_text("clip1.wav\nclip3.wav\n")
    flags = ["--codec", "tiny", "--input", str(corpus), "--metrics", "mel_mse", "--list", str(names)]
    assert evaluate.main(flags) == 0
    assert "all 2 clips" in capsys.readouterr().out
    names.write_text("clip1.wav\nclip9.wav\n")
    assert evaluate.main(flags) == 2
    assert "clip9.wav" in capsys.readouterr().err


def test_a_name_in_a_list_may_have_spaces(corpus, tmp_path, capsys):
    (corpus / "clip1.wav").rename(corpus / "clip 1.wav")
    (corpus / "metadata.csv").unlink()
    names = tmp_path / "list.txt"
    names.write_text("clip 1.wav\n\nclip3.wav\n")
    flags = ["--input", str(corpus), "--metrics", "mel_mse", "--list", str(names)]
    assert agreement.main([*flags, "--teacher", "tiny", "--student", "tiny"]) == 0
    assert "of 2 clips" in capsys.readouterr().out


def test_unknown_metrics_and_codecs_are_usage_errors(corpus, capsys):
    assert evaluate.main(["--codec", "tiny", "--input", str(corpus), "--metrics", "beauty"]) == 2
    assert evaluate.main(["--codec", "none-such", "--input", str(corpus)]) == 2


def test_a_codec_without_sound_is_a_usage_error(corpus, capsys):
    assert evaluate.main(["--codec", "null", "--input", str(corpus), "--metrics", "mel_mse"]) == 2
    assert "the null codec keeps no sound" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(corpus, tmp_path, capsys, monkeypatch):
    def measure(*_):
        raise AssertionError("measured before it was known where to write")

    monkeypatch.setattr(evaluate, "evaluate", measure)
    monkeypatch.setattr(agreement, "compare", measure)
    flags = ["--input", str(corpus), "--metrics", "mel_mse", "--json", str(tmp_path / "absent" / "result.json")]
    for job, codecs in ((evaluate, ["--codec", "tiny"]), (agreement, ["--teacher", "tiny", "--student", "tiny"])):
        with pytest.raises(SystemExit, match="2"):
            job.main([*codecs, *flags])
        assert "there is no folder" in capsys.readouterr().err


def test_agreement_of_a_codec_with_itself_is_whole_and_with_another_is_not(corpus, capsys):
    flags = ["--input", str(corpus), "--teacher", "tiny", "--metrics", "mel_mse"]
    assert agreement.main([*flags, "--student", "tiny"]) == 0
    codes, sound = capsys.readouterr().out.split("there and back")
    assert codes.count("1.000") == 4
    assert len(set(sound.splitlines()[1].split()[1:])) == 1  # both columns of mel_mse
    assert agreement.main([*flags, "--student", "other"]) == 0
    codes, sound = capsys.readouterr().out.split("there and back")
    assert "1.000" not in codes.split("within")[0]
    assert len(set(sound.splitlines()[1].split()[1:])) == 2


def test_agreement_cuts_a_students_extra_frame(corpus, tmp_path):
    report = tmp_path / "report.json"
    flags = ["--input", str(corpus), "--teacher", "teacher", "--student", "student", "--json", str(report)]
    assert agreement.main([*flags, "--metrics", "mel_mse"]) == 0
    found = json.loads(report.read_text())
    assert found["frames"] == 50 + 65 + 80 + 95 + 50
    assert np.array(found["confusion"]).sum() == found["frames"] * 8


def test_a_picture_is_a_png_of_the_sounds_one_above_the_other():
    picture = mel_picture([voice(0, 1.0), voice(1, 0.5)], 16_000)
    assert picture.startswith(b"\x89PNG") and picture[16:24] == (101).to_bytes(4, "big") + (258).to_bytes(4, "big")
    assert png(np.zeros((2, 3, 3), np.uint8)).endswith(b"IEND\xaeB`\x82")
