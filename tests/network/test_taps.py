"""Taps: what is seen, what may be named, and that nothing stays behind."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from datafree._core.errors import UserError
from datafree.models import hooks as taps
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network


class Nested(nn.Module):
    """a block of two layers, a layer used twice, one never used, one left for last that is defined first."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 3)
        self.block = nn.Sequential(OrderedDict(one=nn.Linear(16, 4), two=nn.Sequential(nn.Linear(4, 4))))
        self.twice, self.never = nn.Linear(4, 4), nn.Linear(4, 4)
        self.also_twice = self.twice

    def forward(self, x):
        return self.last(self.twice(self.twice(self.block(x.flatten(1))).relu()))


@pytest.fixture
def nested() -> Network:
    return Network(Nested().eval(), InputSpec(shape=(1, 4, 4), classes=("a", "b", "c")), "nested")


def hooks(network: Network) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in network.module.modules())


def test_layers_are_in_the_order_of_the_forward_pass_and_those_used_twice_or_never_are_out(nested):
    assert taps.layers(nested) == ("block.one", "block.two.0", "last")
    assert hooks(nested) == 0


def test_an_unknown_layer_names_the_nearest(nested):
    with pytest.raises(UserError) as caught:
        taps.check(nested, ["input", "block.on"])
    assert str(caught.value).startswith("no layer 'block.on' in nested; nearest: 'block.one'")
    for name in ("twice", "never", "block", ""):
        with pytest.raises(UserError, match="no layer"):
            taps.check(nested, [name])
    with pytest.raises(UserError, match="no layer 'lst' in nested; nearest: 'last'"), taps.watch(nested, ["lst"]):
        pass
    assert hooks(nested) == 0


def test_a_tap_gives_pre_activations(tiny):
    network, x = tiny("linear"), torch.rand(5, 1, 4, 4)
    with taps.watch(network, ["fc1", "fc3"]) as seen:
        logits = network.logits(x)
    wanted = network.module.fc1(x.flatten(1))
    assert torch.equal(seen["fc1"], wanted)
    assert (wanted < 0).any()
    assert torch.equal(seen["fc3"], logits)


def test_a_batch_norm_tap_gives_its_input(tiny):
    network, x = tiny("norm"), torch.rand(5, 1, 4, 4)
    assert taps.batch_norms(network) == ("bn",)
    with taps.watch(network, ["bn", "conv"]) as seen:
        network.logits(x)
    assert torch.equal(seen["bn"], network.module.conv(x))
    assert taps.shapes(network, ["bn", "conv", "fc", "input"]) == {
        "bn": (3, 2, 2), "conv": (3, 2, 2), "fc": (3,), "input": (1, 4, 4)
    }  # fmt: skip


def test_a_batch_norm_without_running_statistics_is_no_tap(tiny):
    network = tiny("norm")
    network.module.bn = nn.BatchNorm2d(3, track_running_stats=False)
    assert taps.batch_norms(network) == ()


class Shared(nn.Module):
    """One batch norm between two convs and after them, and one that sees two sizes."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.end = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 1), nn.Linear(2, 3)
        self.bn, self.sizes = nn.BatchNorm2d(2), nn.BatchNorm2d(2)

    def forward(self, x):
        x = self.bn(self.two(self.bn(self.one(x)).relu()))
        return self.end(self.sizes(self.sizes(x)[:, :, ::2, ::2]).mean((2, 3)))


def test_a_batch_norm_that_runs_twice_gives_both_inputs_of_the_last_pass_alone():
    network = Network(Shared().eval(), InputSpec(shape=(1, 4, 4), classes=("a", "b", "c")), "shared")
    x, module = torch.rand(5, 1, 4, 4), network.module
    assert taps.batch_norm_calls(network) == {"bn": 2}
    assert taps.batch_norms(network) == ("bn",) and taps.shapes(network, ["bn"]) == {"bn": (2, 4, 4)}
    first = module.one(x)
    with taps.watch(network, ["bn"]) as seen:
        for _ in range(3):
            network.logits(x)
    assert torch.equal(seen["bn"], torch.cat([first, module.two(module.bn(first).relu())]))
    assert taps.layers(network) == ("one", "two", "end") and hooks(network) == 0


def test_an_edit_changes_what_follows_and_is_what_is_seen(tiny):
    network, x = tiny("linear"), torch.rand(5, 1, 4, 4)
    with taps.watch(network, ["fc1", "fc3"], {"fc1": torch.zeros_like}) as seen:
        edited = network.logits(x)
    rest = network.module.fc3(network.module.fc2(torch.zeros(5, 7)).relu())
    assert torch.equal(edited, rest)
    assert torch.equal(seen["fc1"], torch.zeros(5, 7))
    assert not torch.equal(network.logits(x), rest)


@pytest.mark.parametrize("kind", ["inside", "in the forward pass", "in an edit"])
def test_hooks_are_gone_after_an_exception(tiny, kind):
    def failing(_):
        raise ZeroDivisionError

    def use(network):
        with taps.watch(network, ["fc1"], {"fc1": failing} if kind == "in an edit" else None):
            network.logits(torch.rand(1, 1, 4, 5 if kind == "in the forward pass" else 4))
            raise ZeroDivisionError

    network = tiny("linear")
    with pytest.raises((ZeroDivisionError, RuntimeError)):
        use(network)
    assert hooks(network) == 0


def test_a_network_for_other_images_is_one_line(tiny):
    network = tiny("linear")
    wrong = Network(network.module, InputSpec(shape=(1, 5, 5), classes=("a", "b", "c")), "wrong")
    with pytest.raises(UserError, match=r"wrong does not take images of shape \(1, 5, 5\)"):
        taps.layers(wrong)
    assert hooks(wrong) == 0
