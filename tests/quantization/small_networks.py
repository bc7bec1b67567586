"""Small networks of many kinds: what people put before, behind and around batch norms."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn import BatchNorm1d as BN1
from torch.nn import BatchNorm2d as BN
from torch.nn import Linear, Sequential
from torch.nn.utils import parametrizations, parametrize

from datafree.models.input_spec import InputSpec
from datafree.models.network import Network

SPEC = InputSpec(shape=(3, 8, 8), classes=tuple("abcde"), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))


def images(count: int = 64) -> torch.Tensor:
    """Noise (N, 3, 8, 8) of many brightnesses and colours."""
    rng = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, 8, 8, generator=rng) * torch.rand(count, 3, 1, 1, generator=rng)


class Of(nn.Module):
    """Layers and buffers, and a function of them and the image."""

    def __init__(self, function: Callable[[Any, torch.Tensor], torch.Tensor], **parts: Any):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            else:
                self.register_buffer(name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


class Frozen(nn.Module):
    """As torchvision's FrozenBatchNorm2d: statistics and weights are buffers, the arithmetic is written out."""

    def __init__(self, channels: int):
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(channels) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return x * scale.view(1, -1, 1, 1) + (self.bias - self.running_mean * scale).view(1, -1, 1, 1)


class Standardised(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, w, self.bias, self.stride, self.padding)


class Sign(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight.sign(), self.bias, self.stride, self.padding)


class Doubled(nn.Module):
    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return w * 2


