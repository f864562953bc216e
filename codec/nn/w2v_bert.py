"""w2v-BERT 2.0 as a frozen reader of speech: conformer layers up to the one whose output the codec uses.

Source: w2v-BERT 2.0 (arXiv 2312.05187) with the sizes of its published checkpoint.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, pad, scaled_dot_product_attention, silu

from codec.config import W2VBertConfig
from codec.nn.conv import Conv1d, on_cpu_for_good
from codec.nn.fbank import fbank
from codec.nn.linear import Linear
from codec.nn.masking import is_valid
from codec.nn.relative_attention import relative_attention, takes

CACHED_BIASES = 1 << 22  # of queries against all keys of a batch: as many at once as stay in a CPU's cache
# A GPU's attention wants each row of biases to begin at a multiple of so many, or copies all of them to make it so; and
# a compiler that may rely on it need not tell lengths apart.
ALIGNED = 8


class W2VBert(nn.Module):
    def __init__(self, config: W2VBertConfig, hop_length: int = 320) -> None:
        super().__init__()
        self.config = config
        self.hop_length = hop_length
        self.norm = nn.LayerNorm(config.mel_bins * config.stack)
        self.project = Linear(config.mel_bins * config.stack, config.width)
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(config.layers))
        self.compiled = False  # by torch: then no layer calls a kernel of ours

    def forward(self, waveforms: Tensor, num_hops: Tensor | None = None) -> Tensor:
        """waveforms [B, 1, hops x hop length] -> [B, hops - 1, C]; past a row's own frames lies anything."""
        num_samples = None if num_hops is None else num_hops * self.hop_length
        x = fbank(waveforms[:, 0], num_samples, self.config.mel_bins, self.config.stack)
        x = self.project(self.norm(x)).float()
        distances = None  # a table of all pairs of frames: of half an hour 65 GB, which a kernel does without
        if self.compiled or not self.layers[0].attention.has_kernel(x):
            distances = relative_positions(x.shape[1], self.config.left, self.config.right, x.device)
        hidden_keys = None
        if num_hops is not None:
            hidden_keys = ~is_valid(num_hops - 1, x.shape[1])[:, None, None]
        for layer in self.layers:
            x = layer(x, distances, hidden_keys)
        return x


def relative_positions(length: int, left: int, right: int, device: torch.device) -> Tensor:
    """int64 [F, more]: which of the left + 1 + right known distances lies between query i and key j.

    There are always a few keys more than F, up to a multiple of ALIGNED.
    """
    time = torch.arange(length // ALIGNED * ALIGNED + ALIGNED, device=device)
    return (time - time[:length, None]).clamp(-left, right) + left


class ConformerLayer(nn.Module):
    """Half a feed-forward, attention, convolution, the other half: each reads norms, and adds to what it was given."""

    def __init__(self, config: W2VBertConfig) -> None:
        super().__init__()
        self.ffn1 = FeedForward(config)
        self.attention = Attention(config)
        self.conv = ConvModule(config)
        self.ffn2 = FeedForward(config)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, distances: Tensor | None, hidden_keys: Tensor | None) -> Tensor:
        x = self.ffn1(x)
        x = self.attention(x, distances, hidden_keys)
        x = self.conv(x)  # causal, so what lies past a row's end never reaches it
        x = self.ffn2(x)
        return self.norm(x)


class FeedForward(nn.Module):
    def __init__(self, config: W2VBertConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.up = Linear(config.width, config.ffn_width)
        self.down = Linear(config.ffn_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(self.norm(x), silu=True), added=x, scale=0.5)


class Attention(nn.Module):
    """Self-attention whose scores also depend on the clipped distance between query and key (Shaw et al. 2018)."""

    def __init__(self, config: W2VBertConfig) -> None:
        super().__init__()
        self.heads, self.right = config.heads, config.right
        self.norm = nn.LayerNorm(config.width)
        self.query = Linear(config.width, config.width)
        self.key = Linear(config.width, config.width)
        self.value = Linear(config.width, config.width)
        self.out = Linear(config.width, config.width)
        self.distance = nn.Embedding(config.left + 1 + config.right, config.width // config.heads)

    def has_kernel(self, x: Tensor) -> bool:
        """Whether one can take [B, F, C] like `x`."""
        return takes(x[:, :1].to(self.query.weight.dtype), self.heads)

    def forward(self, x: Tensor, distances: Tensor | None, hidden_keys: Tensor | None) -> Tensor:
        """distances: `relative_positions`; None has a kernel do it (ask `has_kernel` first)."""
        normed = self.norm(x)
        query, key, value = (part(normed) for part in (self.query, self.key, self.value))
        if distances is None:
            num_keys = None if hidden_keys is None else (~hidden_keys).flatten(1).sum(1)
            heard = relative_attention(query, key, value, self.distance.weight, self.right, num_keys)
            return self.out(heard, added=x)
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        # each query meets each known distance once, and the products are then dealt out to the keys
        known = self.distance.weight.to(query.dtype).T * query.shape[-1] ** -0.5
        size = max(1, CACHED_BIASES // key[..., 0].numel()) if on_cpu_for_good(x) else x.shape[1]
        heard = []
        for some, apart in zip(query.split(size, 2), distances.split(size), strict=True):
            bias = (some @ known).gather(3, apart.expand(*some.shape[:2], -1, -1))[..., : key.shape[2]]
            if hidden_keys is not None:
                bias = bias.masked_fill_(hidden_keys, float("-inf"))
            heard.append(scaled_dot_product_attention(some, key, value, attn_mask=bias).transpose(1, 2))
        return self.out(torch.cat(heard, 1).flatten(2), added=x)


class ConvModule(nn.Module):
    def __init__(self, config: W2VBertConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.expand = Linear(config.width, 2 * config.width, bias=False)
        self.depthwise = Conv1d(config.width, config.width, config.kernel, groups=config.width, bias=False)
        self.depthwise_norm = nn.LayerNorm(config.width)
        self.project = Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = glu(self.expand(self.norm(x)), -1)
        y = pad(y, (0, 0, self.depthwise.kernel_size[0] - 1, 0))
        y = self.depthwise(y.transpose(1, 2)).transpose(1, 2)
        # a GPU's norm has one type for all it reads
        return self.project(silu(self.depthwise_norm(y.float())), added=x)
