"""Copies of a network: of every kind of module, with leaves of its own; nothing of another's errors is printed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from datafree.models.input_spec import InputSpec
from datafree.models.memory_format import channels_last
from datafree.models.network import Network, copied, frozen
from datafree.synthesis.methods import from_name

SPEC = InputSpec(shape=(1, 8, 8), classes=tuple("abc"))


class Viewing(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.Linear(180, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(self.conv(x)).view(x.shape[0], -1))


class Holding(nn.Module):
    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.inner(x)


KINDS = {
    "plain": lambda: Viewing(),
    "traced": lambda: torch.jit.trace(Viewing().eval(), torch.rand(1, 1, 8, 8)),
    "scripted": lambda: torch.jit.script(Viewing().eval()),
    "holds a scripted one": lambda: Holding(torch.jit.script(Viewing().eval())),
    "fx": lambda: torch.fx.symbolic_trace(Viewing()),
    "half frozen": lambda: nn.Sequential(Viewing().requires_grad_(False), nn.Linear(3, 3)),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_images_are_made_from_a_copy_of_any_kind_of_module_and_nothing_is_printed(kind, tmp_path, capfd):
    from datafree.synthesis.synthetic_set import synthesize

    network = Network(KINDS[kind]().eval(), SPEC, kind)
    twin = copied(network.module)
    flags = [parameter.requires_grad for parameter in network.module.parameters()]
    assert [parameter.requires_grad for parameter in twin.parameters()] == flags
    assert all(parameter.is_leaf for parameter in twin.parameters())
    shared = {parameter.data_ptr() for parameter in twin.parameters()}
    assert shared.isdisjoint(parameter.data_ptr() for parameter in network.module.parameters())
    before = network.fingerprint()
    with frozen(twin), channels_last(network):
        pass
    settings = from_name("inception", steps=2)
    made = synthesize(network, None, settings, tmp_path / "set", images=6, chunk=6, workers=1)
    assert made.load()[0].shape == (6, 1, 8, 8)
    assert network.fingerprint() == before
    assert "Traceback" not in capfd.readouterr().err


def test_a_copy_inside_a_deep_copy_shares_what_the_caller_shares():
    module, memo = Viewing(), {}
    kept = module.conv.weight
    memo[id(kept)] = kept
    assert copied(module, memo).conv.weight is kept
    assert copy.deepcopy(module).conv.weight is not kept


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_lazy_batch_norm_is_copied():
    lazy = nn.LazyBatchNorm2d()
    copied(lazy)(torch.rand(2, 3, 4, 4))
    assert torch.nn.parameter.is_lazy(lazy.running_mean) and torch.nn.parameter.is_lazy(lazy.weight)
