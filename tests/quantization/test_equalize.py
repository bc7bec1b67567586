"""Cross-layer equalisation: the same function, ranges alike; no pair where it would change the function."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from datafree._core.optional_packages import quiet
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network

with quiet():
    pytest.importorskip("torchao")
    from datafree.quantization import Bits, calibrate, convert
    from datafree.quantization.annotate import parameter_of
    from datafree.quantization.capture import capture
    from datafree.quantization.equalize import equalize, pairs

SPEC = InputSpec(shape=(1, 6, 6), classes=("a", "b", "c"))


class Branching(nn.Module):
    """conv1's output is read twice."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.conv1(x).relu()
        return self.fc((a + self.conv2(a)).flatten(1))


def uneven(*layers: nn.Module, dead: int | None = None) -> Network:
    """A network whose first layer's channels are of very unequal range, its next layer's the other way round."""
    module = nn.Sequential(*layers)
    weighted = [part for part in layers if isinstance(part, nn.Conv2d | nn.Linear)]
    scale = torch.logspace(-2, 2, len(weighted[0].weight))
    with torch.no_grad():
        weighted[0].weight.mul_(scale.view(-1, *[1] * (weighted[0].weight.ndim - 1)))
        if weighted[0].bias is not None:
            weighted[0].bias.mul_(scale)
        if weighted[1].weight.shape[1] == len(scale):
            weighted[1].weight.div_(scale.view(1, -1, *[1] * (weighted[1].weight.ndim - 2)))
        if dead is not None:
            weighted[0].weight[dead], weighted[0].bias[dead] = 0, 0
    return Network(module.eval(), SPEC, "uneven")


def chain(dead: int | None = None) -> Network:
    torch.manual_seed(0)
    return uneven(
        nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 2), nn.Flatten(), dead=dead
    )


def images(count: int = 50) -> torch.Tensor:
    return torch.rand(count, *SPEC.shape, generator=torch.Generator().manual_seed(0))


def ranges(graph) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of each pair: the first layer's by output channel, the second's by input channel."""
    found = []
    for pair in pairs(graph):
        weights = [graph.get_parameter(str(node.args[1].target)).abs() for node in pair]
        found.append((weights[0].flatten(1).amax(1), weights[1].transpose(0, 1).flatten(1).amax(1)))
    return found


class Again(nn.Module):
    """One layer used twice, and a head that two features share; `normed`, with batch norms between."""

    def __init__(self, normed: bool = False):
        super().__init__()
        self.a, self.c, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)
        self.n1, self.n2 = (nn.BatchNorm2d(4) if normed else nn.Identity() for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.n1(self.c(self.a(x).relu())).relu()
        other = self.n2(self.c(one)).relu()
        return self.fc(one.mean((2, 3))) + self.fc(other.mean((2, 3)))


class Tied(nn.Module):
    """Two layers of one weight, and `first` and `last` of one bias."""

    def __init__(self):
        super().__init__()
        self.first, self.c, self.d, self.last = nn.Linear(36, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.fc = nn.Linear(6, 3)
        self.d.weight, self.last.bias = self.c.weight, self.first.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.d(self.c(self.first(x.flatten(1)).relu()).relu())
        return self.fc(torch.tanh(self.last(torch.tanh(x))))


class OverWidth(nn.Module):
    """A linear layer whose inputs are as many as the channels before it, over another axis."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).relu()).mean((1, 2))


