"""Weights load from every layout they are published in, exactly or not at all."""

import json
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from codec import weights
from codec.layouts import WeightsError, to_reference, to_transformers
from codec.weights import fingerprint, load_codec, save
from tests.codec_toys import SMALL_DISTILL, SMALL_NEUCODEC, small
from tests.weights_toys import HUBERT, W2V_BERT, assert_same, published, small_sizes, write  # noqa: F401 (a fixture)

IGNORED = {
    "fc_post_s.weight": (4, 4),
    "SemanticDecoder_module.final_conv.weight": (4, 4, 3),
    "generator.head.istft.window": (1920,),
    "codec_encoder.en_encoder.cache_token": (1, 0, 512),
    "semantic_model.masked_spec_embed": (32,),
    "semantic_model.encoder.layers.16.final_layer_norm.weight": (32,),
    "semantic_model.encoder.layers.23.ffn1.output_dense.weight": (32, 64),
    "CodecEnc.conv_blocks.1.block.0.block.0.upsample.filter": (1, 1, 12),
    "CodecEnc.conv_blocks.1.block.0.block.0.downsample.lowpass.filter": (1, 1, 12),
}


@pytest.mark.parametrize("name", ["neucodec", "distill-neucodec"])
def test_the_published_layout_loads(name, tmp_path):
    model, state = published(name)
    loaded = load_codec(name, weights=write(tmp_path, state))
    assert_same(loaded, model, atol=1e-6)
    assert loaded.spec.name == name and len(loaded.spec.revision) == 16


@pytest.mark.parametrize("style", ["whole", "old", "new"])
def test_any_convolution_may_be_stored_whole_or_as_either_weight_norm(style, tmp_path):
    model, _ = published("distill-neucodec")
    state = to_reference(model.state_dict(), model.config)
    new = ("parametrizations.weight.original0", "parametrizations.weight.original1")
    leaves = {"old": ("weight_g", "weight_v"), "new": new}
    for key in [key for key in state if key.endswith(("original0", "generator.backbone.embed.weight"))]:
        module = key.removesuffix(f".{new[0]}").removesuffix(".weight")
        weight = state.pop(f"{module}.{new[1]}" if key.endswith("original0") else key)
        state.pop(key, None)
        if style == "whole":
            state[f"{module}.weight"] = weight
        else:
            others = (0, 1) if "pos_conv" in module else tuple(range(1, weight.dim()))
            length, direction = leaves[style]
            state |= {f"{module}.{length}": weight.norm(dim=others, keepdim=True), f"{module}.{direction}": 3 * weight}
    assert_same(load_codec("distill-neucodec", weights=write(tmp_path, state)), model, atol=1e-6)


def test_a_weight_stored_twice_is_taken_whole_and_must_agree(tmp_path):
    model, state = published("neucodec")
    module = "generator.backbone.embed"
    weight = state[f"{module}.weight"]
    state |= {f"{module}.weight_g": weight.norm(dim=(1, 2), keepdim=True), f"{module}.weight_v": weight.clone()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_codec("neucodec", weights=write(tmp_path, state))
    state[f"{module}.weight_g"] = state[f"{module}.weight_g"] * 1.01
    with pytest.warns(UserWarning, match=rf"{module}\.weight is stored twice"):
        assert_same(load_codec("neucodec", weights=write(tmp_path, state)), model, atol=1e-6)


def test_a_file_and_a_wrapped_state_load(tmp_path):
    model, state = published("distill-neucodec")
    path = tmp_path / "any-name.ckpt"
    torch.save({"state_dict": state, "step": 7}, path)
    assert_same(load_codec("distill-neucodec", weights=str(path)), model, atol=1e-6)


def test_leftovers_of_the_published_training_are_passed_over(tmp_path):
    model, state = published("neucodec")
    state |= {key: torch.ones(shape) for key, shape in IGNORED.items()}
    assert_same(load_codec("neucodec", weights=write(tmp_path, state)), model, atol=1e-6)


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path):
    _, state = published("neucodec")
    del state["fc_prior.bias"], state["CodecEnc.conv_blocks.0.weight_g"]
    state["fc_prior.weight"] = torch.zeros(3, 3)
    state["nobody.knows"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        load_codec("neucodec", weights=write(tmp_path, state))
    text = str(caught.value)
    assert "2 missing: CodecEnc.conv_blocks.0.weight, fc_prior.bias" in text
    assert "2 unexpected: CodecEnc.conv_blocks.0.weight_v, nobody.knows" in text
    assert "1 of another shape: fc_prior.weight [3, 3] instead of [96, 96]" in text


def test_the_weights_of_another_model_are_refused(tmp_path):
    _, state = published("distill-neucodec")
    with pytest.raises(WeightsError, match=r"is not 'neucodec': .* missing: CodecEnc"):
        load_codec("neucodec", weights=write(tmp_path, state))


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'sprung'}",)

    path = tmp_path / "pytorch_model.bin"
    torch.save({"weight": Trap()}, path)
    with pytest.raises(WeightsError, match="cannot read weights"):
        load_codec("neucodec", weights=str(path))
    path.write_bytes(pickle.dumps({"weight": Trap()}, protocol=2))
    with pytest.raises(WeightsError, match="cannot read weights"):
        load_codec("neucodec", weights=str(path))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "no tensors"])
