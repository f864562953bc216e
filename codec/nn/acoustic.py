"""BigCodec's acoustic encoder: waveform -> features, halving the rate and doubling the width block by block.

Source: BigCodec (arXiv 2409.05377) as NeuCodec publishes it, weight norms folded.
"""

from torch import Tensor, nn

from codec.config import BigCodecConfig
from codec.nn.activations import SnakeBeta
from codec.nn.conv import Conv1d, time_major
from codec.nn.masking import zero_tail
from codec.nn.residual_unit import ResidualUnit
from codec.nn.snake_conv import SnakeConv1d


class BigCodecEncoder(nn.Module):
    def __init__(self, config: BigCodecConfig) -> None:
        super().__init__()
        self.hop_length = config.hop_length
        width = config.width
        self.first = Conv1d(1, width, 7, padding=3)
        self.blocks = nn.ModuleList()
        for stride in config.strides:
            self.blocks.append(Block(width, stride, config.dilations))
            width *= 2
        self.act = SnakeBeta(width)
        self.last = SnakeConv1d(width, config.out_width, 3, padding=1)

    def forward(self, waveforms: Tensor, num_hops: Tensor | None = None) -> Tensor:
        """waveforms [B, 1, hops x hop length] -> [B, hops, C]; past a row's own hops lies anything."""
        num_valid = None if num_hops is None else num_hops * self.hop_length
        x = self.first(time_major(zero_tail(waveforms, num_valid, 2)))
        for block in self.blocks:
            x = block(x, num_valid)
            num_valid = None if num_valid is None else num_valid // block.stride
        # no convolution needs a mask here: each follows an activation, which leaves zeros past a row's own length
        return self.last.after(self.act, x, num_valid).transpose(1, 2)


class Block(nn.Module):
    """Residual units, then a strided convolution to twice the width."""

    def __init__(self, width: int, stride: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.stride = stride
        self.units = nn.ModuleList(ResidualUnit(width, dilation) for dilation in dilations)
        self.act = SnakeBeta(width)
        self.down = SnakeConv1d(width, 2 * width, 2 * stride, stride=stride, padding=stride // 2 + stride % 2)

    def forward(self, x: Tensor, num_valid: Tensor | None) -> Tensor:
        for unit in self.units:
            x = unit(x, num_valid)
        return self.down.after(self.act, x, num_valid)
