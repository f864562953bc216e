"""The measurements of a codec run as they are called, on small codecs, and say what they should."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from codec.weights import save
from jobs.bench import main
from jobs.benches import engine, gpu, ragged
from jobs.parity import OUT_OF_BOUND
from jobs.parity_clips import RATE, Clip, load_clips, write_prepared
from tests.codec_toys import small

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Small codecs under the published names, by name."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("neucodec", "distill-neucodec")}
    for name, folder in folders.items():
        save(small(name), folder)
    return {name: str(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """The shipped sample's shorter clips, prepared: decoded in one file."""
    path = tmp_path_factory.mktemp("clips") / "clips.safetensors"
    assert write_prepared(path, [clip for clip in load_clips([], 12.0) if len(clip.waveform) > 3 * RATE]) > 3
    return str(path)


def test_prepared_clips_are_those_decoded_to_half_a_step_of_16_bits(clips):
    stored = {clip.name: clip.waveform for clip in load_clips([clips], 12.0)}
    decoded = {clip.name: clip.waveform for clip in load_clips([], 12.0) if clip.name in stored}
    assert stored.keys() == decoded.keys()
    for name, waveform in stored.items():
        torch.testing.assert_close(waveform, decoded[name].clamp(-1, 1 - 2**-15), atol=2**-16, rtol=0)


@pytest.mark.parametrize("model", ["neucodec", "distill-neucodec"])
def test_rows_of_random_batches_have_the_codes_they_have_alone(model, weights, clips, tmp_path):
    command = ["ragged", "--model", model, "--weights", weights[model], "--input", clips, "--batches", "2"]
    command += ["--long-batches", "1", "--longest", "1", "--batch-seconds", "2", "--long-seconds", "3"]
    assert main([*command, "--json", str(tmp_path / "result.json")]) == 0
    (result,) = json.loads((tmp_path / "result.json").read_text())["results"]
    assert result["differing"] <= result["allowed"] == 1 and result["codes"] > 6 * 50
    assert main([*command, "--skip", "2", "--json", str(tmp_path / "rest.json")]) == 0
    (rest,) = json.loads((tmp_path / "rest.json").read_text())["results"]
    assert rest["clips"] == 5 < result["clips"]  # those of the batch with long clips
    assert main([*command, "--minutes", "1e-9", "--json", str(tmp_path / "first.json")]) == 0
    (first,) = json.loads((tmp_path / "first.json").read_text())["results"]
    assert 2 <= first["clips"] < result["clips"], "one batch is always done"
    assert main([*command, "--skip", "3"]) == 2


def test_the_published_size_keeps_rows_apart_too():
    command = ["ragged", "--model", "distill-neucodec", "--limit", "4", "--batches", "1", "--long-batches", "0"]
    assert main([*command, "--longest", "1", "--batch-seconds", "3"]) == 0


def test_ragged_batches_are_as_asked_for(clips):
    options = ragged.RaggedOptions(input=(clips,), batches=30, long_batches=2)
    speech = list(load_clips([clips], 30.0))
    batches = [[len(clip.waveform) for clip in batch] for batch in ragged.draw(speech, options)]
    assert batches == [[len(clip.waveform) for clip in batch] for batch in ragged.draw(speech, options)]
    for lengths in batches[:30]:
        assert len(lengths) >= 2 and sum(lengths) <= 20 * RATE
        assert min(lengths) >= 320 and max(lengths) <= 12 * RATE
    assert [lengths[:2] for lengths in batches[30:]] == [[30 * RATE] * 2] * 2


def test_a_codec_whose_rows_leak_is_out_of_bound():
    model, batch = small("neucodec"), [Clip("long", torch.randn(8000)), Clip("short", torch.randn(2000))]
    features = model.features
    model.features = lambda waveforms, num_samples=None: features(waveforms) + len(waveforms)
    assert not ragged.check("leaking", model, [batch]).within_bound


HIDDEN = ("ray", "pyarrow", "soundfile", "av", "torchaudio", "neucodec")
HIDE = f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def visible(name, path=None, target=None):
    return None if name.split(".")[0] in {HIDDEN} else find(name, path, target)
