"""AlexNet without local response normalisation, and narrower ones (Krizhevsky et al. 2012; Lopes et al. 2017, sec. 4.3)."""

from __future__ import annotations

from torch import Tensor, nn

from ..input_spec import InputSpec
from .initialise import he

__all__ = ["AlexNet"]

WIDTHS = (64, 192, 384, 384, 256, 4096, 4096)


class AlexNet(nn.Module):
    """conv 64-192-384-384-256, fc 4096-4096, with every width divided by `divide`.

    All convolutions have "same" padding, so images of 32 x 32 pixels or more are accepted. Images of 224 x 224 give 7
    x 7 before the first linear layer and 71.4 M parameters with two classes; 17.9 M with `divide=2`.
    """

    def __init__(self, spec: InputSpec, *, divide: int = 1, dropout: float = 0.5):
        super().__init__()
        a, b, c, d, e, f, g = (max(1, width // divide) for width in WIDTHS)
        self.conv1 = nn.Conv2d(spec.shape[0], a, 11, stride=4, padding=5)
        self.conv2 = nn.Conv2d(a, b, 5, padding=2)
        self.conv3 = nn.Conv2d(b, c, 3, padding=1)
        self.conv4 = nn.Conv2d(c, d, 3, padding=1)
        self.conv5 = nn.Conv2d(d, e, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        height, width = (-(-side // 32) for side in spec.shape[1:])
        self.fc1 = nn.Linear(e * height * width, f)
        self.fc2 = nn.Linear(f, g)
        self.fc3 = nn.Linear(g, len(spec.classes))
        self.dropout = nn.Dropout(dropout)
        he(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv1(x).relu())
        x = self.pool(self.conv2(x).relu())
        x = self.conv4(self.conv3(x).relu()).relu()
        x = self.pool(self.conv5(x).relu()).flatten(1)
        x = self.fc1(self.dropout(x)).relu()
        x = self.fc2(self.dropout(x)).relu()
        return self.fc3(x)
