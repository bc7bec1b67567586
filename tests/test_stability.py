"""Figures of a curve: by hand, by law, and what has none."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datafree._core.errors import UserError
from datafree.evaluation.stability import FIGURES, Spread, Stability, over_seeds, stability

percentages = st.lists(st.floats(0, 100), min_size=1, max_size=30)


def test_a_zigzag_by_hand():
    found = stability([50, 80, 60, 90, 40, 85, 70])
    assert (found.epochs, found.best, found.last, found.lost) == (7, 90.0, 70.0, 20.0)
    assert found.drawdown == 50.0  # 90 to 40
    assert found.decreases == 20 + 50 + 15
    assert found.mean == found.random_stop == pytest.approx(475 / 7)
    assert found.sd == pytest.approx(math.sqrt(sum((v - 475 / 7) ** 2 for v in (50, 80, 60, 90, 40, 85, 70)) / 6))


def test_a_drawdown_may_take_several_epochs_and_come_back_between():
    assert stability([90, 80, 85, 60, 95, 94]).drawdown == 30.0
    assert stability([90, 80, 85, 60, 95, 94]).decreases == 10 + 25 + 1


@given(percentages)
def test_a_curve_that_never_falls_has_lost_nothing(values):
    found = stability(sorted(values))
    assert (found.lost, found.drawdown, found.decreases) == (0.0, 0.0, 0.0)


@given(percentages)
def test_lost_is_at_most_the_drawdown_and_that_at_most_the_decreases(values):
    found = stability(values)
    assert 0 <= found.lost <= found.drawdown <= found.decreases + 1e-9
    assert min(values) - 1e-9 <= found.mean <= found.best + 1e-9


def test_one_value_has_no_deviation():
    assert stability([42.0]) == Stability(1, 42.0, None, 42.0, 42.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("window", "epochs"), [(None, 5), (5, 5), (2, 2), (1, 1), (1.0, 5), (0.4, 2), (0.41, 3), (0.01, 1)]
)
def test_a_window_is_the_last_epochs_or_a_share_of_them(window, epochs):
    values = [99.0, 10.0, 30.0, 20.0, 25.0]
    assert stability(values, window) == stability(values[5 - epochs :])
    assert stability(values, window).epochs == epochs


@pytest.mark.parametrize("window", [0, 6, -1, 0.0, 1.5, -0.5, math.nan, True])
def test_a_window_that_does_not_fit_is_one_line(window):
    with pytest.raises(UserError, match=r"^window: got .* for 5 epochs, expected 1 to 5 epochs, or a share"):
        stability([1, 2, 3, 4, 5], window)


def test_no_values_and_values_that_are_not_finite_are_one_line():
    with pytest.raises(UserError, match="values: got none, expected those of at least one epoch"):
        stability([])
    for bad in (math.nan, math.inf):
        with pytest.raises(UserError, match=f"values: got {bad} in epoch 2, expected finite numbers"):
            stability([1.0, bad], window=1)


def test_over_seeds_by_hand():
    found = over_seeds([stability([50, 90, 80]), stability([60, 70, 75]), stability([10, 40, 30])])
    assert found["lost"] == Spread(pytest.approx(20 / 3), pytest.approx(math.sqrt(100 / 3)), 3)
    assert found["last"].mean == pytest.approx(185 / 3)
    assert found["lost"].error == pytest.approx(10 / 3)
    assert list(found) == list(FIGURES)


def test_over_one_seed_there_is_no_deviation_and_a_figure_that_is_missing_is_left_out():
    found = over_seeds([stability([7.0])])
    assert "sd" not in found
    assert found["mean"] == Spread(7.0, None, 1)
    assert found["mean"].error is None


def test_windows_of_different_lengths_and_no_runs_are_one_line():
    with pytest.raises(UserError, match="got windows of 1 and 2 epochs, expected the same"):
        over_seeds([stability([1.0]), stability([1.0, 2.0])])
    with pytest.raises(UserError, match="runs: got none, expected those of at least one seed"):
        over_seeds([])


def test_every_figure_has_a_unit():
    assert [own.name for own in fields(Stability)] == ["epochs", *FIGURES]
