"""NeuCodec gives the reference package's numbers, for a clip alone and in any batch."""

import pytest
import torch

from codec.neucodec import NeuCodec
from tests.codec_toys import conformance_waveform, small

CODES = """
56718 60829 60620 60621 60876 60616 47565 63948 59593 58572 64973 64157 65164 60829 60812 56460 60809 64712 64653 64716
64728 64985 64728 64730 63708 64728 63965 63692 64941 64924 60840 64920 60616 56456 64972 56536 64984 60632 64745 63708
64744 59612 59612 64749 63709 64685 59869 59612 59806 60062
"""
ON_THE_EDGE = 38  # a frame of these whose first level lies 2e-5 from its boundary: it may round either way
TENSORS = {  # shape, mean, standard deviation, first four values
    "acoustic": ((1, 51, 1024), 0.009798, 0.944231, (0.018545, 0.112437, -0.603031, -0.991791)),
    "semantic": ((1, 1024, 50), -0.001614, 0.999331, (-0.662331, -0.566790, -1.119644, -0.949490)),
    "adapter": ((1, 1024, 50), 0.011141, 0.854392, (0.138054, -0.243997, -0.762757, -0.316173)),
    "fuse": ((1, 50, 2048), 0.023030, 0.908915, (0.439088, 0.776688, -0.267845, -0.482499)),
    "decoder": ((1, 1, 24000), -0.000553, 0.043855, (-0.068247, -0.026905, 0.073883, -0.060255)),
}
FOUR_CODES = torch.tensor([[[0, 1, 43690, 65535]]], dtype=torch.int32)
LENGTHS = (9001, 320, 5000)


@pytest.fixture(scope="module")
def passed(neucodec_seeded):
    """What every part gave for the conformance clip, and its codes."""
    model, seen = neucodec_seeded, {}
    hooks = [
        getattr(model, part).register_forward_hook(lambda _module, _args, out, part=part: seen.__setitem__(part, out))
        for part in TENSORS
    ]
    codes = model.encode(conformance_waveform(), torch.tensor([16000]))
    model.decode(codes)
    for hook in hooks:
        hook.remove()
    return seen, codes


def test_codes_are_the_published_ones(passed):
    codes = passed[1]
    assert codes.shape == (1, 1, 50) and codes.dtype == torch.int32
    differs = codes[0, 0] != torch.tensor([int(code) for code in CODES.split()])
    assert set(differs.nonzero().flatten().tolist()) <= {ON_THE_EDGE}


@pytest.mark.parametrize("part", TENSORS)
def test_every_part_gives_the_reference_values(passed, part):
    shape, mean, deviation, first = TENSORS[part]
    tensor = passed[0][part]
    tensor = tensor.transpose(1, 2) if part in ("semantic", "adapter") else tensor
    assert tensor.shape == shape
    assert float(tensor.mean()) == pytest.approx(mean, abs=5e-6)
    assert float(tensor.std()) == pytest.approx(deviation, abs=5e-6)
    assert tensor.flatten()[:4].tolist() == pytest.approx(first, abs=2e-5)


def test_latents_are_the_reference_ones(neucodec_seeded, passed):
    latent = neucodec_seeded.quantizer.latent(passed[0]["fuse"].clone())[0]
    first = (-0.15967, 0.67156, -0.83284, 0.02363, -0.32847, 1.21903, -0.60066, 0.78440)
    middle = (-0.91816, 0.31083, -0.30257, 0.88081, -0.98271, 0.55264, 0.82912, 1.62606)
    assert latent[0].tolist() == pytest.approx(first, abs=2e-5)
    assert latent[25].tolist() == pytest.approx(middle, abs=2e-5)


def test_sound_within_is_the_reference_one(passed):
    wanted = (-0.000281, -0.030903, 0.087243, -0.008567, 0.029381)
    assert passed[0]["decoder"][0, 0, 1000:1005].tolist() == pytest.approx(wanted, abs=2e-5)


