"""A student begins with what of its teacher stands best for all of it, or stays as it is."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from datafree._core.errors import UserError
from datafree.data import load
from datafree.distillation.student_init import init_student_from_teacher, same_architecture
from datafree.distillation.students import student_name
from datafree.distillation.train import train
from datafree.distillation.training_loop import Schedule
from datafree.evaluation.accuracy import evaluate
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.pruning import selection
from datafree.pruning.selection import _choose, _Moments, _parts, _Reader, _reconstruction, copy_teacher_channels
from datafree.releases.load import new_model
from datafree.synthesis.generator import untrained
from datafree.synthesis.scene import Scene

SPEC = InputSpec(shape=(1, 8, 8), classes=tuple("abcd"))


def pixels(spec=SPEC, count=256):
    return torch.rand(count, *spec.shape, generator=torch.Generator().manual_seed(0))


def state(network):
    return {name: tensor.clone() for name, tensor in network.module.state_dict().items()}


class Residual(nn.Module):
    """A stem, a block around which its input is led, and a head."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.first, self.second = (
            nn.Conv2d(width, inner, 3, padding=1, bias=False),
            nn.Conv2d(inner, width, 3, padding=1),
        )
        self.norm, self.head = nn.BatchNorm2d(inner), nn.Linear(width * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.second(self.norm(self.first(x)).relu())
        return self.head(nn.functional.adaptive_avg_pool2d(x.relu(), 2).flatten(1))


def chain(width: int, inner: int) -> nn.Module:
    parts = [("conv1", nn.Conv2d(1, width, 3)), ("norm", nn.BatchNorm2d(width)), ("relu1", nn.ReLU())]
    parts += [("conv2", nn.Conv2d(width, inner, 3, stride=2)), ("relu2", nn.ReLU()), ("flat", nn.Flatten())]
    return nn.Sequential(OrderedDict([*parts, ("fc", nn.Linear(inner * 4, 4))]))


def made(build, *sizes, seed=0) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build(*sizes)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2.0)
    return Network(module, SPEC, build.__name__)


def doubled(network: Network, name: str, into: str, count: int) -> None:
    """Every channel from `count` on becomes a multiple of an earlier one, which a student can do without."""
    own = network.module.state_dict()
    for key in (f"{name}.weight", f"{name}.bias"):
        own[key][count:] = own[key][: len(own[key]) - count] * 0.5
    assert own[f"{into}.weight"].ndim > 1


def test_channels_that_repeat_others_are_left_out_without_a_difference():
    teacher, student = made(chain, 6, 8), made(chain, 6, 5, seed=1)
    doubled(teacher, "conv2", "fc", 5)
    kept = state(teacher)
    assert copy_teacher_channels(student, teacher, pixels())
    torch.testing.assert_close(student.predict(pixels()), teacher.predict(pixels()), atol=1e-4, rtol=1e-4)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in teacher.module.state_dict().items())


def test_a_norm_between_goes_along_with_its_channels():
    teacher, student = made(chain, 6, 8), made(chain, 4, 8, seed=1)
    own = teacher.module.state_dict()
    for name in (
        "conv1.weight",
        "conv1.bias",
        *(f"norm.{key}" for key in ("weight", "bias", "running_mean", "running_var")),
    ):
        own[name][:2] = own[name][4:]  # the first two are the last two
    assert copy_teacher_channels(student, teacher, pixels())
    torch.testing.assert_close(student.predict(pixels()), teacher.predict(pixels()), atol=1e-4, rtol=1e-4)


def test_channels_are_chosen_inside_a_block_and_around_it():
    teacher, student = made(Residual, 4, 8), made(Residual, 4, 4, seed=1)
    weights = teacher.module.state_dict()
    weights["second.weight"][:, :4] = 0  # the first four say nothing
    assert copy_teacher_channels(student, teacher, pixels())
    torch.testing.assert_close(student.predict(pixels()), teacher.predict(pixels()), atol=1e-4, rtol=1e-4)
    for name in ("stem.weight", "stem.bias", "second.weight", "second.bias"):
        weights[name][0::2] = weights[name][1::2]  # every channel that is led around the block is there twice
    narrow = made(Residual, 2, 8, seed=1)
    assert copy_teacher_channels(narrow, teacher, pixels())
    torch.testing.assert_close(narrow.predict(pixels()), teacher.predict(pixels()), atol=1e-3, rtol=1e-3)


def narrower(teacher, student):
    """The layers that write the channels of each part in which the student has fewer."""
    parts = _parts(student, teacher, state(teacher), pixels(count=16))
    return [sorted({place.layer for pair in part.pairs for place in pair.teacher.indices if place.side == "out"})
            for part in parts]  # fmt: skip


