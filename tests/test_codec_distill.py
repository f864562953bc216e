"""Distill-NeuCodec gives the reference package's numbers, for a clip alone and in any batch."""

import pytest
import torch
from torch.nn import functional

from codec.config import HubertConfig
from codec.nn.hubert import Hubert, row_moments
from codec.nn.l3ac import trend
from codec.nn.local_attention import LocalTransformer
from codec.nn.masking import is_valid, masked_moments
from tests.codec_toys import conformance_waveform, seeded_distill, small

CODES = """
61245 57151 57150 65326 61246 61244 57150 57150 61246 53054 53053 53053 53053 53054 57150 57149 61246 57150 65342 61246
61244 61230 60222 65342 61247 57149 57150 53054 53054 53054 53054 53054 53054 61246 61246 61244 61230 56126 64302 65342
65340 57151 57150 57150 53054 57150 53054 53054 57150 57149 61245
"""
TENSORS = {  # shape, mean, standard deviation, first four values
    "acoustic": ((1, 51, 512), 0.003756, 3.054784, (-3.055137, -1.193014, -1.316019, -9.976893)),
    "semantic": ((1, 768, 51), 0.002299, 1.004198, (1.342781, 1.725414, 1.853712, 1.000055)),
    "adapter": ((1, 768, 51), 0.058613, 0.862076, (0.090489, 0.900699, 1.130448, 1.168282)),
    "fuse": ((1, 51, 2048), -0.000194, 2.401792, (0.698759, -2.232983, -3.279696, 0.854691)),
    "decoder": ((1, 1, 24480), 0.000568, 0.044929, (-0.128809, -0.059367, 0.016644, 0.127014)),
}
LENGTHS = (16000, 320, 5001, 12800, 639)


@pytest.fixture(scope="module")
def passed():
    """What every part gave for the conformance clip, its codes, and the latent."""
    model, seen = seeded_distill(), {}
    hooks = [
        getattr(model, part).register_forward_hook(lambda _module, _args, out, part=part: seen.__setitem__(part, out))
        for part in TENSORS
    ]
    codes = model.encode(conformance_waveform(), torch.tensor([16000]))
    model.decode(codes)
    for hook in hooks:
        hook.remove()
    return seen, codes, model.quantizer.latent(seen["fuse"].clone())


def test_codes_are_the_published_ones(passed):
    _, codes, _ = passed
    assert codes.shape == (1, 1, 51) and codes.dtype == torch.int32
    assert codes[0, 0].tolist() == [int(code) for code in CODES.split()]


@pytest.mark.parametrize("part", TENSORS)
def test_every_part_gives_the_reference_values(passed, part):
    shape, mean, deviation, first = TENSORS[part]
    tensor = passed[0][part]
    tensor = tensor.transpose(1, 2) if part in ("semantic", "adapter") else tensor
    assert tensor.shape == shape
    assert float(tensor.mean()) == pytest.approx(mean, abs=2e-6)
    assert float(tensor.std()) == pytest.approx(deviation, abs=2e-6)
    assert tensor.flatten()[:4].tolist() == pytest.approx(first, abs=2e-5)


def test_latents_are_the_reference_ones(passed):
    latent = passed[2][0]
    first = (-0.25608, 0.49458, 3.02275, -1.69857, 1.73321, 3.42152, 0.05772, 3.44560)
    middle = (-0.35138, 3.74627, 3.12958, -2.02472, 2.01744, 0.88015, -0.78184, 2.01072)
    assert latent[0].tolist() == pytest.approx(first, abs=2e-5)
    assert latent[25].tolist() == pytest.approx(middle, abs=2e-5)


def test_a_row_does_not_depend_on_its_batch_mates():
    model, noise = seeded_distill(), torch.Generator().manual_seed(0)
    waveforms = 0.1 * torch.randn(len(LENGTHS), 1, max(LENGTHS), generator=noise)  # loud past every row's end, too
    together = model.encode(waveforms, torch.tensor(LENGTHS))
    with torch.no_grad():
        latents = model.quantizer.latent(model.features(waveforms, torch.tensor(LENGTHS)))
    for row, length in enumerate(LENGTHS):
        alone, frames = waveforms[row : row + 1, :, :length], model.spec.num_frames(length)
        with torch.no_grad():
            latent = model.quantizer.latent(model.features(alone))
        assert latent.shape[1] == frames
        torch.testing.assert_close(latents[row : row + 1, :frames], latent, atol=3e-5, rtol=0)
        assert torch.equal(together[row, :, :frames], model.encode(alone, torch.tensor([length]))[0])
        assert not together[row, :, frames:].any()


