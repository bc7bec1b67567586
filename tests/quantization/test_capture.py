"""Networks that quantization sees differently: sums, sequences, layers it cannot capture or has nothing to round in."""

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
    from datafree.quantization import Bits, calibrate
    from datafree.quantization.equalize import pairs

SPEC = InputSpec(shape=(1, 8, 8), classes=tuple("abc"))


def distance(network: Network, other: Network, x: torch.Tensor) -> float:
    """Of the logits, relative."""
    z = network.predict(x)
    return float((other.predict(x) - z).norm() / z.norm())


class Skip(nn.Module):
    """A residual block whose branch adds nothing, so that the sum is its skip connection."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(144, 3)
        for parameter in self.conv2.parameters():
            parameter.data.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.conv1(x).relu()
        return self.fc((a + self.conv2(a)).relu().flatten(1))


def test_below_8_bits_the_operands_of_additions_stay_in_floating_point():
    torch.manual_seed(0)
    network, x = Network(Skip().eval(), SPEC, "skip"), torch.rand(100, 1, 8, 8)
    assert distance(network, calibrate(network, x, Bits(activations=2, last=8)).network, x) < 0.04


def test_at_8_bits_the_operands_of_additions_and_pools_are_rounded_so_that_kernels_run_them():
    torch.manual_seed(0)
    network, x = Network(Skip().eval(), SPEC, "skip"), torch.rand(100, 1, 8, 8)
    own = calibrate(network, x)
    sums = [node for node in own.graph.graph.nodes if node.target == torch.ops.aten.add.Tensor]
    assert [[operand.op for operand in node.args[:2]] for node in sums] == [["call_module", "call_module"]]
    assert distance(network, own.network, x) < 0.04


class ByValue(nn.Module):
    """Goes one of two ways by what it sees."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten(1)) if x.sum() > 0 else self.fc(-x.flatten(1))


class ForTwo(ByValue):
    """Takes two images, no more, no fewer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.reshape(2, 64))


class InNumpy(ByValue):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.from_numpy(x.detach().numpy()).flatten(1))


class ByNumber(ByValue):
    """Answers by how many images there are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten(1)) * float(x.shape[0] > 3)


class Misfit(ByValue):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


ANY = "it only works for fixed numbers of images, expected any number; "


@pytest.mark.parametrize(
    ("module", "cause"),
    [(ByValue, "data-dependent"), (ForTwo, ANY), (InNumpy, ".numpy() is not supported"), (ByNumber, "float()")],
)
def test_a_network_that_cannot_be_captured_is_one_line_with_the_cause(module, cause):
    with pytest.raises(UserError) as caught:
        calibrate(Network(module().eval(), SPEC, "odd"), torch.rand(4, 1, 8, 8))
    text = str(caught.value)
    assert text.startswith("torch.export cannot capture odd: ") and cause in text
    assert text.endswith("(no branch on a tensor's value, no fixed number of images)")
    assert "\n" not in text


@pytest.mark.parametrize("module", [ByValue, InNumpy, ByNumber, Misfit])
def test_the_line_that_cannot_be_captured_is_named(module):
    with pytest.raises(UserError) as caught:
        calibrate(Network(module().eval(), SPEC, "odd"), torch.rand(4, 1, 8, 8))
    line = module.forward.__code__.co_firstlineno + 1
    assert f", at test_capture.py:{line} in forward; write" in str(caught.value)


def test_nothing_is_printed_where_a_network_cannot_be_captured(capfd):
    with pytest.raises(UserError):
        calibrate(Network(ByValue().eval(), SPEC, "odd"), torch.rand(4, 1, 8, 8))
    text = capfd.readouterr()
    assert (text.out, text.err) == ("", "")


class ByPosition(nn.Module):
    """A linear layer on a sequence: its channels come last."""

    def __init__(self):
        super().__init__()
        self.each, self.fc = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.each(x[:, 0]).relu().mean(1))


def test_linear_layers_on_sequences_are_quantized():
    torch.manual_seed(0)
    network, x = Network(ByPosition().eval(), SPEC, "sequence"), torch.rand(50, *SPEC.shape)
    assert distance(network, calibrate(network, x).network, x) < 0.02