@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
def test_a_damaged_file_is_refused(file, damage, tmp_path):
    path = tmp_path / file
    if damage == "no tensors":
        torch.save([1, 2], path)
    else:
        torch.save({"a": torch.zeros(100)}, path) if file.endswith("bin") else save_file({"a": torch.zeros(100)}, path)
        content = {"truncated": path.read_bytes()[:300], "empty": b"", "text": b"<html>not found</html>"}
        path.write_bytes(content[damage])
    with pytest.raises(WeightsError, match=file):
        load_codec("neucodec", weights=str(tmp_path))


# --- the speech model's own weights


@pytest.mark.parametrize("place", ["inside", "beside"])
@pytest.mark.parametrize(("name", "upstream"), [("neucodec", W2V_BERT), ("distill-neucodec", HUBERT)])
def test_the_speech_model_is_taken_from_its_own_folder(name, upstream, place, tmp_path):
    model, state = published(name)
    folder = Path(write(tmp_path / "codec", state, upstream))
    if place == "beside":
        (folder / upstream).rename(tmp_path / upstream)
    assert_same(load_codec(name, weights=str(folder)), model, atol=1e-6)


def test_the_speech_model_inside_the_file_wins(tmp_path):
    model, state = published("distill-neucodec")
    folder = write(tmp_path, state)
    (tmp_path / HUBERT).mkdir()
    save_file({"encoder.layer_norm.weight": torch.zeros(3)}, tmp_path / HUBERT / "model.safetensors")
    assert_same(load_codec("distill-neucodec", weights=folder), model, atol=1e-6)


def test_hubert_loads_from_its_older_names(tmp_path):
    model, state = published("distill-neucodec")
    folder = Path(write(tmp_path, state, HUBERT))
    speech = load_file(folder / HUBERT / "model.safetensors")
    (folder / HUBERT / "model.safetensors").unlink()
    position = "encoder.pos_conv_embed.conv"
    for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
        speech[f"{position}.{old}"] = speech.pop(f"{position}.parametrizations.weight.{new}")
    torch.save({f"hubert.{key}": tensor for key, tensor in speech.items()}, folder / HUBERT / "pytorch_model.bin")
    assert_same(load_codec("distill-neucodec", weights=str(folder)), model, atol=1e-6)


@pytest.mark.oracle
def test_hubert_loads_as_transformers_saves_it(tmp_path):
    from transformers import HubertConfig, HubertModel

    config = SMALL_DISTILL.semantic
    hubert = HubertModel(
        HubertConfig(
            hidden_size=config.width, num_hidden_layers=config.layers, num_attention_heads=config.heads,
            intermediate_size=config.ffn_width, conv_dim=[config.conv_width] * 7, feat_proj_layer_norm=False,
            num_conv_pos_embeddings=config.position_kernel, num_conv_pos_embedding_groups=config.position_groups,
            apply_spec_augment=False,
        )
    ).eval()  # fmt: skip
    _, state = published("distill-neucodec")
    folder = Path(write(tmp_path, {k: v for k, v in state.items() if not k.startswith("semantic_model.")}))
    hubert.save_pretrained(folder / HUBERT)
    model = load_codec("distill-neucodec", weights=str(folder))
    sound = 0.1 * torch.randn(1, 1, 6400)
    with torch.no_grad():
        wanted = hubert(torch.nn.functional.pad(sound[0], (160, 160))).last_hidden_state
        torch.testing.assert_close(model.semantic(sound), wanted, atol=1e-5, rtol=1e-5)


# --- transformers' own layout


