"""Our w2v-BERT 2.0 is that of transformers, also where clips are longer than the distances it tells apart."""

from dataclasses import replace

import pytest
import torch

from codec.config import W2VBertConfig
from codec.names import w2v_bert_modules
from codec.nn import w2v_bert
from codec.nn.native import library

SIZE = W2VBertConfig(width=32, layers=2, heads=4, ffn_width=48)
HOPS = (101, 30, 2)


@pytest.mark.oracle
@pytest.mark.parametrize("size", (SIZE, replace(SIZE, width=128, heads=2)), ids=("narrow heads", "heads of the kernel"))
def test_hidden_states_equal_those_of_transformers(monkeypatch, size):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    reference = transformers.Wav2Vec2BertModel(
        transformers.Wav2Vec2BertConfig(
            hidden_size=size.width,
            num_hidden_layers=3,  # one more than we keep
            num_attention_heads=size.heads,
            intermediate_size=48,
            apply_spec_augment=False,
            position_embeddings_type="relative_key",
        )
    ).eval()
    for parameter in reference.parameters():  # norms and biases, too, must matter
        parameter.data += 0.1 * torch.randn_like(parameter)
    model = w2v_bert.W2VBert(size)
    stored = {f"semantic_model.{name}": tensor for name, tensor in reference.state_dict().items()}
    modules = {ours.removeprefix("semantic."): theirs for ours, theirs, _ in w2v_bert_modules(size)}
    state = {}
    for name, parameter in model.state_dict().items():
        module, _, leaf = name.rpartition(".")
        state[name] = stored[f"{modules[module]}.{leaf}"].view(parameter.shape)
    model.load_state_dict(state)

    num_hops = torch.tensor(HOPS)
    features = torch.randn(len(HOPS), max(HOPS) - 1, 160)
    monkeypatch.setattr(w2v_bert, "fbank", lambda *_: features)
    mask = torch.arange(max(HOPS) - 1) < num_hops[:, None] - 1
    with torch.no_grad():
        wanted = reference(features, attention_mask=mask.long(), output_hidden_states=True).hidden_states[2]
        got = model(torch.zeros(len(HOPS), 1, 320), num_hops)
    torch.testing.assert_close(got[mask], wanted[mask], atol=2e-5, rtol=1e-5)


def test_attention_in_pieces_is_attention_at_once(monkeypatch):
    torch.manual_seed(0)
    attention = w2v_bert.Attention(SIZE)
    x, distances = torch.randn(2, 101, 32), w2v_bert.relative_positions(101, 64, 8, torch.device("cpu"))
    hidden = torch.arange(101) >= torch.tensor([101, 40])[:, None, None, None]
    whole = attention(x, distances, hidden)  # where something is learned
    monkeypatch.setattr(w2v_bert, "CACHED_BIASES", 7 * 2 * 4 * 101)
    with torch.inference_mode():
        torch.testing.assert_close(attention(x, distances, hidden), whole, atol=1e-6, rtol=1e-5)


@pytest.mark.skipif(library() is None, reason="no C++ compiler here")
def test_a_kernel_hears_long_clips_without_a_table_of_all_pairs_of_frames(monkeypatch):
    model = w2v_bert.W2VBert(replace(SIZE, width=128, heads=2)).eval()
    waveforms = torch.randn(1, 1, 320 * 40)
    with torch.no_grad():
        model.compiled = True  # the plain way
        wanted = model(waveforms)
        model.compiled = False
        monkeypatch.setattr(w2v_bert, "relative_positions", lambda *_: pytest.fail("of half an hour 65 GB"))
        torch.testing.assert_close(model(waveforms), wanted, atol=1e-5, rtol=1e-5)
