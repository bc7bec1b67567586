"""Statistics without classes: the input's mean and spread, and those that batch norms carry."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datafree._core.errors import UserError
from datafree.models.input_spec import InputSpec
from datafree.records.statistics.batchnorm import BatchNorm
from datafree.records.statistics.input import InputAccumulator, InputMoments

SPEC = InputSpec(shape=(2, 3, 4), low=-1e9, high=1e9, classes=("a", "b"))


def images(count=50, offset=0.0):
    return offset + torch.rand(count, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("per", ["pixel", "channel"])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_input_moments_are_those_of_numpy_for_any_split(per, offset):
    x, labels = images(offset=offset), torch.zeros(50, dtype=torch.long)
    meter = InputAccumulator(InputMoments(per=per), SPEC)
    axes = 0 if per == "pixel" else (0, 2, 3)
    wanted = x.numpy().astype(np.longdouble)
    mean = wanted.mean(axes, keepdims=True)
    square = ((wanted - mean) ** 2).sum(axes)
    for sizes in (50, 1, 7):
        parts = [meter.reduce([part], labels[: len(part)]) for part in x.split(sizes)]
        state = parts[0]
        for part in parts[1:]:
            state = meter.merge(state, part)
        np.testing.assert_allclose(state["square"].flatten(), square.flatten().astype(float), rtol=1e-12)
        np.testing.assert_allclose(state["mean"].flatten(), mean.flatten().astype(float), rtol=1e-12)
    summary = meter.finish(state)
    count = 50 if per == "pixel" else 600  # what the spread is over; the record counts images
    assert summary["count"].tolist() == [50]
    std = np.sqrt(square / (count - 1)).astype(float)
    np.testing.assert_allclose(summary["std"].flatten(), std.flatten(), rtol=1e-6)


def test_the_distance_to_the_own_moments_is_zero_and_grows_with_the_square_of_a_shift():
    x, labels = images().float(), torch.zeros(50, dtype=torch.long)
    meter = InputAccumulator(InputMoments(), SPEC)
    summary = meter.finish(meter.reduce([x], labels))
    assert float(meter.distance(summary, [x], labels)) < 1e-12
    assert float(meter.distance(summary, [x + 0.5], labels)) == pytest.approx(0.25, rel=1e-5)


def test_noise_has_the_inputs_mean_and_spread():
    x, labels = images(500), torch.zeros(500, dtype=torch.long)
    meter = InputAccumulator(InputMoments(), SPEC)
    summary = meter.finish(meter.reduce([x], labels))
    drawn = meter.sample(summary, torch.zeros(20_000, dtype=torch.long), torch.Generator().manual_seed(0))[0]
    torch.testing.assert_close(drawn.mean(0), summary["mean"], rtol=0, atol=0.01)
    torch.testing.assert_close(drawn.std(0), summary["std"], rtol=0.03, atol=0)


def test_the_batch_norm_entry_is_the_layers_buffers(tiny):
    network = tiny("norm")
    (entry,) = BatchNorm().plan(network, ()).items()
    assert entry == ("bn", (BatchNorm(), ("bn",)))
    summary = BatchNorm().bind(network, ("bn",)).read()
    assert torch.equal(summary["mean"], network.module.bn.running_mean)
    assert torch.equal(summary["variance"], network.module.bn.running_var)
    network.module.bn.running_mean.add_(1)
    assert not torch.equal(summary["mean"], network.module.bn.running_mean)


def test_the_batch_norm_statistic_is_what_torch_would_track(tiny):
    """With momentum 1 a batch norm in training keeps the statistics of its one batch."""
    network, a = tiny("norm"), torch.randn(40, 3, 2, 2)
    meter = BatchNorm().bind(network, ("bn",))
    layer = torch.nn.BatchNorm2d(3, momentum=1.0)
    layer(a)
    summary = meter.finish(meter.merge(*(meter.reduce([part], torch.zeros(20)) for part in a.split(20))))
    torch.testing.assert_close(summary["mean"], layer.running_mean)
    torch.testing.assert_close(summary["variance"], layer.running_var)
    assert float(meter.distance(summary, [a], torch.zeros(40))) < 1e-5


def test_a_network_without_batch_norm_is_refused(tiny):
    with pytest.raises(UserError) as caught:
        BatchNorm().plan(tiny("linear"), ())
    assert str(caught.value) == "tiny has no batch norm, expected one with running statistics; record other statistics"
    with pytest.raises(UserError, match=r"'fc' of tiny is no batch norm; name one of \('bn',\)"):
        BatchNorm().bind(tiny("norm"), ("fc",))
