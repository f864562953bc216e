"""How exactly a codec computes, asked for by name.

float32 is the definition: strict on every device. tf32 is for a GPU: it rounds the inputs of its products. bfloat16
stores the weights of linear and convolution layers so. Norms, softmax, activations, mel features and quantizer stay
in float32 in all of them. bfloat16+compiled is for a GPU: the semantic layers go through a compiler (compiled.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from codec.nn.conv import Conv1d
from codec.nn.linear import Linear

DEFINITION = "float32"
PRECISIONS = (DEFINITION, "tf32", "bfloat16", "bfloat16+compiled")
ON_GPU = {"tf32": DEFINITION, "bfloat16+compiled": "bfloat16"}  # and nowhere else; there: what comes nearest


def convert(model: nn.Module, precision: str) -> nn.Module:
    """Store the layers that hold nearly all weights as `precision` computes them, in place. Raises: ValueError."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    if precision.startswith("bfloat16"):
        for module in model.modules():
            if isinstance(module, (Linear, Conv1d)):
                module.to(torch.bfloat16)
    return model


def refuse_elsewhere(precision: str, device: str) -> None:
    """Raises: ValueError for a GPU's precision on anything else: it would compute as another, under a wrong name."""
    if precision in ON_GPU and torch.device(device).type != "cuda":
        raise ValueError(f"precision {precision!r} is for a GPU, got device {device!r}; use {ON_GPU[precision]!r}")


@contextmanager
def computing(precision: str) -> Iterator[None]:
    """Set torch's switches for float32 products and for attention, and put them back."""
    mode = "tf32" if precision == "tf32" else "ieee"
    switches = [torch.backends.cuda.matmul, torch.backends.cudnn.conv]
    before = [switch.fp32_precision for switch in switches]
    planned = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        for switch in switches:
            switch.fp32_precision = mode
        # cuDNN's attention, which torch prefers on some GPUs, plans anew for every shape: 20 ms and more, each batch
        torch.backends.cuda.enable_cudnn_sdp(False)
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value
        torch.backends.cuda.enable_cudnn_sdp(planned)
