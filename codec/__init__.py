"""Waveform <-> codes. `load(name)` is the door; CODECS lists what can be loaded."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from codec.base import Codec

SHIPPED = Path(__file__).parent / "shipped"


def _load_null(device: str, weights: str | None, precision: str) -> Codec:
    from codec.null import NullCodec

    return NullCodec(device, pause=float(weights or 0.0))


def _load_published(name: str, device: str, weights: str | None, precision: str) -> Codec:
    from codec.weights import load_codec

    return load_codec(name, device, weights, precision)


def _load_shipped(name: str, device: str, weights: str | None, precision: str) -> Codec:
    from codec.weights import OWN_RECORD, WeightsError, load_codec

    if weights is None and not (SHIPPED / name / OWN_RECORD).is_file():
        raise WeightsError(
            f"no weights of {name!r} come with this version; train them with `neutok train --recipe {name}` and give "
            "its output's folder `codec` as `weights`"
        )
    return load_codec(name, device, weights or str(SHIPPED / name), precision)


CODECS: dict[str, Callable[[str, str | None, str], Codec]] = {
    "null": _load_null,
    "neucodec": partial(_load_published, "neucodec"),
    "distill-neucodec": partial(_load_published, "distill-neucodec"),
    **{name: partial(_load_published, name) for name in ("neucodec_16k", "upsample_24k", "distill")},  # own trainings
    "nano": partial(_load_shipped, "nano"),
    "nano_24k": partial(_load_shipped, "nano_24k"),
    "nano_distill": partial(_load_shipped, "nano_distill"),
}


def load(name: str, device: str = "cpu", weights: str | None = None, precision: str = "float32") -> Codec:
    """A codec, ready to encode and decode.

    Args: weights: a Hub id, a file, a folder, "seeded", or None for the codec's own, published or shipped with neutok
        (codec/weights.py). precision: "float32", "tf32", "bfloat16" or "bfloat16+compiled" (codec/precision.py).
    Raises: ValueError for an unknown name or precision, and for weights that cannot be had or do not fit.
    """
    if name not in CODECS:
        raise ValueError(f"unknown codec {name!r}; known: {', '.join(sorted(CODECS))}")
    return CODECS[name](device, weights, precision)
