"""Students `half` and `shallow` of networks that are not of the zoo: what is left out, and that its weights open again."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import datafree as df
from datafree._core.errors import UserError
from datafree._core.files import read_json
from datafree.distillation.student_init import init_student_from_teacher
from datafree.models.memory_format import channels_last
from datafree.models.reducing import new_weights, passed_blocks, take_blocks, take_sizes
from datafree.pruning.blocks import shallower
from datafree.pruning.channels import narrower
from datafree.runs.provenance import public_settings

SHAPE = (3, 8, 8)


class Block(nn.Module):
    """A residual block with batch norm; `scale` shrinks what it adds."""

    def __init__(self, channels: int, scale: float = 1.0):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.scale = scale

    def forward(self, pixels):
        return torch.relu(pixels + self.scale * self.norm(self.conv(pixels)))


class Residual(nn.Module):
    def __init__(self, scales=(1.0, 1.0, 1.0)):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(8, scale) for scale in scales))
        self.fc = nn.Linear(8, 4)

    def forward(self, pixels):
        return self.fc(self.blocks(self.stem(pixels)).mean((2, 3)))


class Mixed(nn.Module):
    """Grouped and depthwise convolutions, a group norm, a concatenation, and a layer norm."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.group_norm = nn.GroupNorm(4, 16)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16)
        self.inplace = nn.ReLU6(inplace=True)
        self.other = nn.Conv2d(3, 6, 1)
        self.layer_norm = nn.LayerNorm(22)
        self.fc = nn.Linear(22, 4)

    def forward(self, pixels):
        maps = torch.relu(self.group_norm(self.first(pixels)))
        shrunk = self.inplace(self.depthwise(torch.relu(self.grouped(maps))))
        maps = torch.cat([maps[:, :, ::2, ::2] + shrunk, self.other(pixels)[:, :, ::2, ::2]], 1)
        return self.fc(self.layer_norm(maps.mean((2, 3))))


class WideNorm(nn.Module):
    """A layer norm over channels and pixels, which keeps its channels."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.LayerNorm((4, 8, 8))
        self.second, self.fc = nn.Conv2d(4, 6, 1), nn.Linear(6, 4)

    def forward(self, pixels):
        return self.fc(torch.relu(self.second(self.norm(self.first(pixels)))).mean((2, 3)))


class FixedView(nn.Module):
    """Expects 8 channels of `second`, whatever it writes."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3), nn.Linear(8 * 16, 4)

    def forward(self, pixels):
        return self.fc(self.second(torch.relu(self.first(pixels))).view(-1, 8 * 16))


