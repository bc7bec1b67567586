"""Class-conditional moments: right for any split, and drawn from as they are."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
import torch
from sklearn.covariance import OAS

from datafree._core.errors import UserError
from datafree.records.statistics.moments import Moments, MomentsAccumulator
from datafree.records.statistics.sketch import nystrom
from datafree.records.statistics.sketch import test_matrix as sketch_matrix

CLASSES, UNITS = 3, 6
KINDS = ("none", "diagonal", "lowrank", "shrunk", "full")


def meter_of(covariance="full", *, units=UNITS, classes=CLASSES, **settings) -> MomentsAccumulator:
    return MomentsAccumulator(Moments(covariance=covariance, **settings), "fc", (units,), classes)


def samples(count=240, *, units=UNITS, classes=CLASSES, offset=0.0, seed=0) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated units of unequal size with class means of their own, float64."""
    rng = torch.Generator().manual_seed(seed)
    mix = torch.randn(classes, units, units, generator=rng, dtype=torch.float64)
    labels = torch.randint(classes, (count,), generator=rng)
    noise = torch.randn(count, units, generator=rng, dtype=torch.float64)
    means = 2 * torch.randn(classes, units, generator=rng, dtype=torch.float64)
    return offset + means[labels] + torch.einsum("ni,nij->nj", noise, mix[labels]), labels


def state_of(meter, a, labels, sizes=None):
    parts = zip(a.split(sizes), labels.split(sizes)) if sizes else [(a, labels)]
    return reduce(meter.merge, [meter.reduce([x], y) for x, y in parts])


def finished(meter, a, labels):
    return meter.finish(state_of(meter, a, labels))


def covariance_of(summary, c=0) -> np.ndarray:
    factor = summary["factor"][c].double()
    found = factor @ factor.T
    return (found + torch.diag(summary["variance"][c].double()) if "variance" in summary else found).numpy()


def apart(found, wanted) -> float:
    found, wanted = np.asarray(found, float), np.asarray(wanted, float)
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_any_split_and_any_order_of_the_data_give_the_same_state(kind, pooled, offset):
    meter, (a, labels) = meter_of(kind, pooled=pooled, rank=1), samples(offset=offset)
    whole = state_of(meter, a, labels)
    order = torch.randperm(len(a), generator=torch.Generator().manual_seed(5))
    for sizes in ([1] * 48 + [192], [240], [100, 3, 137], [7] * 12 + [156]):
        for x, y in ((a, labels), (a[order], labels[order])):
            split = state_of(meter, x, y, sizes)
            assert split.keys() == whole.keys()
            for name in whole.keys() - {"rest"}:
                assert apart(split[name], whole[name]) < 1e-12, (name, sizes)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_moments_are_those_of_two_passes_in_extended_precision(offset):
    a, labels = samples(offset=offset)
    meter = meter_of("full")
    state = state_of(meter, a, labels, [37] * 6 + [18])
    for c in range(CLASSES):
        own = a[labels == c].numpy().astype(np.longdouble)
        mean = own.mean(0)
        assert int(state["count"][c]) == len(own)
        assert apart(state["mean"][c], mean) < 1e-12
        assert apart(state["outer"][c], (own - mean).T @ (own - mean)) < 1e-12


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_inputs_are_summed_in_float64(narrow):
    a, labels = samples()
    a = a.to(narrow)
    state = state_of(meter_of("diagonal"), a, labels, [50] * 4 + [40])
    own = a[labels == 1].double().numpy()
    assert state["mean"].dtype == state["square"].dtype == torch.float64
    np.testing.assert_allclose(state["mean"][1], own.mean(0), rtol=1e-12)
    np.testing.assert_allclose(state["square"][1] / (len(own) - 1), own.var(0, ddof=1), rtol=1e-12)


def test_a_constant_unit_at_a_large_offset_has_variance_zero_exactly():
    a, labels = samples()
    a[:, 2] = 1e6 + 1 / 3
    summary = finished(meter_of("diagonal"), a, labels)
    assert summary["variance"][:, 2].tolist() == [0.0] * CLASSES


