"""Weights to and from disk or the Hub, loaded strictly: the only door. `codec/layouts.py` knows what is inside them.

`weights` names them: a Hub id (`owner/name`, with `@revision` to pin it), a file, a folder, "seeded", or None for the
published ones. A folder holds our own codec.safetensors and codec.json (itself, or in its folder `codec`, as a training
run's output does), or a published pytorch_model.bin, or a model.safetensors of transformers. Where those lack the
speech model, its own published weights are taken from a folder `w2v-bert-2.0` or `distilhubert` inside that folder or
beside it, else from the Hub.
"""

import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from codec.compiled import SUFFIX, compile_layers, first_line
from codec.config import DISTILL_NEUCODEC, NEUCODEC, CodecConfig, HubertConfig, W2VBertConfig
from codec.layouts import (
    State,
    WeightsError,
    complain,
    from_reference,
    from_transformers,
    from_upstream,
    is_transformers,
)
from codec.neucodec import NeuCodec, build_semantic, unset
from codec.precision import convert, refuse_elsewhere
from codec.seeded import seed


class Unreachable(WeightsError):
    """A file that is not in the local cache, where the Hub cannot be asked for it."""


PUBLISHED: dict[str, tuple[CodecConfig, str]] = {
    "neucodec": (NEUCODEC, "neuphonic/neucodec"),
    "distill-neucodec": (DISTILL_NEUCODEC, "neuphonic/distill-neucodec"),
}
UPSTREAM: dict[type, str] = {W2VBertConfig: "facebook/w2v-bert-2.0", HubertConfig: "ntu-spml/distilhubert"}

OWN_TENSORS, OWN_RECORD = "codec.safetensors", "codec.json"
OWN_FOLDER = "codec"  # where a training run's output has them
OWN_FORMAT = 1
FOREIGN = ("pytorch_model.bin", "model.safetensors")
FOREIGN_UPSTREAM = ("model.safetensors", "pytorch_model.bin")
SUFFIXES = (".bin", ".safetensors", ".pt", ".pth", ".ckpt", ".json")  # what ends so is a file, not a Hub id


def load_codec(name: str, device: str = "cpu", weights: str | None = None, precision: str = "float32") -> NeuCodec:
    """A published codec, or one saved by `save`, ready to encode and decode.

    Raises: ValueError for an unknown name or precision, or one that the device has not; WeightsError (a ValueError)
        for weights that cannot be had, or do not fit: it says what to do.
    """
    convert(torch.nn.Module(), precision)  # an unknown precision is refused before gigabytes are read
    refuse_elsewhere(precision, device)
    if weights == "seeded":
        model = seed(unset(_published(name)[0], name))
        model.revision = fingerprint(model.state_dict(), model.config)
    else:
        model = _load(name, weights)
    model.precision = precision
    model = convert(model, precision).to(device).eval()
    return compile_layers(model) if precision.endswith(SUFFIX) else model


