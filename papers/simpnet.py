"""SimpNet (Hasanpour et al. 2018) with 600,000 weights, and the same network at half its width.

13 convolutions of 3 x 3 with batch norm and ReLU, two poolings, global max pooling, and a linear layer. Builders for
`--code` and `--student`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from datafree.models.input_spec import InputSpec

__all__ = ["SimpNet", "half", "simpnet600k"]

WIDTHS = (40, 60, 60, 60, 72, 73, 73, 73, 75, 81, 82, 90, 120)
POOLED_AFTER = (5, 10)


class SimpNet(nn.Module):
    """Logits (N, classes) of images (N, 3, 32, 32)."""

    def __init__(self, classes: int, widths: Sequence[int]):
        super().__init__()
        layers: list[nn.Module] = []
        for index, (inputs, width) in enumerate(zip((3, *widths[:-1]), widths, strict=True), start=1):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if index in POOLED_AFTER else []
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(torch.amax(self.features(images), dim=(2, 3)))


def simpnet600k(spec: InputSpec) -> SimpNet:
    return SimpNet(len(spec.classes), WIDTHS)


def half(spec: InputSpec) -> SimpNet:
    return SimpNet(len(spec.classes), [width // 2 for width in WIDTHS])
