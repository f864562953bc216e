"""The two layers that hold nearly all weights; both compute in the precision their weights are stored in.

So a codec runs in bfloat16 by converting these layers alone (`codec/precision.py`): norms, softmax, activations, mel
features and quantizer stay in float32.
"""

from torch import Tensor, nn


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.to(self.weight.dtype), self.weight, self.bias)


class Conv1d(nn.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x.to(self.weight.dtype), self.weight, self.bias)
