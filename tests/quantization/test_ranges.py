"""Ranges told by batch norms alone: moments carried through layers, against samples."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
import torch
from torch import nn
from torch.nn.functional import relu

from datafree._core.errors import UserError
from datafree._core.optional_packages import quiet
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network

with quiet():
    pytest.importorskip("torchao")
    from datafree.quantization import Bits, calibrate
    from datafree.quantization.annotate import parameter_of
    from datafree.quantization.batchnorm_ranges import WIDTH, ActivationMoments, moments, rectified
    from datafree.quantization.capture import capture
    from datafree.quantization.post_training import covering

_aten = torch.ops.aten
SPEC = InputSpec(shape=(1, 8, 8), classes=tuple("abcdefghij"), mean=(0.4,), std=(0.5,))


class Made(nn.Module):
    """Layers, and what to do with them."""

    def __init__(self, forward, **layers: nn.Module):
        super().__init__()
        self.does = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.does(self, x)


def seen(module: nn.Module, spec: InputSpec = SPEC) -> Network:
    """In eval mode, its batch norms with running statistics of random images and with weights of their own."""
    rng = torch.Generator().manual_seed(0)
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for part in norms:
        part.momentum = None
        if part.affine:
            part.weight.data.copy_(torch.rand(part.num_features, generator=rng) + 0.5)
            part.bias.data.copy_(torch.randn(part.num_features, generator=rng) / 2)
    with torch.no_grad():
        module.train()(spec.normalize(torch.rand(200, *spec.shape, generator=rng)))
    return Network(module.eval(), spec, "seen")


def told(network: Network) -> list[tuple[object, ActivationMoments]]:
    """(operator, its output's moments) in order."""
    graph = capture(network)
    found = moments(network, graph)
    return [(node.target, found[node.name]) for node in graph.graph.nodes if node.name in found]


def moments_of(network: Network, operator) -> list[ActivationMoments]:
    return [own for target, own in told(network) if target == operator]


@pytest.mark.parametrize("top", [math.inf, 6.0, 1.0, 0.1])
def test_a_rectified_normal_has_the_moments_of_its_samples(top):
    mean = torch.tensor([-4.0, -1.0, 0.0, 0.5, 3.0, 8.0])
    variance = torch.tensor([1.0, 4.0, 1.0, 0.25, 9.0, 1.0])
    own = rectified(ActivationMoments.normal(mean, variance), top)
    rng = torch.Generator().manual_seed(0)
    x = (mean + variance.sqrt() * torch.randn(400_000, 6, generator=rng, dtype=torch.float64)).clamp(0, top)
    torch.testing.assert_close(own.mean.double(), x.mean(0), rtol=0.01, atol=0.01)
    torch.testing.assert_close(own.variance.double(), x.var(0), rtol=0.02, atol=0.01)
    assert (own.low == (mean - WIDTH * variance.sqrt()).clamp(0, top)).all()
    assert (own.high == (mean + WIDTH * variance.sqrt()).clamp(0, top)).all()


def test_a_constant_is_rectified_to_a_constant():
    own = rectified(ActivationMoments.normal(torch.tensor([2.0, -2.0]), torch.zeros(2)))
    torch.testing.assert_close(own.mean, torch.tensor([2.0, 0.0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(own.variance, torch.zeros(2), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("low", "high", "top"), [(-1.0, 3.0, 255), (0.0, 5.0, 15), (-2.0, 0.0, 3), (0.0, 0.0, 15)])
def test_a_covering_grid_has_both_ends_and_zero_on_it(low, high, top):
    step, zero = covering(low, high, top)
    assert float(step) > 0 and 0 <= int(zero) <= top
    assert (top - int(zero)) * float(step) >= high - 0.51 * float(step)
    assert -int(zero) * float(step) <= low + 0.51 * float(step)


def test_behind_a_batch_norm_channels_have_its_bias_as_mean_and_its_weight_as_spread(normed):
    norms = [normed.module.bn1, normed.module.bn2]
    for operator in (_aten.batch_norm.default, _aten.conv2d.default):  # as after folding
        for own, layer in zip(moments_of(normed, operator), norms, strict=True):
            torch.testing.assert_close(own.mean, layer.bias.detach())
            torch.testing.assert_close(own.variance, layer.weight.detach().square())
            spread = WIDTH * layer.weight.detach().abs()
            torch.testing.assert_close(own.high, layer.bias.detach() + spread)
            torch.testing.assert_close(own.low, layer.bias.detach() - spread)


def test_a_batch_norm_without_weights_says_mean_0_and_spread_1():
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)]
    network = seen(nn.Sequential(*layers))
    (own,) = moments_of(network, _aten.batch_norm.default)
    assert torch.equal(own.mean, torch.zeros(4)) and torch.equal(own.variance, torch.ones(4))
    assert error(network, None) < 0.05


def test_a_batch_norm_behind_no_layer_leaves_what_it_reads_as_it_was():
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10)]
    network = seen(nn.Sequential(*layers))
    first, _ = moments_of(network, _aten.batch_norm.default)
    (own,) = moments_of(network, _aten.relu.default)
    torch.testing.assert_close(own.mean, rectified(first).mean)