def test_the_full_factor_gives_back_the_covariance():
    a, labels = samples()
    summary = finished(meter_of("full"), a, labels)
    for c in range(CLASSES):
        assert apart(covariance_of(summary, c), np.cov(a[labels == c].numpy().T)) < 1e-6
        np.testing.assert_allclose(summary["mean"][c], a[labels == c].mean(0), rtol=1e-6)
    assert summary["count"].tolist() == torch.bincount(labels).tolist()


def test_shrunk_follows_the_formula_of_scikit_learn_for_every_class():
    """Ours divides by n - 1 and counts n - 1 samples, since the mean is estimated; scikit-learn takes n for both."""
    a, labels = samples(30, units=9)
    for scale in (1.0, 30.0):
        summary = finished(meter_of("shrunk", units=9), a * scale, labels)
        for c in range(CLASSES):
            own = (a * scale)[labels == c].numpy()
            assert apart(oas(np.cov(own.T, ddof=0), len(own)), OAS().fit(own).covariance_) < 1e-12
            assert apart(covariance_of(summary, c), oas(np.cov(own.T), len(own) - 1)) < 1e-6


def oas(covariance: np.ndarray, n: int) -> np.ndarray:
    size = len(covariance)
    level, alpha = np.trace(covariance) / size, (covariance**2).mean()
    rho = min(1.0, (alpha + level**2) / ((n + 1) * (alpha - level**2 / size)))
    return (1 - rho) * covariance + rho * level * np.eye(size)


def test_shrunk_is_scikit_learns_exactly_where_the_mean_is_known():
    """With n + 1 samples that centre themselves, n free ones are left: OAS of sklearn on n rows of that covariance."""
    rng = np.random.default_rng(0)
    free = rng.normal(size=(20, 5)) * [1, 2, 3, 4, 5]
    contrast = np.linalg.qr(np.column_stack([np.ones(21), rng.normal(size=(21, 20))]))[0][:, 1:]
    a = torch.from_numpy(contrast @ free)  # (21, 5): its centred scatter is that of the 20 free rows
    summary = finished(meter_of("shrunk", units=5, classes=1), a, torch.zeros(21, dtype=torch.long))
    assert apart(covariance_of(summary), OAS(assume_centered=True).fit(free).covariance_) < 1e-6


@pytest.mark.parametrize("rank", [3, 4])
def test_the_sketch_is_exact_at_the_true_rank_and_above(rank):
    rng = torch.Generator().manual_seed(2)
    basis = torch.randn(CLASSES, 3, 40, generator=rng, dtype=torch.float64)
    labels = torch.arange(300) % CLASSES
    a = torch.einsum("nr,nrd->nd", torch.randn(300, 3, generator=rng, dtype=torch.float64), basis[labels])
    summary = finished(meter_of("lowrank", units=40, rank=rank), a, labels)
    for c in range(CLASSES):
        wanted = np.cov(a[labels == c].numpy().T)
        factor = summary["factor"][c].double().numpy()
        assert factor.shape == (40, rank)
        assert apart(factor @ factor.T, wanted) < 1e-6
        assert float(summary["variance"][c].max()) < 1e-6 * wanted.max()


def test_low_rank_keeps_the_variance_of_every_unit():
    a, labels = samples(600, units=30)
    meter = meter_of("lowrank", units=30, rank=4)
    summary = finished(meter, a, labels)
    for c in range(CLASSES):
        np.testing.assert_allclose(meter.variance(summary)[c], a[labels == c].var(0), rtol=1e-5)
    assert (summary["variance"] > 0).all()


def test_low_rank_is_near_the_best_of_its_rank():
    rng = torch.Generator().manual_seed(4)
    spectrum = 10.0 ** -torch.arange(20, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(20, 20, generator=rng, dtype=torch.float64))[0]
    covariance = basis * spectrum @ basis.T
    test = sketch_matrix(20, 3)
    factor = nystrom((covariance @ test)[None], test, 3)[0]
    best = float(spectrum[3:].square().sum().sqrt())
    assert float((factor @ factor.T - covariance).norm()) < 1.2 * best