def conv(channels: int, to: int, side: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, to, side, padding=options.pop("padding", side // 2), **options)


def head(channels: int) -> Sequential:
    return Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Linear(channels, 5))


def normed(*norms: nn.Module, to: int = 8, **options: Any) -> Sequential:
    return Sequential(conv(3, to, **options), *norms, head(to))


def up(to: int, groups: int = 1, **options: Any) -> Sequential:
    layer = nn.ConvTranspose2d(4, to, options.pop("side", 3), groups=groups, **options)
    return Sequential(conv(3, 4), nn.ReLU(), layer, BN(to), head(to))


def weighed(layer: nn.Module) -> Sequential:
    return Sequential(layer, BN(8), head(8))


def scripted(module: nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(module)


def parametrized(name: str) -> nn.Module:
    layer = conv(3, 8)
    parametrize.register_parametrization(layer, name, Doubled())
    return weighed(layer)


def on_sequence(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.fc(m.b(m.l(m.a(x).flatten(2))).relu().flatten(1))


def repeated(m: Any, x: torch.Tensor) -> torch.Tensor:
    x = m.a(x).relu()
    for _ in range(2):
        x = m.b(m.c(x)).relu()
    return m.h(x)


def read_twice(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = m.b(m.a(x))
    return m.h(m.b2(y) + y)


def residual(m: Any, x: torch.Tensor) -> torch.Tensor:
    x = m.r(m.b(m.a(x)))
    y = m.b2(m.c(x))
    y += x
    return m.h(m.r(y))


def dense(m: Any, x: torch.Tensor) -> torch.Tensor:
    a = m.a(x)
    return m.h(m.b2(torch.cat([a, m.c(m.b(a).relu())], 1)))


def halves(m: Any, x: torch.Tensor) -> torch.Tensor:
    a, b = m.a(x).split(4, 1)
    return m.h(torch.cat([m.b(a), m.b2(b)], 1))


def shuffled(m: Any, x: torch.Tensor) -> torch.Tensor:
    x = m.b(m.a(x))
    n, c, h, w = x.shape
    return m.h(m.b2(m.c(x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w))))


def excited(m: Any, x: torch.Tensor) -> torch.Tensor:
    x = m.b(m.a(x)).relu()
    return m.h(x * m.v(F.relu(m.u(x.mean((2, 3), keepdim=True)))).sigmoid())


def attention(m: Any, x: torch.Tensor) -> torch.Tensor:
    x = m.a(x).flatten(2).transpose(1, 2) + m.position
    q, k, v = m.qkv(m.norm(x)).chunk(3, -1)
    return m.fc((x + m.o((q @ k.transpose(1, 2) / 8**0.5).softmax(-1) @ v)).mean(1))


def recurrent(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.fc(m.r(m.b(m.a(x)).mean(3).transpose(1, 2))[0][:, -1])


def from_image(m: Any, x: torch.Tensor) -> torch.Tensor:
    z = m.a(x).relu().mean((2, 3))
    return m.fc(m.b(F.linear(z, m.w * z.sigmoid().mean(0))).relu())


def image_alone(_: Any, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x.mean((2, 3)), x.mean((0, 2, 3)).expand(5, 3) * 0 + 1)


def nested(m: Any, x: torch.Tensor) -> torch.Tensor:
    a, rest = (y := m.b(m.a(x)).relu()), {"k": (y * 2, 3)}
    return m.h(m.b2(m.c(a + rest["k"][0] * rest["k"][1] - 0.5)))


def written(m: Any, x: torch.Tensor) -> torch.Tensor:
    x = m.b(m.a(x))
    y = torch.zeros_like(x)
    y[:, ::2] = x[:, ::2].relu()
    y[:, 1::2] -= x[:, 1::2]
    return m.h(m.b2(m.c(y)))


def made_weight(m: Any, x: torch.Tensor) -> torch.Tensor:
    w = torch.zeros(8, 3, 3, 3)
    w[:, :, 1, 1] = m.a.weight[:, :, 1, 1]
    return m.h(m.b(F.conv2d(x, w, padding=1)))


def decoder(m: Any, x: torch.Tensor) -> torch.Tensor:
    y = F.interpolate(m.b(m.a(x)).relu(), scale_factor=2, mode="nearest")
    return m.h(m.b2(m.c(torch.cat([y, x], 1))))


def tied(m: Any, x: torch.Tensor) -> torch.Tensor:
    x = m.b(m.a(x)).relu().mean((2, 3))
    return m.fc(F.linear(m.l(x).relu(), m.l.weight.t()))


def volume(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.fc(m.b(m.a(x[:, None])).relu().mean((2, 3, 4)))


def rows(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.fc(m.b(m.a(x.flatten(2))).relu().mean(2))


def ab(function: Callable[[Any, torch.Tensor], torch.Tensor], **parts: Any) -> Callable[[], nn.Module]:
    """A function of conv `a`, batch norm `b`, conv `c`, batch norm `b2` and head `h`, each of 8 channels unless given."""

    def build() -> nn.Module:
        usual = {"a": conv(3, 8), "b": BN(8), "c": conv(8, 8), "b2": BN(8), "h": head(8)}
        return Of(function, **{**usual, **{name: part() for name, part in parts.items()}})

    return build


BUILD: dict[str, Callable[[], nn.Module]] = {
    "conv BN": lambda: normed(BN(8)),
    "no bias": lambda: normed(BN(8), bias=False),
    "BN BN": lambda: normed(BN(8), BN(8)),
    "BN BN BN": lambda: normed(BN(8), nn.Identity(), BN(8), nn.Dropout(0.5), BN(8), bias=False),
    "BN ReLU BN": lambda: normed(BN(8), nn.ReLU(), BN(8)),
    "BN before conv": lambda: Sequential(BN(3), conv(3, 8), head(8)),
    "BN before and behind": lambda: Sequential(BN(3), conv(3, 8), BN(8), nn.ReLU(), BN(8), conv(8, 8), BN(8), head(8)),
    "linear BN": lambda: Sequential(nn.Flatten(), Linear(192, 8), BN1(8), nn.ReLU(), Linear(8, 5)),
    "linear BN BN": lambda: Sequential(
        nn.Flatten(), Linear(192, 8, bias=False), BN1(8), BN1(8), nn.ReLU(), Linear(8, 5), BN1(5)
    ),
    "flatten BN": lambda: Sequential(conv(3, 8), nn.Flatten(), BN1(512), nn.ReLU(), Linear(512, 5)),
    "linear BN on a sequence": ab(on_sequence, l=lambda: Linear(64, 8), b=lambda: BN1(8), fc=lambda: Linear(64, 5)),
    "conv1d BN": ab(rows, a=lambda: nn.Conv1d(3, 8, 3), b=lambda: BN1(8), fc=lambda: Linear(8, 5)),
    "conv3d BN": ab(
        volume, a=lambda: nn.Conv3d(1, 4, 3, padding=1), b=lambda: nn.BatchNorm3d(4), fc=lambda: Linear(4, 5)
    ),
    "transposed": lambda: up(6, stride=2, padding=1, output_padding=1),
    "transposed, 2 groups": lambda: up(6, 2, stride=2, output_padding=1),
    "transposed, depthwise": lambda: up(4, 4, bias=False),
    "transposed, 4 groups wider": lambda: up(16, 4, dilation=2),
    "transposed BN BN": lambda: Sequential(nn.ConvTranspose2d(3, 6, 2, groups=3), BN(6), BN(6), head(6)),
    "transposed 1d, 3 groups": ab(
        rows, a=lambda: nn.ConvTranspose1d(3, 9, 3, groups=3), b=lambda: BN1(9), fc=lambda: Linear(9, 5)
    ),
    "BN without weights": lambda: normed(BN(8, affine=False)),
    "BN with momentum None": lambda: normed(BN(8, momentum=None)),
    "BN with large eps": lambda: normed(BN(8, eps=10.0)),
    "BN with tiny eps": lambda: normed(BN(8, eps=1e-12)),
    "doubles": lambda: normed(BN(8)).double(),
    "conv and BN twice": ab(repeated),
    "conv twice, two BNs": ab(lambda m, x: m.h(m.b(m.c(y := m.a(x).relu())) + m.b2(m.c(y.flip(3))))),
    "conv read twice": ab(lambda m, x: m.h(m.b(y := m.a(x)) + y)),
    "BN read twice": ab(read_twice),
    "BN of cat": ab(dense, c=lambda: conv(8, 4), b2=lambda: BN(12), h=lambda: head(12)),
    "BN of split": ab(halves, b=lambda: BN(4), b2=lambda: BN(4)),
    "frozen BN": lambda: normed(Frozen(8), bias=False),
    "group norm": lambda: normed(nn.GroupNorm(2, 8)),
    "instance norm": lambda: Sequential(
        conv(3, 8), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), nn.Flatten(), Linear(512, 5)
    ),
    "instance norm with statistics": lambda: normed(nn.InstanceNorm2d(8, affine=True, track_running_stats=True)),
    "layer norm": lambda: normed(nn.LayerNorm([8, 8, 8])),
    "functional BN": ab(
        lambda m, x: m.h(F.batch_norm(m.a(x), m.mean, m.var)),
        mean=lambda: torch.rand(8),
        var=lambda: torch.rand(8) + 0.5,
    ),
    "spectral norm": lambda: weighed(parametrizations.spectral_norm(conv(3, 8))),
    "weight norm": lambda: weighed(parametrizations.weight_norm(conv(3, 8))),
    "orthogonal": lambda: weighed(parametrizations.orthogonal(conv(3, 8))),
    "spectral norm by hook": lambda: weighed(nn.utils.spectral_norm(conv(3, 8))),
    "standardised weight": lambda: weighed(Standardised(3, 8, 3, padding=1)),
    "sign of weight": lambda: weighed(Sign(3, 8, 3, padding=1)),
    "parametrized weight": lambda: parametrized("weight"),
    "parametrized bias": lambda: parametrized("bias"),
    "weight norm, transposed": lambda: Sequential(
        conv(3, 4), parametrizations.weight_norm(nn.ConvTranspose2d(4, 8, 2, groups=2)), BN(8), head(8)
    ),
    "weight norm, linear": lambda: Sequential(
        nn.Flatten(), parametrizations.weight_norm(Linear(192, 8)), BN1(8), nn.ReLU(), Linear(8, 5)
    ),
    "fixed weight": ab(lambda m, x: m.h(m.b(F.conv2d(x, m.w, padding=1))), w=lambda: torch.randn(8, 3, 3, 3) / 5),
    "flipped weight": ab(lambda m, x: m.h(m.b(F.conv2d(m.a(x), m.c.weight.flip(3), m.c.bias, padding=1)))),
    "masked weight": ab(
        lambda m, x: m.h(m.b(F.conv2d(x, m.a.weight * m.k, padding=1))), k=lambda: torch.rand(8, 3, 3, 3).round()
    ),
    "stacked weights": ab(
        lambda m, x: m.h(m.b2(F.conv2d(m.b(m.a(x)), torch.cat([m.c.weight[:4], m.d.weight]), padding=1))),
        d=lambda: conv(8, 4),
    ),
    "weight written": ab(made_weight),
    "tied weights": ab(tied, l=lambda: Linear(8, 8, bias=False), fc=lambda: Linear(8, 5)),
    "squeeze and excitation": ab(excited, u=lambda: conv(8, 4, 1), v=lambda: conv(4, 8, 1)),
    "channel shuffle": ab(shuffled, c=lambda: conv(8, 8, groups=2)),
    "depthwise": lambda: normed(BN(8), nn.ReLU6(), conv(8, 8, groups=8), BN(8), nn.ReLU6(), conv(8, 8, 1), BN(8)),
    "attention": ab(
        attention,
        a=lambda: conv(3, 8, 4, stride=4, padding=0),
        position=lambda: torch.randn(1, 4, 8),
        norm=lambda: nn.LayerNorm(8),
        qkv=lambda: Linear(8, 24),
        o=lambda: Linear(8, 8),
        fc=lambda: Linear(8, 5),
    ),
    "LSTM": ab(recurrent, r=lambda: nn.LSTM(8, 8, batch_first=True), fc=lambda: Linear(8, 5)),
    "residual in place": ab(residual, r=lambda: nn.ReLU(inplace=True)),
    "written by halves": ab(written),
    "upsampled": ab(decoder, a=lambda: conv(3, 8, stride=2), c=lambda: conv(11, 8)),
    "pixel shuffle": ab(
        lambda m, x: m.h(m.b2(m.c(F.pixel_shuffle(m.b(m.a(x)), 2)))),
        a=lambda: conv(3, 16),
        b=lambda: BN(16),
        c=lambda: conv(4, 8),
    ),
    "nested and scalars": ab(nested),
    "gate": ab(
        lambda m, x: m.h((y := m.b(m.a(x)))[:, :8] * y[:, 8:].sigmoid()), a=lambda: conv(3, 16), b=lambda: BN(16)
    ),
    "activations": lambda: normed(
        BN(8), nn.PReLU(8), conv(8, 8), BN(8), nn.Hardswish(True), conv(8, 8), BN(8), nn.ELU(inplace=True)
    ),
    "paddings": lambda: Sequential(
        nn.ReflectionPad2d(1), nn.Conv2d(3, 8, 3), BN(8), nn.Conv2d(8, 8, 3, padding="same", dilation=2), BN(8), head(8)
    ),
    "pools": lambda: normed(BN(8), nn.AvgPool2d(2), conv(8, 8), BN(8), nn.MaxPool2d(2, ceil_mode=True), conv(8, 8)),
    "channels last": lambda: normed(BN(8), conv(8, 8), BN(8)).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
}
REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "BN without statistics": (
        lambda: normed(BN(8, track_running_stats=False)),
        "a batch norm without running statistics",
    ),
    "BN on the batch": (
        ab(
            lambda m, x: m.h(F.batch_norm(m.a(x), m.mean, m.var, training=True)),
            mean=lambda: torch.zeros(8),
            var=lambda: torch.ones(8),
        ),
        "uses the statistics of the batch",
    ),
    "doubles inside": (
        ab(lambda m, x: m.h(m.b(m.a(x.double())).float()), a=lambda: conv(3, 8).double(), b=lambda: BN(8).double()),
        "has a layer in float64",
    ),
    "TorchScript": (lambda: scripted(normed(BN(8))), "it is TorchScript, expected a torch.nn.Module in Python"),
    "TorchScript inside": (
        lambda: Sequential(scripted(Sequential(conv(3, 8), BN(8))), head(8)),
        "its layer '0' is TorchScript",
    ),
    "weights from the image alone": (ab(image_alone), "no conv or linear layer whose weights are its own"),
}


def network(name: str) -> Network:
    """In eval mode; its batch norms have weights of their own and statistics of noise."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        module = (BUILD[name] if name in BUILD else REFUSED[name][0])()
        if name in BUILD:
            for part in module.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.momentum = None
                    if part.affine:
                        part.weight.uniform_(0.5, 2)
                        part.bias.normal_(0, 0.5)
            module.train()
            for _ in range(2):
                Network(module, SPEC, name).logits(images())
    return Network(module.eval(), SPEC, name)
