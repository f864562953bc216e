"""Where weights are looked for: a file, a folder, the Hub and its cache; and what is said where they are not."""

from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

import codec
from codec.layouts import WeightsError
from codec.weights import load_codec, save
from tests.codec_toys import small
from tests.weights_toys import HUBERT, assert_same, published, small_sizes, write  # noqa: F401 (a fixture)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A pretended Hub: {repository: folder or exception}. Returns it, and the list of what was asked for."""
    repositories, asked = {}, []

    def download(repository, file, revision=None, local_files_only=False):
        asked.append((repository, file, revision))
        held = repositories[repository]
        if isinstance(held, Exception):
            raise held
        if not (held / file).is_file():
            raise errors.EntryNotFoundError(file)
        return str(held / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return repositories, asked


def refusal(kind):
    return kind("403", response=SimpleNamespace(headers={}, request=None))


def test_without_weights_the_published_repositories_are_asked(hub, tmp_path):
    repositories, asked = hub
    model, state = published("distill-neucodec")
    folder = Path(write(tmp_path, state, HUBERT))
    repositories |= {"neuphonic/distill-neucodec": folder, "ntu-spml/distilhubert": folder / HUBERT}
    (folder / HUBERT).rename(tmp_path / "elsewhere")
    repositories["ntu-spml/distilhubert"] = tmp_path / "elsewhere"
    assert_same(load_codec("distill-neucodec"), model, atol=1e-6)
    assert {repository for repository, _, _ in asked} == set(repositories)


def test_a_hub_id_may_name_a_revision_and_hold_our_own_files(hub, tmp_path):
    repositories, asked = hub
    model = small("neucodec")
    save(model, tmp_path)
    repositories["someone/tuned"] = tmp_path
    assert_same(load_codec("neucodec", weights="someone/tuned@abc123"), model)
    assert asked == [("someone/tuned", "codec.json", "abc123"), ("someone/tuned", "codec.safetensors", "abc123")]


def test_a_gated_repository_says_what_to_request_and_where(hub):
    hub[0]["neuphonic/neucodec"] = refusal(errors.GatedRepoError)
    with pytest.raises(WeightsError) as caught:
        load_codec("neucodec")
    text = str(caught.value)
    assert text.startswith(
        "neuphonic/neucodec is gated: sign in at https://huggingface.co/neuphonic/neucodec and accept"
    )
    assert "hf auth login" in text and "HF_TOKEN" in text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (refusal(errors.RepositoryNotFoundError), "someone/none does not exist or is private: check https://hugg"),
        (refusal(errors.RevisionNotFoundError), "someone/none has no revision 'v9'"),
        (errors.LocalEntryNotFoundError("offline"), "not in the local cache and the Hub cannot be reached"),
        (refusal(errors.HfHubHTTPError), "cannot get codec.json of someone/none: 403"),
    ],
)
def test_a_repository_that_cannot_be_read_says_why(hub, error, words):
    hub[0]["someone/none"] = error
    with pytest.raises(WeightsError) as caught:
        load_codec("neucodec", weights="someone/none@v9")
    assert words in str(caught.value)


def test_without_a_network_the_cache_is_enough(monkeypatch, tmp_path):
    model, state = published("neucodec")
    folder = Path(write(tmp_path, state))

    def download(repository, file, revision=None, local_files_only=False):
        if file == "pytorch_model.bin":
            return str(folder / file)
        raise errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert_same(load_codec("neucodec"), model, atol=1e-6)


def test_a_missing_speech_model_is_named(hub, tmp_path):
    hub[0]["facebook/w2v-bert-2.0"] = errors.LocalEntryNotFoundError("offline")
    _, state = published("neucodec")
    folder = write(tmp_path, {k: v for k, v in state.items() if not k.startswith("semantic_model.")})
    with pytest.raises(WeightsError, match=r"weights of facebook/w2v-bert-2\.0 are not in the local cache"):
        load_codec("neucodec", weights=folder)


@pytest.mark.parametrize("given", ["no/such/file.bin", "./nowhere", "/nowhere", "nowhere", "a/b.safetensors"])
def test_weights_that_are_nowhere_are_refused(given):
    with pytest.raises(WeightsError, match="no such file or folder, nor a Hub id"):
        load_codec("neucodec", weights=given)


def test_a_folder_without_weights_is_refused(hub, tmp_path):
    hub[0]["someone/empty"] = tmp_path
    for given in (str(tmp_path), "someone/empty"):
        with pytest.raises(WeightsError, match="holds no weights; wanted"):
            load_codec("neucodec", weights=given)


def test_the_door_refuses_unknown_names_and_precisions():
    with pytest.raises(ValueError, match=r"unknown codec 'neucodex'; known: .*distill-neucodec"):
        codec.load("neucodex")
    with pytest.raises(ValueError, match="unknown precision 'float16'"):
        codec.load("neucodec", precision="float16")


def test_seeded_weights_say_that_they_mean_nothing():
    with pytest.warns(UserWarning, match="the codes of this model mean nothing"):
        model = codec.load("distill-neucodec", weights="seeded")
    assert_same(model, small("distill-neucodec"))
    assert model.spec.revision and not model.training
