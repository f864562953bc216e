"""Compiled layers: the same codes, whatever the batch, where they can be had; a clear refusal where not."""

import pytest
import torch
from codec_toys import small

import codec
from codec.compiled import compile_layers
from codec.precision import convert

BATCHES = ((9_000, 320, 5_000), (7_000, 7_000), (12_345,), (20_000, 16_000), (320,), (320, 320))


@pytest.fixture(autouse=True)
def forget():
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(("name", "precision"), [("neucodec", "bfloat16"), ("distill-neucodec", "float32")])
def test_compiled_layers_give_the_codes_of_plain_ones(name, precision):
    plain, compiled = convert(small(name), precision), convert(small(name), precision)
    traced = []

    def backend(graph, inputs):
        traced.append(graph)
        return graph.forward

    compile_layers(compiled, backend)
    known = len(traced)
    assert 3 <= known <= 8
    for lengths in BATCHES:
        waveforms = torch.randn(len(lengths), 1, max(lengths), generator=torch.Generator().manual_seed(0))
        codes = [model.encode(waveforms, torch.tensor(lengths)) for model in (plain, compiled)]
        assert torch.equal(*codes)
    # nothing is compiled amid a run, but for clips of a single frame
    assert len(traced) - known <= 2


def test_layers_that_do_not_compile_are_told_of():
    def backend(graph, inputs):
        raise RuntimeError("no compiler here")

    with pytest.raises(ValueError, match=r"cannot compile for cpu: .*; use precision 'float32'"):
        compile_layers(small("neucodec"), backend)


def test_a_processor_is_refused_before_anything_is_read():
    with pytest.raises(ValueError, match=r"'bfloat16\+compiled' is for a GPU, got device 'cpu'; use 'bfloat16'"):
        codec.load("neucodec", "cpu", "/nowhere", "bfloat16+compiled")
