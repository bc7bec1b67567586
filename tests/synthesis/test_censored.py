"""The censored Gaussian: its integrals against quadrature, its samples against the moments that it was fitted to."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import eval_hermitenorm, gammaln
from scipy.stats import norm

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