@pytest.mark.parametrize("operation", [torch.add, torch.sub])
def test_a_branch_counts_as_often_as_it_is_added(operation):
    module = Made(
        lambda own, x: own.fc(operation(own.bn1(own.conv1(x)), own.bn2(own.conv2(x)), alpha=3).flatten(1)),
        conv1=nn.Conv2d(1, 3, 3), bn1=nn.BatchNorm2d(3), conv2=nn.Conv2d(1, 3, 3), bn2=nn.BatchNorm2d(3),
        fc=nn.Linear(108, 10),
    )  # fmt: skip
    network, times = seen(module), 3 if operation is torch.add else -3
    one, other = moments_of(network, _aten.batch_norm.default)
    *_, own = moments_of(network, getattr(_aten, operation.__name__).Tensor)
    torch.testing.assert_close(own.mean, one.mean + times * other.mean)
    torch.testing.assert_close(own.variance, one.variance + 9 * other.variance)


def test_a_constant_counts_as_often_as_it_is_added():
    module = Made(
        lambda own, x: own.fc(torch.add(own.bn(own.conv(x)), 0.5, alpha=3).flatten(1)),
        conv=nn.Conv2d(1, 3, 3), bn=nn.BatchNorm2d(3), fc=nn.Linear(108, 10),
    )  # fmt: skip
    network = seen(module)
    (one,), (own,) = (moments_of(network, kind) for kind in (_aten.batch_norm.default, _aten.add.Tensor))
    torch.testing.assert_close(own.mean, one.mean + 1.5)
    torch.testing.assert_close(own.high, one.high + 1.5)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_biases_of_grouped_layers_are_corrected_by_the_mean_of_their_own_inputs(groups):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, groups=groups), nn.Flatten()]
    network = seen(nn.Sequential(*layers, nn.Linear(128, 10)))
    mean = rectified(moments_of(network, _aten.batch_norm.default)[0]).mean
    one, other = (
        calibrate(network, None, Bits(weights=3), equalise=False, correct_bias=own) for own in ("none", "analytic")
    )
    (_, (first, _, _), _), (_, (second, data, weight), _) = one.layers(), other.layers()
    before, after = parameter_of(one.graph, first.args[2]), parameter_of(other.graph, second.args[2])
    kernel = network.module[3].weight
    with torch.no_grad():
        wrong = torch.nn.functional.conv2d(
            mean.view(1, 4, 1, 1).expand(1, 4, 3, 3), weight(kernel) - kernel, groups=groups
        )
        unit = (data.step * weight.step).detach()
        assert float(wrong.abs().max()) > 4 * float(unit.max())
        assert ((after - before + wrong.flatten()).abs() <= 1.01 * unit).all()


