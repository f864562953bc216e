"""The measurements of a codec run as they are called, on small codecs, and say what they should."""

import json

import pytest
import torch
from codec_toys import small

from codec.weights import save
from jobs.bench import main
from jobs.benches import ragged
from jobs.parity_clips import RATE, Clip, load_clips, write_prepared


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
    command = ["ragged", "--model", model, "--weights", weights[model], "--input", clips, "--batches", "4"]
    command += ["--long-batches", "1", "--longest", "3", "--batch-seconds", "5", "--long-seconds", "14"]
    assert main([*command, "--json", str(tmp_path / "result.json")]) == 0
    (result,) = json.loads((tmp_path / "result.json").read_text())["results"]
    assert result["differing"] <= result["allowed"] == 1 and result["codes"] > 28 * 50


def test_the_published_size_keeps_rows_apart_too():
    command = ["ragged", "--model", "distill-neucodec", "--limit", "4", "--batches", "2", "--long-batches", "0"]
    assert main([*command, "--longest", "2", "--batch-seconds", "4"]) == 0


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
