"""A step of training: who changes, what is switched on when, and that learning is real."""

from dataclasses import replace

import pytest
import torch

from codec.config import DecoderConfig
from codec.fsq import FSQ
from codec.names import module_names
from codec.neucodec import NeuCodec, build_acoustic, build_semantic
from codec.nn.adapter import SemanticAdapter
from codec.nn.vocos import VocosDecoder
from codec.training import start
from codec.training.modules import SemanticHead, encode
from codec.training.recipes import RECIPES, Weights
from codec.training.step import (
    active_weights,
    build_models,
    build_optimizers,
    judged_part,
    module_hashes,
    update,
)
from tests.training_toys import TINY, TINY_DISTILL, TINY_TEACHER, voice


def crops_of(recipe, count=4):
    return torch.stack([torch.from_numpy(voice(i, 1.0)[: recipe.crop_samples])[None] for i in range(count)])


def trained(recipe, generator, steps, inputs, precision="float32", targets=None):
    models = build_models(recipe, generator)
    optimizers = build_optimizers(recipe, models)
    before = module_hashes(generator.parts())
    targets = inputs if targets is None else targets
    updates = [update(models, optimizers, inputs, targets, recipe, step, precision) for step in range(steps)]
    after = module_hashes(generator.parts())
    changed = {name for name in before if before[name] != after[name]}
    return [{name: part.item() for name, part in each.parts.items()} for each in updates], changed


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    return NeuCodec(TINY_TEACHER.codec, "tiny_teacher").eval()


def test_a_tiny_codec_learns_a_few_clips_until_the_mel_loss_is_below_half():
    recipe = replace(TINY, adversarial_after=1000)
    steps, _ = trained(recipe, start.begin(recipe, None, None), 60, crops_of(recipe))
    assert steps[-1]["mel"] < 0.5 * steps[0]["mel"]


def test_the_distillation_loss_falls(teacher):
    recipe = replace(TINY_DISTILL, adversarial_after=1000)
    steps, changed = trained(recipe, start.begin(recipe, teacher, "seeded"), 30, crops_of(recipe))
    assert steps[-1]["distillation"] < 0.7 * steps[0]["distillation"]
    assert changed == set(recipe.trains)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_exactly_the_intended_modules_change(teacher, precision):
    recipe = TINY_TEACHER
    _, changed = trained(recipe, start.begin(recipe, None, "seeded"), 2, crops_of(recipe), precision)
    assert changed == {"acoustic", "adapter", "fuse", "quantizer", "decoder", "semantic_head"}

    upsample = replace(
        recipe,
        codec=replace(recipe.codec, decoder=replace(recipe.codec.decoder, hop_length=480)),
        trains=("decoder",),
        starts_from="tiny_teacher",
        weights=Weights(semantic=0.0),
    )
    generator = start.begin(upsample, teacher, None)
    assert torch.equal(generator.codec.decoder.embed.weight, teacher.decoder.embed.weight), "starts from what fits"
    same = module_hashes(teacher.named_children())
    frozen = module_hashes(generator.frozen())
    assert "semantic" in frozen and frozen == {name: same[name] for name in frozen}, "the rest is the base's"
    targets = torch.stack([torch.from_numpy(voice(i, 1.0, 24_000)[:9600])[None] for i in range(4)])
    _, changed = trained(upsample, generator, 2, crops_of(upsample), precision, targets)
    assert changed == {"decoder"}

    recipe = TINY_DISTILL
    taught = module_hashes([("teacher", teacher)])
    _, changed = trained(recipe, start.begin(recipe, teacher, "seeded"), 2, crops_of(recipe), precision)
    assert changed == set(recipe.trains)
    assert module_hashes([("teacher", teacher)]) == taught


def test_encoding_in_training_gives_the_features_of_use(teacher):
    waveforms = crops_of(TINY)
    for codec in (teacher, start.fresh_codec(TINY), NeuCodec(TINY_DISTILL.codec).eval()):
        assert torch.equal(encode(codec, waveforms).features, codec.features(waveforms))


def test_weights_trained_as_direction_and_length_fold_to_the_codec_that_was_trained(teacher):
    recipe = TINY_DISTILL
    generator = start.begin(recipe, teacher, "seeded")
    assert sum("original0" in name for name, _ in generator.codec.acoustic.named_parameters()) > 10
    trained(recipe, generator, 2, crops_of(recipe))
    waveforms = crops_of(recipe)
    generator.eval()
    plain = start.folded(generator.codec)
    assert not any("parametrizations" in name for name in plain.state_dict())
    assert torch.equal(plain.features(waveforms), generator.codec.features(waveforms))


def test_losses_return_their_parts_and_judges_begin_when_told():
    recipe = replace(TINY, adversarial_after=1)
    steps, _ = trained(recipe, start.begin(recipe, None, None), 2, crops_of(recipe))
    assert set(steps[0]) == {"mel", "generator_norm", "total"}
    judged = {"adversarial", "feature_matching", "judges_real", "judges_fake", "judges_norm"}
    assert set(steps[1]) == {"mel", "generator_norm", "total"} | judged
    expected = 15 * steps[1]["mel"] + steps[1]["adversarial"] + steps[1]["feature_matching"]
    assert steps[1]["total"] == pytest.approx(expected, rel=1e-5)


