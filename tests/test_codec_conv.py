"""Convolutions of bfloat16 give the sums of what they multiply, whatever a library makes of them."""

import pytest
import torch

from codec.nn.conv import Conv1d, time_major

SHAPES = {  # in, out, width, stride, padding, groups
    "first": (1, 48, 7, 1, 3, 1),
    "few by four": (8, 16, 8, 4, 2, 1),
    "sixteen by four": (16, 32, 4, 4, 0, 1),
    "L3AC": (20, 80, 1, 1, 0, 1),
    "L3AC, strided": (32, 64, 4, 4, 0, 1),
    "L3AC, wide": (512, 512, 5, 5, 0, 1),
    "HuBERT": (512, 512, 3, 2, 0, 1),
    "HuBERT, first": (1, 512, 10, 5, 0, 1),
    "HuBERT, positions": (768, 768, 128, 1, 64, 16),
    "adapter": (1024, 1024, 3, 1, 1, 1),
    "w2v-BERT": (1024, 1024, 31, 1, 0, 1024),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("laid", (time_major, torch.Tensor.contiguous))
def test_sums_of_bfloat16_are_those_of_the_same_numbers_in_float32(shape, laid):
    channels, out, width, stride, padding, groups = SHAPES[shape]
    conv = Conv1d(channels, out, width, stride, padding, groups=groups)
    generator = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(conv.weight, std=(channels // groups * width) ** -0.5, generator=generator)
    conv = conv.to(torch.bfloat16)
    with torch.inference_mode():
        for length in (161, 400):
            x = laid(torch.randn(2, channels, length, generator=generator).to(torch.bfloat16))
            weight, bias = conv.weight.float(), conv.bias.float()
            wanted = torch.nn.functional.conv1d(x.float(), weight, bias, stride, padding, groups=groups)
            y = conv(x)
            torch.testing.assert_close(y.float(), wanted, atol=1e-2, rtol=2**-7)
            assert laid is not time_major or groups > 1 or y.stride(1) == 1, "goes out as it came in"