@pytest.mark.oracle
def test_neucodec_loads_as_transformers_saves_it(tmp_path):
    from transformers import NeuCodecConfig, NeuCodecModel
    from transformers.models.neucodec.feature_extraction_neucodec import NeuCodecFeatureExtractor

    from codec.seeded import fill

    ours = SMALL_NEUCODEC
    speech = {
        "model_type": "wav2vec2-bert", "hidden_size": ours.semantic.width, "num_hidden_layers": ours.semantic.layers,
        "num_attention_heads": ours.semantic.heads, "intermediate_size": ours.semantic.ffn_width,
        "apply_spec_augment": False,
    }  # fmt: skip
    config = NeuCodecConfig(
        hidden_size=ours.decoder.width, intermediate_size=4 * ours.decoder.width, head_dim=32,
        num_hidden_layers=ours.decoder.layers, num_attention_heads=ours.decoder.heads,
        num_key_value_heads=ours.decoder.heads, encoder_hidden_size=ours.acoustic.width,
        quantization_dim=ours.latent_width, semantic_model_config=speech,
    )  # fmt: skip
    native = NeuCodecModel(config).eval()
    with torch.no_grad():
        for name, parameter in native.named_parameters():
            parameter.copy_(fill(name, tuple(parameter.shape)))
    native.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    model = load_codec("neucodec", weights=str(tmp_path))
    sound = 0.1 * torch.randn(1, 1, 8000, generator=torch.Generator().manual_seed(1))
    codes = model.encode(sound, torch.tensor([8000]))
    inputs = NeuCodecFeatureExtractor()(sound[0, 0].numpy(), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(native.encode(**inputs).audio_codes, codes)
        torch.testing.assert_close(model.decode(codes), native.decode(codes).audio_values, atol=1e-5, rtol=1e-4)
    # and back: what we write is what it has
    theirs = native.state_dict()
    for name, tensor in to_transformers(model.state_dict(), ours).items():
        torch.testing.assert_close(tensor, theirs[name], atol=0, rtol=0)


def test_transformers_layout_is_of_neucodec_alone(tmp_path):
    model = small("neucodec")
    native = {k: v.clone() for k, v in to_transformers(model.state_dict(), model.config).items()}
    save_file(native, tmp_path / "model.safetensors")
    assert_same(load_codec("neucodec", weights=str(tmp_path)), model)
    with pytest.raises(WeightsError, match="in transformers' layout, wanted 'distill-neucodec'"):
        load_codec("distill-neucodec", weights=str(tmp_path))


# --- our own files


def test_what_is_saved_loads_again(tmp_path):
    model = small("distill-neucodec")
    save(model, tmp_path)
    for path in (tmp_path, tmp_path / "codec.safetensors", tmp_path / "codec.json"):
        loaded = load_codec("distill-neucodec", weights=str(path))
        assert_same(loaded, model)
        assert loaded.spec == model.spec and loaded.config == model.config
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codec.json", "codec.safetensors"]


def test_a_codec_of_any_size_says_its_size_itself(tmp_path, monkeypatch):
    model = small("distill-neucodec")
    save(model, tmp_path)
    monkeypatch.setitem(weights.PUBLISHED, "distill-neucodec", (SMALL_NEUCODEC, "neuphonic/distill-neucodec"))
    assert_same(load_codec("distill-neucodec", weights=str(tmp_path)), model)


def test_another_codec_of_our_own_is_refused(tmp_path):
    save(small("distill-neucodec"), tmp_path)
    with pytest.raises(WeightsError, match="holds the codec 'distill-neucodec', wanted 'neucodec'"):
        load_codec("neucodec", weights=str(tmp_path))


def test_our_own_files_are_what_was_saved_or_refused(tmp_path):
    save(small("distill-neucodec"), tmp_path)
    path, record = tmp_path / "codec.safetensors", tmp_path / "codec.json"
    state = load_file(path)
    state["fuse.bias"][0] += 1e-3
    save_file(state, path)
    with pytest.raises(WeightsError, match="is not what was saved"):
        load_codec("distill-neucodec", weights=str(tmp_path))
    save_file({**{k: v for k, v in state.items() if k != "fuse.bias"}, "extra": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match=r"1 missing: fuse\.bias; 1 unexpected: extra"):
        load_codec("distill-neucodec", weights=str(tmp_path))
    record.write_text(json.dumps({**json.loads(record.read_text()), "format": 99}))
    with pytest.raises(WeightsError, match="has format 99, this version reads 1"):
        load_codec("distill-neucodec", weights=str(tmp_path))
    record.write_text("{")
    with pytest.raises(WeightsError, match="is no record of a codec"):
        load_codec("distill-neucodec", weights=str(tmp_path))


def test_the_revision_is_the_content():
    one, other = small("distill-neucodec"), small("distill-neucodec")
    assert fingerprint(one.state_dict(), one.config) == fingerprint(other.state_dict(), other.config)
    with torch.no_grad():
        other.fuse.bias[0] += 1e-6
    assert fingerprint(one.state_dict(), one.config) != fingerprint(other.state_dict(), other.config)


def test_a_codec_saved_in_half_is_the_rounded_one_and_half_the_size(tmp_path):
    torch.manual_seed(0)
    model = small("neucodec")
    save(model, tmp_path / "whole")
    save(model, tmp_path / "half", half=True)
    loaded = load_codec("neucodec", weights=str(tmp_path / "half"))
    assert loaded.revision == model.revision
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    sizes = [(tmp_path / kind / "codec.safetensors").stat().st_size for kind in ("half", "whole")]
    assert sizes[0] < 0.6 * sizes[1]
