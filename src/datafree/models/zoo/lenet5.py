"""LeNet-5 with ReLU and max-pooling on 32x32 input, and its half (Lopes et al. 2017, sec. 4.2)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from ..._core.errors import UserError
from ..input_spec import InputSpec
from .initialise import he

__all__ = ["LeNet5"]


class LeNet5(nn.Module):
    """conv 5x5 6, pool, conv 5x5 16, pool, 120, 84; the half has 3 and 8 filters: 61,706 and 35,820 parameters."""

    def __init__(self, spec: InputSpec, *, half: bool = False):
        super().__init__()
        if spec.shape[1:] != (32, 32):
            raise UserError(
                f"lenet5 takes 32x32 images, got {spec.shape[1:]}; resize the images to that size, or name another network"
            )
        first, second = (3, 8) if half else (6, 16)
        self.conv1 = nn.Conv2d(spec.shape[0], first, 5)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.fc1 = nn.Linear(second * 25, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, len(spec.classes))
        he(self)

    def forward(self, x: Tensor) -> Tensor:
        x = max_pool2d(self.conv1(x).relu(), 2)  # (N, 6, 14, 14)
        x = max_pool2d(self.conv2(x).relu(), 2)  # (N, 16, 5, 5)
        x = self.fc1(x.flatten(1)).relu()
        return self.fc3(self.fc2(x).relu())
