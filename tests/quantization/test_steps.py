"""Grids: the step of least squared error, rounding, and the gradient of LSQ."""

from __future__ import annotations

import pytest
import torch

from datafree._core.optional_packages import quiet

with quiet():
    pytest.importorskip("torchao")
    from datafree.quantization.fake_quantize import GAIN, FakeQuantize, nearest_step


def squared_error(weight, step, high):
    rows = weight.flatten(1)
    return (rows - (rows / step[:, None]).round().clamp(-high, high) * step[:, None]).square().sum(1)


def activation_step(top: int) -> FakeQuantize:
    return FakeQuantize(quant_min=0, quant_max=top, dtype=torch.uint8, by_channel=False)


def weight_step(top: int) -> FakeQuantize:
    return FakeQuantize(quant_min=-top, quant_max=top, dtype=torch.int8, by_channel=True)


@pytest.mark.parametrize("high", [1, 3, 7, 127])
@pytest.mark.parametrize("shape", [(6, 40), (6, 4, 3, 3)])
def test_the_nearest_step_is_at_least_as_good_as_that_of_the_largest_magnitude_in_every_channel(high, shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) ** 3
    largest = weight.flatten(1).abs().amax(1) / high
    step = nearest_step(weight, high)
    assert step.shape == (6,)
    assert (squared_error(weight, step, high) <= squared_error(weight, largest, high) * (1 + 1e-6)).all()


@pytest.mark.parametrize("high", [1, 3, 7])
def test_with_few_levels_it_beats_the_range_by_far_where_weights_have_long_tails(high):
    weight = torch.randn(5, 400, generator=torch.Generator().manual_seed(0))
    weight[:, 0] = 12
    largest = weight.abs().amax(1) / high
    assert (squared_error(weight, nearest_step(weight, high), high) < 0.75 * squared_error(weight, largest, high)).all()


@pytest.mark.parametrize("high", [1, 3, 7, 127])
def test_weights_that_lie_on_a_grid_are_kept_exactly(high):
    steps = torch.tensor([0.25, 0.003, 7.0])
    whole = torch.randint(-high, high + 1, (3, 2, 5, 5), generator=torch.Generator().manual_seed(0)).float()
    whole[:, 0, 0, 0] = high
    weight = whole * steps.view(-1, 1, 1, 1)
    torch.testing.assert_close(nearest_step(weight, high), steps)
    own = weight_step(high)
    own(weight)
    own.start()
    torch.testing.assert_close(own(weight).detach(), weight)


def test_every_channel_is_rounded_by_itself_and_one_of_zeros_has_step_1():
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    weight[1] = 0
    step = nearest_step(weight, 7)
    assert step[1] == 1
    torch.testing.assert_close(nearest_step(weight[2:] * 1000, 7), step[2:] * 1000)
    assert nearest_step(weight * 1e-30, 7).isfinite().all()


def test_a_grid_watches_until_it_is_started_and_rounds_from_then_on():
    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) * 4 - 1
    own = activation_step(255)
    assert torch.equal(own(x), x)
    own.start()
    y = own(x).detach()
    assert not torch.equal(y, x)
    assert len(y.unique()) <= 256
    within = (y > y.min()) & (y < y.max())
    assert float((y - x)[within].abs().max()) <= float(own.step.detach()) * 0.5001
    assert torch.equal(own(y).detach(), y)
    assert float(own(torch.zeros(1)).detach()) == 0


def test_a_grid_of_few_levels_has_no_more_and_less_error_than_the_one_of_the_range():
    x = torch.randn(4000, generator=torch.Generator().manual_seed(0)).relu()
    x[0] = 8
    own = activation_step(15)
    own(x[:, None])
    own.start()
    y = own(x).detach()
    assert len(y.unique()) <= 16 and int(own.zero_point) == 0
    by_range = (x / (8 / 15)).round() * (8 / 15)
    assert float((y - x).square().mean()) < 0.75 * float((by_range - x).square().mean())


@pytest.mark.parametrize("make", [activation_step, weight_step])
def test_a_grid_that_saw_nothing_cannot_start(make):
    with pytest.raises(RuntimeError, match="was started before its layer was run"):
        make(7).start()


def by_hand(x, grad, step, zero, low, high):
    """LSQ, eq. 3 and 5 of Esser et al. 2020, with a zero point: gradients of x, and of the step element by element."""
    level = (x / step).round() + zero
    inside = (level >= low) & (level <= high)
    of_step = torch.where(inside, level - zero - x / step, level.clamp(low, high) - zero)
    return grad * inside, grad * of_step


