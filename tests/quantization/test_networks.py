"""Networks of many kinds are quantized and exported: pools, flattening, stacking, groups, no bias, linear layers only."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import relu

from datafree._core.optional_packages import quiet
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network

with quiet():
    pytest.importorskip("torchao")
    pytest.importorskip("onnxruntime")
    from datafree.quantization import Bits, calibrate, check, convert, integer_operators

SPEC = InputSpec(shape=(2, 8, 8), classes=tuple("abcd"), mean=(0.5,), std=(0.25,))


class Made(nn.Module):
    """Layers, and what to do with them."""

    def __init__(self, forward, **layers: nn.Module):
        super().__init__()
        self.does = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.does(self, x)


def conv(channels: int, to: int, side: int = 3, **others) -> nn.Sequential:
    """As most networks have it."""
    return nn.Sequential(nn.Conv2d(channels, to, side, bias=False, **others), nn.BatchNorm2d(to), nn.ReLU())


def stacked(own, x):
    return own.fc(own.pool(torch.cat([own.a(x), own.b(x)], 1)).flatten(1))


def dense(own, x):
    a = own.a(x)
    return own.fc(torch.cat([a, own.b(a)], 1).mean((2, 3)))


def residual(own, x):
    a = own.a(x)
    return own.fc(relu(own.bn(own.b(a)) + a).mean((2, 3)))


def shortened(own, x):
    """A CIFAR ResNet's shortcut: every second pixel, and channels of zeros."""
    a = own.a(x)
    shortcut = nn.functional.pad(a[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
    return own.fc(relu(own.bn(own.b(a)) + shortcut).mean((2, 3)))


NETWORKS = {
    "max pool": lambda: nn.Sequential(conv(2, 4, padding=1), nn.MaxPool2d(2), conv(4, 6), nn.Flatten(), nn.Linear(24, 4)),
    "stacked": lambda: Made(
        stacked, a=conv(2, 3, padding=1), b=conv(2, 4, 1), pool=nn.AdaptiveAvgPool2d(2), fc=nn.Linear(28, 4)
    ),
    "dense": lambda: Made(dense, a=conv(2, 3), b=conv(3, 4, padding=1), fc=nn.Linear(7, 4)),
    "residual": lambda: Made(
        residual, a=conv(2, 4), b=nn.Conv2d(4, 4, 3, padding=1, bias=False), bn=nn.BatchNorm2d(4), fc=nn.Linear(4, 4)
    ),
    "shortened": lambda: Made(
        shortened, a=conv(2, 4), b=nn.Conv2d(4, 8, 3, stride=2, padding=1), bn=nn.BatchNorm2d(8), fc=nn.Linear(8, 4)
    ),
    "grouped": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU6(), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU6(), nn.Conv2d(4, 6, 1, groups=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(96, 4),
    ),
    "no bias": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4, bias=False)
    ),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 4)),
    "linear layers": lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 4)),
}  # fmt: skip
KERNELS = {
    "max pool": ("QLinearConv", 2),
    "residual": ("QLinearAdd", 1), "shortened": ("QLinearAdd", 1), "grouped": ("QLinearConv", 3),
    "linear layers": ("QGemm", 1),
}  # fmt: skip


@pytest.fixture(scope="module")
def images():
    return torch.rand(150, *SPEC.shape, generator=torch.Generator().manual_seed(0))


def network(name: str, images: torch.Tensor) -> Network:
    """In eval mode, its batch norms as if trained on the images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = NETWORKS[name]()
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.momentum = None
        with torch.no_grad():
            module.train()(SPEC.normalize(images))
    return Network(module.eval(), SPEC, name.replace(" ", "-"))


SLOW = ("no bias", "linear", "grouped", "shortened", "dense")
"""Networks of the slow tests alone."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in NETWORKS])
def test_it_answers_alike_at_8_bits_in_every_form_and_runs_in_integers(name, images, export):
    original = network(name, images)
    own = export(calibrate(original, images))
    simulated, converted, ran = own.answers(images)
    z = original.predict(images)
    assert float((simulated - z).norm() / (z - z.mean(0)).norm()) < 0.06
    assert torch.equal(simulated, converted)
    assert (
        float((ran - simulated).norm() / (z - z.mean(0)).norm()) < 0.01
    )  # sums at rounding ties may differ by a level
    assert check(simulated, ran).equal >= 98
    kind, count = KERNELS.get(name, ("other", 0))
    assert integer_operators(own.path)[kind] >= count


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in NETWORKS])
def test_at_4_bits_it_is_converted_as_it_was_simulated(name, images):
    own = calibrate(
        network(name, images), images, Bits(weights=4, activations=4), equalise=True, correct_bias="empirical"
    )
    with torch.no_grad():
        assert torch.equal(convert(own)(images), own.network.predict(images))