def test_pooled_is_the_within_class_covariance_of_all_samples():
    a, labels = samples(200)
    summary = finished(meter_of("full", pooled=True), a, labels)
    own = torch.stack([a[labels == c].mean(0) for c in range(CLASSES)])
    centred = (a - own[labels]).numpy()
    assert summary["factor"].shape == (1, UNITS, UNITS)
    assert apart(covariance_of(summary), centred.T @ centred / (200 - CLASSES)) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_singular_covariances_are_kept_as_they_are(kind):
    a, labels = samples(12, units=20)  # about 4 samples a class
    a[:, 0], a[:, 1] = 0.25, a[:, 2]
    meter = meter_of(kind, units=20)
    summary = finished(meter, a, labels)
    meter.check(summary)
    drawn = meter.sample(summary, labels.repeat(10), torch.Generator().manual_seed(0))[0]
    assert drawn.isfinite().all()
    if kind == "full":
        assert apart(covariance_of(summary, 1), np.cov(a[labels == 1].numpy().T)) < 1e-6
        assert summary["factor"].shape[2] < 12
        torch.testing.assert_close(drawn[:, 1], drawn[:, 2], rtol=0, atol=1e-4)
    if kind in ("full", "diagonal", "lowrank"):
        assert float((drawn[:, 0] - 0.25).abs().max()) < 1e-6


def test_a_class_of_one_sample_is_drawn_as_that_sample():
    a = torch.tensor([[1.0, 2.0], [3.0, 5.0], [4.0, 4.0]])
    labels = torch.tensor([0, 1, 1])
    meter = meter_of("full", units=2, classes=2)
    drawn = meter.sample(finished(meter, a, labels), torch.zeros(5, dtype=torch.long), torch.Generator())[0]
    torch.testing.assert_close(drawn, a[:1].expand(5, 2))


def anisotropic() -> tuple[np.ndarray, torch.Tensor]:
    """A covariance of condition 1e6 with a duplicate and a dead unit, and 400 samples that have it exactly."""
    rng = np.random.default_rng(3)
    free = np.linalg.qr(rng.normal(size=(6, 6)))[0] * np.sqrt(np.logspace(0, 6, 6))
    white = rng.normal(size=(400, 6))
    white = (white - white.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T))).T
    six = white @ free.T
    a = np.column_stack([six, six[:, 0], np.full(400, 0.5)])
    return np.cov(a.T), torch.from_numpy(a)


def test_samples_have_the_recorded_covariance_and_the_mutants_have_not():
    wanted, a = anisotropic()
    labels = torch.zeros(400, dtype=torch.long)
    meter = meter_of("full", units=8, classes=1)
    summary = finished(meter, a, labels)
    many, factor = torch.zeros(200_000, dtype=torch.long), summary["factor"][0]
    drawn = meter.sample(summary, many, torch.Generator().manual_seed(0))[0].double().numpy()
    assert apart(np.cov(drawn.T), wanted) <= 0.01
    assert apart(drawn.mean(0), a.mean(0)) < 0.05 * np.sqrt(np.trace(wanted)) / np.linalg.norm(a.mean(0))
    assert np.ptp(drawn[:, 7]) < 1e-6
    np.testing.assert_allclose(drawn[:, 6], drawn[:, 0], atol=1e-2)
    g = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(1))
    square = torch.zeros(8, 8)
    square[:, : factor.shape[1]] = factor
    assert apart(np.cov((g @ torch.from_numpy(wanted).float()).numpy().T), wanted) > 1
    assert apart(np.cov((g @ square).numpy().T), wanted) > 0.3


@pytest.mark.parametrize("kind", ["diagonal", "lowrank", "shrunk", "full"])
@pytest.mark.parametrize("pooled", [False, True])
def test_samples_have_the_mean_and_variance_that_the_meter_names(kind, pooled):
    a, labels = samples()
    meter = meter_of(kind, pooled=pooled, rank=2)
    summary = finished(meter, a, labels)
    for c in range(CLASSES):
        drawn = meter.sample(summary, torch.full((40_000,), c), torch.Generator().manual_seed(c))[0]
        np.testing.assert_allclose(drawn.var(0), meter.variance(summary)[c], rtol=0.05)
        assert float(((drawn.mean(0) - summary["mean"][c]) / drawn.std(0)).abs().max()) < 0.03


