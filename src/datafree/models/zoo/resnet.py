"""CIFAR ResNets of He et al. 2016, sec. 4.2, with option A shortcuts: depth 6n + 2, widths 16, 32, 64."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..._core.errors import UserError
from ..input_spec import InputSpec
from .initialise import he

__all__ = ["CifarResNet"]


class CifarResNet(nn.Module):
    """Weight names: conv1, bn1, layer{1,2,3}.{i}.conv{1,2} / bn{1,2}, linear. `width` is that of the first stage."""

    def __init__(self, spec: InputSpec, *, depth: int, width: int = 16):
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise UserError(f"no CIFAR ResNet of depth {depth}, expected 6n + 2 with n >= 1; nearest: 'resnet20'")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(spec.shape[0], width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.linear = nn.Linear(4 * width, len(spec.classes))
        he(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = _Block(inputs, outputs, stride)
    return nn.Sequential(first, *(_Block(outputs, outputs, 1) for _ in range(blocks - 1)))


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return torch.relu(out + self._shortcut(x, out.shape[1]))

    def _shortcut(self, x: Tensor, channels: int) -> Tensor:
        """Option A: every `stride`-th pixel, zero channels on both sides."""
        missing = channels - x.shape[1]
        if self.stride == 1 and not missing:
            return x
        return pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, missing // 2, missing - missing // 2))