class Alone(nn.Module):
    """One layer, all of whose channels are classes."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, pixels):
        return self.fc(pixels.flatten(1))


def network(module: nn.Module) -> df.Network:
    return df.Network(module.eval(), input_shape=SHAPE, classes=4)


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items() if tensor.ndim}


@pytest.fixture
def pixels():
    return torch.rand(8, *SHAPE)


def test_half_of_the_channels_are_kept_along_a_residual_connection_and_the_teacher_is_unchanged():
    teacher = network(Residual())
    before = {name: tensor.clone() for name, tensor in teacher.module.state_dict().items()}
    half = narrower(teacher)
    assert half.reduced and not teacher.reduced and half.spec == teacher.spec
    expected = {"stem.weight": (4, 3, 3, 3), "blocks.0.conv.weight": (4, 4, 3, 3), "fc.weight": (4, 4)}
    assert expected.items() <= shapes(half.module).items()
    norm = half.module.get_submodule("blocks.2.norm")
    assert norm.num_features == 4 and norm.running_mean.shape == (4,)
    assert half.module.get_submodule("blocks.1.conv").in_channels == 4
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.module.state_dict().items())


def test_groups_of_convolutions_and_norms_are_kept_whole():
    half = narrower(network(Mixed()))
    module = half.module
    assert shapes(module)["grouped.weight"] == (8, 4, 3, 3) and module.grouped.groups == 2
    assert shapes(module)["depthwise.weight"] == (8, 1, 3, 3) and module.depthwise.groups == 8
    assert (module.group_norm.num_groups, module.group_norm.num_channels) == (2, 8)
    assert module.layer_norm.normalized_shape == (11,) and shapes(module)["fc.weight"] == (4, 11)


def test_what_the_code_expects_in_one_number_is_kept():
    half = narrower(network(FixedView()))
    assert shapes(half.module)["first.weight"] == (3, 3, 3, 3)
    assert shapes(half.module)["second.weight"] == (8, 3, 3, 3)
    with pytest.raises(
        UserError, match=r"^student 'half': no channels of Alone can be left out, expected .*; name a student"
    ):
        narrower(df.Network(Alone().eval(), input_shape=(1, 1, 4), classes=4))


@pytest.mark.parametrize("module", [Residual, Mixed, WideNorm, FixedView])
def test_a_network_of_full_size_takes_the_sizes_and_the_weights_of_its_half(module, pixels):
    half = new_weights(narrower(network(module())), seed=0)
    whole = module()
    take_sizes(whole, {name: tensor.shape for name, tensor in half.module.state_dict().items()})
    whole.load_state_dict(half.module.state_dict())
    assert torch.equal(network(whole).predict(pixels), half.predict(pixels))


def test_kernels_keep_their_size_and_shared_weights_stay_shared():
    module = tied()
    state = {name: tensor.shape for name, tensor in module.state_dict().items()}
    take_sizes(module, {**state, "stem.weight": torch.Size((8, 3, 1, 1))})
    assert shapes(module)["stem.weight"] == (8, 3, 3, 3)
    assert module.blocks[0].conv.weight is module.blocks[1].conv.weight


def test_new_weights_depend_on_the_seed_alone_and_not_on_the_teachers():
    halves = []
    for weight in (1.0, 5.0):
        module = Residual()
        with torch.no_grad():
            for tensor in module.parameters():
                tensor.fill_(weight)
        halves.append(narrower(network(module)))
    states = [new_weights(half, seed=seed).module.state_dict() for half in halves for seed in (0, 1)]
    assert all(torch.equal(tensor, states[2][name]) for name, tensor in states[0].items())
    assert not torch.equal(states[0]["stem.weight"], states[1]["stem.weight"])


class Scaled(nn.Linear):
    """With a parameter that its creation does not draw, and a method that needs an argument."""

    def __init__(self):
        super().__init__(8, 8)
        self.gain = nn.Parameter(torch.rand(8) + 0.5)

    def reset_parameters(self, deviation: float | None = None):
        if deviation is None and hasattr(self, "gain"):
            raise TypeError("no deviation")
        super().reset_parameters()

    def forward(self, values):
        return super().forward(values) * self.gain


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_no_weights_of_the_teacher_are_left_in_new_ones():
    layers = [
        nn.utils.weight_norm(nn.Conv2d(3, 8, 3)),
        nn.utils.spectral_norm(nn.Conv2d(8, 8, 3)),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3)),
    ]
    teacher = network(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), Scaled(), nn.Linear(8, 4)))
    fresh = dict(new_weights(teacher, seed=0).module.named_parameters())
    left = [name for name, tensor in teacher.module.named_parameters() if torch.equal(tensor, fresh[name])]
    assert left == []


class FixedInTraining(Residual):
    """Expects 8 channels of its stem in training mode alone."""

    def forward(self, pixels):
        maps = self.stem(pixels)
        return self.fc(self.blocks(maps + torch.rand(8, 1, 1) if self.training else maps).mean((2, 3)))


def test_what_the_code_expects_in_training_is_kept():
    module = FixedInTraining()
    module.head = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
    module.fc = nn.Sequential(module.fc, module.head)
    half = narrower(network(module)).module
    assert len(half.stem.weight) == 8 and len(half.head[0].weight) == 3
    half.train()(torch.rand(2, *SHAPE))


def test_a_network_of_single_channels_has_no_half():
    module = nn.Sequential(
        nn.Conv2d(3, 1, 3), nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 4)
    )
    with pytest.raises(UserError, match=r"no channels of Sequential can be left out, expected .* 2 channels or more"):
        narrower(network(module))


def test_a_network_of_ones_own_with_the_name_of_one_of_the_zoo_has_a_half(pixels):
    teacher = df.Network(Residual().eval(), input_shape=SHAPE, classes=4, name="resnet18")
    assert shapes(df.distill(teacher, images=pixels, epochs=1, batch=8).module)["fc.weight"] == (4, 4)


def tied():
    module = Residual()
    for block in module.blocks[1:]:
        block.conv.weight = module.blocks[0].conv.weight
    return module


def test_a_block_with_weights_of_another_block_can_be_left_out(pixels, tmp_path):
    shallow = shallower(network(tied()), pixels)
    shallow.save_pretrained(tmp_path)
    assert torch.equal(df.load_model(str(tmp_path), module=tied()).predict(pixels), shallow.predict(pixels))


def test_the_blocks_that_change_least_are_left_out_and_their_weights_are_not_needed(pixels):
    teacher = network(Residual(scales=(1.0, 0.0, 1.0)))
    shallow = shallower(teacher, pixels)
    assert passed_blocks(shallow.module) == ["blocks.1"]
    assert torch.allclose(shallow.predict(pixels), teacher.predict(pixels), atol=1e-6)
    whole = Residual(scales=(1.0, 0.0, 1.0))
    take_blocks(whole, shallow.module.state_dict())
    take_sizes(whole, {name: tensor.shape for name, tensor in shallow.module.state_dict().items()})
    whole.load_state_dict(shallow.module.state_dict())
    assert torch.equal(network(whole).predict(pixels), shallow.predict(pixels))
    with pytest.raises(
        UserError, match=r"^student 'shallow': Mixed has 0 blocks, 0 of which can be left out, expected at least"
    ):
        shallower(network(Mixed()), pixels)


@pytest.mark.parametrize("name", ["half", "shallow"])
def test_a_reduced_student_starts_from_its_teacher_and_its_release_opens(name, pixels, tmp_path):
    torch.manual_seed(0)
    teacher = network(Residual())
    student = df.distill(teacher, name, images=pixels, epochs=1, batch=8, start="teacher", seed=0)
    assert student.training.started_from_teacher and student.parameters < teacher.parameters
    assert repr(student).startswith("DistilledNetwork(Residual, reduced; ")
    student.save_pretrained(tmp_path / "student")
    assert read_json(tmp_path / "student" / "config.json")["reduced"] is True
    assert (
        "- reduced: it has fewer channels or blocks than its code builds\n"
        in (tmp_path / "student" / "README.md").read_text()
    )
    opened = df.load_model(str(tmp_path / "student"), module=Residual())
    assert opened.reduced and torch.equal(opened.predict(pixels), student.predict(pixels))
    again = df.distill(opened, "half", images=pixels, epochs=1, batch=8, seed=0)
    again.save_pretrained(tmp_path / "again")
    assert df.load_model(str(tmp_path / "again"), module=Residual()).parameters == again.parameters


def test_half_is_the_default_student_of_a_network_of_ones_own(pixels):
    teacher = network(Residual())
    student = df.distill(teacher, images=pixels, epochs=1, batch=8, seed=0)
    assert shapes(student.module)["fc.weight"] == (4, 4)
    assert not init_student_from_teacher(student, network(Mixed()), None, seed=0)


def test_a_config_with_another_word_than_true_or_false_is_refused(pixels, tmp_path):
    folder = df.distill(network(Residual()), images=pixels, epochs=1, batch=8).save_pretrained(tmp_path / "student")
    config = read_json(folder / "config.json")
    del config["checksum"]
    (folder / "config.json").write_text(json.dumps({**config, "reduced": "yes"}))
    with pytest.raises(UserError, match=r"config.json"):
        df.load_model(str(folder), module=Residual())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(("channels", "stride", "fast"), [(4, 2, False), (15, 2, False), (16, 2, True), (4, 1, True)])
def test_convolutions_whose_gradients_are_wrong_are_not_put_into_channels_last_format(channels, stride, fast, traced):
    layers = (
        nn.Conv2d(3, channels, 3, padding=1),
        nn.Conv2d(channels, 8, 1, stride),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    module = nn.Sequential(*layers, nn.Linear(8, 4))
    net = network(torch.jit.trace(module, torch.rand(2, *SHAPE)) if traced else module)
    net.module.to(memory_format=torch.channels_last)
    with channels_last(net):
        assert net.channels_last == fast


def test_a_log_names_half_and_shallow_whatever_folders_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half").mkdir()
    assert [public_settings({"student": name})["student"] for name in ("half", "shallow")] == ["half", "shallow"]
