"""Our parameter names, and the names the published checkpoints store the same numbers under.

One table, built from the configuration, serves the loader and the seeded fill rule. A reference tensor is stored
whole, or as a weight norm: a direction `v` and, along one axis, a length `g` of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

# (our module, reference module, axis of the weight norm or None, old or new style of its two names)


@dataclass(frozen=True, slots=True)
class Reference:
    """Where one of our parameters lies in a reference checkpoint."""

    name: str  # stored whole
    direction: str | None = None  # or as a weight norm: v ...
    length: str | None = None  # ... and g
    axis: int = 0  # the axis that g runs along


def reference_names(config: "CodecConfig") -> dict[str, Reference]:  # noqa: F821
    """Every parameter of `NeuCodec(config)` by our name."""
    ...


def bigcodec_modules() -> Iterator[tuple[str, str]]: ...
