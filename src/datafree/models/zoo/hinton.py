"""HINTON-784-w-w-10: two hidden layers of ReLU units, dropout in the teacher (Hinton et al. 2015; Lopes et al. 2017)."""

from __future__ import annotations

from torch import Tensor, nn

from ..input_spec import InputSpec
from .initialise import he

__all__ = ["Hinton"]


class Hinton(nn.Module):
    """Images (N, C, H, W) to logits; `width` units in each hidden layer, `dropout` is the share dropped in training."""

    def __init__(self, spec: InputSpec, *, width: int, dropout: float):
        super().__init__()
        self.fc1 = nn.Linear(spec.pixels, width)
        self.fc2 = nn.Linear(width, width)
        self.fc3 = nn.Linear(width, len(spec.classes))
        self.dropout = nn.Dropout(dropout)
        he(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.fc1(x.flatten(1)).relu())
        x = self.dropout(self.fc2(x).relu())
        return self.fc3(x)