def test_judges_get_no_gradient_from_the_generator_and_the_generator_none_from_them():
    recipe = replace(TINY, adversarial_after=0)
    generator = start.begin(recipe, None, None)
    models = build_models(recipe, generator)
    optimizers = build_optimizers(recipe, models)
    judged = []
    optimizers.judges.register_step_post_hook(lambda *_: judged.append(module_hashes([("judges", models.judges)])))
    update(models, optimizers, crops_of(recipe), crops_of(recipe), recipe, 0, "float32")
    assert module_hashes([("judges", models.judges)]) == judged[-1]
    assert all(p.requires_grad for p in models.judges.parameters())


def test_judges_hear_a_window_that_begins_on_a_hop_and_moves():
    recipe = replace(TINY, judged_seconds=0.1)
    windows = [judged_part(recipe, 6400, step) for step in range(40)]
    assert all(w.stop - w.start == 1600 and w.start % 320 == 0 and 0 <= w.start <= 4800 for w in windows)
    assert len({w.start for w in windows}) == 16
    assert judged_part(replace(TINY, judged_seconds=None), 6400, 3) == slice(0, 6400)
    assert judged_part(replace(TINY, judged_seconds=9.0), 6400, 3) == slice(0, 6400)


def test_the_total_is_equation_3_with_distillation_off_before_its_step():
    weights = RECIPES["distill"]
    assert active_weights(weights, 19_999) == {"mel": 15, "adversarial": 1, "feature_matching": 1, "semantic": 5}
    assert active_weights(weights, 20_000)["distillation"] == weights.weights.distillation > 0
    assert "semantic" not in active_weights(RECIPES["upsample_24k"], 0)


def test_recipes_have_the_papers_numbers():
    sizes = {name: (r.steps, r.batch_size, r.crop_seconds) for name, r in RECIPES.items() if "nano" not in name}
    assert sizes == {
        "neucodec_16k": (800_000, 96, 6.0),
        "upsample_24k": (200_000, 96, 6.0),
        "distill": (400_000, 192, 6.0),
    }
    assert RECIPES["upsample_24k"].codec.decoder == DecoderConfig(hop_length=480)
    assert RECIPES["neucodec_16k"].codec.decoder == RECIPES["distill"].codec.decoder == DecoderConfig(hop_length=320)


def test_published_modules_have_the_published_parameter_counts():
    def count(module):
        return sum(p.numel() for p in module.parameters())

    def lengths(config, part):
        """The lengths of the weight norms that are folded here: one number per output channel."""
        shapes = {name: p.shape for name, p in part.named_parameters(prefix="acoustic")}
        return sum(
            shapes[f"{ours}.weight"][0] for ours, _, norm in module_names(config) if norm and f"{ours}.weight" in shapes
        )

    full, student = RECIPES["upsample_24k"].codec, RECIPES["distill"].codec
    with torch.device("meta"):
        bigcodec, l3ac = build_acoustic(full), build_acoustic(student)
        adapters = [SemanticAdapter(c.semantic.out_width, c.adapter_width) for c in (full, student)]
        decoder = VocosDecoder(full.latent_width, full.decoder)
        speech = [build_semantic(c) for c in (full, student)]
        head = SemanticHead(2048, 1024)
    assert count(bigcodec) + lengths(full, bigcodec) == 38_462_480
    assert count(l3ac) + lengths(student, l3ac) == 21_620_384
    assert [count(adapter) for adapter in adapters] == [12_584_960, 11_012_096]
    quantizer = FSQ(2048, full.levels)
    assert [count(quantizer.project_in), count(quantizer.project_out)] == [16_392, 18_432]
    assert count(decoder) + count(quantizer) == 185_557_898 + 2_098_176
    assert round(count(speech[0]) / 1e6) == 387 and count(speech[1]) + 128 + 768 == 23_491_968
    assert count(head) == 2_098_176 + 12_584_960


def test_a_decoder_of_a_higher_rate_begins_with_the_sound_of_the_one_it_starts_from():
    base = start.fresh_codec(TINY).eval()
    decoder = replace(TINY.codec.decoder, hop_length=480)
    recipe = replace(TINY, codec=replace(TINY.codec, decoder=decoder), trains=("decoder",), starts_from="tiny")
    codec = start.begin(recipe, base, None).codec.eval()
    with torch.no_grad():
        ours, theirs = codec.decoder, base.decoder
        ours.head.bias[641:961] = -20.0  # silences the fresh bins, above 8 kHz
        theirs.head.bias[640] = -20.0  # and the last one, which counts by half in the lower spectrum
        ours.head.bias[640] = -20.0
        quantized = base.quantizer.decode(torch.arange(30)[None] * 997)
        high, low = ours(quantized)[0, 0].double(), theirs(quantized)[0, 0].double()
    assert len(high) == 14_400 and len(low) == 9_600
    inner = slice(800, -800)  # of the instants that both rates have; windows are cut at the ends
    assert (high[::3] - low[::2])[inner].abs().max() < 0.02 * low.abs().max()


def test_what_a_recipe_needs_and_lacks_is_said():
    with pytest.raises(ValueError, match="--start"):
        start.begin(TINY_DISTILL, None, "seeded")
    with pytest.raises(ValueError, match="--semantic"):
        start.begin(TINY_TEACHER, None, None)
    with pytest.raises(ValueError, match="cannot train judges"):
        start.begin(replace(TINY, trains=("judges",)), None, None)
    with pytest.raises(ValueError, match="whole number of hops"):
        replace(TINY, crop_seconds=0.41)