@pytest.mark.parametrize("width", range(2, 7))
def test_channels_that_a_block_is_led_around_are_one_group_with_those_that_it_adds(width):
    teacher = made(Residual, width, 4)
    assert narrower(teacher, made(Residual, 1, 4)) == [["second", "stem"]]
    assert narrower(teacher, made(Residual, width, 2)) == [["first"]]


def test_a_published_residual_network_keeps_what_its_student_has():
    """Option A shortcuts put a stage's channels in the middle of the next stage's: the student must choose the same."""
    spec = InputSpec(shape=(3, 32, 32), classes=tuple("abcd"))
    teacher = new_model("resnet8", spec, seed=0)
    student = new_model(student_name(teacher, "half"), spec, seed=1)
    images = pixels(spec, 64)
    with torch.no_grad():
        for tensor in teacher.module.buffers():
            if tensor.ndim:
                tensor.uniform_(0.5, 2.0)
    assert copy_teacher_channels(student, teacher, images)
    kept = [
        [
            teacher.module.state_dict()[name].tolist().index(value)
            for value in student.module.state_dict()[name].tolist()
        ]
        for name in ("bn1.running_var", "layer2.0.bn2.running_var", "layer3.0.bn2.running_var")
    ]
    assert [len(channels) for channels in kept] == [8, 16, 32]
    assert [channel - 8 for channel in kept[1][4:12]] == kept[0]
    assert [channel - 16 for channel in kept[2][8:24]] == kept[1]
    assert set(kept[1][:4] + kept[1][12:]).isdisjoint(range(8, 24))  # those of which the shortcut has none


def reader(moments, weight, biased):
    """A layer that reads one group of channels."""
    positions = torch.arange(weight.shape[1])[:, None]
    return _Reader("layer", [0], positions, weight, biased, moments)


def test_greedy_choice_is_the_best_one_at_every_step():
    """Against least squares done anew for every candidate."""
    rng = torch.Generator().manual_seed(3)
    rows = (
        torch.randn(500, 6, generator=rng, dtype=torch.double) @ torch.randn(6, 6, generator=rng, dtype=torch.double)
        + 1.0
    )
    weight = torch.randn(3, 6, 2, generator=rng, dtype=torch.double)
    for biased in (True, False):
        moments = _Moments.empty(6)
        for part in rows.split(123):
            moments.add(part)
        centred = rows - rows.mean(0) if biased else rows

        def lost(kept, centred=centred):
            left = centred - centred[:, kept] @ torch.linalg.lstsq(centred[:, kept], centred).solution
            return float(torch.einsum("nc,ocp->nop", left, weight).square().sum())

        best: list[int] = []
        for _ in range(3):
            best.append(min((set(range(6)) - set(best)), key=lambda one, lost=lost: lost([*best, one])))
        layer = reader(moments, weight, biased)
        (kept,) = _choose([layer], [6], [3])
        share, offset = _reconstruction(layer, kept)
        assert kept.tolist() == sorted(best)
        rest = rows - rows[:, kept] @ share.T - offset
        assert float(torch.einsum("nc,ocp->nop", rest, weight).square().sum()) == pytest.approx(
            lost(sorted(best)), rel=1e-3
        )
        assert float(rest.mean(0).abs().max()) < 1e-6 or not biased


def test_each_group_gets_as_many_channels_as_the_student_has_and_two_layers_that_read_it_count_alike():
    rng = torch.Generator().manual_seed(4)
    first, second = (torch.randn(300, 5, generator=rng, dtype=torch.double) for _ in range(2))
    moments = [_Moments.empty(5), _Moments.empty(5)]
    for measured, rows in zip(moments, (first, second), strict=True):
        measured.add(rows)
    weights = torch.zeros(2, 1, 5, 1, dtype=torch.double)
    weights[0, 0, :, 0] = torch.tensor([9.0, 0, 0, 0, 0])  # the first layer needs channel 0 alone
    weights[1, 0, :, 0] = torch.tensor([0, 0, 0, 0.01, 0])  # the second, of small weights, channel 3
    readers = [reader(moment, weight, True) for moment, weight in zip(moments, weights, strict=True)]
    (kept,) = _choose(readers, [5], [2])
    assert kept.tolist() == [0, 3]
    both = _Reader("layer", [0, 1], torch.arange(5)[:, None], weights[0], True, moments[0])
    whole, part = _choose([both], [2, 3], [2, 1])
    assert whole.tolist() == [0, 1] and len(part) == 1