PathFinder.find_spec = staticmethod(visible)
"""
SEEN = f"from importlib.util import find_spec; print([name for name in {HIDDEN} if find_spec(name)])"


def test_the_bench_of_a_gpu_runs_whole_with_torch_alone(weights, clips, tmp_path):
    """On a CPU, with a small codec and little sound, where neither Ray nor Arrow nor decoders can be imported."""
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    how = {"cwd": ROOT, "env": env, "capture_output": True, "text": True}
    assert subprocess.run([sys.executable, "-c", SEEN], **how).stdout == "[]\n"
    command = ["gpu", "--device", "cpu", "--model", "distill-neucodec", "--weights", weights["distill-neucodec"]]
    command += ["--input", clips, "--output", str(tmp_path / "out"), "--limit", "1", "--batches", "1", "--rounds", "1"]
    command += ["--total-seconds", "3", "--batch-seconds", "1"]
    run = subprocess.run([sys.executable, "-m", "jobs.bench", *command], **how)
    assert run.returncode == 0, run.stdout + run.stderr
    parts = json.loads((tmp_path / "out" / "gpu.json").read_text())["parts"]
    left_out = {name for name, part in parts.items() if part["verdict"] == "left out"}
    gpu_alone = {f"encode distill-neucodec {precision}" for precision in ("tf32", "bfloat16+compiled")}
    assert left_out == {"peers distill-neucodec", "engine distill-neucodec", *gpu_alone} and len(parts) == 9
    assert all(part["verdict"] == "done" and part["result"] for name, part in parts.items() if name not in left_out)


def test_a_part_of_the_gpu_bench_that_fails_says_why_and_one_without_end_is_stopped(clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ("encode", "--model", "no-such-codec", "--input", os.path.relpath(clips))
    log = tmp_path / "gpu.log"
    failed = gpu.run(gpu.Part("encode", 60, command), 60, log)
    assert failed.verdict == "exit code 2" and "unknown codec 'no-such-codec'" in failed.table and failed.result is None
    stopped = gpu.run(gpu.Part("encode", 0.5, command), 0.5, log)
    assert stopped.verdict == "stopped after 0 s" and "no-such-codec" not in stopped.table
    assert log.read_text().count("no-such-codec") == 2  # what was loaded, and why it was not


def test_encoding_speed_is_told_by_part(weights, clips, tmp_path):
    command = ["encode", "--model", "neucodec", "--weights", weights["neucodec"], "--input", clips, "--rounds", "1"]
    assert main([*command, "--precision", "float32,bfloat16", "--json", str(tmp_path / "result.json")]) == 0
    speeds = json.loads((tmp_path / "result.json").read_text())["speeds"]
    operations = [speed["gflops"] * speed["took"] for speed in speeds]
    assert operations[0] == pytest.approx(operations[1])  # float32's linear layers go another way, and count as well
    for speed in speeds:
        assert set(speed["parts"]) == {"fbank", "acoustic", "semantic", "adapter", "fuse", "rest"}
        assert sum(speed["parts"].values()) == pytest.approx(1)
        assert speed["times_real_time"] > 0 and speed["padding"] < 0.05 < 1 - speed["parts"]["rest"]


def test_the_engine_is_compared_with_the_codec_alone(weights, clips, tmp_path, monkeypatch):
    command = ["engine", "--model", "neucodec", "--weights", weights["neucodec"], "--input", clips, "--rounds", "1"]
    command += ["--total-seconds", "5", "--batch-seconds", "2"]
    assert main([*command, "--json", str(tmp_path / "result.json")]) == 0
    (share,) = json.loads((tmp_path / "result.json").read_text())["shares"]
    assert share["agreement"]["differing"] == 0 and share["agreement"]["codes"] >= 5 * 50
    assert share["share"] == pytest.approx(share["codec_took"] / share["engine_took"])

    encode = engine.encode

    def mixed_up(*given):  # as a buffer that is used again too early would make them
        return [replace(row, codes=row.codes[:, ::-1].copy()) for row in encode(*given)]

    monkeypatch.setattr(engine, "encode", mixed_up)
    assert main(command) == OUT_OF_BOUND


def test_the_whole_path_is_compared_with_the_codec_alone(weights, tmp_path):
    command = ["pipeline", "--codec", "distill-neucodec", "--weights", weights["distill-neucodec"], "--hours", "0.005"]
    assert main([*command, "--against-encode", "--json", str(tmp_path / "result.json")]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["clips"] >= 2 and len(result["encode_seconds"]) == len(result["whole_seconds"]) == 1
    share = result["encode_seconds"][0] / result["whole_seconds"][0]
    assert result["share_of_encode"] == pytest.approx(share)
    assert result["codec"] == "distill-neucodec" and result["hours_per_core_hour"] > 0
    assert main(["pipeline", "--against-encode"]) == 2  # nothing to compare: the null codec encodes in no time
    assert main([*command, "--against-encode", "--memory"]) == 2  # to watch one of the two would be unfair


def test_memory_of_the_whole_path_is_watched_where_asked_for(tmp_path):
    command = ["pipeline", "--hours", "0.005", "--json", str(tmp_path / "result.json")]
    assert main([*command, "--memory"]) == 0
    assert 0.5 < json.loads((tmp_path / "result.json").read_text())["peak_gib"] < 10
