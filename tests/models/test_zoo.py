"""The papers' networks: their sizes to the parameter, their start, their published accuracy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from datafree._core.errors import UserError
from datafree.data import load
from datafree.data.dataset import in_memory
from datafree.models import zoo
from datafree.models.input_spec import InputSpec
from datafree.records import presets
from datafree.records.forecast import forecast_auc
from datafree.records.record import record
from datafree.releases.load import load_weights, new_model

TEN = tuple("0123456789")
SIZES = {
    "hinton1200": ((1, 28, 28), 10, 2_395_210),
    "hinton800": ((1, 28, 28), 10, 1_276_810),
    "lenet5": ((1, 32, 32), 10, 61_706),
    "lenet5-half": ((1, 32, 32), 10, 35_820),
    "alexnet": ((3, 224, 224), 2, 71_380_930),
    "alexnet-half": ((3, 224, 224), 2, 17_855_458),
    "resnet20": ((3, 32, 32), 10, 269_722),
    "resnet44": ((3, 32, 32), 10, 658_586),
}


def spec_of(shape, classes) -> InputSpec:
    return InputSpec(shape=shape, classes=TEN[:classes])


@pytest.mark.parametrize("name", SIZES)
def test_every_network_has_the_papers_number_of_parameters(name):
    shape, classes, wanted = SIZES[name]
    with torch.device("meta"):
        module = zoo.build(name, spec_of(shape, classes))
        assert sum(parameter.numel() for parameter in module.parameters()) == wanted
        assert module(torch.zeros(2, *shape)).shape == (2, classes)
    assert set(zoo.names()) == SIZES.keys()


RESNETS = {"resnet44": "resnet20", "resnet20": "resnet8", "resnet14": "resnet8", "resnet56": "resnet26"}


def test_a_student_is_half_its_teacher():
    halves = {name: zoo.half(name) for name in ("hinton1200", "hinton400", "lenet5", "alexnet", "alexnet/4", *RESNETS)}
    assert halves == {
        "hinton1200": "hinton800", "hinton400": "hinton200", "lenet5": "lenet5-half", "alexnet": "alexnet-half",
        "alexnet/4": "alexnet/8", **RESNETS,
    }  # fmt: skip
    assert zoo.half("lenet5-half") is zoo.half("mine.py:net") is zoo.half("resnet8") is None


def test_a_narrower_network_has_half_the_channels_and_a_shallower_one_a_block_fewer_per_stage():
    names = (
        "resnet20",
        "resnet20/2",
        "resnet20/8",
        "resnet14",
        "resnet8",
        "lenet5",
        "hinton64",
        "lenet5-half",
        "mine.py:net",
    )
    assert {name: zoo.narrower(name) for name in names} == {
        "resnet20": "resnet20/2", "resnet20/2": "resnet20/4", "resnet20/8": None, "resnet14": "resnet14/2",
        "resnet8": "resnet8/2", "lenet5": "lenet5-half", "hinton64": "hinton32", "lenet5-half": None, "mine.py:net": None,
    }  # fmt: skip
    assert {name: zoo.shallower(name) for name in names if zoo.shallower(name)} == {
        "resnet20": "resnet14", "resnet20/2": "resnet14/2", "resnet20/8": "resnet14/8", "resnet14": "resnet8",
    }  # fmt: skip
    spec = spec_of((3, 32, 32), 10)
    full, half = (zoo.build(name, spec).state_dict() for name in ("resnet20", "resnet20/2"))
    assert full.keys() == half.keys()
    for name, tensor in full.items():
        sides = [
            1 if (name, axis) in {("conv1.weight", 1), ("linear.weight", 0), ("linear.bias", 0)} else 2
            for axis in (0, 1)
        ]
        assert half[name].shape[:2] == tuple(side // by for side, by in zip(tensor.shape[:2], sides)), name


@pytest.mark.parametrize("name", ["resnet20/3", "resnet20/0", "resnet20/32"])
def test_a_share_of_the_channels_that_cannot_be_is_refused(name):
    with pytest.raises(UserError, match=f"model '{name}': got /{name[9:]}, expected /2, /4, /8 or /16 of the channels"):
        zoo.build(name, spec_of((3, 32, 32), 10))


@pytest.mark.parametrize("name", ["hinton1200", "lenet5", "resnet20"])
def test_weights_start_as_he_has_them(name):
    torch.manual_seed(0)
    module = zoo.build(name, spec_of(*SIZES[name][:2]))
    layers = [part for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    assert layers
    for layer in layers:
        fan_in, count = layer.weight[0].numel(), layer.weight.numel()
        assert float(layer.weight.detach().std()) == pytest.approx((2 / fan_in) ** 0.5, rel=4 / (2 * count) ** 0.5)
        assert layer.bias is None or not layer.bias.any()


def test_dropout_is_in_the_teacher_alone():
    rates = {name: zoo.build(name, spec_of((1, 28, 28), 10)).dropout.p for name in ("hinton1200", "hinton800")}
    assert rates == {"hinton1200": 0.5, "hinton800": 0.0}


def test_the_option_a_shortcut_takes_every_second_pixel_and_pads_channels_with_zeros():
    block = zoo.build("resnet20", spec_of((3, 32, 32), 10)).layer2[0]
    x = torch.arange(2 * 16 * 4 * 4, dtype=torch.float32).view(2, 16, 4, 4)
    out = block._shortcut(x, 32)
    assert out.shape == (2, 32, 2, 2)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()
    for part in (block.bn1, block.bn2):
        nn.init.zeros_(part.weight)
    assert torch.equal(block.eval()(x), out)


@pytest.mark.parametrize(
    ("name", "shape", "text"),
    [
        (
            "lenet5",
            (1, 28, 28),
            "lenet5 takes 32x32 images, got (28, 28); resize the images to that size, or name another network",
        ),
        ("resnet21", (3, 32, 32), "no CIFAR ResNet of depth 21, expected 6n + 2 with n >= 1; nearest: 'resnet20'"),
        ("hinton0", (1, 8, 8), "model 'hinton0': got size 0, expected at least 1; name a larger one"),
        ("alexnet/0", (3, 64, 64), "model 'alexnet/0': got size 0, expected at least 1; name a larger one"),
        ("lenet", (1, 32, 32), "no model 'lenet' in the zoo, and no such file, module or folder; nearest: 'lenet5'"),
    ],
)
def test_a_network_that_cannot_be_is_one_line(name, shape, text):
    with pytest.raises(UserError) as caught:
        zoo.build(name, spec_of(shape, 10))
    assert str(caught.value).startswith(text)


def test_presets_record_what_they_say(tiny, toy):
    network, counts = tiny("linear"), (20, 20, 20)
    wanted = {
        "small": {"input-moments", "fc3"},
        "safe": {"input-moments", "input"},
        "sharp": {"input-moments", "fc3", "input"},
        "best": {"input-moments", "input"},
        "paper": {"input-moments", "fc1", "fc2", "fc3", "graph", "fc1--fc2", "fc2--fc3"},
        "full": {"input-moments", "fc1", "fc2", "fc3", "graph", "fc1--fc2", "fc2--fc3", "input"},
    }
    assert set(presets.PRESETS) == wanted.keys()
    released = {}
    for name, entries in wanted.items():
        made = record(network, toy(), presets.statistics(name, network, counts))
        assert made.entries.keys() == entries
        assert presets.preset(name, network, toy()) == presets.statistics(name, network, counts)
        released[name] = made.released_statistics(network)
    assert released["safe"] < min(released["small"], released["sharp"], released["paper"])
    assert released["full"] > max(released["sharp"], released["paper"])
    with pytest.raises(UserError, match="no preset 'papers'; nearest: 'paper'"):
        presets.statistics("papers", network, counts)


def safe_forecast(network, count: int, leak: float) -> float:
    """What `safe` says of `count` random images, the same number of each of three classes."""
    labels = np.arange(count) % 3
    images = np.random.default_rng(0).integers(0, 256, (count, *network.spec.shape), dtype=np.uint8)
    data = in_memory("toy", "train", "abc", labels, images)
    return forecast_auc(
        record(network, data, presets.preset("safe", network, data, leak=leak)).released_statistics(network)
    )


@pytest.mark.parametrize("leak", [0.55, 0.6, 0.7, 0.9])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 5)])
def test_a_safe_record_stays_below_its_leak_wherever_that_is_possible(tiny, shape, leak):
    """The least possible: the mean and deviation of each channel, and one mean a channel for each class."""
    network, tried = tiny("linear", shape=shape), 0
    for count in (30, 90, 300, 1200, 6000):
        least = 2 * shape[0] / count + shape[0] / (count // 3)
        if forecast_auc(least) <= leak:
            assert safe_forecast(network, count, leak) <= leak, count
            tried += 1
    assert tried >= 2


def test_a_budget_buys_finer_means_and_more_directions_with_more_samples(tiny):
    network = tiny("linear", shape=(1, 16, 16))
    found = [presets.budgeted(network, (count,) * 3, 0.6) for count in (20, 100, 500, 5000, 50_000, 1_000_000)]
    sides = [-(-16 // own.downsample) for own in found]
    assert sides == sorted(sides) and sides[0] == 1 and sides[-1] == 16
    assert [own.covariance for own in found[-2:]] == ["lowrank", "lowrank"] and found[-1].pooled
    assert found[-2].rank < found[-1].rank == 256
    assert presets.budgeted(network, (100,) * 3, 0.9).downsample <= found[1].downsample
    small = presets.budgeted(network, (20, 50000, 50000), 0.6)
    assert small.downsample == found[0].downsample, "the smallest class decides"


@pytest.mark.parametrize("leak", [0.5, 1.0, 1.2, -1.0, float("nan")])
def test_a_leak_that_is_none_is_refused(tiny, leak):
    with pytest.raises(UserError, match=r"leak: got .*, expected above 0\.5 and below 1; 0\.6 is the default"):
        presets.budgeted(tiny("linear"), (20, 20, 20), leak)


PUBLISHED = [("resnet20", 91.73), ("resnet44", 93.10)]


def correct(name, count, real_data):
    """Of the first `count` test images of CIFAR-10, which the published network is right about (count,)."""
    weights = real_data / "weights" / f"cifar10-{name}.safetensors"
    if not weights.is_file():
        pytest.skip(f"no file {str(weights)!r}; put the weights there")
    spec = InputSpec(shape=(3, 32, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), classes=TEN)
    network = new_model(name, spec, seed=0)
    load_weights(network, weights)
    data = load("cifar10", "test", data_dir=real_data)
    return network.predict(data.pixels(range(count)), batch=250).argmax(1) == data.labels[:count]


@pytest.mark.data
@pytest.mark.parametrize(("name", "published"), PUBLISHED[:1])
def test_the_cifar_resnets_are_as_accurate_as_published_on_500_test_images(name, published, real_data):
    accuracy = 100 * float(correct(name, 500, real_data).double().mean())
    assert accuracy == pytest.approx(published, abs=3)  # 2.5 deviations of 500 images; a wrong mean or order loses more


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(("name", "published"), PUBLISHED)
def test_the_cifar_resnets_have_their_published_accuracy_on_all_test_images(name, published, real_data):
    accuracy = 100 * float(correct(name, 10_000, real_data).double().mean())
    assert accuracy == pytest.approx(published, abs=0.02)  # two images, for another processor
