"""Compiled layers: the same codes, whatever the batch, where they can be had; a clear refusal where not."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import codec
from codec.compiled import compile_layers
from codec.nn import conv, linear, tiles, w2v_bert
from codec.precision import convert
from tests.codec_toys import small

BATCHES = ((9_000, 320, 5_000), (7_000, 7_000), (12_345,), (20_000, 16_000), (320,), (320, 320))


@pytest.fixture(autouse=True)
def forget():
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(("name", "precision"), [("neucodec", "bfloat16"), ("distill-neucodec", "float32")])
def test_compiled_layers_give_the_codes_of_plain_ones(name, precision, monkeypatch):
    monkeypatch.setattr(tiles, "ready", lambda: False)  # a GPU has none, and compiled layers do not go by them
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


def test_on_a_gpu_lengths_of_every_remainder_share_what_is_compiled(monkeypatch):
    """There, attention looks whether each row of its biases begins at a multiple of 8: no length may make it differ."""

    def attention(query, key, value, attn_mask):
        if any(stride % 8 for stride in attn_mask.stride()[:-1]):
            attn_mask = attn_mask + 0.0
        return scaled_dot_product_attention(query, key, value, attn_mask)

    monkeypatch.setattr(w2v_bert, "scaled_dot_product_attention", attention)
    for module in (w2v_bert, conv, linear):
        monkeypatch.setattr(module, "on_cpu_for_good", lambda x: False)
    traced = []

    def backend(graph, inputs):
        traced.append(graph)
        return graph.forward

    model = compile_layers(convert(small("neucodec"), "bfloat16"), backend)
    known = len(traced)
    for frames in (*range(48, 57), 333):
        for lengths in ((320 * frames,), (320 * frames,) * 2, (320 * frames, 9_000, 4_000)):
            model.encode(torch.zeros(len(lengths), 1, lengths[0]), torch.tensor(lengths))
    assert len(traced) == known <= 4


def test_layers_that_do_not_compile_are_told_of():
    def backend(graph, inputs):
        raise RuntimeError("no compiler here")

    with pytest.raises(ValueError, match=r"cannot compile for cpu: .*; use precision 'float32'"):
        compile_layers(small("neucodec"), backend)


def test_a_processor_is_refused_before_anything_is_read():
    with pytest.raises(ValueError, match=r"'bfloat16\+compiled' is for a GPU, got device 'cpu'; use 'bfloat16'"):
        codec.load("neucodec", "cpu", "/nowhere", "bfloat16+compiled")
    with pytest.raises(ValueError, match=r"'tf32' is for a GPU, got device 'cpu'; use 'float32'"):
        codec.load("neucodec", "cpu", "/nowhere", "tf32")