def test_what_a_grouped_layer_without_batch_norm_makes_is_told():
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 1, groups=2), nn.Flatten(), nn.Linear(216, 10)]
    network = seen(nn.Sequential(*layers))
    norm, last = network.module[1], network.module[2]
    own = moments_of(network, _aten.conv2d.default)[-1]
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        z = last((norm.bias + norm.weight * torch.randn(50_000, 4, generator=rng)).view(-1, 4, 1, 1)).flatten(1)
    torch.testing.assert_close(own.mean, z.mean(0), rtol=0, atol=0.02)
    torch.testing.assert_close(own.variance, z.var(0), rtol=0.05, atol=0)


def test_a_linear_layer_over_another_axis_than_the_channels_is_named():
    module = Made(
        lambda own, x: own.fc(relu(own.bn(own.conv(x)))).mean((1, 2)),
        conv=nn.Conv2d(1, 6, 3), bn=nn.BatchNorm2d(6), fc=nn.Linear(6, 10),
    )  # fmt: skip
    with pytest.raises(UserError, match=r"after operator aten\.linear\.default cannot"):
        calibrate(seen(module), None)


def test_what_a_linear_layer_makes_of_a_rectified_batch_norm_is_told():
    layers = [nn.Flatten(), nn.Linear(64, 400), nn.BatchNorm1d(400), nn.ReLU(), nn.Linear(400, 10)]
    network = seen(nn.Sequential(*layers))
    own = moments_of(network, _aten.linear.default)[-1]
    norm, last = network.module[2], network.module[4]
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        z = last(relu(norm.bias + norm.weight * torch.randn(50_000, 400, generator=rng)))
    torch.testing.assert_close(own.mean, z.mean(0), rtol=0, atol=0.02)
    torch.testing.assert_close(own.variance, z.var(0), rtol=0.05, atol=0)


def test_channels_of_branches_are_added_stacked_and_kept_through_pools():
    def forward(own, x):
        a, b = own.bn1(own.conv1(x)), own.bn2(own.conv2(x))
        both = torch.cat([relu(a + b), a], 1)
        return own.fc(own.pool(both).flatten(1))

    module = Made(
        forward, conv1=nn.Conv2d(1, 3, 3), bn1=nn.BatchNorm2d(3), conv2=nn.Conv2d(1, 3, 3), bn2=nn.BatchNorm2d(3),
        pool=nn.AdaptiveAvgPool2d(1), fc=nn.Linear(6, 10),
    )  # fmt: skip
    network = seen(module)
    one, other = moments_of(network, _aten.batch_norm.default)
    (added,), (stacked,) = moments_of(network, _aten.add.Tensor), moments_of(network, _aten.cat.default)
    torch.testing.assert_close(added.mean, one.mean + other.mean)
    torch.testing.assert_close(added.variance, one.variance + other.variance)
    torch.testing.assert_close(stacked.mean, torch.cat([rectified(added).mean, one.mean]))
    (pooled,) = moments_of(network, _aten.adaptive_avg_pool2d.default)
    assert all(torch.equal(getattr(pooled, key), getattr(stacked, key)) for key in ("mean", "variance", "low", "high"))


def test_without_images_a_network_at_8_bits_agrees_with_the_original_on_most_of_them(normed, digits):
    x = digits.pixels(range(400))
    answers = normed.predict(x).argmax(1)
    for options in ({}, {"equalise": True}, {"equalise": True, "correct_bias": "analytic"}):
        own = calibrate(normed, None, **options)
        assert float((own.network.predict(x).argmax(1) == answers).float().mean()) > 0.95


def test_a_network_without_batch_norm_and_without_images_is_one_line(teacher):
    with pytest.raises(UserError) as caught:
        calibrate(teacher, None)
    assert str(caught.value) == ("hinton32 has no batch norm, and no images were given; give some with `calibrate`")


def test_an_operator_that_moments_are_not_carried_through_is_named():
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(144, 10)]
    with pytest.raises(UserError) as caught:
        calibrate(seen(nn.Sequential(*layers)), None)
    assert str(caught.value) == (
        "ranges after operator aten.tanh.default cannot be computed without images; give images with `calibrate`, such as "
        "a synthetic set"
    )


def error(network: Network, pixels: torch.Tensor | None, bits: Bits | None = None) -> float:
    """Of the logits at 8 bits, relative."""
    x = torch.rand(100, *network.spec.shape, generator=torch.Generator().manual_seed(1))
    z = network.predict(x)
    return float((calibrate(network, pixels, bits).network.predict(x) - z).norm() / z.norm())


