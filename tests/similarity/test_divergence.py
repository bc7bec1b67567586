"""The divergence of Gaussians by channel: its closed form, its statistics over any split, its two sources."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from datafree._core.errors import UserError
from datafree.models import hooks
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.records.divergence import (
    StoredStatistics,
    by_channel,
    channels,
    divergence,
    statistics,
    stored_statistics,
)
from datafree.records.record import Record, record
from datafree.records.statistics.input import InputMoments
from datafree.records.statistics.moments import Moments
from datafree.releases.quantized import Exported
from datafree.synthesis.losses import View
from datafree.synthesis.losses.batchnorm import BatchNormDivergence

FORMS = ("forward", "reverse", "l2")
SHAPES = [(50, 4), (20, 4, 9), (12, 4, 5, 3)]


def gaussians(epsilon: float = 1e-5) -> tuple[StoredStatistics, torch.Tensor, torch.Tensor]:
    """One layer's stored statistics, and measured ones, mean and variance, in float64."""
    rng = torch.Generator().manual_seed(0)
    own = StoredStatistics("a", torch.randn(6, generator=rng), torch.rand(6, generator=rng) + 0.1, epsilon)
    return own, torch.randn(6, generator=rng).double(), torch.rand(6, generator=rng).double() * 3


def rows_of(activation: torch.Tensor) -> torch.Tensor:
    return activation.movedim(1, -1).reshape(-1, activation.shape[1])


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3, 0.5])
def test_both_directions_are_torchs_kl_of_normals_with_the_epsilon_added_to_both_variances(epsilon):
    own, mean, variance = gaussians(epsilon)
    saved = Normal(own.mean.double(), (own.variance.double() + epsilon).sqrt())
    measured = Normal(mean, (variance + epsilon).sqrt())
    apart = mean - own.mean.double()
    torch.testing.assert_close(divergence(apart, variance, own, "forward"), kl_divergence(saved, measured))
    torch.testing.assert_close(divergence(apart, variance, own, "reverse"), kl_divergence(measured, saved))
    torch.testing.assert_close(divergence(apart, variance, own), kl_divergence(saved, measured))


def test_l2_is_the_sum_of_squared_differences_of_means_and_variances():
    own, mean, variance = gaussians()
    wanted = (mean - own.mean).square() + (variance - own.variance).square()
    torch.testing.assert_close(divergence(mean - own.mean, variance, own, "l2"), wanted)


@pytest.mark.parametrize("form", FORMS)
def test_it_is_zero_at_equality_and_only_there(form):
    own, _, _ = gaussians()
    zero, same = torch.zeros(6).double(), own.variance.double()
    assert divergence(zero, same, own, form).abs().max() < 1e-15
    assert divergence(zero + 0.1, same, own, form).min() > 1e-3
    assert divergence(zero, 1.5 * same, own, form).min() > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_a_channel_that_never_moves_has_a_finite_divergence(form):
    dead = StoredStatistics("a", torch.zeros(2), torch.zeros(2))
    assert divergence(torch.zeros(2), torch.zeros(2), dead, form).tolist() == [0, 0]
    assert divergence(torch.ones(2), torch.tensor([0.0, 3.0]), dead, form).isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_its_gradient_through_the_statistics_is_the_numerical_one(form):
    own, _, _ = gaussians()
    activation = torch.randn(4, 6, 2, 2, generator=torch.Generator().manual_seed(1)).double().requires_grad_()

    def loss(a: torch.Tensor) -> torch.Tensor:
        return divergence(*by_channel(a, own.mean.double()), own, form).sum()

    assert torch.autograd.gradcheck(loss, (activation,))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("far", "tolerance"), [(0.0, 1e-6), (1.0, 1e-5), (100.0, 1e-2)])
def test_mean_and_biased_variance_by_channel_are_those_of_all_images_and_places(shape, far, tolerance):
    rng = torch.Generator().manual_seed(0)
    activation = torch.randn(shape, generator=rng) * torch.arange(1, 5).view(1, 4, *[1] * (len(shape) - 2)) + 3
    exact = rows_of(activation.double())
    about = exact.mean(0).float() + far
    apart, variance = by_channel(activation, about)
    torch.testing.assert_close(apart.double(), exact.mean(0) - about, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(variance.double(), exact.var(0, correction=0), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(channels(activation), rows_of(activation))


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-5)])
@pytest.mark.parametrize("shape", [(12, 4, 5, 3), (12, 4, 1, 1), (1, 4, 5, 3), (12, 1, 5, 3)])
def test_where_an_activation_lies_in_memory_changes_neither_statistics_nor_gradient(shape, kind, tolerance):
    activation = (torch.randn(shape, generator=torch.Generator().manual_seed(0)).double() + 3).to(kind)
    found = []
    for order in (torch.contiguous_format, torch.channels_last):
        own = activation.contiguous(memory_format=order).requires_grad_()
        apart, variance = by_channel(own, torch.full((shape[1],), 2.5))
        (gradient,) = torch.autograd.grad((apart + variance).sum(), own)
        assert gradient.shape == own.shape and gradient.dtype == kind
        found.append((apart.detach(), variance.detach(), gradient))
    for plain, last in zip(*found, strict=True):
        torch.testing.assert_close(last, plain, rtol=tolerance, atol=tolerance)


