"""A term that needs less than an activation gets it during the forward pass, with the same value and gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from datafree import Network
from datafree.models import hooks
from datafree.models.network import frozen
from datafree.records.divergence import stored_statistics
from datafree.synthesis.losses import Objective, Term, View
from datafree.synthesis.losses.batchnorm import BatchNormDivergence
from datafree.synthesis.methods import from_name

SHAPE = (3, 8, 8)


class Twice(nn.Module):
    """Its second batch norm is called twice, and a ReLU overwrites its output in place."""

    def __init__(self):
        super().__init__()
        self.first, self.one = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu_(self.one(self.first(images)))
        for _ in range(2):
            hidden = torch.relu_(self.two(self.second(hidden)))
        return self.fc(hidden.mean((2, 3)))


@pytest.fixture
def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Twice().train()
        for _ in range(5):
            module(torch.rand(16, *SHAPE))
    return Network(module.eval(), input_shape=SHAPE, classes=2)


def value_and_gradient(network: Network, objective: Objective, *, reduce: bool) -> tuple[Tensor, Tensor, set[str]]:
    pixels = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    reductions = objective.reductions if reduce else {}
    with frozen(network.module), hooks.watch(network, objective.taps, reductions=reductions) as activations:
        network.logits(pixels[:2].detach())
        logits = network.logits(pixels)
        view = View(pixels, torch.zeros(6, dtype=torch.long), logits, activations, reduced=activations.reduced)
        total, _ = objective(view)
        (gradient,) = torch.autograd.grad(total, pixels)
    return total.detach(), gradient, set(activations)


@pytest.mark.parametrize("form", ["forward", "reverse", "l2"])
def test_value_and_gradient_are_those_of_the_activations(network, form):
    objective = 1.0 * BatchNormDivergence(stored_statistics(network), form)
    expected = value_and_gradient(network, objective, reduce=False)
    reduced = value_and_gradient(network, objective, reduce=True)
    assert expected[2] == {"one", "two"} and reduced[2] == set()
    assert torch.equal(reduced[0], expected[0])
    torch.testing.assert_close(reduced[1], expected[1], rtol=1e-5, atol=1e-7)


def test_several_statistics_of_one_layer_are_compared_each_with_its_own_mean(network):
    layers = stored_statistics(network)
    objective = 1.0 * BatchNormDivergence((*layers, replace(layers[0], mean=layers[0].mean + 1)))
    expected, gradient, _ = value_and_gradient(network, objective, reduce=False)
    total, reduced, _ = value_and_gradient(network, objective, reduce=True)
    assert torch.equal(total, expected)
    torch.testing.assert_close(reduced, gradient, rtol=1e-5, atol=1e-7)


class Mirrored(Twice):
    """Answers with the mean of an image and its mirror image, and calls itself for both."""

    def forward(self, images: Tensor, *, inner: bool = False) -> Tensor:
        if inner:
            return super().forward(images)
        return (self(images, inner=True) + self(images.flip(3) / 2, inner=True)) / 2


class Checkpointed(Twice):
    """Its batch norm is called outside a checkpoint and in one."""

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.one(self.first(images)))
        hidden = checkpoint(lambda x: torch.relu(self.one(self.second(x))), hidden, use_reentrant=False)
        return self.fc(hidden.mean((2, 3)))


@pytest.mark.parametrize("kind", [Mirrored, Checkpointed])
@pytest.mark.parametrize("reduce", [False, True])
def test_statistics_are_those_of_all_calls_of_one_pass_also_after_its_backward_pass(network, kind, reduce):
    module = kind().eval()
    module.load_state_dict(network.module.state_dict())
    network = Network(module, input_shape=SHAPE, classes=2)
    divergence = BatchNormDivergence(stored_statistics(network))
    pixels = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    seen: list[Tensor] = []
    with frozen(module), torch.no_grad():
        handle = module.one.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
        network.logits(pixels)
        handle.remove()
    expected = torch.stack([part.mean((0, 2, 3)) for part in seen]).mean(0) - module.one.running_mean
    reductions = divergence.reductions if reduce else {}
    with frozen(module), hooks.watch(network, divergence.taps, reductions=reductions) as activations:
        for _ in range(2):
            logits = network.logits(pixels)
            labels = torch.zeros(6, dtype=torch.long)
            view = View(pixels, labels, logits, activations, reduced=activations.reduced)
            total = divergence(view)
            torch.testing.assert_close(divergence.running(view)[0][0], expected, rtol=1e-5, atol=1e-6)
            torch.autograd.grad(total, pixels)
            torch.testing.assert_close(divergence.running(view)[0][0], expected, rtol=1e-5, atol=1e-6)


def test_a_pass_that_fails_is_not_part_of_the_next(network):
    divergence = BatchNormDivergence(stored_statistics(network))
    with frozen(network.module), hooks.watch(network, divergence.taps, reductions=divergence.reductions) as activations:
        for _ in range(2):
            with pytest.raises(RuntimeError):
                network.module(torch.rand(2, 4, 8, 8))
            handle = network.module.fc.register_forward_pre_hook(lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                network.module(torch.rand(2, *SHAPE))
            handle.remove()
            network.logits(torch.rand(2, *SHAPE))
            assert {tap: len(parts) for tap, parts in activations.reduced.items()} == {"one": 1, "two": 2}


class Large(Term):
    """A term that needs a whole activation."""

    @property
    def taps(self) -> tuple[str, ...]:
        return ("one",)

    def __call__(self, view: View) -> Tensor:
        return view.activations["one"].square().sum()


def test_an_activation_that_another_term_needs_is_kept(network):
    objective = 1.0 * BatchNormDivergence(stored_statistics(network)) + 0.1 * Large()
    assert objective.reductions.keys() == {"two"}
    expected = value_and_gradient(network, objective, reduce=False)
    reduced = value_and_gradient(network, objective, reduce=True)
    assert reduced[2] == {"one"} and torch.equal(reduced[0], expected[0])
    torch.testing.assert_close(reduced[1], expected[1], rtol=1e-5, atol=1e-7)


def test_the_gradient_of_the_moments_is_exact(network):
    layer = replace(stored_statistics(network)[0], calls=1)
    objective = 1.0 * BatchNormDivergence((layer,))
    double = Network(network.module.double(), network.spec)
    pixels = torch.rand(2, *SHAPE, dtype=torch.float64).requires_grad_(True)

    def total(images: Tensor) -> Tensor:
        with frozen(double.module), hooks.watch(double, objective.taps, reductions=objective.reductions) as activations:
            logits = double.logits(images)
            labels = torch.zeros(2, dtype=torch.long)
            return objective(View(images, labels, logits, activations, reduced=activations.reduced))[0]

    assert torch.autograd.gradcheck(total, pixels, eps=1e-6, atol=1e-5)


def test_the_images_of_a_method_are_those_of_the_activations(network, monkeypatch):
    method = from_name("bns", steps=4)
    images = method.bind(network, None).chunk(0, 0, 16).pixels
    monkeypatch.setattr(BatchNormDivergence, "reductions", {})
    torch.testing.assert_close(method.bind(network, None).chunk(0, 0, 16).pixels, images, rtol=1e-4, atol=1e-4)