@pytest.mark.parametrize(("step", "zero", "top"), [(0.1, 0, 15), (0.03, 5, 15), (0.004, 128, 255)])
def test_the_gradient_of_an_activations_grid_is_lsqs_and_passes_straight_through_inside_it(step, zero, top):
    rng = torch.Generator().manual_seed(0)
    x = (torch.randn(7, 3, 4, 4, generator=rng)).requires_grad_()
    grad = torch.randn(x.shape, generator=rng)
    own = activation_step(top)
    own.set(torch.tensor([step]), torch.tensor([zero]))
    moved = torch.autograd.grad(own(x), [x, own.learnt], grad)
    straight, of_step = by_hand(x.detach(), grad, step, zero, 0, top)
    torch.testing.assert_close(moved[0], straight)
    assert 0 < int((straight == 0).sum()) < x.numel()
    torch.testing.assert_close(moved[1], (of_step.double().sum() * step * GAIN).float().view(1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shape", [(5, 30), (5, 2, 3, 3)])
def test_the_gradient_of_a_weights_grids_is_lsqs_in_every_channel(shape):
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=rng).requires_grad_()
    grad, step = torch.randn(shape, generator=rng), torch.tensor([0.05, 0.1, 0.2, 0.5, 2.0])
    own = weight_step(7)
    own.set(step, torch.zeros(5))
    moved = torch.autograd.grad(own(weight), [weight, own.learnt], grad)
    wide = step.view(-1, *[1] * (len(shape) - 1))
    straight, of_step = by_hand(weight.detach(), grad, wide, 0, -7, 7)
    torch.testing.assert_close(moved[0], straight)
    torch.testing.assert_close(moved[1], of_step.flatten(1).sum(1) * step * GAIN, rtol=1e-3, atol=1e-4)


def test_outside_the_grid_the_gradient_of_the_step_is_the_numerical_one():
    x = torch.tensor([[9.0, -9.0, 30.0, -0.5]])
    own = activation_step(15)
    own.set(torch.tensor([0.1]), torch.tensor([3]))
    (moved,) = torch.autograd.grad(own(x).sum(), own.learnt)
    ends = []
    for learnt in (-1e-2, 1e-2):
        own.learnt.data.fill_(learnt)
        ends.append(float(own(x).detach().double().sum()))
    assert float(moved) == pytest.approx((ends[1] - ends[0]) / 2e-2, rel=1e-2)


def test_steps_stay_above_zero_however_far_they_are_moved():
    own = weight_step(7)
    own.set(torch.tensor([0.5, 2.0]), torch.zeros(2))
    torch.testing.assert_close(own.step.detach(), torch.tensor([0.5, 2.0]))
    own.learnt.data.fill_(-1.0)
    assert (own.step > 0).all()


def test_gradients_of_a_grid_whose_step_is_frozen_are_those_of_the_input_alone():
    own = activation_step(15)
    own.set(torch.tensor([0.1]), torch.tensor([0]))
    own.learnt.requires_grad_(False)
    x = torch.tensor([0.52, 9.0, -1.0], requires_grad=True)
    (moved,) = torch.autograd.grad(own(x).sum(), x)
    assert moved.tolist() == [1, 0, 0]


@pytest.mark.parametrize(("top", "zero"), [(255, 31), (15, 0), (7, 3), (65535, 777)])
@pytest.mark.parametrize("step", [0.013, 0.1, 0.7312])
def test_by_tensor_it_has_the_bits_of_torchs_own_rounding_halves_and_gradient_too(top, zero, step):
    own = FakeQuantize(0, top, torch.uint8, by_channel=False)
    own.set(torch.tensor([step]), torch.tensor([zero]))
    halves = (torch.arange(600) + 0.5 - zero) * step
    x = torch.cat([torch.randn(4000, generator=torch.Generator().manual_seed(0)) * step * top / 2, halves])
    wanted, inside = torch.ops.aten.fake_quantize_per_tensor_affine_cachemask(x, float(own.step.detach()), zero, 0, top)
    assert torch.equal(own(x.detach().requires_grad_(True)), wanted)
    with torch.no_grad():
        assert torch.equal(own(x), wanted)
    seen = x.detach().requires_grad_(True)
    own(seen).sum().backward()
    assert torch.equal(seen.grad.bool(), inside)


@pytest.mark.parametrize("levels", [512, 1024, 4096, 65536])
@pytest.mark.parametrize("spread", ["rectified", "even", "with an outlier"])
def test_a_fine_grid_of_activations_is_as_good_as_one_that_covers_all_values(levels, spread):
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    x = {"rectified": x.relu(), "even": x.sigmoid() - 0.3, "with an outlier": torch.cat([x, torch.tensor([300.0])])}[
        spread
    ]
    own = activation_step(levels - 1)
    for part in x.split(4000):
        own(part)
    own.start()
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    step = (high - low) / (levels - 1)
    covering = float((x - ((x - low) / step).round() * step - low).square().mean())
    with torch.no_grad():
        error = float((own(x) - x).square().mean())
    assert error < 1.15 * covering
