"""The semantic encoder's layers, compiled: on a GPU the steps between their products become few passes over memory.

Asked for as a precision of its own, `bfloat16+compiled`: the compiler sums in another order, so codes near a boundary
may differ from `bfloat16`, and no output mixes the two. Convolutions and products stay the vendor's, and long batches
spend most of their time there: what is gained is memory traffic and, for short batches, the launching of kernels.
"""

import torch

from codec.neucodec import NeuCodec
from codec.precision import ON_GPU

SUFFIX = "+compiled"
# Samples of the rows of batches that are compiled for: rows of equal lengths go without masks, a single row is a case
# of its own, and of two lengths the compiler learns what varies.
KINDS = ((16_000, 8_000), (32_000, 9_000, 8_000), (16_000, 16_000), (32_000,) * 3, (16_000,), (32_000,))
MOST_KINDS = 32


def compile_layers(model: NeuCodec, backend: str = "inductor") -> NeuCodec:
    """Compile the layers in place, for batches of any shape, by encoding a few short ones of every kind.

    A codec without a semantic encoder is left as it is. Raises: ValueError where its layers cannot be compiled.
    """
    layers = getattr(model.semantic, "layers", ())
    # batches too large for 32-bit places and clips of one frame are kinds, too: torch's own limit would end a run
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_KINDS)
    for layer in layers:  # alike as they are, they share what is compiled
        # whole or not at all: what silently ran uncompiled would be another precision
        layer.compile(backend=backend, dynamic=True, fullgraph=True)
    if layers:
        model.semantic.compiled = True
        try:
            for lengths in KINDS:
                rows = torch.zeros(len(lengths), 1, max(lengths), device=model.device)
                model.encode(rows, torch.tensor(lengths))
        except Exception as error:  # of a compiler: anything
            said, use = first_line(error), ON_GPU.get(model.precision, model.precision)
            raise ValueError(f"cannot compile for {model.device}: {said}; use precision {use!r}") from error
    return model


def first_line(error: Exception) -> str:
    """What an error says, in a line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
