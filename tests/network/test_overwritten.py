"""Networks that write in place: a tap holds what a layer gave, and the images stay the caller's."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from datafree._core.errors import UserError
from datafree.models import hooks
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.records.divergence import StoredStatistics, statistics
from datafree.records.record import record
from datafree.records.statistics.batchnorm import BatchNorm
from datafree.records.statistics.moments import Moments
from datafree.synthesis.methods import from_name
from datafree.synthesis.pixel_moments import _operator

SPEC = InputSpec(shape=(3, 6, 6), classes=("a", "b", "c"))


def into_slices(y: torch.Tensor) -> torch.Tensor:
    y[:, 0] = y[:, 0].relu()
    y[:, 1:].mul_(0.5)
    return y


def hidden(y: torch.Tensor) -> torch.Tensor:
    y.data.clamp_(min=-0.1)  # does not count as a new version of y
    return y


def half_of(y: torch.Tensor) -> torch.Tensor:
    return torch.cat([y[:, :1].relu(), 0.5 * y[:, 1:]], 1)


OPERATIONS = {
    "nn.ReLU": (nn.ReLU(inplace=True), F.relu),
    "nn.ReLU6": (nn.ReLU6(inplace=True), F.relu6),
    "nn.LeakyReLU": (nn.LeakyReLU(0.2, inplace=True), lambda y: F.leaky_relu(y, 0.2)),
    "nn.Hardswish": (nn.Hardswish(inplace=True), F.hardswish),
    "nn.SiLU": (nn.SiLU(inplace=True), F.silu),
    "nn.ELU": (nn.ELU(inplace=True), F.elu),
    "relu_": (lambda y: y.relu_(), F.relu),
    "F.relu_": (F.relu_, F.relu),
    "sum": (lambda y: y.add_(y.detach() ** 2), lambda y: y + y.detach() ** 2),
    "out=": (lambda y: torch.mul(y, 2.0, out=y) if not y.requires_grad else y.mul_(2.0), lambda y: y * 2.0),
    "view": (lambda y: y.view(len(y), -1).relu_().view_as(y), F.relu),
    "slices": (into_slices, half_of),
    "detached": (lambda y: (y.detach().mul_(0.5), y)[1], lambda y: y - 0.5 * y.detach()),
    "x.data": (hidden, lambda y: y.clamp(min=-0.1)),
}


class Net(nn.Module):
    """conv, batch norm, conv, fc, `operation` after each of the first three and on what each is given."""

    def __init__(self, operation, *, scale: float | None = None):
        super().__init__()
        torch.manual_seed(3)
        self.one, self.bn, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(64, 3)
        self.operation, self.scale = operation, scale
        self.bn.running_mean.uniform_(-0.2, 0.2)
        self.bn.running_var.uniform_(0.5, 1.5)

    def forward(self, x):
        y = self.bn(self.operation(self.one(x)))
        return self.fc(self.operation(self.two(self.operation(y))).flatten(1))


@pytest.fixture(params=OPERATIONS)
def pair(request) -> tuple[Network, Network]:
    """The network that writes in place, and the same function written out of place."""
    with torch.random.fork_rng(devices=[]):
        one, other = (Network(Net(own).eval(), SPEC, "net") for own in OPERATIONS[request.param])
    return one, other


def pixels(count: int = 12) -> torch.Tensor:
    return torch.rand(count, *SPEC.shape, generator=torch.Generator().manual_seed(1))


NAMES = ("one", "bn", "two", "fc", hooks.FEATURES)


def test_every_pass_records_what_the_layers_gave(pair):
    found, expected = ([], [])
    for network, own in zip(pair, (found, expected), strict=True):
        with torch.no_grad(), hooks.watch(network, NAMES) as seen:
            for start in (0, 4, 8):
                network.logits(pixels()[start : start + 4])
                own.append({tap: seen[tap].clone() for tap in NAMES})
    for one, other in zip(found, expected, strict=True):
        for tap in NAMES:
            torch.testing.assert_close(one[tap], other[tap], msg=lambda text, tap=tap: f"{tap}: {text}")


def test_records_are_those_of_the_network_written_out_of_place(pair, toy):
    images = toy(count=30, shape=SPEC.shape)
    one, other = (record(network, images, [Moments(), (BatchNorm(), None)]) for network in pair)
    for name, entry in other.entries.items():
        for key, tensor in entry.summary.items():
            torch.testing.assert_close(one.entries[name].summary[key], tensor)


def test_similarities_are_those_of_the_network_written_out_of_place(pair):
    layers = [
        StoredStatistics("bn", torch.zeros(4), torch.ones(4)),
        StoredStatistics("two", torch.zeros(4), torch.ones(4)),
    ]
    one, other = (statistics(network, pixels(), layers) for network in pair)
    for tap, expected in other.items():
        for got, moment in zip(one[tap], expected, strict=True):
            torch.testing.assert_close(got, moment)


def test_a_gradient_through_a_tap_is_that_of_the_network_written_out_of_place(pair):
    if pair[0].module.operation in (OPERATIONS["x.data"][0], OPERATIONS["detached"][0]):
        pytest.skip("autograd does not see these operations")
    gradients = []
    for network in pair:
        leaf = pixels(4).requires_grad_()
        with hooks.watch(network, NAMES) as seen:
            for _ in range(2):  # the first pass copies all, the second one only what is overwritten
                logits = network.logits(leaf)
                total = sum(seen[tap].square().sum() for tap in NAMES) + logits.square().sum()
                gradients.append(torch.autograd.grad(total, leaf)[0])
    for got in gradients:
        torch.testing.assert_close(got, gradients[-1])


def test_images_made_by_gradient_are_those_of_the_network_written_out_of_place(pair):
    if pair[0].module.operation in (OPERATIONS["x.data"][0], OPERATIONS["detached"][0]):
        pytest.skip("autograd does not see these operations")
    made = [from_name("bns-inception", steps=3).bind(network, None).chunk(0, 0, 6).pixels for network in pair]
    # Adam's step hardly depends on a gradient's size: rounding moves a pixel by 1e-5, another gradient by 0.1
    torch.testing.assert_close(made[0], made[1], rtol=0, atol=1e-3)


def test_a_tidy_network_is_copied_in_the_first_pass_alone(tiny):
    network = tiny("norm")
    with torch.no_grad(), hooks.watch(network, ["conv", "bn"]) as seen:
        network.logits(torch.rand(2, 1, 4, 4))
        assert seen["conv"].data_ptr() != seen["bn"].data_ptr()
        network.logits(torch.rand(2, 1, 4, 4))
        assert seen["conv"].data_ptr() == seen["bn"].data_ptr()


def test_a_layer_that_is_overwritten_in_some_passes_alone_is_refused_and_not_recorded_wrong():
    network = Network(Net(lambda y: y.relu_() if len(y) == 1 else y.relu()).eval(), SPEC, "net")
    with torch.no_grad(), hooks.watch(network, ["one"]):
        network.logits(pixels(4))
        with pytest.raises(
            UserError, match="layer 'one' of net is overwritten in place in some passes and not in others"
        ):
            network.logits(pixels(1))


class Twice(nn.Module):
    """A batch norm used twice whose first input is overwritten before its second call."""

    def __init__(self, inplace: bool):
        super().__init__()
        torch.manual_seed(0)
        self.bn, self.fc, self.inplace = nn.BatchNorm2d(3), nn.Linear(108, 3), inplace

    def forward(self, x):
        y = 1 * x
        first = self.bn(y)
        second = y.relu_().sub_(1) if self.inplace else y.relu() - 1
        return self.fc((first + self.bn(second)).flatten(1))


def test_a_batch_norm_used_twice_records_both_inputs_as_they_were():
    found = []
    for inplace in (True, False):
        network = Network(Twice(inplace).eval(), SPEC, "twice")
        with torch.no_grad(), hooks.watch(network, ["bn"]) as seen:
            for _ in range(2):
                network.logits(pixels() - 0.5)
                found.append(seen["bn"].clone())
    assert all(torch.equal(own, found[2]) for own in found)


class Keyword(nn.Module):
    """Calls its layers by keyword."""

    def __init__(self):
        super().__init__()
        self.bn, self.fc = nn.BatchNorm2d(3), nn.Linear(108, 3)

    def forward(self, x):
        return self.fc(input=self.bn(input=x).flatten(1))


def test_layers_that_are_called_by_keyword_are_watched():
    network = Network(Keyword().eval(), SPEC, "keyword")
    assert hooks.layers(network) == ("fc",) and hooks.batch_norms(network) == ("bn",)
    with torch.no_grad(), hooks.watch(network, ["bn", hooks.FEATURES]) as seen:
        network.logits(pixels())
    assert torch.equal(seen["bn"], pixels()) and seen[hooks.FEATURES].shape == (12, 108)


class Pair(nn.Linear):
    """A linear layer that gives two tensors."""

    def forward(self, input):
        return super().forward(input), input


def test_a_layer_that_gives_two_tensors_is_no_tap():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair, self.fc = Pair(108, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(self.pair(x.flatten(1))[0])

    network = Network(Two().eval(), SPEC, "two")
    assert hooks.layers(network) == ("fc",)
    with (
        hooks.watch(network, ["pair"]),
        pytest.raises(UserError, match="layer 'pair' of two returns a tuple, expected a tensor"),
    ):
        network.logits(pixels())


WRITERS = {
    "sub_": lambda x: x.sub_(0.3).div_(0.5),
    "relu_": lambda x: F.relu_(x),
    "nn.ReLU": nn.ReLU(inplace=True),
    "slice": lambda x: x.__setitem__((slice(None), 0), 0.25) or x,
    "view": lambda x: (x.view(len(x), -1).mul_(2), x)[1],
    "loop": lambda x: ([x[:, c].sub_(0.1 * c) for c in range(3)], x)[1],
    "sometimes": lambda x: x.mul_(3) if len(x) != 16 else x * 3,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_a_network_writes_into_its_input_does_not_reach_the_images(kind):
    network = Network(nn.Sequential(Writes(WRITERS[kind]), nn.Flatten(), nn.Linear(108, 3)).eval(), SPEC, kind)
    images = pixels()
    first, second = network.predict(images, batch=5), network.predict(images, batch=5)
    assert torch.equal(images, pixels()) and torch.equal(first, second)
    leaf = pixels().requires_grad_()
    network.logits(leaf).sum().backward()
    assert torch.equal(leaf.detach(), pixels()) and leaf.grad is not None
    double = pixels().double()
    network.predict(double)
    assert torch.equal(double, pixels().double())


class Writes(nn.Module):
    def __init__(self, operation):
        super().__init__()
        self.operation = operation

    def forward(self, x):
        return self.operation(x)


def test_a_first_layer_behind_an_in_place_normalisation_does_not_see_the_image_itself():
    network = Network(nn.Sequential(Writes(WRITERS["sub_"]), nn.Flatten(), nn.Linear(108, 3)).eval(), SPEC, "net")
    with pytest.raises(UserError, match="layer '2' does not get the image itself"):
        _operator(network, "2")
    after = nn.Sequential(nn.Flatten(), Keeping())
    assert _operator(Network(after.eval(), SPEC, "net"), "1.fc")[0].shape == (3, 108)


class Keeping(nn.Module):
    """Overwrites what its layer was given after the layer has used it."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(108, 3)

    def forward(self, x):
        y = self.fc(x)
        x.zero_()
        return y


class Buffered(nn.Module):
    """Returns the same memory each time."""

    def __init__(self):
        super().__init__()
        self.fc, self.last = nn.Linear(108, 3), torch.empty(2, 3)

    def forward(self, x):
        return self.last.copy_(self.fc(x.flatten(1)).detach())


def test_logits_of_one_call_are_not_changed_by_the_next():
    network = Network(Buffered().eval(), SPEC, "buffered")
    first = network.logits(pixels()[:2])
    before = first.clone()
    network.logits(pixels()[2:4])
    assert torch.equal(first, before)
    image = torch.rand(2, 3, 1, 1)
    identity = Network(nn.Flatten(), InputSpec(shape=(3, 1, 1), classes=("a", "b", "c")), "identity")
    identity.logits(image).zero_()
    assert float(image.min()) > 0