@torch.no_grad()
def test_every_part_of_the_decoder_gives_the_reference_values(neucodec_seeded):
    model = neucodec_seeded
    quantized = model.quantizer.decode(FOUR_CODES[:, 0])
    assert quantized[0, 0, :4].tolist() == pytest.approx((0.161648, -0.023818, -0.631116, -0.666409), abs=2e-6)
    assert quantized[0, 2, :4].tolist() == pytest.approx((0.012257, 0.017694, 0.005561, -0.001679), abs=2e-6)
    projected = model.decoder.project(quantized)
    assert projected[0, 0, :4].tolist() == pytest.approx((0.69850, -0.85445, 0.00053, -0.03383), abs=1e-5)
    hidden = model.decoder.backbone(projected, None)
    assert hidden[0, 0, :4].tolist() == pytest.approx((1.42913, 0.99009, 0.68425, 0.24596), abs=1e-5)
    head = model.decoder.head(hidden)[0, 0]
    assert head[:3].tolist() == pytest.approx((-0.19912, 1.40161, 0.25000), abs=1e-5)
    assert head[961:964].tolist() == pytest.approx((-2.88428, -1.19744, -0.60611), abs=1e-5)


def test_four_codes_sound_as_published(neucodec_seeded):
    sound = neucodec_seeded.decode(FOUR_CODES)[0, 0]
    assert sound.shape == (1920,)
    assert sound[:5].tolist() == pytest.approx((0.036596, -0.007053, 0.049749, -0.004968, 0.048365), abs=5e-6)
    middle = (0.013801, 0.037063, 0.014441, -0.006547, -0.061947)
    assert sound[960:965].tolist() == pytest.approx(middle, abs=5e-6)
    assert float(sound.square().mean().sqrt()) == pytest.approx(0.0538388, abs=1e-6)


def check_rows_stand_alone(model: NeuCodec, lengths: tuple[int, ...]):
    noise = torch.Generator().manual_seed(0)
    waveforms = 0.1 * torch.randn(len(lengths), 1, max(lengths) + 50, generator=noise)  # loud past every row's end
    num_samples = torch.tensor(lengths)
    together = model.encode(waveforms, num_samples)
    num_frames = torch.tensor([model.spec.num_frames(length) for length in lengths])
    sounds = model.decode(together, num_frames)
    with torch.no_grad():
        latents = model.quantizer.latent(model.features(waveforms, num_samples))
        for row, (length, frames) in enumerate(zip(lengths, num_frames.tolist(), strict=True)):
            alone = waveforms[row : row + 1, :, :length]
            features = model.features(alone)
            torch.testing.assert_close(
                latents[row : row + 1, :frames], model.quantizer.latent(features), atol=3e-5, rtol=0
            )
            codes = model.quantizer.encode(features)[:, None]
            assert torch.equal(together[row, :, :frames], codes[0])
            assert not together[row, :, frames:].any()
            sound = model.decode(codes)
            torch.testing.assert_close(sounds[row : row + 1, :, : sound.shape[2]], sound, atol=1e-4, rtol=0)
            assert not sounds[row, :, sound.shape[2] :].any()


def test_a_row_does_not_depend_on_its_batch_mates(neucodec_seeded):
    check_rows_stand_alone(neucodec_seeded, LENGTHS)


@pytest.mark.parametrize("lengths", [(320, 321, 639, 640), (48000, 31999, 320), (5000, 5001, 5119)])
def test_a_row_of_a_small_codec_does_not_depend_on_its_batch_mates(lengths):
    check_rows_stand_alone(small("neucodec"), lengths)


@pytest.mark.parametrize("name", ["neucodec", "distill-neucodec"])
def test_rows_of_equal_length_give_what_they_give_alone(name):
    model = small(name)
    waveforms = torch.randn(3, 1, 7000)
    together = model.encode(waveforms, torch.tensor([7000] * 3))
    for row in range(3):
        assert torch.equal(together[row], model.encode(waveforms[row : row + 1], torch.tensor([7000]))[0])


