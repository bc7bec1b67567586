"""ExecuTorch: one network in a fourth form. Needs the extra `executorch`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from datafree._core.errors import UserError
from datafree._core.optional_packages import quiet
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network

with quiet():
    pytest.importorskip("torchao")
    pytest.importorskip("executorch", reason='needs the extra: pip install "datafree[executorch]"')

    from datafree.quantization import Bits, calibrate, check, convert, mobile_speed, run_mobile, to_mobile

SPEC = InputSpec(shape=(3, 8, 8), classes=tuple("abc"), mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2))


class Block(nn.Module):
    """A residual block whose shortcut is cut and padded, as a ResNet's of width 16 is."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)) + nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))


NETWORKS = {
    "residual": lambda: [
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    ],
    "linear layers": lambda: [nn.Flatten(), nn.Linear(192, 20), nn.ReLU(), nn.Linear(20, 20), nn.Linear(20, 3)],
    "pooled": lambda: [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 3, 3), nn.Flatten(), nn.Linear(3, 3)],
}  # fmt: skip


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(100, *SPEC.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_program_answers_as_the_simulation(name, pixels, tmp_path):
    torch.manual_seed(0)
    network = Network(nn.Sequential(*NETWORKS[name]()).eval(), SPEC, name)
    own = calibrate(network, pixels[:64], Bits())
    path = to_mobile(convert(own), tmp_path / "a.pte", SPEC.shape, own.bits)
    found = check(own.network.predict(pixels), run_mobile(path, pixels))
    assert (found.images, found.equal) == (100, 100) and found.largest < 1e-5


def test_in_float_it_answers_as_the_network_and_is_larger(pixels, tmp_path):
    torch.manual_seed(0)
    network = Network(nn.Sequential(*NETWORKS["linear layers"]()).eval(), SPEC, "mlp")
    own = calibrate(network, pixels[:64], Bits())
    small = to_mobile(convert(own), tmp_path / "a.pte", SPEC.shape)
    large = to_mobile(network, tmp_path / "b.pte", SPEC.shape)
    assert torch.allclose(run_mobile(large, pixels), network.predict(pixels), atol=1e-5)
    timed = mobile_speed(large, small, SPEC.shape)
    assert timed.quantized_bytes == small.stat().st_size < timed.original_bytes == large.stat().st_size
    assert timed.original_ms > 0 and timed.quantized_ms > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_of_fewer_bits_are_integers_too(name, pixels, tmp_path):
    torch.manual_seed(0)
    network = Network(nn.Sequential(*NETWORKS[name]()).eval(), SPEC, name)
    own = calibrate(network, pixels[:64], Bits(weights=4))
    path = to_mobile(convert(own), tmp_path / "a.pte", SPEC.shape, own.bits)
    found = check(own.network.predict(pixels), run_mobile(path, pixels))
    assert (found.images, found.equal) == (100, 100) and found.largest < 1e-5


@pytest.mark.parametrize("bits", [Bits(weights=4, activations=4), Bits(weights=9)])
def test_bits_that_are_no_integers_there_are_refused(bits, pixels, tmp_path):
    torch.manual_seed(0)
    network = Network(nn.Sequential(*NETWORKS["linear layers"]()).eval(), SPEC, "mlp")
    own = calibrate(network, pixels[:64], bits)
    with pytest.raises(UserError) as caught:
        to_mobile(convert(own), tmp_path / "a.pte", SPEC.shape, own.bits)
    assert str(caught.value) == (
        f"mobile: got {bits.name}, expected weights of at most 8 bits and activations of 8, which ExecuTorch can run; "
        "change the bits, or leave `mobile` out"
    )
    assert not (tmp_path / "a.pte").exists()