def test_dead_channels_and_a_layer_of_nothing_else_do_no_harm():
    teacher, student = made(chain, 6, 8), made(chain, 3, 4, seed=1)
    for key in ("weight", "bias"):
        teacher.module.state_dict()[f"conv2.{key}"].zero_()
    assert copy_teacher_channels(student, teacher, pixels())
    torch.testing.assert_close(student.predict(pixels()), teacher.predict(pixels()))


def test_of_many_channels_several_are_taken_at_a_time_and_none_that_repeats(monkeypatch):
    rng = torch.Generator().manual_seed(3)
    base = torch.randn(2000, 20, generator=rng, dtype=torch.double) @ torch.randn(
        20, 20, generator=rng, dtype=torch.double
    )
    rows = torch.cat([base, base + 1e-6 * torch.randn(2000, 20, generator=rng, dtype=torch.double)], 1)
    weight, moments = torch.randn(5, 40, 1, generator=rng, dtype=torch.double), _Moments.empty(40)
    moments.add(rows)
    layer = reader(moments, weight, True)
    (one,) = _choose([layer], [40], [20])
    monkeypatch.setattr(selection, "ROUNDS", 7)
    (several,) = _choose([layer], [40], [20])
    share, other = _reconstruction(layer, one)[0], _reconstruction(layer, several)[0]
    assert len(several) == 20 == len(several.unique()) and share.shape == other.shape == (40, 20)

    def missed(kept, share):
        apart = (rows - rows.mean(0)) @ (torch.eye(40, dtype=torch.double) - share_of(kept, share)) @ weight[:, :, 0].T
        return float(apart.square().mean() / ((rows - rows.mean(0)) @ weight[:, :, 0].T).square().mean())

    def share_of(kept, share):
        full = torch.zeros(40, 40, dtype=torch.double)
        full[kept] = share.T
        return full

    assert missed(one, share) < 1e-6 and missed(several, other) < 0.05


def test_a_student_begins_far_above_chance_on_images_of_nothing():
    digits, test = load("digits", "train"), load("digits", "test")
    spec = InputSpec(shape=(1, 16, 16), classes=digits.classes)
    teacher = Network(nn.Sequential(nn.Conv2d(1, 16, 5, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(),
                                    nn.Linear(512, 10)), spec, "own")  # fmt: skip
    student = Network(nn.Sequential(nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(),
                                    nn.Linear(256, 10)), spec, "own")  # fmt: skip
    train(teacher, digits, Schedule(epochs=4, batch=32, learning_rate=3e-3))
    assert init_student_from_teacher(student, teacher, Scene("drawings", "dark"), seed=0)
    assert evaluate(student, test).accuracy > 50


def test_images_of_generators_that_nobody_trained_are_the_seeds_alone():
    teacher = made(chain, 6, 8)
    one, same, other = (untrained(teacher, Scene(), seed=seed) for seed in (0, 0, 1))
    assert one.shape == (2048, 1, 8, 8) and one.dtype == torch.float32
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.min() >= 0 and one.max() <= 1


def test_of_a_student_as_wide_as_its_teacher_a_copy_is_made():
    teacher, student = made(Residual, 4, 8), made(Residual, 4, 8, seed=1)
    assert copy_teacher_channels(student, teacher, pixels())
    assert torch.equal(student.predict(pixels()), teacher.predict(pixels()))


@pytest.mark.parametrize(
    ("teacher", "student"), [("lenet5-half", "lenet5"), ("lenet5", "hinton8"), ("resnet20", "resnet8")]
)
def test_a_student_of_other_or_wider_layers_is_left_as_it_is(teacher, student):
    channels = 3 if teacher == "resnet20" else 1
    spec = InputSpec(shape=(channels, 32, 32), classes=tuple("abcd"))
    one, other = new_model(teacher, spec, seed=0), new_model(student, spec, seed=1)
    kept = state(other)
    assert not copy_teacher_channels(other, one, pixels(spec, 8))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in other.module.state_dict().items())


def test_a_layer_made_of_other_tensors_and_one_of_groups_begin_with_their_first_channels():
    def build(width):
        parts = [nn.utils.parametrizations.weight_norm(nn.Conv2d(1, width, 3)), nn.ReLU()]
        return nn.Sequential(
            *parts, nn.Conv2d(width, width, 3, groups=width), nn.ReLU(), nn.Flatten(), nn.Linear(width * 16, 4)
        )

    teacher, student = made(build, 6), made(build, 3, seed=1)
    assert copy_teacher_channels(student, teacher, pixels())
    assert torch.equal(student.module[2].weight, teacher.module[2].weight[:3])


