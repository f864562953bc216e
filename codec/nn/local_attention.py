"""Causal attention over windows of time, with a learned bias for every distance: the transformer inside L3AC.

A step attends to its own window up to itself and to the whole window before it. Nothing looks ahead, so what lies past
the end of a clip never reaches it, and a ragged batch needs no mask here.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from codec.nn.linear import Linear

BLOCK = 256  # queries at a time: scores and biases above the diagonal of a long clip are never made

# A run of queries, the keys they may see, and the bias [H, queries, keys] of their scores.
Block = tuple[slice, slice, Tensor]


class LocalTransformer(nn.Module):
    """Pre-norm transformer layers that share one table of distance biases."""

    def __init__(self, width: int, layers: int, heads: int, head_width: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.bias = DistanceBias(width // 2, heads)
        self.layers = nn.ModuleList(Layer(width, heads, head_width) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Args: x: float32 [B, T, C]. Returns: the same shape."""
        x, blocks = x.float(), self.blocks(x.shape[1])
        for layer in self.layers:
            x = layer(x, blocks)
        return x

    def blocks(self, length: int) -> list[Block]:
        """Who sees whom in a clip of `length` steps, and with which bias."""
        reach = min(length, 2 * self.window)
        # by falling distance, reach - 1 to 0, and then the future: each row of scores is a run of this table
        table = functional.pad(self.bias(reach).flip(1), (0, BLOCK - 1), value=-torch.inf)
        blocks, known = [], {}
        for window in range(0, length, self.window):
            oldest = max(0, window - self.window)
            for first in range(window, min(window + self.window, length), BLOCK):
                end = min(first + BLOCK, window + self.window, length)
                shape = (end - first, end - oldest)
                if shape not in known:  # the same in every later window
                    rows = table[:, reach - shape[1] :].unfold(1, shape[1], 1)
                    known[shape] = rows[:, : shape[0]].flip(1)
                blocks.append((slice(first, end), slice(oldest, end), known[shape]))
        return blocks


class DistanceBias(nn.Module):
    """A small network gives each head its bias for a distance in steps."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, heads)
        )

    def forward(self, reach: int) -> Tensor:
        """The bias [H, reach] of the distances 0 to reach - 1."""
        weight = self.mlp[0].weight
        return self.mlp(torch.arange(reach, device=weight.device, dtype=weight.dtype)[:, None]).T


class Layer(nn.Module):
    """Attention, then a gated feed-forward part; both read the normalised features and add to them."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        inner, gated = heads * head_width, width * 8 // 3
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = Linear(width, 3 * inner, bias=False)
        self.out = Linear(inner, width, bias=False)
        self.ffn_norm = nn.LayerNorm(width)
        self.up = Linear(width, 2 * gated, bias=False)
        self.down = Linear(gated, width, bias=False)

    def forward(self, x: Tensor, blocks: list[Block]) -> Tensor:
        query, key, value = self.qkv(self.attention_norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = [
            functional.scaled_dot_product_attention(
                query[:, :, queries], key[:, :, keys], value[:, :, keys], attn_mask=bias[None].to(query.dtype)
            )
            for queries, keys, bias in blocks
        ]
        x = x + self.out(torch.cat(seen, dim=2).transpose(1, 2).flatten(2))
        values, gates = self.up(self.ffn_norm(x)).chunk(2, dim=2)
        return x + self.down(values * functional.gelu(gates))