class Aside(nn.Module):
    """What a batch norm reads is read beside it too."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.conv(x)
        return self.fc((self.norm(a).relu() + a).mean((2, 3)))


SHARING = {
    "used twice": Again, "used twice, normed": lambda: Again(True), "tied": Tied, "over width": OverWidth, "aside": Aside,
}  # fmt: skip


def sharing(name: str) -> Network:
    """Its weights of very unequal range by channel, its batch norms with statistics of their own."""
    torch.manual_seed(0)
    module = SHARING[name]()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                part.weight.mul_(torch.logspace(-1, 1, len(part.weight)).view(-1, *[1] * (part.weight.ndim - 1)))
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 3)
    return Network(module.eval(), SPEC, "sharing")


@pytest.mark.parametrize("name", SHARING)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"equalise": True}, marks=pytest.mark.slow),
        pytest.param({"correct_bias": "empirical"}, marks=pytest.mark.slow),
        {"equalise": True, "correct_bias": "empirical"},
    ],
)
def test_layers_that_share_weights_or_outputs_are_quantized_as_the_function_they_are(name, options):
    network, x = sharing(name), images(200)
    own, z = calibrate(network, x, Bits(weights=16, activations=16), **options), network.predict(x)
    assert float((own.network.predict(x) - z).norm() / z.norm()) < 5e-3


@pytest.mark.parametrize("name", SHARING)
def test_layers_that_share_weights_are_converted_as_simulated(name):
    network, x = sharing(name), images(200)
    own = calibrate(network, x, equalise=True, correct_bias="empirical")
    with torch.no_grad():
        assert torch.equal(convert(own)(x), own.network.predict(x))
    for node, data, weight in own.layers():
        units = parameter_of(own.graph, node.args[2]).detach() / (data.step * weight.step).detach()
        torch.testing.assert_close(units, units.round(), rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("name", SHARING)
def test_a_captured_graph_in_which_something_else_reads_a_pairs_weights_is_left_alone(name):
    graph, x = capture(sharing(name)), images()
    before = graph(x).detach()
    assert equalize(graph) == {}
    assert torch.equal(graph(x), before)


@pytest.mark.parametrize("dead", [None, 2])
def test_the_function_is_kept_and_ranges_are_made_alike(dead):
    network = chain(dead)
    graph, x = capture(network), images()
    before = graph(x).detach()
    assert len(pairs(graph)) == 2
    scales = equalize(graph)
    torch.testing.assert_close(graph(x).detach(), before, rtol=1e-4, atol=1e-4)
    for index, (first, second) in enumerate(ranges(graph)):
        same = torch.arange(len(first)) != dead if index == 0 and dead is not None else slice(None)
        torch.testing.assert_close(first[same], second[same], rtol=5e-3, atol=0)
    if dead is None:
        assert max(float(own.max() / own.min()) for own in scales.values()) > 10
    assert all((own > 0).all() for own in scales.values())


def test_outputs_were_divided_by_what_it_says():
    network, x = chain(), images()
    before = network.module[0](x).detach()
    graph = capture(network)
    (name, scale), *_ = equalize(graph).items()
    assert name == pairs(graph)[0][0].name
    weight, bias = (graph.get_parameter(str(own.target)) for own in pairs(graph)[0][0].args[1:3])
    after = torch.nn.functional.conv2d(x, weight, bias).detach()
    torch.testing.assert_close(after * scale.view(1, -1, 1, 1), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_quantized_network_that_was_equalised_is_the_original_where_nothing_is_rounded(calibrated, normed, digits):
    x = digits.pixels(range(100))
    own = calibrate(normed, x if calibrated else None, Bits(weights=4), equalise=True, correct_bias="none")
    for step in own.steps():
        step.rounding = False
    # biases are whole numbers of steps, so the first layer's are off by half a step at most
    torch.testing.assert_close(own.network.predict(x), normed.predict(x), rtol=0, atol=0.02)
    assert all(torch.allclose(first, second, rtol=5e-3) for first, second in ranges_behind_grids(own.graph))


def ranges_behind_grids(graph) -> list[tuple[torch.Tensor, torch.Tensor]]:
    found = []
    for pair in pairs(graph):
        weights = [graph.get_parameter(str(node.args[1].args[0].target)).detach().abs() for node in pair]
        found.append((weights[0].flatten(1).amax(1), weights[1].transpose(0, 1).flatten(1).amax(1)))
    assert found
    return found


def test_few_bits_lose_less_where_channels_were_equalised_first():
    network, x = chain(), images(200)
    z = network.predict(x)
    errors = [
        float(
            (calibrate(network, x, Bits(weights=8, activations=4), equalise=own).network.predict(x) - z).norm()
            / z.norm()
        )
        for own in (False, True)
    ]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(16, 3)),
        (nn.Conv2d(1, 4, 3), nn.ReLU6(), nn.Conv2d(4, 3, 4), nn.Flatten()),
        (nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 3, 4), nn.Flatten()),
        (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 2), nn.Flatten()),
        (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)),
        (nn.Conv2d(1, 3, 6), nn.Flatten()),
        (Branching(),),
    ],
    ids=["grouped", "relu6", "tanh", "pool", "flatten", "one layer", "read twice"],
)
def test_layers_with_anything_but_a_relu_between_them_are_left_alone(layers):
    network = Network(nn.Sequential(*layers).eval(), SPEC, "other")
    graph = capture(network)
    before = {name: own.clone() for name, own in graph.named_parameters()}
    assert pairs(graph) == []
    assert equalize(graph) == {}
    assert all(torch.equal(own, before[name]) for name, own in graph.named_parameters())


def test_linear_layers_are_pairs_too_and_layers_without_bias():
    torch.manual_seed(0)
    network = uneven(nn.Flatten(), nn.Linear(36, 8, bias=False), nn.ReLU(), nn.Linear(8, 3))
    graph, x = capture(network), images()
    before = graph(x).detach()
    equalize(graph)
    ((first, second),) = ranges(graph)
    torch.testing.assert_close(first, second, rtol=5e-3, atol=0)
    torch.testing.assert_close(graph(x).detach(), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("normed", "gamma"),
    [(True, 1e-3), (True, 0.0), (False, 1e-8)]
    + [
        pytest.param(normed, gamma, marks=pytest.mark.slow)
        for normed, gamma in [(True, 1e-8), (True, 1e-5), (False, 1e-5), (False, 1e-3), (False, 0.0)]
    ],
)
def test_a_constant_channel_does_not_take_the_grid_of_its_layer(gamma, normed):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8)
    norm.weight.data.uniform_(0.5, 1.5)
    norm.weight.data[:2], norm.bias.data[:2] = gamma, torch.tensor([0.5, 2.0])
    norm.running_var.fill_(0.1)
    layers = [nn.Conv2d(1, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten()]
    module = nn.Sequential(*layers, nn.Linear(24, 3)).eval()
    if not normed:
        module[0] = nn.utils.fusion.fuse_conv_bn_eval(module[0], module[1])
        module[1], module[4] = nn.Identity(), nn.Identity()
    network, x = Network(module, SPEC, "constant"), images(200)
    expected = network.predict(x)
    for pixels in [x, None] if normed else [x]:
        errors = [
            float((calibrate(network, pixels, equalise=on).network.predict(x) - expected).norm())
            for on in (True, False)
        ]
        assert errors[0] < 3 * errors[1]
