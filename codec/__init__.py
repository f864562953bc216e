"""Waveform <-> codes. `load(name)` is the door; CODECS lists what can be loaded."""

from collections.abc import Callable

from codec.base import Codec


def _load_null(device: str, weights: str | None, precision: str) -> Codec:
    from codec.null import NullCodec

    return NullCodec(device)


CODECS: dict[str, Callable[[str, str | None, str], Codec]] = {
    "null": _load_null,
}


def load(name: str, device: str = "cpu", weights: str | None = None, precision: str = "float32") -> Codec:
    """A codec, ready to encode and decode. Raises: ValueError for an unknown name."""
    if name not in CODECS:
        raise ValueError(f"unknown codec {name!r}; known: {', '.join(sorted(CODECS))}")
    return CODECS[name](device, weights, precision)
