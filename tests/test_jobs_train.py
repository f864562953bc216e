"""A training run killed, stopped, moved to other ranks: it goes on exactly; and what it writes can be used."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import codec
from codec import weights
from codec.training.recipes import RECIPES
from codec.weights import load_codec
from jobs import train
from jobs.options import INCOMPLETE, parse
from jobs.training import checkpoints
from jobs.training.data import by_corpus, mixture, open_validation
from jobs.training.loop import NotFiniteError
from jobs.training.options import TrainOptions
from jobs.training.ranks import join
from jobs.training.setup import given
from pipeline import finding
from tests.training_toys import TINY, TINY_DISTILL, TINY_TEACHER, voice, wav

MAIN = Path(__file__).parent / "training_main.py"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(9):
        (folder / f"clip{i}.wav").write_bytes(wav(voice(i, 0.5 + 0.1 * (i % 3))))
    (folder / "broken.wav").write_bytes(b"RIFF, and then nothing of the kind")
    return folder


FLAGS = ("--device", "cpu", "--workers", "0", "--log-every", "5", "--save-every", "10")


def apart(corpus, output, *flags, ranks=1, signal_at=""):
    """A run in processes of its own, that a signal may hit."""
    runner = [sys.executable, "-W", "ignore"]
    if ranks > 1:
        runner += ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone"]
    command = [*runner, str(MAIN), "--recipe", "tiny", "--input", str(corpus), "--output", str(output), *FLAGS, *flags]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NEUTOK_TEST_SIGNAL": signal_at}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=240)


@pytest.fixture(autouse=True, scope="module")
def tiny_recipes():
    with pytest.MonkeyPatch.context() as patch:
        for recipe in (TINY, TINY_TEACHER, TINY_DISTILL):
            patch.setitem(RECIPES, recipe.name, recipe)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


def here(corpus, output, *flags, recipe="tiny", stop_after=None):
    """A run in this process; `stop_after` steps it is asked to stop, as by SIGTERM."""
    command = ["--recipe", recipe, "--input", str(corpus), "--output", str(output), *FLAGS, *flags]
    asked = iter(range(1, 1 << 30))
    return train.train(parse(TrainOptions, command, "test", ""), lambda: next(asked) == stop_after)


def state(output):
    return checkpoints.load(checkpoints.find(str(output)))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def straight(tiny_recipes, corpus, tmp_path_factory):
    output = tmp_path_factory.mktemp("straight")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert here(corpus, output, "--hashes", "--validation", str(corpus / "clip1.wav"), "--validate-every", "20")
    return output, said.getvalue()


def test_ten_steps_a_kill_and_ten_more_are_twenty_bit_for_bit(corpus, straight, tmp_path, capsys):
    killed = apart(corpus, tmp_path, signal_at="9@13")
    assert killed.returncode == -signal.SIGKILL
    assert state(tmp_path)[1].step == 10
    assert here(corpus, tmp_path)
    assert "going on from step 10" in capsys.readouterr().out
    (wanted, position), (found, ours) = state(straight[0]), state(tmp_path)
    assert same(wanted, found)
    assert (ours.step, ours.order) == (position.step, position.order)
    assert ours.hours == pytest.approx(position.hours)


def test_a_stop_saves_and_the_next_attempt_goes_on_exactly(corpus, straight, tmp_path):
    assert not here(corpus, tmp_path, stop_after=7)
    assert state(tmp_path)[1].step == 7
    assert here(corpus, tmp_path)
    assert same(state(straight[0])[0], state(tmp_path)[0])


def test_two_ranks_give_the_weights_of_one_also_across_a_resume(corpus, straight, tmp_path):
    listening = (
        "--validation",
        str(corpus / "clip1.wav"),
        "--validate-every",
        "5",
    )  # the first rank, while others wait
    stopped = apart(corpus, tmp_path, *listening, ranks=2, signal_at=f"{int(signal.SIGTERM)}@8")
    assert state(tmp_path)[1].step == 10, stopped.stderr  # ranks agree to stop at every tenth step
    assert "step 5 | " in stopped.stdout and "mel_mse" in stopped.stdout
    assert here(corpus, tmp_path)
    wanted, found = state(straight[0])[0], state(tmp_path)[0]
    for name in wanted:
        if "optimizer" not in name:
            assert torch.allclose(wanted[name], found[name], rtol=1e-3, atol=2e-4), name


def test_ranks_wait_for_the_one_that_lists_corpora(monkeypatch):
    asked = {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **how: asked.update(how))
    assert join("cpu").world == 1  # no group came of it here
    assert asked["timeout"].total_seconds() > 12 * 3600


def test_the_log_has_every_part_and_names_replaced_rows(straight):
    lines = [json.loads(line) for line in (straight[0] / "log" / "train-00000000.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in train] == [5, 10, 15, 20]
    parts = {"mel", "adversarial", "feature_matching", "judges_real", "judges_fake", "total"}
    assert train[-1].keys() >= parts | {"generator_norm", "judges_norm", "code_entropy", "codes_used", "rate"}
    assert train[-1].keys() >= {"audio_hours_per_hour", "steps_per_second", "audio_hours"}
    replaced = [line["row"] for line in lines if line["kind"] == "replaced"]
    assert replaced and all("unreadable" in row for row in replaced)
    assert any(line["kind"] == "validation" and "mel_mse" in line for line in lines)


def test_a_run_leaves_samples_and_a_codec_that_loads(straight):
    output, said = straight
    samples = output / "samples" / "step-00000020"
    with wave.open(str(next(samples.glob("*clip1_wav.wav")))) as file:
        assert file.getframerate() == 16_000 and file.getnframes() > 6000
    assert next(samples.glob("*.png")).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    codec = load_codec("tiny", weights=str(output / "codec"))
    trained = state(output)[0]
    assert torch.equal(codec.fuse.weight, trained["generator/codec.fuse.weight"])
    assert said.count(" changed") == len(TINY.trains) and "peak memory" in said


def test_a_distillation_runs_from_a_trained_teacher(corpus, tmp_path, capsys):
    seeded = ("--steps", "2", "--semantic", "seeded")
    assert here(corpus, tmp_path / "teacher", *seeded, recipe="tiny_teacher")
    capsys.readouterr()
    teacher = str(tmp_path / "teacher" / "codec")
    assert here(corpus, tmp_path / "student", *seeded, "--start", teacher, "--hashes", recipe="tiny_distill")
    changed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.endswith(" changed")}
    assert changed == {"acoustic", "acoustic_projection", "adapter", "fuse", "semantic_head"}

    another = load_codec("tiny_teacher", weights=teacher)  # with the same quantizer and decoder
    with torch.no_grad():
        next(another.acoustic.parameters()).add_(0.1)
    weights.save(another, str(tmp_path / "another"))
    with pytest.raises(ValueError, match="frozen weights are not those"):
        here(corpus, tmp_path / "student", *seeded, "--start", str(tmp_path / "another"), recipe="tiny_distill")


def test_another_recipe_is_not_taken_for_the_run_found(corpus, straight):
    with pytest.raises(ValueError, match="batch_size 4, this recipe 2"):
        here(corpus, straight[0], "--batch-size", "2")


def test_bad_options_are_refused_before_work(corpus, tmp_path):
    with pytest.raises(ValueError, match="unknown recipe"):
        TrainOptions(recipe="mini", input=("x",), output="y")
    assert by_corpus(["a.tar", "emilia=b=c", "d=e"], "folder") == {"folder": ["a.tar", "d=e"], "emilia": ["b=c"]}
    assert mixture(["mls=2", "folder=0.5"], ["folder", "mls"]) == (0.5, 2.0)
    with pytest.raises(ValueError, match="exactly the corpora given"):
        mixture(["mls=2"], ["folder", "mls"])


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("--steps", "-1", "at least 1, got -1"),
        ("--hours", "0", "above 0"),
        ("--peak-rate", "-1", "above 0"),
        ("--validation-clips", "0", "at least 1"),
        ("--crop-seconds", "0", "too short"),
        ("--crop-seconds", "0.02", "more than 0.064 s"),
        ("--judged-seconds", "0.02", "more than 0.02"),
    ],
)
def test_numbers_that_cannot_be_trained_with_are_refused_before_work(tmp_path, capsys, flag, value, told):
    assert train.main(["--recipe", "nano", "--input", "x", "--output", str(tmp_path / "run"), flag, value]) == 2
    assert told in capsys.readouterr().err


def test_a_submitted_job_must_name_its_output_in_full(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.chdir(tmp_path)
    assert train.main(["--recipe", "nano", "--input", "x", "--output", "out"]) == 2
    assert "full path" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_written_is_told_before_work(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert train.main(["--recipe", "nano", "--input", "x", "--output", str(tmp_path / "file" / "run")]) == 2
    assert "cannot write to --output" in capsys.readouterr().err


def test_losses_that_are_not_finite_end_in_one_line(tmp_path, capsys, monkeypatch):
    def diverge(*_):
        raise NotFiniteError("step 3: a loss is not finite")

    monkeypatch.setattr(train, "train", diverge)
    assert train.main(["--recipe", "nano", "--input", "x", "--output", str(tmp_path)]) == INCOMPLETE
    assert capsys.readouterr().err == "neutok train: step 3: a loss is not finite\n"


def test_a_start_that_is_missing_is_told_before_corpora_are_listed(corpus, tmp_path):
    with pytest.raises(ValueError, match="give it by --start"):
        here(corpus, tmp_path / "run", "--semantic", "seeded", recipe="tiny_distill")
    assert not (tmp_path / "run").exists()


def test_a_run_starts_from_a_codec_that_ships_by_its_name(corpus, tmp_path, capsys):
    assert train.main(["--recipe", "nano", "--input", str(corpus), "--output", str(tmp_path), "--start", "null"]) == 2
    assert "--start null has no weights" in capsys.readouterr().err
    assert train.main(["--recipe", "nano", "--input", str(corpus), "--output", str(tmp_path), "--start", "seeded"]) == 2
    assert "no seeded weights for 'nano'" in capsys.readouterr().err
    options = TrainOptions(recipe="nano_distill", input=("x",), output=str(tmp_path), start="nano")
    base, _ = given(options.chosen(), options)
    assert base.revision == codec.load("nano").revision


def test_clips_for_validation_are_those_that_can_be_measured(tmp_path):
    for name, seconds in (("a", 0.01), ("b", 0.7), ("c", 0.6)):
        (tmp_path / f"{name}.wav").write_bytes(wav(voice(0, seconds)))
    options = TrainOptions(recipe="tiny", input=("x",), output=str(tmp_path / "run"), validation=(str(tmp_path),))
    assert [len(clip.waveform) for clip in open_validation(options, 16_000)] == [11_200, 9_600]
    short = replace(options, validation=(str(tmp_path / "a.wav"),), output=str(tmp_path / "other"))
    with pytest.raises(ValueError, match="no clip of --validation"):
        open_validation(short, 16_000)


def test_only_the_latest_and_the_best_checkpoint_stay(tmp_path):
    position = checkpoints.Position(0, {}, {}, {})
    for step, quality in ((1, 1.5), (2, 1.9), (3, 1.7), (4, 1.6)):
        position = position.judged(step, {"pesq_wb": quality})
        position = checkpoints.replace(position, step=step)
        checkpoints.save(str(tmp_path), {"x": torch.tensor(np.float32(step))}, position, keep=1)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("*.safetensors"))
    assert kept == ["step-00000002.safetensors", "step-00000004.safetensors"]
    assert checkpoints.load(checkpoints.find(str(tmp_path), "best"))[1].best == (2, "pesq_wb", 1.9)


def test_what_a_kill_left_behind_goes_and_never_the_checkpoint_to_go_on_from(tmp_path):
    kept = tmp_path / "checkpoints"
    kept.mkdir()
    for name in ("step-00000009.part", "step-00000008.safetensors"):  # killed before it was whole; before it was named
        (kept / name).write_bytes(b"x")
    for step in (5, 6):
        checkpoints.save(str(tmp_path), {"x": torch.zeros(1)}, checkpoints.Position(step, {}, {}, {}), keep=1)
    assert state(tmp_path)[1].step == 6
    assert sorted(path.name for path in kept.iterdir()) == ["latest.json", "step-00000006.safetensors"]


def test_the_loop_knows_nothing_of_ray():
    modules = "jobs.train, jobs.training.loop, jobs.training.setup, jobs.training.data, pipeline.crops"
    script = f"import sys, {modules}; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=MAIN.parents[1], check=False).returncode == 0


def test_a_run_lives_at_any_url(corpus):
    output = "memory://training/run"
    assert not here(corpus, output, "--save-every", "2", stop_after=3)
    assert here(corpus, output, "--steps", "5")
    assert state(output)[1].step == 5
    names = {path.rsplit("/", 1)[-1] for path in finding.list_files(output)}
    assert {"codec.safetensors", "codec.json", "latest.json", "train-00000000.jsonl", "train-00000003.jsonl"} <= names
