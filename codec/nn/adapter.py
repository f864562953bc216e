"""Semantic adapter: four convolutions that fit a speech model's features to the codec."""

from torch import Tensor, nn
from torch.nn.functional import relu

from codec.nn.conv import Conv1d
from codec.nn.masking import zero_tail


class SemanticAdapter(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.first = Conv1d(width, hidden, 3, padding=1, bias=False)
        self.conv1 = Conv1d(hidden, hidden, 3, padding=1)
        self.conv2 = Conv1d(hidden, hidden, 3, padding=1)
        self.last = Conv1d(hidden, width, 3, padding=1, bias=False)

    def forward(self, features: Tensor, num_valid: Tensor | None) -> Tensor:
        """[B, F, C] -> [B, F, C]; a row sees zeros past its own frames, as it does alone."""
        # channel-major: so many channels are convolved faster so, on a CPU as well
        x = self.first(zero_tail(features.transpose(1, 2).contiguous(), num_valid, 2))
        # the skip takes the rectified tensor: the published weights were trained with an in-place ReLU before it
        x = zero_tail(relu(x), num_valid, 2)
        hidden = zero_tail(relu(self.conv1(x)), num_valid, 2)
        x = zero_tail(x + self.conv2(hidden), num_valid, 2)
        return self.last(x).transpose(1, 2)
