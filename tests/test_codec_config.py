"""One record sizes a codec: the published sizes, and any other of the family."""

import json
from dataclasses import replace

import pytest
import torch

from codec.config import DISTILL_NEUCODEC, NEUCODEC, BigCodecConfig, CodecConfig, DecoderConfig
from codec.names import reference_names
from codec.neucodec import NeuCodec, unset
from codec.seeded import CAN_BE, seed
from codec.training.recipes import RECIPES
from tests.codec_toys import SMALL_DISTILL, SMALL_NEUCODEC


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("config", "acoustic", "semantic", "adapter", "fuse"),
    [
        (NEUCODEC, 38_462_480, 387_100_000, 12_584_960, 4_196_352),
        (DISTILL_NEUCODEC, 21_620_384, 23_491_968, 11_012_096, 3_147_776),
    ],
    ids=["neucodec", "distill-neucodec"],
)
def test_published_sizes_have_the_published_counts(config, acoustic, semantic, adapter, fuse):
    model = unset(config, "any")
    folded = sum(  # the reference stores each of these twice: a direction, and its length
        model.get_parameter(name).shape[reference.norm.axis]
        for name, reference in reference_names(config, dict(model.named_parameters())).items()
        if reference.norm and name.startswith("acoustic.")
    )
    assert count(model.acoustic) + folded == acoustic
    assert count(model.semantic) == pytest.approx(semantic, rel=2e-4)
    assert (count(model.adapter), count(model.fuse)) == (adapter, fuse)
    quantizer = model.quantizer
    assert (count(quantizer.project_in), count(quantizer.project_out)) == (16_392, 18_432)
    assert count(model.decoder.project) == 2_098_176
    assert count(model.decoder) - count(model.decoder.project) + count(quantizer) == 185_557_898


@pytest.mark.parametrize("config", [NEUCODEC, DISTILL_NEUCODEC, SMALL_NEUCODEC, SMALL_DISTILL])
def test_a_configuration_survives_json(config):
    assert CodecConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_what_is_no_configuration_is_refused():
    fields = SMALL_NEUCODEC.to_json()
    with pytest.raises(ValueError, match="unknown acoustic encoder 'wavenet'; known: bigcodec, l3ac"):
        CodecConfig.from_json({**fields, "acoustic": {"kind": "wavenet"}})
    with pytest.raises(ValueError, match="not a codec configuration"):
        CodecConfig.from_json({**fields, "colour": "blue"})
    with pytest.raises(ValueError, match="choose strides whose product is 320"):
        replace(SMALL_NEUCODEC, acoustic=BigCodecConfig(strides=(2, 2)))
    with pytest.raises(ValueError, match="no whole output rate"):
        replace(
            SMALL_NEUCODEC, semantic=None, acoustic=BigCodecConfig(strides=(7,)), decoder=DecoderConfig(hop_length=4)
        )


def test_the_decoder_hop_sets_the_output_rate():
    narrow = replace(SMALL_NEUCODEC, decoder=replace(SMALL_NEUCODEC.decoder, hop_length=320))
    model = seed(NeuCodec(narrow)).eval()
    assert (narrow.output_rate, NEUCODEC.output_rate, DISTILL_NEUCODEC.output_rate) == (16_000, 24_000, 24_000)
    assert model.decode(torch.zeros(1, 1, 7, dtype=torch.int32)).shape == (1, 1, 7 * 320)


def test_a_codec_may_do_without_a_semantic_branch():
    config = replace(SMALL_NEUCODEC, semantic=None, acoustic=BigCodecConfig(width=2, strides=(4, 5), out_width=16))
    config = replace(config, decoder=replace(config.decoder, hop_length=20), levels=(8, 5, 5))
    model = seed(NeuCodec(config, "tiny")).eval()
    codes = model.encode(torch.randn(2, 1, 800), torch.tensor([800, 433]))
    assert codes.shape == (2, 1, 40) and int(codes.max()) < 200 and not codes[1, :, 21:].any()
    assert model.decode(codes, torch.tensor([40, 21])).shape == (2, 1, 800)
    assert (model.spec.codebook_size, model.spec.levels, model.spec.name) == (200, (8, 5, 5), "tiny")


def test_seeded_weights_say_that_they_mean_nothing():
    with pytest.warns(UserWarning, match="mean nothing"):
        seed(NeuCodec(SMALL_NEUCODEC))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_what_cannot_be_seeded_is_refused_by_name(recipe):
    model = unset(recipe.codec, recipe.name)
    if recipe.name in CAN_BE:
        assert reference_names(recipe.codec, dict(model.named_parameters()))
        return
    with pytest.raises(ValueError, match=f"no seeded weights for '{recipe.name}'.*seeded can be neucodec, "):
        seed(model)
