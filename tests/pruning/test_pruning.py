"""Pruning and repair: which channels are left out, how few weights stay, stopped runs, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import datafree as df
from datafree._core.errors import Notice, UserError
from datafree._core.files import read_json
from datafree.distillation.prune import PrunedNetwork, plan_pruning
from datafree.pruning.allocation import pruned
from datafree.pruning.channels import WeightCount, kept_channels, removable_groups, with_channels
from datafree.pruning.selection import copy_teacher_channels

SHAPE = (3, 8, 8)
pytestmark = pytest.mark.filterwarnings("ignore:the repair lowered")  # on random images, for an epoch


class Residual(nn.Module):
    """A residual block with a wide inside; only its channels 0 and 1 are not zero."""

    def __init__(self, inner: int = 16):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.first, self.second = nn.Conv2d(8, inner, 3, padding=1), nn.Conv2d(inner, 8, 3, padding=1)
        self.fc = nn.Linear(8, 4)
        with torch.no_grad():
            self.first.weight[2:], self.first.bias[2:] = 0, 0

    def forward(self, pixels):
        pixels = torch.relu(self.norm(self.stem(pixels)))
        return self.fc(torch.relu(pixels + self.second(torch.relu(self.first(pixels)))).mean((2, 3)))


class Grouped(nn.Module):
    """Grouped and depthwise convolutions, a group norm and a concatenation."""

    def __init__(self):
        super().__init__()
        self.first, self.group_norm = nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.other, self.fc = nn.Conv2d(3, 6, 1), nn.Linear(22, 4)

    def forward(self, pixels):
        maps = torch.relu(self.group_norm(self.first(pixels)))
        maps = maps + self.depthwise(torch.relu(self.grouped(maps)))
        return self.fc(torch.cat([maps, self.other(pixels)], 1).mean((2, 3)))


class Alone(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(192, 4)

    def forward(self, pixels):
        return self.fc(pixels.flatten(1))


def network(module: nn.Module) -> df.Network:
    return df.Network(module.eval(), input_shape=SHAPE, classes=4)


@pytest.fixture
def pixels():
    return torch.rand(64, *SHAPE)


def state(network: df.Network) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.module.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("module", [Residual, Grouped])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_the_number_of_weights_is_known_before_channels_are_removed(module, share):
    full = network(module())
    groups = removable_groups(full, share)
    counts = [kept_channels(full, group, share) for group in groups]
    count = WeightCount(full, groups)
    assert groups and count(counts) == with_channels(full, groups, counts).parameters
    assert count([group.count for group in groups]) == full.parameters


def test_channels_that_nothing_depends_on_go_first_and_the_answers_stay(pixels):
    full = network(Residual())
    small = pruned(full, 0.25, pixels)
    assert small.reduced and small.parameters <= 0.25 * full.parameters
    assert small.module.first.out_channels == 2 and small.module.stem.out_channels == 8
    assert torch.allclose(small.predict(pixels), full.predict(pixels), atol=1e-4)


def test_weights_go_where_they_are_worth_most(pixels):
    """At as many weights, the answers change less than with the same share of the channels of every group."""
    torch.manual_seed(1)
    full = network(Grouped())
    groups = removable_groups(full, 0.5)
    half = with_channels(full, groups, [kept_channels(full, group, 0.5) for group in groups])
    copy_teacher_channels(half, full, pixels[::2])
    small = pruned(full, half.parameters / full.parameters, pixels)
    expected = full.predict(pixels)
    assert small.parameters <= half.parameters
    assert (small.predict(pixels) - expected).square().mean() <= (half.predict(pixels) - expected).square().mean()


def test_a_share_that_cannot_be_kept_names_the_smallest(pixels):
    full = network(Residual())
    with pytest.raises(UserError, match=r"keep: got 0\.01, expected at least 0\.\d+: ") as caught:
        pruned(full, 0.01, pixels)
    least = float(str(caught.value).split("at least ")[1].split(":")[0])
    assert pruned(full, least, pixels).parameters <= least * full.parameters
    assert pruned(full, 0.5, pixels, original=2 * full.parameters).parameters == full.parameters
    with pytest.raises(UserError, match=r"keep: got 0\.5, and no channels of Alone can be left out"):
        pruned(network(Alone()), 0.5, pixels)


def test_a_pruned_network_learns_from_the_original_which_stays_as_it_was(normed):
    before, pixels = state(normed), torch.rand(64, 1, 8, 8)
    small = df.prune(normed, 0.5, images=pixels, epochs=2, batch=32, accuracy=lambda _: 12.5)
    assert isinstance(small, PrunedNetwork) and small.parameters <= 0.5 * normed.parameters
    assert small.spec == normed.spec and not small.module.training and len(small.training.curve.loss) == 2
    (first,) = small.rounds
    assert (first.weights, first.accuracy, small.keep) == (small.parameters, 12.5, 0.5) and 0 <= first.agreement <= 100
    assert equal(before, state(normed))
    again = df.prune(normed, 0.5, images=pixels, epochs=2, batch=32)
    assert equal(state(small), state(again))


def test_frozen_weights_are_repaired_too(normed):
    frozen = normed.with_module(normed.module)
    for parameter in frozen.module.parameters():
        parameter.requires_grad_(False)
    try:
        small = df.prune(frozen, 0.5, images=torch.rand(32, 1, 8, 8), epochs=1, batch=32)
    finally:
        for parameter in frozen.module.parameters():
            parameter.requires_grad_(True)
    assert all(parameter.requires_grad for parameter in small.module.parameters())


@pytest.mark.parametrize(("value", "name"), [("high", "str"), (float("nan"), "nan")])
def test_an_accuracy_that_is_no_number_is_refused(normed, value, name):
    with pytest.raises(UserError, match=f"accuracy: returned {name}"):
        df.prune(normed, 0.5, images=torch.rand(32, 1, 8, 8), epochs=1, accuracy=lambda _: value)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_images_are_enough(normed, count):
    small = df.prune(normed, 0.5, images=torch.rand(count, 1, 8, 8), epochs=1)
    assert small.parameters <= 0.5 * normed.parameters


def test_a_repair_that_makes_it_worse_is_flagged(normed):
    with pytest.warns(Notice, match="the repair lowered the agreement"):
        df.prune(normed, 0.95, images=torch.rand(64, 1, 8, 8), epochs=1, learning_rate=10.0, optimizer="adam")


class _StoppedError(Exception):
    pass


@pytest.mark.parametrize("stop_after", range(5))
def test_a_stopped_run_of_several_rounds_goes_on_to_the_same_weights(normed, tmp_path, stop_after):
    """Two rounds of three epochs; a stop in the first, between them, and in the second."""
    arguments = {
        "rounds": 2,
        "images": torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)),
        "epochs": 3,
    }
    whole = df.prune(normed, 0.3, batch=32, **arguments)
    path, seen = tmp_path / "state", []

    def progress(done: int, total: int, **_) -> None:
        if path.exists() and total == 6 and done in (1, 3, 5):  # the first step of an epoch, of two steps each
            seen.append(done)
            if len(seen) > stop_after:
                raise _StoppedError

    with pytest.raises(_StoppedError):
        df.prune(normed, 0.3, batch=32, state=path, progress=progress, **arguments)
    resumed = df.prune(normed, 0.3, batch=32, state=path, **arguments)
    assert equal(state(whole), state(resumed)) and whole.rounds == resumed.rounds
    with pytest.raises(UserError, match="other settings"):
        df.prune(normed, 0.4, batch=32, state=path, **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep": 0.0}, r"keep: got 0, expected above 0 and below 1"),
        ({"keep": 1.0}, r"keep: got 1, expected above 0 and below 1"),
        ({"rounds": 0}, "rounds"),
        ({"images": None}, "nothing to learn from"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_what_is_wrong_is_refused_before_any_work(normed, changes, message):
    arguments = {"keep": 0.5, "rounds": 1, "images": torch.rand(32, 1, 8, 8), **changes}
    with pytest.raises(UserError, match=message):
        plan_pruning(normed, **arguments)


@pytest.fixture(scope="module")
def pruned_release(teacher, tmp_path_factory) -> tuple[Path, PrunedNetwork]:
    small = df.prune(teacher, 0.4, rounds=2, images=torch.rand(64, 1, 8, 8), epochs=1, batch=32)
    return df.save_student(tmp_path_factory.mktemp("pruned") / "pruned", small), small


def test_a_release_of_the_zoo_opens_by_its_name(pruned_release, teacher):
    folder, small = pruned_release
    config, log = read_json(folder / "config.json"), read_json(folder / "run.json")
    assert config["architecture"] == teacher.name and config["reduced"] is True
    assert log["verb"] == "prune" and log["settings"]["keep"] == 0.4 and log["settings"]["rounds"] == 2
    assert [entry["weights"] for entry in log["result"]["pruning"]] == [entry.weights for entry in small.rounds]
    opened = df.load_model(folder)
    assert opened.fingerprint() == small.fingerprint()
    assert "to 40 % of its weights" in (folder / "README.md").read_text(encoding="utf-8")


def test_a_pruned_network_can_be_pruned_again_and_halved(pruned_release):
    folder, small = pruned_release
    opened = df.load_model(folder)
    again = df.prune(opened, 0.6, images=torch.rand(32, 1, 8, 8), epochs=1, batch=32)
    assert again.parameters <= 0.6 * small.parameters
    half = df.distill(opened, "half", images=torch.rand(32, 1, 8, 8), epochs=1, batch=32, start="teacher")
    assert half.parameters < small.parameters and half.training.started_from_teacher


def test_weights_of_other_sizes_than_any_reduced_network_has_are_refused(pruned_release, tmp_path):
    folder, small = pruned_release
    copy = tmp_path / "wide"
    copy.mkdir()
    wide = replace(small, module=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), name="other")
    df.write_release(copy, df.Network(wide.module, small.spec, "other"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError):
        df.load_model(copy)
