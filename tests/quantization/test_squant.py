"""SQuant: which levels it chooses, and that a network keeps more of its function with few bits."""

from __future__ import annotations

import itertools

import pytest
import torch

pytest.importorskip("torchao")

from datafree.quantization import Bits, calibrate
from datafree.quantization.squant import squant


def weight_and_step(*shape: int, high: int = 7, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and steps whose grid covers all of it, as in the paper."""
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return weight, weight.flatten(1).abs().amax(1) / high


@pytest.mark.parametrize(
    "shape", [(8, 5, 3, 3), (6, 1, 5, 5), (4, 12, 1, 1), (5, 40), (3, 4, 7), (2, 3, 2, 2, 2), (1, 1)]
)
@pytest.mark.parametrize("high", [1, 3, 7, 63, 127])
def test_the_errors_of_every_kernel_and_channel_cancel(shape, high):
    weight, step = weight_and_step(*shape, high=high)
    levels = squant(weight, step, high)
    error = (levels.double() - weight.double() / step.double().view(-1, *[1] * (weight.ndim - 1))).flatten(1)
    kernels = error.view(*shape[:2], -1).sum(-1)
    assert levels.shape == weight.shape and levels.dtype == weight.dtype and torch.equal(levels, levels.round())
    assert float(levels.abs().max()) <= high
    assert float(error.abs().max()) < 1  # one of both neighbours
    assert float(kernels.abs().max()) <= 1 + 1e-9
    if high > 1:  # otherwise too few weights may be flipped without leaving the grid
        assert float(error.sum(1).abs().max()) <= 0.5 + 1e-9


def test_of_all_roundings_with_cancelling_errors_the_flips_cost_least():
    """One kernel of 6 weights: compared with all 64 choices of a neighbour for each weight."""
    for seed in range(20):
        weight = torch.rand(1, 1, 6, generator=torch.Generator().manual_seed(seed)) * 20 - 10
        levels = squant(weight, torch.ones(1), 20)
        costs = []
        for ups in itertools.product((0, 1), repeat=6):
            error = (weight.floor() + torch.tensor(ups) - weight).double()
            if abs(float(error.sum())) <= 0.5:
                costs.append(float(error.square().sum()))
        assert float((levels - weight).double().square().sum()) == pytest.approx(min(costs), abs=1e-6)


def test_weights_on_the_grid_stay_and_clipped_ones_stay_at_its_end():
    exact = torch.randint(-7, 8, (4, 3, 3, 3), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(squant(exact * 0.3, torch.full((4,), 0.3), 7), exact)
    clipped = torch.tensor([[9.0, -30.0, 2.3, 2.45, 2.4]])  # the errors of the first two do not count
    assert squant(clipped, torch.ones(1), 7).tolist() == [[7, -7, 2, 3, 2]]
    assert squant(torch.zeros(2, 3), torch.ones(2), 7).abs().max() == 0


def test_a_network_keeps_more_of_its_function_with_few_bits(normed, shown, digits):
    unseen = digits.pixels(range(300, 500))
    expected = normed.predict(unseen)

    def error(rounding: str, **options) -> float:
        quantized = calibrate(normed, shown, Bits(weights=3, activations=8), rounding=rounding, **options)
        return float((quantized.network.predict(unseen) - expected).square().mean())

    for options in ({}, {"equalise": False, "correct_bias": "none"}):
        assert error("squant", **options) < error("nearest", **options)


def test_it_needs_no_image_and_works_with_every_correction(normed, shown):
    for pixels, correct in ((None, "none"), (None, "analytic"), (shown, "empirical")):
        quantized = calibrate(normed, pixels, Bits(weights=4), rounding="squant", correct_bias=correct)
        for node, _, grid in quantized.layers():
            weight = dict(quantized.graph.named_parameters())[str(node.args[1].args[0].target)].detach()
            levels = weight / grid.step.detach().view(-1, *[1] * (weight.ndim - 1))
            assert float((levels - levels.round()).abs().max()) < 1e-3  # every weight is one of its levels


def test_quantize_rounds_by_squant_unless_it_fine_tunes(normed, shown):
    import datafree as df

    def levels(**options) -> list[torch.Tensor]:
        quantized = df.quantize(normed, "w3a8", calibrate=shown[:64], **options).simulation
        return [
            grid(dict(quantized.graph.named_parameters())[str(node.args[1].args[0].target)]).detach()
            for node, _, grid in quantized.layers()
        ]

    def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
        return all(torch.equal(*pair) for pair in zip(a, b, strict=True))

    assert same(levels(), levels(rounding="squant")) and not same(levels(), levels(rounding="nearest"))
    tuning = df.FineTuning(epochs=1, batch=64, learning_rate=1e-6)
    assert same(levels(fine_tune=tuning), levels(rounding="nearest", fine_tune=tuning))