def test_far_from_about_the_error_of_the_variance_grows_by_the_square_of_the_distance():
    noise = torch.randn(4096, 1, generator=torch.Generator().manual_seed(0))
    for far, tolerance in ((10, 1e-4), (100, 5e-3)):
        variance = by_channel(noise + far, torch.zeros(1))[1]
        torch.testing.assert_close(variance, noise.var(0, correction=0), rtol=tolerance, atol=0)


def test_a_constant_channel_has_no_variance_and_a_finite_gradient():
    activation = torch.full((3, 2, 4, 4), 0.25, requires_grad=True)
    for about in (torch.full((2,), 0.25), torch.zeros(2), torch.full((2,), 1e3)):
        apart, variance = by_channel(activation, about)
        assert variance.min() >= 0
        torch.testing.assert_close(apart.detach(), 0.25 - about)
        (gradient,) = torch.autograd.grad((apart + variance).sum(), activation)
        assert gradient.isfinite().all()


def test_every_batch_norm_tells_its_running_statistics_and_epsilon_in_order_as_copies(tiny):
    network = tiny("norm")
    network.module.bn.eps = 0.02
    (own,) = stored_statistics(network)
    assert (own.tap, own.epsilon) == ("bn", 0.02)
    assert torch.equal(own.mean, network.module.bn.running_mean)
    assert torch.equal(own.variance, network.module.bn.running_var)
    network.module.bn.running_mean.add_(1)
    assert not torch.equal(own.mean, network.module.bn.running_mean)


def test_a_batch_norm_without_running_statistics_counts_as_none(tiny):
    spec = tiny("norm").spec
    module = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten(), nn.Linear(8, 3)
    )
    with pytest.raises(
        UserError,
        match=r"the batch norms of tiny \(1\) keep no running statistics, and no record of moments of its layers",
    ):
        stored_statistics(Network(module.eval(), spec, "tiny"))


