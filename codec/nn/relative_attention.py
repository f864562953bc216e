"""Self-attention whose scores also depend on the clipped distance between query and key (Shaw et al. 2018), on a CPU.

What is here calls `relative_attention.cpp`, or for bfloat16 `relative_attention_tiles.cpp`; the definition is
`Attention` in w2v_bert.py.
"""

import torch
from torch import Tensor

from codec.nn import native, tiles
from codec.nn.conv import on_cpu_for_good

ENTRIES = {torch.float32: "relative_attention", torch.bfloat16: "relative_attention_tiles"}
HEAD = 64  # channels of a head, as the kernel knows them


def takes(query: Tensor, heads: int) -> bool:
    """Whether the kernel can take queries [B, F, C] of so many heads."""
    fits = query.shape[2] == heads * HEAD and on_cpu_for_good(query) and native.available()
    return fits and (query.dtype == torch.float32 or (query.dtype == torch.bfloat16 and tiles.ready()))


def relative_attention(
    query: Tensor, key: Tensor, value: Tensor, distance: Tensor, right: int, num_valid: Tensor | None
) -> Tensor:
    """softmax((q . k + q . d) / 8) v, where d is that of the distance from query to key.

    Args: query, key, value: float32 or bfloat16 [B, F, heads x 64]. distance: [left + 1 + right, 64], of distances
        -left to right; farther ones count as these. num_valid: int64 [B], each row's own keys; None: all of F.
    Returns: like query. Raises: RuntimeError where the kernel is not built (ask `takes` first).
    """
    batch, length, channels = query.shape
    valid = torch.full((batch,), length, device="cpu") if num_valid is None else num_valid.contiguous()
    threads = native.threads_for(query.numel())
    y = torch.empty_like(query)
    name = ENTRIES[query.dtype]
    scratch = native.scratch(name, threads, length, len(distance))
    given = (part.contiguous() for part in (query, key, value, distance.to(query.dtype)))
    sizes = (batch, length, channels // HEAD, len(distance) - 1 - right, right, threads)
    native.call(name, *given, y, valid, scratch, *sizes)
    return y
