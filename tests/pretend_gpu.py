"""A GPU that is not there: tensors that say they lie on `cuda:0`, computed with on the CPU.

Inside `PretendGPU`, code takes the paths that it takes on a GPU, with real numbers, and what a GPU refuses is refused:
operands on two devices, and layer norms of two types. `waits` tells what made the host wait for the device.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from codec.nn import activations

GPU = torch.device("cuda:0")
HOST = {Tensor.cpu, Tensor.tolist, Tensor.item, Tensor.numpy, Tensor.__int__, Tensor.__float__, Tensor.__bool__}
HOST |= {Tensor.__index__, Tensor.nonzero, torch.nonzero, torch.equal, Tensor.__contains__}
MOVES = {Tensor.to, Tensor.cuda, Tensor.copy_, Tensor.__setitem__}


class OnGPU(Tensor):
    """Data on the CPU that says it lies on a GPU."""

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)


class PretendGPU(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        here = [each for each in tensors if not isinstance(each, OnGPU)]
        on_gpu = len(here) < len(tensors)
        if func in MOVES:
            return self.move(func, args, kwargs)
        if func is Tensor.pin_memory:
            return args[0]
        if func in HOST and on_gpu:
            self.waits.append(func.__name__)
        elif on_gpu and any(each.dim() for each in here):
            raise RuntimeError(f"{func.__name__}: operands on the CPU {[tuple(e.shape) for e in here]} and on a GPU")
        if func is nn.functional.layer_norm and len({each.dtype for each in tensors}) > 1:
            raise RuntimeError(f"layer_norm on a GPU: {[each.dtype for each in tensors]} are not of one type")
        asked = kwargs.pop("device", None)
        on_gpu = func is not Tensor.cpu and (on_gpu or (asked is not None and torch.device(asked).type == "cuda"))
        kwargs.pop("pin_memory", None)
        found = func(*tree_map_only(OnGPU, plain, args), **tree_map_only(OnGPU, plain, kwargs))
        return tree_map_only(Tensor, put if on_gpu else plain, found)

    def move(self, func, args, kwargs):
        """To another device, or another type: the first tensor, or what is named, says where to."""
        source = args[0]
        if func in (Tensor.copy_, Tensor.__setitem__):
            if isinstance(source, OnGPU) != isinstance(args[-1], OnGPU) and not kwargs.get("non_blocking"):
                self.waits.append(func.__name__)
            kwargs.pop("non_blocking", None)
            func(*tree_map_only(OnGPU, plain, args), **kwargs)
            return source
        asked = [each for each in (*args[1:], kwargs.pop("device", None)) if isinstance(each, (str, torch.device))]
        to_gpu = torch.device(asked[0]).type == "cuda" if asked else isinstance(source, OnGPU)
        to_gpu = to_gpu or func is Tensor.cuda
        if to_gpu != isinstance(source, OnGPU) and not kwargs.get("non_blocking"):
            self.waits.append("to")
        rest = [each for each in args[1:] if isinstance(each, torch.dtype)]
        kwargs.pop("non_blocking", None)
        return (put if to_gpu else plain)(plain(source).to(*rest, **kwargs))


def plain(x: Tensor) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return x.as_subclass(Tensor)


def put(x: Tensor) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return x.as_subclass(OnGPU)


def put_model(model: nn.Module) -> nn.Module:
    """A model whose weights lie on the GPU that is not there, in place."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = put(parameter.data)
        for name, buffer in module._buffers.items():
            module._buffers[name] = put(buffer)
    return model


@contextmanager
def pretended() -> Iterator[PretendGPU]:
    """A GPU whose fused activation is the plain form."""

    def kernel(x, alpha, inverse_beta, taps, num_valid):
        assert num_valid is None or (num_valid.is_cuda and num_valid.dtype == torch.int64)
        ends = None if num_valid is None else plain(num_valid)
        y = activations.plain_snake_beta(plain(x), plain(alpha).log(), -plain(inverse_beta).log(), ends)
        return put(y)

    with PretendGPU() as gpu, patch.object(activations, "fused_kernel", lambda x: kernel if x.is_cuda else None):
        yield gpu
