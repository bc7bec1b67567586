"""Every consumer of a data set shows a network pixels from its spec's low to its high."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from datafree.commands.common import Data, Run, images_of
from datafree.commands.common import test_data as held_out
from datafree.commands.quantize import _pixels
from datafree.commands.report import real_grid
from datafree.condensing import Job, condense, methods, named
from datafree.evaluation import evaluate
from datafree.fit import Schedule
from datafree.images import labelled, soft_labelled
from datafree.likeness import similarity
from datafree.records import record
from datafree.spec import InputSpec
from datafree.stats.input import InputMoments
from datafree.stats.moments import Moments
from datafree.training import train

RANGES = [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (-0.5, 0.5), (0.25, 0.5), (-123.7, 151.1)]


class Unscaled(nn.Module):
    """The network behind the inverse of the scaling, so that its function of an image is the same for every range."""

    def __init__(self, module, low, high):
        super().__init__()
        self.module, self.low, self.high = copy.deepcopy(module), low, high

    def forward(self, x):
        return self.module((x - self.low) / (self.high - self.low))


@pytest.fixture(params=RANGES, ids=str)
def ends(request):
    return request.param


def scaled(network, ends):
    low, high = ends
    spec = network.spec.model_copy(update={"low": low, "high": high})
    return dataclasses.replace(network, module=Unscaled(network.module, low, high).eval(), spec=spec)


@pytest.fixture
def base(tiny):
    return tiny("norm", shape=(1, 8, 8))


@pytest.fixture
def data(toy):
    return toy(shape=(1, 6, 7))


def expected(data, spec):
    """By hand: the resized bytes over 255, times the range, plus its low end."""
    return data.pixels(range(len(data)), spec.shape[1:]) * (spec.high - spec.low) + spec.low


def close(got, wanted, spec):
    torch.testing.assert_close(got, wanted, rtol=0, atol=2e-6 * max(1, abs(spec.low), abs(spec.high)))


def test_what_students_and_teachers_learn_from(base, data, ends):
    network = scaled(base, ends)
    close(labelled(network, data).pixels, expected(data, network.spec), network.spec)
    taught = soft_labelled(network, data)
    close(taught.pixels, expected(data, network.spec), network.spec)
    torch.testing.assert_close(taught.targets, soft_labelled(base, data).targets, rtol=1e-3, atol=1e-4)


def test_accuracy_and_agreement(base, data, ends, tiny):
    teacher = tiny("norm", shape=(1, 8, 8), seed=4)
    right = evaluate(base, data, teacher)
    assert evaluate(scaled(base, ends), data, scaled(teacher, ends)) == right
    assert evaluate(base, data, scaled(teacher, ends)) == right  # each has its own range


def test_records(base, data, ends):
    network = scaled(base, ends)
    made = record(network, data, [InputMoments(per="channel"), (Moments(), ("module.fc",))]).entries
    wanted = expected(data, network.spec).double()
    torch.testing.assert_close(
        made["input-moments"].summary["mean"].flatten().double(), wanted.mean((0, 2, 3)), rtol=1e-4, atol=1e-5
    )
    first = record(base, data, [(Moments(), ("fc",))]).entries
    mean, same = made["module.fc"].summary["mean"], first["fc"].summary["mean"]
    torch.testing.assert_close(mean, same, rtol=1e-3, atol=1e-4)


def test_similarity(base, data, ends):
    first = similarity(base, {"data": data})[0].total
    assert similarity(scaled(base, ends), {"data": data})[0].total == pytest.approx(first, rel=1e-3)


def test_training(tiny, data, ends):
    network = tiny(shape=(1, 8, 8), low=ends[0], high=ends[1], mean=(ends[0],), std=(ends[1] - ends[0],))
    seen = []

    def keep(module, inputs, _):
        if module.training:
            seen.append(inputs[0].detach())

    handle = network.module.register_forward_hook(keep)
    train(network, data, Schedule(epochs=1, batch=60))
    handle.remove()
    torch.testing.assert_close(torch.cat(seen).mean(), data.pixels(range(60), (8, 8)).mean(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", sorted(methods()))
def test_condensed_sets(base, data, ends, method):
    spec = base.spec.model_copy(update={"low": ends[0], "high": ends[1]})
    settings = {"dm": {"iterations": 1, "real": 2, "width": 2, "rate": 1e-9}}.get(method, {})
    pixels = condense(named(method, **settings), Job(data, spec, 2)).pixels
    unit = condense(named(method, **settings), Job(data, base.spec, 2)).pixels
    if method != "kmeans":  # its ties may fall otherwise
        close(pixels, unit * (spec.high - spec.low) + spec.low, spec)
    assert float(pixels.min()) >= spec.low - 1e-3 and float(pixels.max()) <= spec.high + 1e-3


def test_calibration_and_fine_tuning_images_and_the_held_out_data(base, ends, tmp_path):
    network = scaled(base, ends)
    network = dataclasses.replace(network, spec=network.spec.model_copy(update={"classes": ("0", "1", "2")}))
    images = (np.random.default_rng(0).random((30, 6, 7)) * 256).astype(np.uint8)
    images[0, 0, :2] = 0, 255
    np.savez(tmp_path / "d.npz", x_train=images, y_train=np.arange(30) % 3, x_test=images, y_test=np.arange(30) % 3)
    name = str(tmp_path / "d.npz")
    stored = images_of(name, network, "train", None, Data(), 0)
    close(_pixels(network, name, None, Data(), Run()), expected(stored, network.spec), network.spec)
    assert held_out(network, Data(data=name)) is not None
    grid = real_grid(Data(data=name), network.spec)
    assert (grid.low, grid.high) == ends
    middle = float(np.mean(images)) / 255 * (ends[1] - ends[0]) + ends[0]
    assert np.mean(grid.means) == pytest.approx(middle, abs=0.02 * (ends[1] - ends[0]))


def test_the_ends_of_the_range_are_met_exactly(toy, ends):
    data = toy(shape=(1, 2, 2))
    extremes = dataclasses.replace(data, read=lambda rows: np.tile(np.array([0, 255], np.uint8), (len(rows), 1, 2, 1)))
    spec = InputSpec(shape=(1, 2, 2), classes=data.classes, low=ends[0], high=ends[1])
    pixels = extremes.scaled_to(spec).pixels([0])
    assert sorted(set(pixels.flatten().tolist())) == sorted(torch.tensor(ends).tolist())
    spec.check(pixels)