PLAIN = SPEC.model_copy(update={"mean": (0.0,), "std": (1.0,)})
WITHIN = {
    "a network that normalises for itself": (
        PLAIN,
        lambda: Made(
            lambda own, x: own.fc(relu(own.bn(own.conv((x - 0.4) / 0.1))).flatten(1)),
            conv=nn.Conv2d(1, 4, 3), bn=nn.BatchNorm2d(4), fc=nn.Linear(144, 10),
        ),
    ),
    "a difference of branches": (
        SPEC,
        lambda: Made(
            lambda own, x: own.fc(own.last(own.bn1(own.conv1(x)) - own.bn2(own.conv2(x))).flatten(1)),
            conv1=nn.Conv2d(1, 4, 3), bn1=nn.BatchNorm2d(4), conv2=nn.Conv2d(1, 4, 3), bn2=nn.BatchNorm2d(4),
            last=nn.Conv2d(4, 4, 3), fc=nn.Linear(64, 10),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WITHIN)
def test_arithmetic_of_the_networks_own_is_followed_or_refused(name):
    spec, make = WITHIN[name]
    network = seen(make(), spec)
    with suppress(UserError):
        assert error(network, None) < 0.05


def test_a_grouped_convolution_goes_by_the_batch_norm_behind_it():
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(), nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4)]
    network = seen(nn.Sequential(*layers, nn.ReLU6(), nn.Flatten(), nn.Linear(64, 10)))
    assert error(network, None) < 0.05


def test_what_is_told_in_part_ends_at_an_operator_that_is_not_known_and_goes_on_at_the_next_batch_norm():
    layers = [
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 10),
    ]  # fmt: skip
    network = seen(nn.Sequential(*layers))
    graph = capture(network)
    with pytest.raises(UserError, match=r"after operator aten\.sigmoid\.default"):
        moments(network, graph)
    found = moments(network, graph, partly=True)
    known = [node.name in found for node in graph.graph.nodes if node.target == _aten.conv2d.default]
    assert known == [True, True, False, True]  # the last by the batch norm behind it
    assert [node.name in found for node in graph.graph.nodes if node.target == _aten.linear.default] == [True]
    assert not any("sigmoid" in name for name in found)


def test_nothing_is_told_in_part_of_a_network_without_batch_norm():
    network = Network(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval(), SPEC, "plain")
    assert moments(network, capture(network), partly=True) == {}


