"""Small codecs under the published names, and their weights as files."""

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import save_file

from codec import weights
from codec.layouts import to_reference
from tests.codec_toys import SMALL_DISTILL, SMALL_NEUCODEC, small

HUBERT, W2V_BERT = "distilhubert", "w2v-bert-2.0"


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    """The published names stand for small codecs here, and nothing is asked of the Hub."""
    for name, config in (("neucodec", SMALL_NEUCODEC), ("distill-neucodec", SMALL_DISTILL)):
        monkeypatch.setitem(weights.PUBLISHED, name, (config, f"neuphonic/{name}"))

    def no_network(repository, file, revision=None, local_files_only=False):
        raise errors.LocalEntryNotFoundError(f"no network for {repository}/{file}")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", no_network)


def published(name):
    """A small codec, and its weights in the published layout."""
    model = small(name)
    return model, to_reference(model.state_dict(), model.config)


def write(folder, state, upstream=None):
    """A published folder, with its speech model in a folder of its own where `upstream` names one."""
    folder.mkdir(parents=True, exist_ok=True)
    if upstream:
        (folder / upstream).mkdir()
        prefix = "semantic_model."
        own = {key.removeprefix(prefix): state[key].clone() for key in state if key.startswith(prefix)}
        save_file(own, folder / upstream / "model.safetensors")
        state = {key: tensor for key, tensor in state.items() if not key.startswith(prefix)}
    torch.save(state, folder / "pytorch_model.bin")
    return str(folder)


def assert_same(loaded, model, atol=0.0):
    wanted = model.state_dict()
    assert loaded.state_dict().keys() == wanted.keys()
    for name, tensor in loaded.state_dict().items():
        torch.testing.assert_close(tensor, wanted[name], atol=atol, rtol=atol)
    sound = 0.1 * torch.randn(1, 1, 6400, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.encode(sound, torch.tensor([6400])), model.encode(sound, torch.tensor([6400])))
