"""Muon: orthogonal steps for weights, Adam's for the rest, and a state that a stopped run goes on from."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from datafree._core.resume import load_optimizer, optimizer_state
from datafree.distillation.muon import MATCH, Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 8), (5, 40), (40, 5), (1, 7), (7, 1)])
def test_singular_values_come_near_to_1_and_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    made = orthogonal(matrix)
    assert made.shape == shape
    values = torch.linalg.svdvals(made)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    turned = left.T @ made @ right.T
    assert torch.allclose(turned, turned.diag().diag(), atol=1e-4)


def test_a_gradient_of_zeros_moves_nothing() -> None:
    weight = nn.Parameter(torch.ones(3, 4))
    optimizer = Muon([weight], lr=0.1)
    weight.grad = torch.zeros(3, 4)
    optimizer.step()
    assert torch.equal(weight, torch.ones(3, 4))


@pytest.mark.parametrize("shape", [(6, 30), (30, 6), (8, 3, 5, 5)])
def test_a_step_is_as_long_as_adams_usual_one(shape: tuple[int, ...]) -> None:
    weight = nn.Parameter(torch.zeros(shape))
    weight.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    Muon([weight], lr=1e-2).step()
    length = float(weight.detach().square().mean().sqrt())
    rows, columns = weight.flatten(1).shape
    wanted = 1e-2 * MATCH * math.sqrt(max(rows, columns) * min(rows, columns) / (rows * columns))
    assert length == pytest.approx(wanted, rel=0.2)


def test_vectors_take_adams_steps() -> None:
    rng = torch.Generator().manual_seed(0)
    ours, adams = (nn.Parameter(torch.ones(9)) for _ in range(2))
    one, other = Muon([ours], lr=1e-2), torch.optim.Adam([adams], lr=1e-2)
    for _ in range(5):
        ours.grad = torch.randn(9, generator=rng)
        adams.grad = ours.grad.clone()
        one.step()
        other.step()
    assert torch.allclose(ours, adams, atol=1e-6)


def _problem() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    teacher, student = (nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4)) for _ in range(2))
    x = torch.randn(512, 16)
    with torch.no_grad():
        return student, x, teacher(x)


def _learn(student: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor, steps: int) -> float:
    loss = torch.zeros(())
    for _ in range(steps):
        loss = (student(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def test_it_learns() -> None:
    student, x, y = _problem()
    with torch.no_grad():
        before = float((student(x) - y).square().mean())
    assert _learn(student, Muon(student.parameters(), lr=5e-3), x, y, 100) < 0.03 * before


def test_a_stopped_run_goes_on_to_the_same_weights() -> None:
    student, x, y = _problem()
    optimizer = Muon(student.parameters(), lr=5e-3)
    _learn(student, optimizer, x, y, 10)
    weights, kept = copy.deepcopy(student.state_dict()), optimizer_state(optimizer, "learner")
    _learn(student, optimizer, x, y, 10)
    again, _, _ = _problem()
    again.load_state_dict(weights)
    fresh = Muon(again.parameters(), lr=5e-3)
    load_optimizer(fresh, kept, "learner")
    _learn(again, fresh, x, y, 10)
    for name, own in student.state_dict().items():
        assert torch.equal(own, again.state_dict()[name]), name
