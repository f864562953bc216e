"""Anti-aliased SnakeBeta on a CPU in one pass over memory: calls `snake.cpp`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from codec.nn import native

ENTRIES = {torch.float32: "snake_float32", torch.bfloat16: "snake_bfloat16"}


def snake_cpu(
    x: Tensor, alpha: Tensor, inverse_beta: Tensor, taps: Sequence[float], num_valid: Tensor | None
) -> Tensor:
    """Up-sample, snake, down-sample; each row ends at its own last sample and is zero beyond.

    Args: x: float32 or bfloat16 [B, C, T]; fastest where the channels of one time lie side by side (`time_major` in
        conv.py). alpha, inverse_beta: float32 [C], linear scale. taps: the 12 of the filter. num_valid: int64 [B],
        default T for every row.
    Returns: like x, time-major. Raises: RuntimeError where the kernel is not built (ask `native.library()` first).
    """
    shape = x.shape
    x = x.transpose(1, 2).contiguous()
    y = torch.empty_like(x)
    snake = shaped(x, alpha, inverse_beta, taps, num_valid)
    native.call(ENTRIES[x.dtype], x, y, *snake, *shape, native.threads_for(x.numel()))
    return y.transpose(1, 2)


def shaped(
    x: Tensor, alpha: Tensor, inverse_beta: Tensor, taps: Sequence[float], num_valid: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The parameters of a snake and the rows' lengths, x being [B, T, C], as the kernels read them."""
    if num_valid is None:
        num_valid = torch.full((len(x),), x.shape[1], device="cpu")
    valid = num_valid.to(torch.int64).contiguous()
    filter_taps = torch.tensor(taps, dtype=torch.float32, device="cpu")
    return alpha.float().contiguous(), inverse_beta.float().contiguous(), filter_taps, valid