class Forked(nn.Module):
    """Batches of one brightness take another way than the others."""

    def __init__(self, width: int, low: float, high: float):
        super().__init__()
        self.stem, self.head, self.low, self.high = nn.Conv2d(1, width, 3), nn.Linear(width, 4), low, high
        self.usual, self.bright = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        way = self.bright if self.low < float(x.mean()) < self.high else self.usual
        return self.head(way(self.stem(x).relu()).relu().mean((2, 3)))


@pytest.mark.parametrize(("low", "high"), [(0.97, 2.0), (0.9, 0.97)], ids=["what is followed", "the images"])
def test_a_network_whose_pixels_decide_which_layers_they_pass_begins_with_first_channels(low, high):
    teacher, student = made(Forked, 6, low, high), made(Forked, 3, low, high, seed=1)
    assert copy_teacher_channels(student, teacher, 0.9 + 0.1 * pixels())
    assert torch.equal(student.module.usual.bias, teacher.module.usual.bias[:3])
    assert all(bool(tensor.isfinite().all()) for tensor in student.module.state_dict().values())


@pytest.mark.parametrize(
    "norm",
    [
        lambda width: nn.BatchNorm2d(width, affine=False),
        lambda width: nn.InstanceNorm2d(width),
        lambda width: nn.InstanceNorm2d(width, track_running_stats=True),
        lambda width: nn.PReLU(),  # noqa: ARG005
        lambda width: nn.PReLU(width),
    ],
    ids=["plain batch norm", "instance norm", "plain instance norm with statistics", "one slope", "slope per channel"],
)
def test_a_norm_without_weights_and_one_slope_for_all_channels_are_passed_through(norm):
    def build(width):
        return nn.Sequential(
            nn.Conv2d(1, width, 3), norm(width), nn.Conv2d(width, 4, 3), nn.Flatten(), nn.Linear(64, 4)
        )

    teacher, student = made(build, 6), made(build, 3, seed=1)
    doubled(teacher, "0", "2", 3)
    assert copy_teacher_channels(student, teacher, pixels())
    torch.testing.assert_close(student.predict(pixels()), teacher.predict(pixels()), rtol=1e-3, atol=1e-3)


def test_a_shallower_student_begins_with_the_first_and_the_last_blocks_of_each_stage():
    spec = InputSpec(shape=(3, 8, 8), classes=tuple("abcdefghij"))
    teacher, student = new_model("resnet26", spec, seed=0), new_model("resnet14", spec, seed=1)
    assert same_architecture(student, teacher) and init_student_from_teacher(student, teacher, None, seed=0)
    weights, own = teacher.module.state_dict(), student.module.state_dict()
    for name, tensor in own.items():
        stage, _, rest = name.partition(".1.")
        assert torch.equal(tensor, weights[f"{stage}.3.{rest}" if rest else name]), name


def test_a_student_with_fewer_layers_that_are_no_blocks_is_another_architecture():
    spec = InputSpec(shape=(1, 4, 4), classes=("a", "b"))

    def stack(layers):
        parts = [nn.Flatten(), *(nn.Linear(16, 16) for _ in range(layers)), nn.Linear(16, 2)]
        return Network(nn.Sequential(*parts), spec, "stack")

    assert not same_architecture(stack(2), stack(4))


@pytest.mark.parametrize(
    ("word", "name"), [("half", "resnet20/2"), ("shallow", "resnet14"), (None, "resnet8"), ("lenet5", "lenet5")]
)
def test_a_student_is_named_by_what_is_left_of_the_teacher(word, name):
    spec = InputSpec(shape=(3, 32, 32), classes=tuple("abcdefghij"))
    assert student_name(new_model("resnet20", spec, seed=0), word) == name


@pytest.mark.parametrize(("word", "name"), [("half", "resnet8/16"), ("shallow", "hinton8")])
def test_a_teacher_of_which_the_zoo_has_no_smaller_one_is_named(word, name):
    network = new_model(name, InputSpec(shape=(3, 8, 8), classes=("a", "b")), seed=0)
    with pytest.raises(
        UserError, match=f"student '{word}': the zoo has none for {name}, expected a teacher of the zoo"
    ):
        student_name(network, word)


@pytest.mark.parametrize(
    ("word", "name"), [("half", "half"), ("shallow", "shallow"), (None, "half"), ("lenet5", "lenet5")]
)
def test_students_of_other_networks_are_not_named_by_the_zoo(word, name):
    spec = InputSpec(shape=(1, 8, 8), classes=("a", "b"))
    assert student_name(Network(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), spec, "mine"), word) == name
