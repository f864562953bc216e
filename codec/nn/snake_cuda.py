"""Anti-aliased SnakeBeta on a GPU in one pass over memory, as a Triton kernel.

Each thread owns SPAN neighbouring samples: it reads them once, computes the doubled rate in registers with the few
samples of context on both sides, and writes once. The definition is the plain form in activations.py.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

SPAN = 16  # samples a thread writes; a power of two, and the shapes below say four bits of it
FEWEST, MOST = 32, 128  # threads of a block: a short row fills no large one


@triton.jit
def _snake(u, alpha, inverse_beta):
    # sin^2 has the period pi: reduce in two steps, then an odd polynomial on [-pi/2, pi/2]
    turns = tl.floor(u * alpha * 0.318309886 + 0.5)
    r = u * alpha - turns * 3.140625
    r = r - turns * 9.67653589793e-4
    q = r * r
    p = ((-2.50521084e-8 * q + 2.75573192e-6) * q - 1.98412698e-4) * q + 8.33333333e-3
    s = r + r * q * (p * q - 1.66666667e-1)
    return u + s * s * inverse_beta


@triton.jit
def _pick(row, position, last):
    # sample `position` of a row; before its first and after its last sample a row repeats them
    return tl.load(row + tl.minimum(tl.maximum(position, 0), last)).to(tl.float32)


@triton.jit
def _snake_kernel(
    x_pointer,
    y_pointer,
    alpha_pointer,
    inverse_beta_pointer,
    valid_pointer,
    channels,
    length,
    f0: tl.constexpr,
    f1: tl.constexpr,
    f2: tl.constexpr,
    f3: tl.constexpr,
    f4: tl.constexpr,
    f5: tl.constexpr,  # the filter is symmetric: taps 6 to 11 mirror these
    SPAN: tl.constexpr,
    THREADS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    last = tl.load(valid_pointer + row // channels).to(tl.int32) - 1
    alpha = tl.load(alpha_pointer + row % channels)
    inverse_beta = tl.load(inverse_beta_pointer + row % channels)
    x_row = x_pointer + row * length
    start = (tl.program_id(1) * THREADS + tl.arange(0, THREADS)) * SPAN

    # one wide load, then each thread takes its SPAN neighbours apart (bits of the position, highest first)
    samples = (start[:, None] + tl.arange(0, SPAN)[None, :]).reshape(THREADS, 2, 2, 2, 2)
    block = tl.permute(_pick(x_row, samples, last), 0, 4, 3, 2, 1)
    parts = (block,)
    for _ in tl.static_range(4):
        halves = ()
        for i in tl.static_range(len(parts)):
            low, high = tl.split(parts[i])
            halves = halves + (low, high)
        parts = halves
    x = ()
    for i in tl.static_range(-6, 0):
        x = x + (_pick(x_row, start + i, last),)
    x = x + parts
    for i in tl.static_range(SPAN, SPAN + 6):
        x = x + (_pick(x_row, start + i, last),)

    # the doubled rate: `even` at 2s, `odd` at 2s + 1, for s = start - 3 … start + SPAN + 2; x[s] is x[j + 3]
    x0 = _pick(x_row, 0, last)
    head = f1 * _pick(x_row, 2, last) + f3 * _pick(x_row, 1, last) + (f5 + f4 + f2 + f0) * x0
    head = _snake(2 * head, alpha, inverse_beta)
    tail = tl.zeros([THREADS], tl.float32)
    even = ()
    odd = ()
    for j in tl.static_range(SPAN + 6):
        a = f1 * x[j + 5] + f3 * x[j + 4] + f5 * x[j + 3] + f4 * x[j + 2] + f2 * x[j + 1] + f0 * x[j]
        b = f0 * x[j + 6] + f2 * x[j + 5] + f4 * x[j + 4] + f5 * x[j + 3] + f3 * x[j + 2] + f1 * x[j + 1]
        a = _snake(2 * a, alpha, inverse_beta)
        b = _snake(2 * b, alpha, inverse_beta)
        inside = start + (j - 3) <= last
        a = tl.where(inside, a, tail)  # past its last sample a row repeats it, at the doubled rate too
        b = tl.where(inside, b, tail)
        tail = b
        if j < 3:  # and before its first
            a = tl.where(start + (j - 3) < 0, head, a)
            b = tl.where(start + (j - 3) < 0, head, b)
        even = even + (a,)
        odd = odd + (b,)

    z = ()
    for j in tl.static_range(SPAN):
        a = (
            f1 * even[j + 1]
            + f3 * even[j + 2]
            + f5 * even[j + 3]
            + f4 * even[j + 4]
            + f2 * even[j + 5]
            + f0 * even[j + 6]
        )
        b = f0 * odd[j] + f2 * odd[j + 1] + f4 * odd[j + 2] + f5 * odd[j + 3] + f3 * odd[j + 4] + f1 * odd[j + 5]
        z = z + (tl.where(start + j <= last, a + b, 0.0),)
    for _ in tl.static_range(4):
        joined = ()
        for i in tl.static_range(len(z) // 2):
            joined = joined + (tl.join(z[i], z[i + len(z) // 2]),)
        z = joined
    tl.store(y_pointer + row * length + samples, z[0].to(y_pointer.dtype.element_ty), mask=samples < length)


def snake_cuda(
    x: Tensor, alpha: Tensor, inverse_beta: Tensor, taps: Sequence[float], num_valid: Tensor | None
) -> Tensor:
    """Up-sample, snake, down-sample; each row ends at its own last sample and is zero beyond.

    Args: x: float32, float16 or bfloat16 [B, C, T]. alpha, inverse_beta: float32 [C], linear scale. taps: the 12 of
        the filter, symmetric. num_valid: int64 [B], default T for every row.
    Returns: like x.
    """
    batch, channels, length = x.shape
    x = x.contiguous()
    y = torch.empty_like(x)
    valid = torch.full((batch,), length, device=x.device) if num_valid is None else num_valid.to(x.device, torch.int64)
    threads = min(max(triton.next_power_of_2(triton.cdiv(length, SPAN)), FEWEST), MOST)
    grid = (batch * channels, triton.cdiv(length, SPAN * threads))
    with torch.cuda.device_of(x):  # Triton launches on the current device, whichever holds its arguments
        _snake_kernel[grid](
            x,
            y,
            alpha.float(),
            inverse_beta.float(),
            valid,
            channels,
            length,
            *taps[:6],
            SPAN=SPAN,
            THREADS=threads,
            num_warps=threads // 32,
        )
    return y