def test_a_broken_batch_mate_breaks_nothing():
    model = small("neucodec")
    waveforms = torch.randn(2, 1, 8000)
    clean = model.encode(waveforms, torch.tensor([8000, 4000]))
    waveforms[1, :, 4000:] = float("nan")
    assert torch.equal(model.encode(waveforms, torch.tensor([8000, 4000])), clean)
    waveforms[1] = float("nan")
    assert torch.equal(model.encode(waveforms, torch.tensor([8000, 4000]))[0], clean[0])


@pytest.mark.parametrize(
    ("samples", "frames"), [(320, 1), (321, 1), (639, 1), (640, 2), (16000, 50), (16001, 50), (96000, 300)]
)
def test_frames_follow_the_published_table(samples, frames):
    for name, more in (("neucodec", 0), ("distill-neucodec", 1)):
        model = small(name)
        hop = model.config.hop_length
        spec = model.spec
        codes = model.encode(torch.zeros(1, 1, samples * hop // 320), torch.tensor([samples * hop // 320]))
        assert codes.shape[2] == spec.num_frames(samples * hop // 320) == frames + more
        assert model.decode(codes).shape[2] == spec.num_output_samples(frames + more)
    assert small("neucodec").spec.num_output_samples(frames) == 480 * frames


@pytest.mark.parametrize("samples", [0, 1, 319])
def test_a_row_below_one_hop_is_refused(samples):
    with pytest.raises(ValueError, match=f"at least 320 samples at 16000 Hz, got {samples}"):
        small("neucodec").encode(torch.zeros(2, 1, 400), torch.tensor([400, samples]))


def test_wrong_shapes_are_refused():
    model = small("neucodec")
    with pytest.raises(ValueError, match=r"must be \[B, 1, T\] at 16000 Hz, got \[2, 48000\]"):
        model.encode(torch.zeros(2, 48000), torch.tensor([48000] * 2))
    with pytest.raises(ValueError, match="one per row"):
        model.encode(torch.zeros(2, 1, 4800), torch.tensor([4800]))
    with pytest.raises(ValueError, match="does not fit"):
        model.encode(torch.zeros(1, 1, 4800), torch.tensor([4801]))
    with pytest.raises(ValueError, match=r"must be \[B, 1, F\]"):
        model.decode(torch.zeros(2, 50, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"in \[0, 65536\), got 0 to 65536"):
        model.decode(torch.tensor([[[0, 65536]]]))
    with pytest.raises(ValueError, match="each from 1 to 2, got"):
        model.decode(torch.tensor([[[0, 1]]]), torch.tensor([3]))


def test_learning_reaches_every_weight_and_dropout_never_reaches_codes():
    model = small("neucodec").train()
    codes = model.encode(torch.randn(1, 1, 5000), torch.tensor([5000]))
    assert torch.equal(model.decode(codes), model.decode(codes)) and model.training
    quantized, _ = model.quantizer(model.features(torch.randn(2, 1, 5000), torch.tensor([5000, 3000])))
    model.decoder(quantized, torch.tensor([15, 9])).square().sum().backward()
    # the same is added to all keys of a query: no attention changes
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in still if not name.endswith("key.bias")] == []


def test_bfloat16_keeps_the_shape_of_things():
    from codec.precision import convert

    model, waveforms = small("neucodec"), conformance_waveform()
    with torch.no_grad():
        exact = model.features(waveforms)
        model = convert(model, "bfloat16")
        close = model.features(waveforms).float()
    assert (
        model.acoustic.last.weight.dtype == torch.bfloat16 and model.quantizer.project_in.weight.dtype == torch.float32
    )
    assert float(torch.cosine_similarity(exact, close, dim=2).mean()) > 0.99
    assert torch.isfinite(model.decode(model.encode(waveforms, torch.tensor([16000])))).all()
