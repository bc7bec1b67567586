"""The forecast of leakage: its formula, and that no simulated attack on Gaussian features beats it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm, rankdata
from torch import nn

from datafree._core.errors import UserError
from datafree.models.network import Network
from datafree.records.forecast import forecast_auc
from datafree.records.presets import preset, statistics
from datafree.records.record import _chunk as batch_of
from datafree.records.record import record


@pytest.mark.parametrize("released", [0.0, 1e-4, 0.1, 1.0, 3.7, 40.0])
def test_the_forecast_is_phi_of_the_root_of_half_the_released_numbers_a_sample(released):
    assert forecast_auc(released) == pytest.approx(norm.cdf(np.sqrt(released / 2)), abs=1e-12)


def auc(members: np.ndarray, others: np.ndarray) -> float:
    ranks = rankdata(np.concatenate([members, others]))[: len(members)].sum()
    return (ranks - len(members) * (len(members) + 1) / 2) / (len(members) * len(others))


def attack(dimensions: int, count: int, covariance: bool, runs: int) -> float:
    """AUC of the likelihood ratio between the released Gaussian and the population N(0, I), on members and others."""
    rng, scores = np.random.default_rng(0), ([], [])
    for _ in range(runs):
        members, others = rng.normal(size=(2, count, dimensions))
        mean = members.mean(0)
        spread = np.cov(members.T).reshape(dimensions, dimensions) if covariance else np.eye(dimensions)
        inverse = np.linalg.inv(spread)
        for x, kept in zip((members, others), scores):
            apart = x - mean
            ratio = (x**2).sum(1) - ((apart @ inverse) * apart).sum(1) - np.linalg.slogdet(spread)[1]
            kept.append(ratio)
    return auc(*map(np.concatenate, scores))


@pytest.mark.parametrize(("dimensions", "count"), [(1, 20), (5, 20), (20, 20), (10, 100), (50, 100), (100, 50)])
def test_an_attack_on_class_means_stays_below_its_forecast(dimensions, count):
    forecast = forecast_auc(dimensions / count)
    measured = attack(dimensions, count, False, 40_000 // count)
    assert measured <= forecast + 0.02
    assert measured >= forecast - 0.05


@pytest.mark.parametrize(("dimensions", "count"), [(1, 20), (5, 100), (10, 100), (10, 400), (20, 400)])
def test_an_attack_on_means_and_covariances_stays_below_its_forecast(dimensions, count):
    forecast = forecast_auc((dimensions + dimensions * (dimensions + 1) / 2) / count)
    measured = attack(dimensions, count, True, 40_000 // count)
    assert measured <= forecast + 0.02
    assert measured >= forecast - 0.08


def test_what_a_record_releases_is_the_sum_over_its_entries(whole_record, teacher):
    parts = [
        entry.statistic.bind(teacher, entry.taps).released_statistics(entry.summary)
        for entry in whole_record.entries.values()
    ]
    assert whole_record.released_statistics(teacher) == pytest.approx(sum(parts))
    least = 126  # samples of the rarest class of the digits
    moments = whole_record.entries["fc3"]
    assert moments.statistic.bind(teacher, ("fc3",)).released_statistics(moments.summary) == pytest.approx(
        (10 + 55) / least
    )
    pixels = whole_record.entries["input-moments"]
    assert pixels.statistic.bind(teacher, ("input",)).released_statistics(pixels.summary) == pytest.approx(
        2 * 64 / 1297
    )


def test_safe_records_nothing_that_forecasts_more_than_it_promises(tiny, toy):
    network, few = tiny("linear"), toy(15)
    choice = preset("safe", network, few)
    with pytest.raises(
        UserError,
        match=r"leak: got a forecast AUC of 0\.\d+ for the least that .*, expected at most 0\.6;",
    ):
        record(network, few, choice)
    forecast = forecast_auc(record(network, few, list(choice)).released_statistics(network))
    assert forecast > 0.6
    assert record(network, few, preset("safe", network, few, leak=forecast + 0.01)).released_statistics(network) > 0
    many = toy(600)
    assert forecast_auc(record(network, many, preset("safe", network, many)).released_statistics(network)) <= 0.6


def test_safe_refuses_what_it_cannot_keep_before_an_image_is_read(tiny, toy, monkeypatch):
    network, few = tiny("linear"), toy(15)
    safe = record(network, toy(600), "safe")
    monkeypatch.setattr("datafree.records.record._measure", lambda *_: pytest.fail("an image was read"))
    with pytest.raises(UserError, match=r"leak: got a forecast AUC of 0\.\d+ for the least that"):
        record(network, few, "safe")
    monkeypatch.undo()
    assert record(network, toy(600), "safe", add_to=safe).digest() == safe.digest()  # its own entries count once


@pytest.mark.parametrize(
    ("name", "classes", "shape", "expected"),
    [
        ("small", 100, (3, 32, 32), ("full", False, 1)),
        ("small", 1000, (3, 224, 224), ("full", True, 1)),
        ("small", 9000, (1, 8, 8), ("lowrank", True, 1)),
        ("sharp", 100, (3, 32, 32), ("lowrank", False, 1)),
        ("sharp", 10, (3, 224, 224), ("lowrank", False, 2)),
        ("sharp", 1000, (3, 224, 224), ("lowrank", True, 7)),
        ("best", 10, (3, 32, 32), ("full", False, 1)),
        ("best", 100, (3, 32, 32), ("lowrank", False, 1)),
        ("best", 1000, (3, 224, 224), ("lowrank", True, 7)),
    ],
)
def test_presets_for_many_classes_and_large_images_stay_small(name, classes, shape, expected):
    layers = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(shape[0], classes))
    network = Network(layers, input_shape=shape, classes=classes)
    statistic, layer = statistics(name, network, [1300] * classes)[-1]
    assert (statistic.covariance, statistic.pooled, statistic.downsample) == expected
    tensors = statistic.bind(network, layer).layout()
    assert sum(math.prod(shape) for _, shape in tensors.values()) <= (2**27 if classes < 9000 else 2**27 * 1.4)


def test_a_record_of_large_images_takes_fewer_at_a_time():
    sizes = {}
    for side in (32, 64, 65, 224, 600):
        layers = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
        sizes[side] = batch_of(Network(layers, input_shape=(3, side, side), classes=2), ["2"])
    assert sizes == {32: 4096, 64: 2730, 65: 387, 224: 32, 600: 16}
