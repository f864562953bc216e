"""Weights out of a fixed rule, for tests, speed and demonstrations without the published ones: codes mean nothing.

Each tensor is drawn from a generator seeded by its reference name, so any implementation can make the same model.
"""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from math import prod, sqrt
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from codec.names import Reference, reference_names
from codec.neucodec import NeuCodec

CAN_BE = ("neucodec", "distill-neucodec", "neucodec_16k", "upsample_24k", "distill")  # what has their encoders


def seed(model: NeuCodec, part: str = "") -> NeuCodec:
    """Fill every parameter whose name begins with `part` in place by the rule, and warn.

    Raises: ValueError for a codec with a module that no published checkpoint has: the rule knows no name for it.
    """
    parameters = {name: each for name, each in model.named_parameters() if name.startswith(part)}
    try:
        references = reference_names(model.config, parameters)
    except KeyError as error:
        raise ValueError(
            f"no seeded weights for {model.name!r}: no published checkpoint has its {error.args[0]}; seeded can be "
            f"{', '.join(CAN_BE)}"
        ) from error
    warnings.warn("seeded weights: the codes of this model mean nothing, they only test and measure", stacklevel=2)

    def set_one(name: str) -> None:
        with torch.no_grad():
            parameters[name].copy_(_tensor(references[name], tuple(parameters[name].shape)))

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as threads:  # each tensor has a generator of its own
        list(threads.map(set_one, parameters))
    return model


def _tensor(reference: Reference, shape: tuple[int, ...]) -> Tensor:
    if reference.norm is None:
        return fill(reference.key, shape)
    across = [size if axis == reference.norm.axis else 1 for axis, size in enumerate(shape)]
    return fuse_weight_norm(
        fill(reference.length_key, tuple(across)), fill(reference.direction_key, shape), reference.norm.axis
    )


def fuse_weight_norm(length: Tensor, direction: Tensor, axis: int) -> Tensor:
    """One weight of its two stored halves, in float32, by the operation that unfused layers call: the same bits."""
    return torch._weight_norm(direction.float().contiguous(), length.float().contiguous(), axis)


def fill(name: str, shape: tuple[int, ...]) -> Tensor:
    """The float32 tensor that the rule gives a reference name."""
    r = np.random.RandomState(crc32(name.encode())).standard_normal(prod(shape))
    leaf = name.rpartition(".")[2]
    if leaf in ("weight_g", "original0"):
        values = (1 + 0.1 * r) / (64 if name == "CodecEnc.conv_final_block.1.weight_g" else 1)
    elif leaf == "gamma" or (leaf == "beta" and ".grn." in name):
        values = 0.1 * r
    elif leaf == "alpha" and len(shape) == 3:
        values = 1 + 0.1 * r
    elif leaf in ("alpha", "beta"):
        values = 0.1 * r
    elif len(shape) >= 2:
        values = r / sqrt(prod(shape[1:]))
    elif leaf == "weight":
        values = 1 + 0.05 * r
    else:
        values = 0.02 * r
    return torch.from_numpy(values.astype(np.float32)).view(shape)