def test_the_last_samples_of_a_shorter_row_see_no_batch_mate():
    # the envelope of 45 samples, the widest of the encoder's first layer, at a row's end
    x = torch.rand(2, 1, 400, generator=torch.Generator().manual_seed(1)) - 0.5
    x[1, :, 300:] = 0
    alone = trend(x[1:, :, :300], 45, None)
    torch.testing.assert_close(trend(x, 45, torch.tensor([400, 300]))[1:, :, :300], alone, atol=0, rtol=0)
    assert not torch.allclose(trend(x, 45, None)[1:, :, :300], alone)


@pytest.mark.parametrize("length", [1, 30, 80, 700])
def test_attention_reaches_to_the_start_of_the_window_before(length):
    torch.manual_seed(2)
    model, x = LocalTransformer(24, layers=2, heads=3, head_width=8, window=300).eval(), torch.randn(2, length, 24)
    distance = torch.arange(length)[:, None] - torch.arange(length)
    window = torch.arange(length) // 300
    hidden = (distance < 0) | (window[:, None] - window > 1)
    bias = model.bias(length)[:, distance.clamp(min=0)].masked_fill(hidden, -torch.inf)
    wanted = x
    for layer in model.layers:
        q, k, v = layer.qkv(layer.attention_norm(wanted)).unflatten(2, (3, 3, 8)).permute(2, 0, 3, 1, 4)
        seen = (q @ k.transpose(2, 3) / 8**0.5 + bias).softmax(3) @ v
        wanted = wanted + layer.out(seen.transpose(1, 2).flatten(2))
        value, gate = layer.up(layer.ffn_norm(wanted)).chunk(2, 2)
        wanted = wanted + layer.down(value * functional.gelu(gate))
    torch.testing.assert_close(model(x), wanted, atol=1e-5, rtol=1e-5)


def test_silence_has_codes():
    model = small("distill-neucodec")
    codes = model.encode(torch.zeros(1, 1, 16000), torch.tensor([16000]))
    assert codes.shape == (1, 1, 51)
    assert torch.isfinite(model.features(torch.zeros(1, 1, 1000))).all()


def test_every_weight_before_the_quantizer_learns():
    model = small("distill-neucodec").train()
    model.features(torch.randn(2, 1, 16000), torch.tensor([16000, 9000]))[1, :28].square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # shifting all keys, or all biases of a head's scores, changes no attention
    known = ("decoder.", "quantizer.", "key.bias", "bias.mlp.4.bias")
    assert [name for name in still if not any(part in name for part in known)] == []


def test_pieces_of_time_give_what_the_whole_gives():
    model, x = small("distill-neucodec"), torch.randn(1, 1, 320 * 40)
    whole = model.acoustic(x)  # with gradients nothing is cut
    with torch.no_grad():
        torch.testing.assert_close(model.acoustic(x), whole, atol=1e-5, rtol=1e-5)


def test_a_codec_and_its_speech_model_must_agree_on_the_hop():
    with pytest.raises(ValueError, match="strides whose product is 160"):
        Hubert(HubertConfig(), hop_length=160)


def test_moments_of_a_row_are_the_same_taken_alone_or_all_at_once():
    x, steps = torch.randn(3, 4, 50) + 5, torch.tensor([50, 7, 31])
    together = masked_moments(x, is_valid(steps, 50)[:, None], steps[:, None, None], (2,))
    for one, all_at_once in zip(row_moments(x, steps), together, strict=True):
        torch.testing.assert_close(one, all_at_once, rtol=1e-5, atol=1e-5)
    variance, mean = together
    assert torch.allclose(mean[1, :, 0], x[1, :, :7].mean(1)) and variance[1].shape == (4, 1)
