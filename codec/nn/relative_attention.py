"""Self-attention whose scores also depend on the clipped distance between query and key (Shaw et al. 2018), on a CPU.

What is here calls `relative_attention.cpp`; the definition is `Attention` in w2v_bert.py.
"""

import torch
from torch import Tensor

from codec.nn import native
from codec.nn.conv import on_cpu_for_good

HEAD = 64  # channels of a head, as the kernel knows them


def takes(query: Tensor, heads: int) -> bool:
    """Whether the kernel can take queries [B, F, C] of so many heads."""
    fits = query.dtype == torch.float32 and query.shape[2] == heads * HEAD
    return fits and on_cpu_for_good(query) and native.available()


def relative_attention(
    query: Tensor, key: Tensor, value: Tensor, distance: Tensor, right: int, num_valid: Tensor | None
) -> Tensor:
    """softmax((q . k + q . d) / 8) v, where d is that of the distance from query to key.

    Args: query, key, value: float32 [B, F, heads x 64]. distance: float32 [left + 1 + right, 64], of distances -left to
        right; farther ones count as these. num_valid: int64 [B], each row's own keys; None: all of F.
    Returns: [B, F, heads x 64]. Raises: RuntimeError where the kernel is not built (ask `takes` first).
    """
    batch, length, channels = query.shape
    valid = torch.full((batch,), length) if num_valid is None else num_valid.contiguous()
    threads = native.threads_for(query.numel())
    y = torch.empty_like(query)
    scratch = native.scratch("relative_attention", threads, length, len(distance))
    given = (part.contiguous() for part in (query, key, value, distance))
    sizes = (batch, length, channels // HEAD, len(distance) - 1 - right, right, threads)
    native.call("relative_attention", *given, y, valid, scratch, *sizes)
    return y