class Around(nn.Module):
    """The image and what layers make of it, added; the image normalised, on the other side."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(1, 1, 3, padding=1) for _ in range(3))
        self.fc = nn.Linear(64, 3)
        self.register_buffer("scale", torch.tensor([2.0, 3.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x - self.scale.mean()) / self.scale.sum()
        return self.fc(self.c(x + self.b(self.a(x.reshape(x.shape[0], 1, 8, 8)).relu())).flatten(1))


def test_an_image_to_which_a_layers_output_was_added_is_no_image_any_more():
    network, x = Network(Around().eval(), SPEC, "around"), torch.rand(50, *SPEC.shape)
    own = calibrate(network, x, Bits(weights=4, activations=4))
    assert [data.quant_max for _, data, _ in own.layers()] == [255, 15, 15, 15]


class Rest(nn.Module):
    """A layer of every kind that is left in float, between three that are not, one of them with a computed weight."""

    def __init__(self):
        super().__init__()
        self.conv, self.up = nn.Conv2d(1, 4, 3, stride=2), nn.ConvTranspose2d(4, 4, 3)
        self.scaled = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3))
        self.weight, self.fc = nn.Parameter(torch.randn(36, 5)), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.scaled(self.up(self.conv(x).relu()).relu()).flatten(1) @ self.weight)


def test_layers_that_are_left_in_float_are_named():
    torch.manual_seed(0)
    network, x = Network(Rest().eval(), SPEC, "rest"), torch.rand(50, *SPEC.shape)
    own = calibrate(network, x, equalise=True, correct_bias="empirical")
    assert own.left_in_float() == ["up: conv_transpose2d", "weight: matmul"]
    assert len(list(own.layers())) == 3
    assert own.nbytes() > 0
    assert distance(network, own.network, x) < 0.05


def test_layers_padded_to_the_same_size_are_rounded_and_equalised():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, padding="same"), nn.ReLU(), nn.Conv2d(4, 3, 8), nn.Flatten()]
    network, x = Network(nn.Sequential(*layers).eval(), SPEC, "same"), torch.rand(50, *SPEC.shape)
    own = calibrate(network, x, equalise=True)
    assert own.left_in_float() == [] and len(list(own.layers())) == 2 and len(pairs(own.graph)) == 1
    assert distance(network, own.network, x) < 0.02


@pytest.mark.parametrize("images", [True, False])
def test_a_batch_norm_without_running_statistics_is_one_line(images):
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(), nn.Linear(144, 3)]
    network = Network(nn.Sequential(*layers).eval(), SPEC, "untracked")
    with pytest.raises(UserError) as caught:
        calibrate(network, torch.rand(50, *SPEC.shape) if images else None)
    assert str(caught.value) == (
        "untracked has a batch norm without running statistics (track_running_stats=False), expected "
        "running statistics; train it with them"
    )


def test_linear_layers_on_sequences_are_corrected():
    torch.manual_seed(0)
    network, x = Network(ByPosition().eval(), SPEC, "sequence"), torch.rand(50, *SPEC.shape)
    assert distance(network, calibrate(network, x, correct_bias="empirical").network, x) < 0.02


def test_a_network_in_which_nothing_can_be_rounded_is_refused():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(64, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) @ self.weight

    with pytest.raises(UserError):
        calibrate(Network(Product().eval(), SPEC, "product"), torch.rand(4, 1, 8, 8))


@pytest.mark.parametrize("function", [lambda y: y - y.mean(0), lambda y: y + y[-1:], lambda y: y.sort(0)[0]])
def test_a_network_whose_answer_to_an_image_depends_on_the_others_is_refused(function):
    layer = nn.Linear(64, 3)
    module = nn.Module()
    module.layer = layer
    module.forward = lambda x: function(layer(x.flatten(1)))
    with pytest.raises(UserError, match=r"mixed gives another answer to an image in another batch"):
        calibrate(Network(module.eval(), SPEC, "mixed"), torch.rand(4, 1, 8, 8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_of_half_precision_is_refused_with_what_to_do(dtype):
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).to(dtype).eval()
    with pytest.raises(UserError, match=r"weights in \w*float16: call \.float\(\) on it first"):
        calibrate(Network(module, SPEC, "half"), torch.rand(4, 1, 8, 8))