def test_without_covariance_every_sample_is_the_class_mean():
    a, labels = samples()
    meter = meter_of("none")
    summary = finished(meter, a, labels)
    assert torch.equal(meter.sample(summary, labels, torch.Generator())[0], summary["mean"][labels])


def test_a_class_without_samples_is_an_error_that_names_it():
    a, _ = samples(10)
    meter = meter_of("diagonal")
    with pytest.raises(UserError) as caught:
        meter.finish(meter.reduce([a], torch.zeros(10, dtype=torch.long)))
    assert str(caught.value) == "no samples of class 1, expected at least 1 of each; give data with every class"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dead", [False, True])
def test_the_distance_is_zero_at_equality_and_differentiable_beside_it(kind, dead):
    if kind == "shrunk":
        pytest.skip("a shrunk variance is meant to differ from the batch's own")
    a, labels = samples(90)
    if dead:
        a[:, 3] = 1.5
    meter = meter_of(kind)
    summary = finished(meter, a, labels)
    assert float(meter.distance(summary, [a.float()], labels)) < (1e-9 if kind != "lowrank" else 1e-6)
    moved = (a.float() + torch.randn(a.shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
    value = meter.distance(summary, [moved], labels)
    (gradient,) = torch.autograd.grad(value, moved)
    assert float(value.detach()) > 1e-3
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_without_covariance_the_distance_is_the_squared_distance_of_the_means():
    a, labels = samples(90)
    meter = meter_of("none")
    summary = finished(meter, a, labels)
    assert float(meter.distance(summary, [a.float() + 0.5], labels)) == pytest.approx(0.25, rel=1e-4)


def test_the_distance_does_not_depend_on_the_scale_of_the_layer():
    a, labels = samples(90)
    values = []
    for scale in (1.0, 1000.0):
        meter = meter_of("full")
        summary = finished(meter, a * scale, labels)
        values.append(float(meter.distance(summary, [(a * 1.5 * scale).float()], labels)))
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_released_counts_means_and_the_free_numbers_of_the_covariance():
    a, labels = samples(240)
    least = int(torch.bincount(labels).min())
    numbers = {"none": 0, "diagonal": 6, "full": 21, "lowrank": 6 + 6 * 2 - 1, "shrunk": 1 + 21}
    for kind, extra in numbers.items():
        meter = meter_of(kind, rank=2)
        assert meter.released_statistics(finished(meter, a, labels)) == pytest.approx((6 + extra) / least)
    pooled = meter_of("full", pooled=True)
    assert pooled.released_statistics(finished(pooled, a, labels)) == pytest.approx(6 / least + 21 / 240)


def test_logits_are_recorded_divided_by_the_temperature_and_hidden_layers_are_not(tiny):
    network = tiny("linear")
    plan = Moments(temperature=4.0).plan(network, ("fc1", "fc3"))
    assert {name: own.scale for name, (own, _) in plan.items()} == {"fc1": 1.0, "fc3": 0.25}
    meter = plan["fc3"][0].bind(network, ("fc3",))
    assert torch.equal(meter.observe([torch.full((2, 3), 8.0)])[0], torch.full((2, 3), 2.0))


def test_channels_are_means_over_positions(tiny):
    network = tiny("norm")
    meter = Moments(conv="channels").bind(network, ("conv",))
    a = torch.randn(5, 3, 2, 2)
    torch.testing.assert_close(meter.observe([a])[0], a.mean((2, 3)))
    assert Moments(conv="units").bind(network, ("conv",)).observe([a])[0].shape == (5, 12)


def test_float16_storage_refuses_what_it_cannot_hold():
    meter = meter_of("diagonal", units=1, classes=1, storage="float16")
    with pytest.raises(UserError, match="activations of 'fc' above 60000 in float16; give `storage='float32'`"):
        meter.finish(meter.reduce([torch.tensor([[7e4], [7e4]])], torch.tensor([0, 0])))


def test_a_covariance_that_is_too_large_is_refused_before_it_is_made():
    with pytest.raises(UserError, match="a full covariance of 8193 units at 'fc', expected at most 8192"):
        meter_of("full", units=8193)
