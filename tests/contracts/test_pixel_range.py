"""Every consumer of a data set shows a network pixels from its spec's low to its high."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from datafree.cli.arguments import Data
from datafree.cli.loading import images_of
from datafree.cli.loading import test_data as held_out
from datafree.data import load
from datafree.data.condensed.methods import Job, condense, from_name, methods
from datafree.data.condensed.methods.distribution_matching import DistributionMatching
from datafree.data.condensed.methods.siamese_augmentation import KINDS, draw
from datafree.distillation.sources import labelled, soft_labelled
from datafree.distillation.train import train
from datafree.distillation.training_loop import Schedule
from datafree.evaluation.accuracy import evaluate
from datafree.evaluation.report.sets import real_grid
from datafree.evaluation.similarity import similarity
from datafree.models.input_spec import InputSpec
from datafree.quantization.image_sources import load_images
from datafree.records.record import record
from datafree.records.statistics.input import InputMoments
from datafree.records.statistics.moments import Moments
from datafree.synthesis import methods as synthesis
from datafree.synthesis.losses import View
from datafree.synthesis.losses.priors import PixelNorm, Smoothness, TotalVariation

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
        if module.training and len(inputs[0]) == 60:  # not the probes of memory formats
            seen.append(inputs[0].detach())

    handle = network.module.register_forward_hook(keep)
    train(network, data, Schedule(epochs=1, batch=60))
    handle.remove()
    torch.testing.assert_close(torch.cat(seen).mean(), data.pixels(range(60), (8, 8)).mean(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", sorted(methods()))
def test_condensed_sets(base, data, ends, method):
    norm = {"mean": (ends[0],), "std": (ends[1] - ends[0],)}  # which for the range of 1 is none
    spec = base.spec.model_copy(update={"low": ends[0], "high": ends[1], **norm})
    settings = {"dm": {"iterations": 3, "real": 2, "width": 2}}.get(method, {})
    pixels = condense(from_name(method, **settings), Job(data, spec, 2)).pixels
    unit = condense(from_name(method, **settings), Job(data, base.spec, 2)).pixels
    if method == "dm":
        assert alike((pixels - spec.low) / (spec.high - spec.low), unit)
    elif method != "kmeans":  # its ties may fall otherwise
        close(pixels, unit * (spec.high - spec.low) + spec.low, spec)
        assert float(pixels.min()) >= spec.low - 1e-3 and float(pixels.max()) <= spec.high + 1e-3


def alike(got, wanted):
    """But for rounding, which a first step of Adam magnifies where a gradient is nearly 0."""
    return float(((got - wanted).abs() < 2e-3).float().mean()) > 0.98


@pytest.mark.parametrize("kind", KINDS)
def test_augmentations_of_learnt_images(base, toy, ends, kind, monkeypatch):
    """The loss of one step, of which all depends on the augmentation, on images that are not the data's."""
    data, losses = toy(shape=(3, 8, 8)), []
    monkeypatch.setattr(
        DistributionMatching, "_augmentation", lambda *_: draw((kind,), torch.Generator().manual_seed(1))
    )
    for low, high in (ends, (0.0, 1.0)):
        norm = {"mean": (low + 0.3 * (high - low),), "std": (0.5 * (high - low),)}
        spec = base.spec.model_copy(update={"shape": (3, 8, 8), "low": low, "high": high, **norm})
        pixels = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * (high - low) + low
        losses.append(float(DistributionMatching(real=4, width=4)._loss(Job(data, spec, 2), pixels, 0)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


PRIORS = {"smooth": 2.0, "total_variation": 1.0, "pixel_norm": 1.0, "balance": 1.0}


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("inception", {}),
        ("bns", PRIORS),
        ("bns-inception", {"form": "l2", "box": False, **PRIORS}),
        ("all", {}),
        ("matched", {"start": "noise", "smooth": 1.0}),
    ],
)
def test_optimised_images(base, data, ends, method, settings):
    made = []
    for network, layer in ((scaled(base, ends), "module.fc"), (base, "fc")):
        known = record(network, data, [(Moments(), (layer,))])
        start, after = (
            synthesis.from_name(method, steps=steps, **settings, **rate).bind(network, known).chunk(0, 0, 12).pixels
            for steps, rate in ((1, {"learning_rate": 1e-9}), (10, {}))
        )
        spec = network.spec
        made.append((after - spec.low) / (spec.high - spec.low))
        assert float((after - start).abs().mean()) > 0.02 * (spec.high - spec.low)
    assert alike(*made)


@pytest.mark.parametrize("term", [TotalVariation(), PixelNorm(), Smoothness()])
def test_priors(base, ends, term):
    x, labels = torch.rand(3, 1, 8, 8), torch.zeros(3).long()
    spec, rng = scaled(base, ends).spec, torch.Generator()
    own = term.bind(scaled(base, ends), labels, rng)
    got = own(View(spec.low + (spec.high - spec.low) * x, labels, torch.zeros(3, 4), {}))
    torch.testing.assert_close(got, term(View(x, labels, torch.zeros(3, 4), {})), rtol=1e-3, atol=1e-4)


def test_calibration_and_fine_tuning_images_and_the_held_out_data(base, ends, tmp_path):
    network = scaled(base, ends)
    network = dataclasses.replace(network, spec=network.spec.model_copy(update={"classes": ("0", "1", "2")}))
    images = (np.random.default_rng(0).random((30, 6, 7)) * 256).astype(np.uint8)
    images[0, 0, :2] = 0, 255
    np.savez(tmp_path / "d.npz", x_train=images, y_train=np.arange(30) % 3, x_test=images, y_test=np.arange(30) % 3)
    name = str(tmp_path / "d.npz")
    stored = images_of(name, network, "train", None, Data(), 0)
    close(load_images(network, name, None, role="calibrate").pixels, expected(stored, network.spec), network.spec)
    assert held_out(network, Data(data=name), complete=True) is not None
    grid = real_grid(load(name, "test"), network.spec)
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
