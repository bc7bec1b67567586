"""The censored Gaussian: its integrals against quadrature, its samples against the moments that it was fitted to."""

from __future__ import annotations

import threading
import weakref
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import eval_hermitenorm, gammaln
from scipy.stats import norm

from datafree.synthesis import latent_correlations
from datafree.synthesis.censored_gaussian import Censored, censored_moments, fit_censored, hermite

CASES = [(0.5, 0.2), (0.05, 0.3), (-0.7, 0.5), (1.4, 0.6), (0.5, 5.0), (0.3, 0.01), (-3.0, 1.0)]


def integral(function, mean, std) -> float:
    edges = sorted(min(max(edge, -12), 12) for edge in (-mean / std, (1 - mean) / std))
    pieces = [-12, *edges, 12]
    return sum(
        quad(lambda u: function(u) * norm.pdf(u), a, b, epsabs=1e-13, epsrel=1e-12, limit=200)[0]
        for a, b in pairwise(pieces)
        if b > a
    )


@pytest.mark.parametrize(("mean", "std"), CASES)
def test_mean_and_variance_of_the_clamped_normal_are_the_integrals(mean, std):
    first = integral(lambda u: np.clip(mean + std * u, 0, 1), mean, std)
    second = integral(lambda u: np.clip(mean + std * u, 0, 1) ** 2, mean, std)
    got = censored_moments(torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64))
    assert float(got[0]) == pytest.approx(first, abs=1e-10)
    assert float(got[1]) == pytest.approx(second - first**2, abs=1e-10)


@pytest.mark.parametrize(("mean", "std"), CASES)
def test_hermite_coefficients_are_the_integrals(mean, std):
    got = hermite(torch.tensor([mean], dtype=torch.float64), torch.tensor([std], dtype=torch.float64), 10)[:, 0]
    for k in range(1, 11):
        scale = np.exp(-0.5 * gammaln(k + 1))
        wanted = integral(
            lambda u, k=k, scale=scale: np.clip(mean + std * u, 0, 1) * eval_hermitenorm(k, u) * scale, mean, std
        )
        assert float(got[k - 1]) == pytest.approx(wanted, abs=1e-9), k


