"""Our codes are those of the reference packages; `jobs.parity` says so, or by how much they are not."""

import json
from functools import partial

import pytest
import torch

import codec
import jobs.parity
from jobs.parity import ORACLES, Agreement, boundary_distances, compare, encode_together, main
from jobs.parity_clips import Clip, load_clips
from jobs.parity_oracles import build_oracle
from tests.codec_toys import seeded_distill, small


def sample(*names):
    return [clip for clip in load_clips((), 60) if clip.name in names]


def assert_equal_codes(agreements):
    assert [agreement.examples for agreement in agreements if not agreement.within_bound] == []
    assert all(agreement.codes > 0 for agreement in agreements)


@pytest.fixture(scope="module")
def distill_oracle():
    return build_oracle("neucodec", "distill-neucodec")


@pytest.mark.oracle
def test_distill_codes_are_the_packages_alone_and_in_ragged_batches(distill_oracle):
    clips = sample("rhasspy_nathalie_3.flac", "precise_adocampo_3.wav")
    # longer than a window of attention, and not a whole number of hops
    long = torch.cat([clip.waveform for clip in load_clips((), 60)])[: int(6.5 * 16_000) + 7]
    clips.append(Clip("6.5 seconds of several", long))
    assert_equal_codes(compare(seeded_distill(), {"neucodec": lambda: distill_oracle}, clips, batch_size=2))


@pytest.mark.oracle
def test_distill_takes_the_packages_own_checkpoint(distill_oracle, monkeypatch, tmp_path):
    oracle = distill_oracle.model
    # no longer the weights that a rule could give
    monkeypatch.setattr(oracle.fc_prior.bias, "data", oracle.fc_prior.bias.data + 0.1)
    torch.save(oracle.state_dict(), tmp_path / "pytorch_model.bin")
    ours = codec.load("distill-neucodec", weights=str(tmp_path))
    clip = sample("rhasspy_nathalie_3.flac")[0]
    codes = distill_oracle.encode(clip.waveform)
    assert torch.equal(encode_together(ours, [clip])[0], codes.long())
    codes = codes[None, None, :50]
    with torch.no_grad():
        torch.testing.assert_close(ours.decode(codes), oracle.decode_code(codes), atol=1e-5, rtol=0)


@pytest.mark.oracle
def test_neucodec_codes_are_both_packages_alone_and_in_ragged_batches(neucodec_seeded):
    clips = sample("rhasspy_nathalie_3.flac", "precise_adocampo_3.wav")
    clips = [Clip(clip.name, clip.waveform[: 16_000 + 9_000 * row]) for row, clip in enumerate(clips)]
    # they share our weights, which so fill the memory once
    oracles = {package: partial(build_oracle, package, "neucodec", neucodec_seeded) for package in ORACLES}
    assert_equal_codes(compare(neucodec_seeded, oracles, clips, batch_size=2))


def test_boundaries_lie_where_codes_change():
    quantizer = small("neucodec").quantizer
    edges = torch.tensor([-0.80943018, -0.24340693, 0.40788173])
    latent = torch.zeros(6, 8)
    latent[:, 3] = torch.cat([edges - 1e-4, edges + 1e-4])
    assert boundary_distances(quantizer, latent)[:, 3].tolist() == pytest.approx([1e-4] * 6, abs=1e-6)
    assert boundary_distances(quantizer, torch.zeros(1, 8)).tolist() == [pytest.approx([0.24340693] * 8)]
    levels = quantizer.bound(latent)[:, 3].round().tolist()
    assert levels == [-2, -1, 0, -1, 0, 1]


def test_the_bound_counts_codes_and_distances():
    def agreement(codes, differing, farthest):
        return Agreement("a and b", 1, codes, differing, farthest, ())

    assert agreement(50, 0, 0.0).within_bound
    assert agreement(50, 1, 9e-5).within_bound
    assert not agreement(50, 1, 2e-4).within_bound
    assert not agreement(20_000, 2, 1e-6).within_bound
    assert agreement(20_001, 2, 1e-6).within_bound


@pytest.mark.parametrize(("flips", "code"), [(0, 0), (1, 1)])
def test_the_job_fails_where_codes_differ(flips, code, monkeypatch, tmp_path, capsys):
    ours = small("distill-neucodec")

    class Oracle:
        def encode(self, waveform):
            codes = encode_together(ours, [Clip("", waveform)])[0]
            codes[3] ^= 2 * flips  # a level two away: no rounding does that
            return codes

    monkeypatch.setattr(codec, "load", lambda name, weights: ours)
    monkeypatch.setattr(jobs.parity, "build_oracle", lambda options, package, ours: Oracle())
    assert main(["--limit", "3", "--json", str(tmp_path / "parity.json")]) == code
    result = json.loads((tmp_path / "parity.json").read_text())
    assert [each["clips"] for each in result["results"]] == [3, 3, 3]
    assert [each["differing"] for each in result["results"]] == [0, 3 * flips, 3 * flips]
    assert ("NOT within the bound" in capsys.readouterr().out) == bool(flips)


def test_the_job_refuses_what_it_cannot_do(tmp_path, capsys, monkeypatch):
    assert main(["--input", str(tmp_path / "none")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    assert main(["--input", str(tmp_path)]) == 2
    assert main(["--batch-size", "1"]) == 2
    assert main(["--against", "neucodec,dac"]) == 2
    capsys.readouterr()
    assert main(["--weights", str(tmp_path / "none"), "--limit", "1"]) == 2
    assert "no weights at" in capsys.readouterr().err
    monkeypatch.setattr(jobs.parity, "find_spec", lambda package: None)
    assert main([]) == 2
    assert "not installed: neucodec; pip install -r tests/requirements-oracles.txt" in capsys.readouterr().err
    assert main(["--against", "transformers", "--model", "distill-neucodec"]) == 2
    with pytest.raises(ValueError, match="transformers has no 'distill-neucodec'"):
        build_oracle("transformers", "distill-neucodec", small("distill-neucodec"))
