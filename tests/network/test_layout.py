"""Channels last: inside only, where the network runs so, and no number changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from datafree.distillation.online.run import OnlineDistillation, train_online
from datafree.models.input_spec import InputSpec
from datafree.models.memory_format import channels_last
from datafree.models.network import Network

SPEC = InputSpec(shape=(3, 8, 8), classes=tuple("abcd"))


class Viewing(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 5, 3), nn.Linear(180, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).view(len(x), -1))


def plain() -> Network:
    return Network(nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(180, 4)).eval(), SPEC, "plain")


def is_last(network: Network) -> bool:
    return next(network.module.parameters()).is_contiguous(memory_format=torch.channels_last)


def test_weights_lie_channels_last_inside_and_as_they_were_outside():
    network = plain()
    before, pixels = network.fingerprint(), torch.rand(6, 3, 8, 8)
    wanted = network.predict(pixels)
    with channels_last(network):
        assert is_last(network) and network.fingerprint() == before
        torch.testing.assert_close(network.predict(pixels), wanted)
    assert not is_last(network) and network.fingerprint() == before
    assert torch.equal(network.predict(pixels), wanted)


@pytest.mark.parametrize("training", [False, True])
def test_weights_keep_the_memory_that_they_share_with_others(training):
    network = plain()
    convolution = network.module[0]
    shared = convolution.weight.data  # as with `share_memory()`, a flat buffer of all weights, or an array of numpy
    with channels_last(network):
        assert is_last(network)
        if training:
            with torch.no_grad():
                convolution.weight += 1
        inside = convolution.weight.detach().clone()
    assert convolution.weight.data_ptr() == shared.data_ptr()
    assert convolution.weight.stride() == shared.stride() and torch.equal(shared, inside)


def test_a_network_that_views_its_convolutions_stays_as_it_is():
    network = Network(Viewing().eval(), SPEC, "viewing")
    with channels_last(network, plain()):
        assert not is_last(network)
        assert network.predict(torch.rand(2, 3, 8, 8)).shape == (2, 4)


def test_a_network_that_wants_its_numbers_in_order_for_a_reason_of_its_own_stays_as_it_is():
    network = plain()

    def strict(_, inputs):
        if not inputs[0].is_contiguous():
            raise RuntimeError("mine wants contiguous input")

    network.module[1].register_forward_pre_hook(strict)
    with channels_last(network):
        assert not is_last(network)
        assert network.predict(torch.rand(2, 3, 8, 8)).shape == (2, 4)


def test_what_was_channels_last_before_is_so_afterwards_also_where_the_work_inside_fails():
    network = plain()
    network.module.to(memory_format=torch.channels_last)
    other = plain()
    with pytest.raises(KeyError), channels_last(network, other):
        raise KeyError
    assert is_last(network) and not is_last(other)


class Sometimes(nn.Module):
    """Calls `view` on a convolution's output in some of its uses alone, or on the image."""

    def __init__(self, kind: str):
        super().__init__()
        self.conv, self.fc, self.kind = nn.Conv2d(3, 5, 3), nn.Linear(180, 4), kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "image":
            x = x.view(len(x), -1).view(x.shape)
        y = self.conv(x)
        here = {"gradient": torch.is_grad_enabled(), "training": self.training, "many": len(x) > 2, "always": True}
        return self.fc(y.view(len(y), -1) if here.get(self.kind) else y.flatten(1))


KINDS = ("always", "image", "gradient", "training", "many")


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_views_in_some_of_its_uses_stays_as_it_is(kind):
    network = Network(Sometimes(kind).eval(), SPEC, kind)
    before = network.fingerprint()
    with channels_last(network):
        assert not is_last(network)
        images = torch.rand(6, 3, 8, 8).contiguous(memory_format=torch.channels_last)
        for training in (False, True):
            network.module.train(training)
            assert network.logits(images.requires_grad_()).shape == (6, 4)
    assert network.fingerprint() == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_views_plays_against_a_generator_that_works_channels_last(kind):
    for viewing_teacher in (False, True):
        players = (Network(Sometimes(kind).eval(), SPEC, kind), plain())
        teacher, student = players if viewing_teacher else players[::-1]
        history = train_online(
            teacher, student, OnlineDistillation(epochs=1, iterations=1, batch=4, width=8, student_steps=1)
        )
        assert history.images == 4


def test_finding_out_changes_no_batch_norm_and_draws_no_random_number():
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Dropout(), nn.Flatten(), nn.Linear(180, 4))
    network = Network(module.eval(), SPEC, "net")
    before, drawn = network.fingerprint(), torch.get_rng_state()
    with channels_last(network):
        assert is_last(network)
    assert network.fingerprint() == before and torch.equal(torch.get_rng_state(), drawn)


class Volume(nn.Module):
    """A convolution of images, and one of five axes."""

    def __init__(self):
        super().__init__()
        self.conv, self.deep = nn.Conv2d(3, 5, 3), nn.Conv3d(1, 2, 3, padding=1)
        self.shift = nn.Parameter(torch.ones(1, 1, 1, 1, 1))
        self.register_buffer("scale", torch.full((1, 1, 1, 1, 1), 2.0))
        self.fc = nn.Linear(2, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc((self.deep(self.conv(x)[:, None]) * self.scale + self.shift).mean((2, 3, 4)))


def test_tensors_of_five_axes_stay_in_their_order():
    network = Network(Volume().eval(), SPEC, "volume")
    before, pixels = network.fingerprint(), torch.rand(6, 3, 8, 8)
    expected, weight = network.predict(pixels), network.module.conv.weight
    with channels_last(network):
        assert weight.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(network.predict(pixels), expected)
    assert weight.is_contiguous() and network.fingerprint() == before
    assert torch.equal(network.predict(pixels), expected)