def test_the_coefficients_add_up_to_the_variance():
    mean, std = torch.tensor([0.4], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    total = float(hermite(mean, std, 60).square().sum())
    assert total == pytest.approx(float(censored_moments(mean, std)[1]), rel=2e-3)


@pytest.fixture(scope="module")
def classes(digits):
    """Mean (10, 64) and covariance (10, 64, 64) of the pixels of the digits."""
    x = digits.pixels(range(len(digits))).flatten(1).double()
    own = [x[digits.labels == c] for c in range(10)]
    return torch.stack([o.mean(0) for o in own]), torch.stack([torch.from_numpy(np.cov(o.T.numpy())) for o in own])


@pytest.fixture(scope="module")
def fitted(classes) -> Censored:
    return fit_censored(*classes)


def drawn(latent: Censored, c: int, count=20_000) -> torch.Tensor:
    labels = torch.full((count,), c)
    return latent.latent(labels, torch.ones(count), torch.Generator().manual_seed(c)).clamp(0, 1).double()


def test_mean_and_variance_of_every_pixel_come_out_exactly(classes, fitted):
    mean, covariance = classes
    std = fitted.factor.double().norm(dim=2)
    live = covariance.diagonal(dim1=1, dim2=2) > 1e-8
    got = censored_moments(fitted.mean.double()[live], std[live])
    torch.testing.assert_close(got[0], mean[live], rtol=0, atol=1e-4)
    torch.testing.assert_close(got[1], covariance.diagonal(dim1=1, dim2=2)[live], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(fitted.mean.double()[~live], mean[~live], rtol=0, atol=1e-6)
    assert float(std[~live].max()) == 0


def test_the_covariance_of_samples_is_near_and_far_nearer_than_that_of_a_clamped_gaussian(classes, fitted):
    mean, covariance = classes
    errors = []
    for c in range(10):
        values, vectors = torch.linalg.eigh(covariance[c])
        plain = Censored(mean.float(), (vectors * values.clamp(min=0).sqrt())[None].expand(10, -1, -1).float())
        for own in (fitted, plain):
            x = drawn(own, c)
            found = torch.from_numpy(np.cov(x.T.numpy()))
            apart = float((found - covariance[c]).norm() / covariance[c].norm())
            errors.append((apart, float((x.mean(0) - mean[c]).norm() / mean[c].norm())))
    ours, plain = np.array(errors[::2]), np.array(errors[1::2])
    assert ours[:, 0].max() <= 0.1
    assert ours[:, 1].max() <= 0.01
    assert (plain[:, 0] > 1.4 * ours[:, 0]).all()
    assert (plain[:, 1] > 3 * ours[:, 1]).all()


def test_a_low_rank_keeps_mean_and_variance_of_every_pixel(classes):
    mean, covariance = classes
    latent = fit_censored(mean[:2], covariance[:2], rank=8)
    assert latent.factor.shape == (2, 64, 8)
    live = covariance[:2].diagonal(dim1=1, dim2=2) > 1e-8
    got = censored_moments(latent.mean.double()[live], latent.factor.double().norm(dim=2)[live])
    torch.testing.assert_close(got[1], covariance[:2].diagonal(dim1=1, dim2=2)[live], rtol=1e-2, atol=1e-6)


def test_the_bounds_of_what_a_pixel_can_do_are_met():
    """A pixel that is 0 or 1, one that never changes, one that is nearly always 0."""
    mean = torch.tensor([[0.5, 0.3, 1e-4]], dtype=torch.float64)
    covariance = torch.diag_embed(torch.tensor([[0.2499, 0.0, 1e-5]], dtype=torch.float64))
    latent = fit_censored(mean, covariance)
    x = drawn(latent, 0, 200_000)
    torch.testing.assert_close(x.mean(0), mean[0], rtol=0, atol=5e-3)
    assert float(x[:, 0].var()) == pytest.approx(0.2499, abs=2e-3)
    assert float(x[:, 1].var()) == 0
    assert float(x[:, 2].var()) == pytest.approx(1e-5, rel=0.3)


def series(coefficients, rho):
    """Covariance of clamped pixels with latent correlations `rho`, and its derivative, term by term in float64."""
    products = [(a[:, None] * a[None]).double() for a in coefficients]
    value = sum(product * rho.double() ** k for k, product in enumerate(products, 1))
    slope = sum(k * product * rho.double() ** (k - 1) for k, product in enumerate(products, 1))
    return value, slope


@pytest.fixture
def pair(classes):
    """Coefficients and covariance of the pixels of the digit 3 that vary."""
    mean, covariance = classes
    latent = fit_censored(mean[3:4], covariance[3:4], steps=0)
    live = covariance[3].diagonal() > 1e-8
    std = latent.factor[0].double().norm(dim=1)
    return hermite(latent.mean[0, live].double(), std[live], 10).float(), covariance[3][live][:, live].float()


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(latent_correlations, "PANEL", 16)
    monkeypatch.setattr(latent_correlations, "PART", 100)


@pytest.mark.usefixtures("small_parts")
def test_the_gradient_from_parts_of_the_lower_triangle_is_that_of_the_whole_matrix(pair):
    coefficients, target = pair
    size = len(target)
    assert size > 48
    rows = torch.nn.functional.normalize(torch.randn(size, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    value, slope = series(coefficients, rows @ rows.T)
    expected = ((value - target).fill_diagonal_(0) * slope) @ rows.double()
    found = torch.empty_like(rows)
    latent_correlations._gradient(latent_correlations._Series(coefficients, threading.Event()), rows, target, out=found)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.usefixtures("small_parts")
def test_the_start_has_the_pairwise_correlations(pair):
    coefficients, target = pair
    size = len(target)
    low, high = -torch.ones(size, size), torch.ones(size, size)
    for _ in range(12):
        middle = (low + high) / 2
        under = series(coefficients, middle)[0] < target
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    correlation = ((low + high) / 2).fill_diagonal_(1).double()
    values, vectors = torch.linalg.eigh(correlation)
    expected = (vectors * values.clamp(min=0)) @ vectors.T
    rows = latent_correlations.correlation_rows(coefficients, target, rank=size, steps=0).double()
    norm = expected.diagonal().sqrt()
    torch.testing.assert_close(
        rows @ rows.T, expected / norm[:, None] / norm, rtol=0, atol=2e-3
    )  # a bisection's last step


def test_the_fit_does_not_depend_on_how_many_classes_are_fitted_at_a_time(classes):
    mean, covariance = classes
    seen: list[tuple[int, int]] = []
    threads = torch.get_num_threads()
    alone = fit_censored(mean[:4], covariance[:4], steps=5)
    together = fit_censored(mean[:4], covariance[:4], steps=5, workers=3, progress=lambda *both: seen.append(both))
    assert torch.equal(alone.factor, together.factor) and torch.equal(alone.mean, together.mean)
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert torch.get_num_threads() == threads


def test_only_the_covariances_of_classes_being_fitted_exist(classes):
    mean, covariance = classes
    living: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most: list[int] = []

    class Computed:
        def __getitem__(self, c):
            living.add(matrix := covariance[c].clone())
            most.append(len(living))
            return matrix

    computed = fit_censored(mean[:4], Computed(), steps=2)
    assert torch.equal(computed.factor, fit_censored(mean[:4], covariance[:4], steps=2).factor)
    assert len(most) == 4 and max(most) <= 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fit_that_is_stopped_ends_before_the_other_classes_are_fitted(classes, workers, monkeypatch):
    mean, covariance = classes
    steps: list[int] = []
    whole = latent_correlations._gradient
    monkeypatch.setattr(
        latent_correlations, "_gradient", lambda *given, **named: (steps.append(1), whole(*given, **named))
    )

    def stop(done: int, _: int) -> None:
        if done:
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        fit_censored(mean, covariance, steps=200, workers=workers, progress=stop)
    assert threading.active_count() == before
    assert 200 <= len(steps) < 200 * 5
