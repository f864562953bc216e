"""What a GPU would refuse, or wait for, is found without one: encoding on a GPU that is not there."""

import pytest
import torch

import codec
from codec.nn import fbank
from codec.precision import computing, convert
from tests.codec_toys import small
from tests.pretend_gpu import pretended, put, put_model

RAGGED, EQUAL = (9_000, 320, 5_000), (7_000, 7_000)


@pytest.fixture(autouse=True)
def forget_constants():
    yield
    fbank.povey_window.cache_clear()
    fbank.mel_filters.cache_clear()


def built(name: str, precision: str):
    model = convert(codec.load(name) if name == "nano" else small(name), precision)
    model.precision = precision
    return model


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("name", ["neucodec", "distill-neucodec", "nano"])
def test_encoding_on_a_gpu_gives_the_codes_of_a_cpu_and_never_waits(name, precision):
    there = put_model(built(name, precision))
    here = built(name, precision)
    for lengths in (RAGGED, EQUAL, (12_345,)):
        waveforms = torch.randn(len(lengths), 1, max(lengths), generator=torch.Generator().manual_seed(0))
        with pretended() as gpu:
            there.encode(put(waveforms), torch.tensor(lengths))  # constants go to a GPU once, and that waits
            gpu.waits.clear()
            codes = there.encode(put(waveforms), torch.tensor(lengths))
            assert codes.device.type == "cuda" and codes.dtype == torch.int32
            assert not gpu.waits
            codes = codes.cpu()
        wanted = here.encode(waveforms, torch.tensor(lengths))
        assert codes.shape == wanted.shape
        if precision != "bfloat16":
            assert (codes == wanted).float().mean() > 0.99


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["neucodec", "nano"])
def test_decoding_on_a_gpu_gives_the_sound_of_a_cpu(name, precision):
    there, here = put_model(built(name, precision)), built(name, precision)
    codes, num_frames = torch.arange(3 * 20).view(3, 1, 20) * 1000, torch.tensor([20, 1, 13])
    wanted = here.decode(codes, num_frames)
    with pretended():
        sound = there.decode(put(codes), num_frames)
        assert sound.is_cuda and sound.dtype == torch.float32
        sound = sound.cpu()
    close = {"atol": 1e-4, "rtol": 1e-4} if precision == "float32" else {"atol": 0.1, "rtol": 0.1}
    torch.testing.assert_close(sound, wanted, **close)


def test_a_gpu_that_is_not_there_refuses_what_one_would():
    with pretended() as gpu:
        x = put(torch.ones(2, 3))
        with pytest.raises(RuntimeError, match="operands on the CPU"):
            x + torch.ones(2, 3)
        with pytest.raises(RuntimeError, match="not of one type"):
            torch.nn.functional.layer_norm(x.bfloat16(), (3,), put(torch.ones(3)))
        assert (x + torch.arange(3, device=x.device)).is_cuda and not gpu.waits
        assert x.sum().item() == 6 and gpu.waits == ["item"]


def test_attention_and_products_are_as_before_after_encoding():
    switches = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [switch.fp32_precision for switch in switches]
    with computing("tf32"):
        assert [switch.fp32_precision for switch in switches] == ["tf32", "tf32"]
        assert not torch.backends.cuda.cudnn_sdp_enabled()  # it would plan anew for every shape
    assert [switch.fp32_precision for switch in switches] == before and torch.backends.cuda.cudnn_sdp_enabled()