CHANNELS = torch.arange(1.0, 7.0) / 2
"""The biases of a batch norm whose weights are so small that its outputs are these numbers, whatever the image."""
WIDE = torch.linspace(0.5, 3.0, 6).view(6, 1, 1)
FORMS = {
    "pooled": lambda x: x.mean((2, 3)),
    "joined with itself": lambda x: torch.cat([x.mean((2, 3))] * 2, 1),
    "pooled, channels added in front": lambda x: nn.functional.pad(x.mean((2, 3)), (6, 0)),
    "pooled, channels cut off": lambda x: nn.functional.pad(x.mean((2, 3)), (-2, 0)),
    "two sizes, flattened": lambda x: torch.cat([x[:, :, :2].flatten(1), x.flatten(1)], 1),
    "flattened and pooled": lambda x: torch.cat([x.flatten(1), x.mean((2, 3))], 1),
    "averaged over rows, flattened": lambda x: x.mean(2).flatten(1),
    "times a row": lambda x: (x * torch.arange(6.0)).mean((2, 3)),
    "plus a row": lambda x: (x + torch.arange(6.0)).mean((2, 3)),
    "times channels": lambda x: (x * WIDE).mean((2, 3)),
    "averaged over channels": lambda x: x.mean((1, 2)),
    "averaged over channels, flattened": lambda x: x.mean(1).flatten(1),
    "every sixth place": lambda x: x.flatten(1)[:, ::6],
    "half of the places": lambda x: x.flatten(1)[:, 108:],
    "turned": lambda x: x.transpose(1, 2).mean((2, 3)),
    "as rows": lambda x: x.reshape(x.shape[0], 6, 6, 6).mean((1, 2)),
    "padded by a number": lambda x: nn.functional.pad(x, (1, 2, 0, 1), value=20.0).mean((2, 3)),
    "padded by a number below": lambda x: nn.functional.pad(x, (1, 1, 1, 1), value=-5.0).mean((2, 3)),
    "padded by its border": lambda x: nn.functional.pad(x, (1, 1, 1, 1), mode="reflect").mean((2, 3)),
    "channels of a number": lambda x: nn.functional.pad(x, (0, 0, 0, 0, 2, 1), value=3.0).mean((2, 3)),
    "clamped from below": lambda x: (x - 1).clamp(min=0.0).mean((2, 3)),
    "clamped from below by a whole number": lambda x: torch.clamp(x - 1, 0).mean((2, 3)),
    "clamped from below in place": lambda x: (x - 1).clamp_(min=0.0).mean((2, 3)),
    "clamped at both ends": lambda x: (x - 1).clamp(0, 1).mean((2, 3)),
    "clamped from above": lambda x: x.clamp(max=1.0).mean((2, 3)),
    "clamped to 6": lambda x: nn.functional.relu6(3 * x).mean((2, 3)),
    "clamp_min": lambda x: torch.clamp_min(x - 1, 0).mean((2, 3)),
}
NOT_CARRIED = {
    "times a row", "plus a row", "averaged over channels", "averaged over channels, flattened", "every sixth place",
    "half of the places", "turned", "as rows", "clamped from above",
}  # fmt: skip


QUICK = {
    "joined with itself", "pooled, channels added in front", "pooled, channels cut off", "two sizes, flattened",
    "averaged over rows, flattened", "times a row", "times channels", "averaged over channels", "half of the places", "turned",
    "padded by a number", "channels of a number", "clamped from below in place", "clamped at both ends", "clamped from above",
}  # fmt: skip
"""The others are slow tests, each a variant of one of these."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in FORMS])
def test_what_is_told_of_a_constant_image_is_its_numbers_in_every_place_or_nothing(name):
    norm = nn.BatchNorm2d(6)
    norm.weight.data.fill_(1e-4)
    norm.bias.data.copy_(CHANNELS)
    with torch.no_grad():
        width = FORMS[name](CHANNELS.view(1, 6, 1, 1).expand(1, 6, 6, 6).clone()).shape[1]
    module = Made(
        lambda own, x: own.fc(FORMS[name](own.bn(own.conv(x)))),
        conv=nn.Conv2d(1, 6, 3),
        bn=norm,
        fc=nn.Linear(width, 10),
    )
    network = Network(module.eval(), SPEC, "constant")
    graph = capture(network)
    found = moments(network, graph, partly=True)
    source = next(node.args[0].name for node in graph.graph.nodes if node.target == _aten.linear.default)
    assert (source not in found) == (name in NOT_CARRIED)
    if source in found:
        with torch.no_grad():
            expected = FORMS[name](CHANNELS.view(1, 6, 1, 1).expand(1, 6, 6, 6).clone())[0]
        own = found[source]
        torch.testing.assert_close(own.mean, expected, rtol=1e-3, atol=2e-3)
        assert (own.low <= expected + 1e-3).all() and (own.high >= expected - 1e-3).all()
        calibrate(network, None, Bits())
    else:
        with pytest.raises(UserError, match="cannot be computed without images"):
            calibrate(network, None, Bits())


@pytest.mark.parametrize("value", [20.0, -5.0])
def test_a_grid_covers_what_an_image_is_padded_with(value):
    def forward(own, x):
        padded = nn.functional.pad(relu(own.bn(own.conv(x))), (1, 1, 1, 1), value=value)
        return own.fc(relu(own.last(padded)).flatten(1))

    module = Made(
        forward,
        conv=nn.Conv2d(1, 6, 3), bn=nn.BatchNorm2d(6), last=nn.Conv2d(6, 2, 3), fc=nn.Linear(72, 10),
    )  # fmt: skip
    assert error(seen(module), None) < 0.1