@pytest.mark.parametrize(("count", "limit"), [(70, 1), (70, 16), (300, 64), (300, 299)])
def test_statistics_over_chunks_are_those_of_one_pass_over_everything_in_float64(count, limit, tiny, toy, monkeypatch):
    network, data = tiny("norm"), toy(count)
    layers = stored_statistics(network)
    monkeypatch.setattr("datafree.records.divergence.CHUNK_BYTES", limit * 8 * 3 * 4)  # bn sees 3 channels of 2 x 2
    pixels = data.pixels(range(count))
    with hooks.watch(network, ["bn"]) as seen, torch.no_grad():
        network.logits(pixels)
    exact = rows_of(seen["bn"].double())
    calls = []
    for source in (data, pixels):
        mean, variance = statistics(network, source, layers, progress=lambda *own: calls.append(own))["bn"]
        torch.testing.assert_close(mean, exact.mean(0), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(variance, exact.var(0, correction=0), rtol=1e-6, atol=1e-9)
    assert len(calls) > 2 and calls[-1] == (count, count)


class Twice(nn.Module):
    """A batch norm that every image passes twice, with activations of quite another mean and spread each time."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.end = nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3, momentum=None), nn.Linear(48, 3)

    def forward(self, x):
        return self.end(self.bn(5 + 3 * self.bn(self.conv(x))).flatten(1))


def test_of_a_batch_norm_that_runs_twice_both_calls_count_as_in_its_running_statistics(monkeypatch):
    torch.manual_seed(0)
    network = Network(Twice().train(), InputSpec(shape=(1, 4, 4), classes=("a", "b", "c")), "twice")
    pixels = torch.rand(2000, 1, 4, 4)
    with torch.no_grad():
        network.logits(pixels)
    network.module.eval()
    with hooks.watch(network, ["bn"]) as seen, torch.no_grad():
        network.logits(pixels)
    (own,) = stored_statistics(network)
    assert own.calls == 2 and seen["bn"].shape == (4000, 3, 4, 4)
    both = [rows_of(part.double()) for part in seen["bn"].split(2000)]
    wanted = torch.stack([part.mean(0) for part in both]).mean(0)
    spread = torch.stack([part.var(0, correction=0) for part in both]).mean(0)
    for size in (7, 2000):
        monkeypatch.setattr("datafree.records.divergence.CHUNK_BYTES", size * 8 * 48)
        mean, variance = statistics(network, pixels, [own])["bn"]
        torch.testing.assert_close(mean, wanted, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(variance, spread, rtol=1e-6, atol=1e-9)
    apart, variance = by_channel(seen["bn"], own.mean, own.calls)
    torch.testing.assert_close(apart.double(), wanted - own.mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(variance.double(), spread, rtol=1e-3, atol=1e-3)
    loss = BatchNormDivergence((own,))(View(pixels, torch.zeros(2000).long(), torch.zeros(2000, 3), dict(seen)))
    torch.testing.assert_close(float(loss), 2000 * float(divergence(apart, variance, own).sum()))


def test_any_split_gives_the_same_statistics_to_the_last_digits(tiny, toy, monkeypatch):
    network, pixels = tiny("linear"), toy(97).pixels(range(97))
    layers = tuple(StoredStatistics(tap, torch.zeros(1), torch.ones(1)) for tap in ("fc1", "fc2"))
    found = []
    for size in (1, 13, 97):
        monkeypatch.setattr(
            "datafree.records.divergence.CHUNK_BYTES", size * 8 * 16
        )  # 16 pixels are more than 7 + 5 units
        found.append(statistics(network, pixels, layers))
    for other in found[1:]:
        for tap in ("fc1", "fc2"):
            torch.testing.assert_close(other[tap], found[0][tap], rtol=1e-6, atol=1e-8)


def moments_record(network, data, **settings) -> Record:
    return record(network, data, [InputMoments(), Moments(**settings)])


def plain(shape=(1, 6, 6), classes=3) -> Network:
    """conv, pool, conv, fc: no batch norm."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = [nn.Conv2d(shape[0], 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(36, classes)]
    return Network(nn.Sequential(*parts).eval(), InputSpec(shape=shape, classes=tuple("abcdefgh"[:classes])), "plain")


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("pooled", [False, True])
def test_without_batch_norm_a_records_moments_pool_to_those_of_all_activations(covariance, pooled, toy):
    network, data = plain(), toy(3000, shape=(1, 6, 6))
    layers = stored_statistics(network, moments_record(network, data, covariance=covariance, pooled=pooled))
    assert [own.tap for own in layers] == ["0", "2", "4"]
    measured = statistics(network, data, layers)
    for own in layers:
        mean, variance = measured[own.tap]
        torch.testing.assert_close(own.mean.double(), mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(own.variance.double(), variance, rtol=2e-3, atol=1e-6)  # a record's are unbiased


def test_the_logits_that_a_record_holds_at_a_temperature_are_scaled_back(toy):
    network, data = plain(), toy(3000, shape=(1, 6, 6))
    found = [stored_statistics(network, moments_record(network, data, temperature=t))[-1] for t in (1.0, 8.0)]
    torch.testing.assert_close(found[0].mean, found[1].mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[0].variance, found[1].variance, rtol=1e-4, atol=1e-6)


def test_batch_norms_are_gone_by_where_there_are_both(tiny, toy):
    network = tiny("norm")
    assert [own.tap for own in stored_statistics(network, moments_record(network, toy()))] == ["bn"]


def test_neither_batch_norm_nor_record_nor_moments_of_a_layer_is_one_line(tiny, toy):
    network = tiny("linear")
    inception = "'inception', which needs none, or name `record`"
    for known, instead in ((None, inception), (record(network, toy(), [InputMoments()]), "a method of its record")):
        with pytest.raises(UserError) as caught:
            stored_statistics(network, known)
        assert str(caught.value) == (
            "tiny has no batch norm, and no record of moments of its layers, position by position and with variances; use "
            f"{instead}; its publisher can add them: datafree record moments TEACHER --data DATA --add --conv units"
        )


class File(Exported):
    """An exported file as far as its type goes."""

    def __init__(self):
        nn.Module.__init__(self)

    def forward(self, pixels):
        return torch.zeros(len(pixels), 3)


def test_an_exported_file_is_said_to_hold_no_batch_norms_and_no_record_is_asked_for():
    spec = InputSpec(shape=(1, 4, 4), classes=("a", "b", "c"))
    with pytest.raises(UserError) as caught:
        stored_statistics(Network(File(), spec, "net-w8a8"))
    assert str(caught.value) == (
        "net-w8a8 is an exported file, which holds no batch norms, expected the network it was made from; give the original"
    )


@pytest.mark.parametrize(
    "settings", [{"covariance": "none"}, {"conv": "channels"}, {"downsample": 2}], ids=lambda own: next(iter(own))
)
def test_moments_that_do_not_tell_the_variance_by_channel_are_refused_or_left_out(settings, toy):
    """No variance, that of spatial means, that of averages over squares."""
    network, data = plain(), toy(3000, shape=(1, 6, 6))
    known = record(network, data, [(Moments(**settings), ("0",))])
    with pytest.raises(UserError, match="publisher"):
        stored_statistics(network, known)