def save(model: NeuCodec, folder: str | Path, half: bool = False) -> None:
    """Write a float32 codec as codec.safetensors and codec.json, the record last. `load_codec` reads it back.

    Args: half: round the weights to float16, in the model too, and store them so: half the size, computed in float32.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if any(tensor.dtype != torch.float32 for tensor in state.values()):
        raise ValueError(f"a codec is saved in float32, this one is in {model.precision}; load it in float32 first")
    if half:
        state = {name: tensor.half() for name, tensor in state.items()}
        model.load_state_dict(state)
    model.revision = fingerprint(model.state_dict(), model.config)
    record = {"format": OWN_FORMAT, "config": model.config.to_json(), "spec": model.spec.to_json()}
    parts = folder / f"{OWN_TENSORS}.part", folder / f"{OWN_RECORD}.part"
    save_file(state, parts[0])
    parts[1].write_text(json.dumps(record, indent=2) + "\n")
    (folder / OWN_RECORD).unlink(missing_ok=True)  # no record may stand beside tensors that are not its own
    parts[0].replace(folder / OWN_TENSORS)
    parts[1].replace(folder / OWN_RECORD)


def fingerprint(state: Mapping[str, Tensor], config: CodecConfig) -> str:
    """The content hash of weights: what `CodecSpec.revision` says."""
    digest = hashlib.sha256(json.dumps(config.to_json(), sort_keys=True).encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _load(name: str, weights: str | None) -> NeuCodec:
    if weights is None:
        return _load_hub(name, _published(name)[1])
    path = Path(weights).expanduser()
    if path.is_dir():
        return _load_folder(name, path)
    if path.is_file():
        return _load_folder(name, path.parent) if path.name in (OWN_TENSORS, OWN_RECORD) else _load_file(name, path)
    if weights.count("/") == 1 and not weights.startswith((".", "/", "~")) and path.suffix not in SUFFIXES:
        return _load_hub(name, weights)
    raise WeightsError(
        f"no weights at {weights!r}: no such file or folder, nor a Hub id like 'owner/name', nor 'seeded'"
    )


def _load_folder(name: str, folder: Path) -> NeuCodec:
    for own in (folder, folder / OWN_FOLDER):
        if (own / OWN_RECORD).is_file():
            return _load_own(name, own / OWN_RECORD, own / OWN_TENSORS)
    for file in FOREIGN:
        if (folder / file).is_file():
            return _load_file(name, folder / file)
    raise WeightsError(f"{folder} holds no weights; wanted {OWN_RECORD} with {OWN_TENSORS}, or {' or '.join(FOREIGN)}")


def _load_hub(name: str, repository: str) -> NeuCodec:
    path = _fetch_first(repository, (OWN_RECORD, *FOREIGN))
    if path.name == OWN_RECORD:
        return _load_own(name, path, _fetch_first(repository, (OWN_TENSORS,)))
    return _load_file(name, path)


def _load_own(name: str, record: Path, tensors: Path) -> NeuCodec:
    try:
        fields = json.loads(record.read_text())
        found, wanted, version = fields["spec"]["name"], fields["spec"]["revision"], fields["format"]
        config = CodecConfig.from_json(fields["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{record} is no record of a codec: {error}") from error
    if version != OWN_FORMAT:
        raise WeightsError(f"{record} has format {version}, this version reads {OWN_FORMAT}")
    if found != name:
        raise WeightsError(f"{record.parent} holds the codec {found!r}, wanted {name!r}; ask for it by its name")
    state = read_state(tensors)
    model = unset(config, name)
    own = model.state_dict()
    complain(
        [key for key in own if key not in state],
        [key for key in state if key not in own],
        [key for key in own if key in state and own[key].shape != state[key].shape],
    )
    model.load_state_dict(state)
    model.revision = fingerprint(model.state_dict(), config)
    if model.revision != wanted:
        raise WeightsError(f"{tensors} is not what was saved: its hash is {model.revision}, the record says {wanted}")
    return model


def _load_file(name: str, path: Path) -> NeuCodec:
    config = _published(name)[0]
    state = read_state(path)
    if is_transformers(state):
        if name != "neucodec":
            raise WeightsError(
                f"{path} is NeuCodec in transformers' layout, wanted {name!r}; give its pytorch_model.bin"
            )
        state = from_transformers(state, config)
    if not any(key.startswith("semantic_model.") for key in state):
        state |= from_upstream(read_state(_upstream_file(config, path.parent)))
    model = unset(config, name)
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    try:
        model.load_state_dict(from_reference(state, config, shapes))
    except WeightsError as error:
        raise WeightsError(f"{path} is not {name!r}: {error}") from error
    model.revision = fingerprint(model.state_dict(), config)
    return model


def load_speech_model(config: CodecConfig, folder: str | None = None) -> State:
    """The parameters of the speech model in `config`, by our names ("semantic...."), out of its own published weights.

    Args: folder: holds `w2v-bert-2.0` or `distilhubert`, or is it; None: the Hub. Raises: WeightsError.
    """
    with torch.device("meta"):
        semantic = build_semantic(config)
    shapes = {f"semantic.{name}": tensor.shape for name, tensor in semantic.state_dict().items()}
    path = _fetch_first(UPSTREAM[type(config.semantic)], FOREIGN_UPSTREAM) if folder is None else None
    path = path or _upstream_file(config, Path(folder).expanduser())
    return from_reference(from_upstream(read_state(path)), config, shapes)


def _upstream_file(config: CodecConfig, folder: Path) -> Path:
    repository = UPSTREAM[type(config.semantic)]
    local = repository.split("/")[1]
    for place in (folder / local, folder.parent / local):
        for file in FOREIGN_UPSTREAM:
            if (place / file).is_file():
                return place / file
    return _fetch_first(repository, FOREIGN_UPSTREAM)


def read_state(path: Path) -> State:
    """The tensors of a .safetensors file or of a pickled state dict, which may run no code.

    Raises: WeightsError for anything else.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=_can_map(path))
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise WeightsError(f"cannot read weights from {path}: {first_line(error)}") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path} is no state dict: wanted names and tensors alone, or these under 'state_dict'")
    return content


def _can_map(path: Path) -> bool:
    """Whether torch may read the file lazily: only its zip form allows it."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _fetch_first(repository: str, files: tuple[str, ...]) -> Path:
    """The first of `files` that a Hub repository has. Raises: WeightsError."""
    unreachable = None
    for file in files:
        try:
            if path := _fetch(repository, file, cached=unreachable is not None):
                return path
        except Unreachable as error:  # without a network, a later one may still lie in the cache
            unreachable = unreachable or error
    raise unreachable or WeightsError(f"{repository} holds no weights; wanted {' or '.join(files)}")


def _fetch(repository: str, file: str, cached: bool = False) -> Path | None:
    """A file of a Hub repository (`owner/name` or `owner/name@revision`), or None where it has no such file.

    `cached` asks the local cache alone. Raises: WeightsError that says what to do.
    """
    from huggingface_hub import errors, hf_hub_download

    repository, _, revision = repository.partition("@")
    page = f"https://huggingface.co/{repository}"
    local = "; or give a local copy as `weights`"
    try:
        return Path(hf_hub_download(repository, file, revision=revision or None, local_files_only=cached))
    except errors.GatedRepoError as error:
        raise WeightsError(
            f"{repository} is gated: sign in at {page} and accept its conditions, then run `hf auth login` or set "
            f"HF_TOKEN to a token of that account{local}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(f"{repository} has no revision {revision!r}; its revisions are at {page}/commits") from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(
            f"{repository} does not exist or is private: check {page}; for a private one run `hf auth login` or set "
            f"HF_TOKEN to a token that may read it{local}"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise Unreachable(
            f"the weights of {repository} are not in the local cache and {_why_offline()}; fetch them where there is "
            f"a network with `hf download {repository}`{local}"
        ) from error
    except errors.EntryNotFoundError:
        return None
    except (errors.HFValidationError, errors.HfHubHTTPError, OSError) as error:
        raise WeightsError(f"cannot get {file} of {repository}: {first_line(error)}{local}") from error


def _why_offline() -> str:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE forbids to fetch it"
    return "the Hub cannot be reached"


def _published(name: str) -> tuple[CodecConfig, str]:
    if name not in PUBLISHED:
        raise ValueError(f"no published codec {name!r}; published: {', '.join(PUBLISHED)}")
    return PUBLISHED[name]
