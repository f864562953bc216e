"""Transformer layer of the decoder: pre-normed attention over all frames, and a feed-forward.

It knows no positions. The published model rotates queries and keys by an angle per head, not per frame, which cancels
in their product; rotating by frame would be another model.
"""

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from codec.nn.linear import Linear


class TransformerLayer(nn.Module):
    def __init__(self, width: int, heads: int, ffn_width: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.RMSNorm(width, eps)
        self.qkv = Linear(width, 3 * width, bias=False)
        self.out = Linear(width, width, bias=False)
        self.ffn_norm = nn.RMSNorm(width, eps)
        self.up = Linear(width, ffn_width, bias=False)
        self.down = Linear(ffn_width, width, bias=False)

    def forward(self, x: Tensor, keys: Tensor | None) -> Tensor:
        """x [B, F, C] -> [B, F, C]. keys: bool [B, 1, 1, F], False where a row has no frame; None: all."""
        qkv = self.qkv(self.attention_norm(x)).unflatten(2, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(query, key, value, attn_mask=keys)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(silu(self.up(self.ffn_norm(x))))
