"""Slaney's mel scale as a filter bank: for the mel loss, the mel metric and the small codec's encoder.

(w2v-BERT's own features, in `fbank.py`, are Kaldi's: another scale and another shape.)
"""

import torch
from torch import Tensor

LOG_FLOOR = 1e-5  # magnitudes below it count as silence


def mel_filters(num_bins: int, num_mels: int, sample_rate: int) -> Tensor:
    """Triangular filters, float32 [num_bins, num_mels], from 0 to half the rate: Slaney's mel scale, each of unit area.

    The scale is linear below 1 kHz (3 mels per 200 Hz) and logarithmic above (27 mels per factor 6.4).
    """
    bend, per_log = 15.0, 27.0 / torch.log(torch.tensor(6.4, dtype=torch.float64))
    top = torch.tensor(sample_rate / 2, dtype=torch.float64)
    highest = top * 3 / 200 if top < 1000 else bend + torch.log(top / 1000) * per_log
    mels = torch.linspace(0, 1, num_mels + 2, dtype=torch.float64) * highest
    edges = torch.where(mels < bend, mels * 200 / 3, 1000 * torch.exp((mels - bend) / per_log))
    bins = torch.linspace(0, 1, num_bins, dtype=torch.float64)[:, None] * top
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    triangles = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clamp(min=0)
    return (triangles * 2 / (high - low)).float()
