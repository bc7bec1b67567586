"""The simulated network: near the original, on the grids it was asked for, the original untouched, bad input refused."""

from __future__ import annotations

import copy

import pytest
import torch

from datafree._core.errors import UserError
from datafree._core.optional_packages import quiet
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network

with quiet():
    pytest.importorskip("torchao")
    from datafree.quantization import Bits, calibrate
    from datafree.quantization.post_training import Simulated

SPEC = InputSpec(shape=(1, 8, 8), classes=tuple("abc"))


def state(network: Network):
    parts = list(network.module.modules())
    hooks = [len(p._forward_hooks) + len(p._forward_pre_hooks) + len(p._backward_hooks) for p in parts]
    weights = list(network.module.parameters())
    return network.fingerprint(), hooks, [p.training for p in parts], [p.requires_grad for p in weights], [
        p.grad for p in weights
    ]  # fmt: skip


def distance(network: Network, other: Network, x: torch.Tensor) -> float:
    """Of the logits, relative."""
    z = network.predict(x)
    return float((other.predict(x) - z).norm() / z.norm())


@pytest.fixture(scope="module")
def unseen(digits):
    return digits.pixels(range(300, 700))


@pytest.mark.parametrize(
    ("training", "options"),
    [
        (True, {}),
        (False, {"equalise": True, "correct_bias": "none"}),
        pytest.param(False, {}, marks=pytest.mark.slow),
        pytest.param(True, {"equalise": True, "correct_bias": "none"}, marks=pytest.mark.slow),
    ],
)
def test_the_network_is_left_as_found(training, options, normed, shown):
    module = copy.deepcopy(normed.module).train(training)
    module.conv1.weight.requires_grad_(False)
    network = Network(module, normed.spec, "own")
    before, stream = state(network), torch.get_rng_state()
    for pixels in (shown[:64], None):
        own = calibrate(network, pixels, **options)
        own.network.module.train()
        for parameter in own.network.module.parameters():
            parameter.data.add_(1)
    assert state(network) == before
    assert torch.equal(torch.get_rng_state(), stream)


def test_a_teacher_in_training_mode_is_quantized_as_in_eval_mode(normed, shown, unseen):
    module = copy.deepcopy(normed.module)
    answers = [
        calibrate(Network(module.train(training), normed.spec, "own"), shown).network.predict(unseen)
        for training in (False, True)
    ]
    assert torch.equal(*answers)


def test_at_8_bits_it_agrees_with_the_original_on_nearly_all_images_it_was_not_calibrated_on(normed, simulated, unseen):
    network = simulated(Bits()).network
    assert float((network.predict(unseen).argmax(1) == normed.predict(unseen).argmax(1)).float().mean()) >= 0.98
    assert distance(normed, network, unseen) < 0.02
    assert network.name == "normed-w8a8"
    assert network.spec == normed.spec.model_copy(update={"mean": (0.0,), "std": (1.0,)})


def test_fewer_bits_lose_more(normed, simulated, unseen):
    for field in ("weights", "activations"):
        values = [distance(normed, simulated(Bits(**{field: n})).network, unseen) for n in (8, 4, 2)]
        assert values == sorted(values)
        assert values[1] < 0.3


def grids(own) -> list[tuple[int, int]]:
    """(activation bits, weight bits) of each layer, from its grids."""
    return [(data.quant_max.bit_length(), (2 * weight.quant_max + 1).bit_length()) for _, data, weight in own.layers()]


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (Bits(), [(8, 7)] * 3),
        (Bits(weights=4, activations=4), [(8, 4), (4, 4), (4, 4)]),
        pytest.param(Bits(weights=4, activations=4, first=8), [(8, 7), (4, 4), (4, 4)], marks=pytest.mark.slow),
        pytest.param(Bits(weights=4, activations=4, last=8), [(8, 4), (4, 4), (8, 7)], marks=pytest.mark.slow),
        (Bits(weights=3, activations=2, first=3, last=3), [(8, 3), (2, 3), (3, 3)]),
        pytest.param(Bits(last=4), [(8, 7), (8, 7), (4, 4)], marks=pytest.mark.slow),
        (Bits(weights=12, activations=10), [(10, 12), (10, 12), (10, 12)]),
    ],
    ids=str,
)
def test_every_layer_has_the_bits_it_was_asked_for_weights_7_of_8_and_the_image_at_least_8(bits, expected, simulated):
    assert grids(simulated(bits)) == expected


def test_the_image_has_at_least_8_bits_in_a_network_that_flattens_it_first(teacher, digits):
    assert grids(calibrate(teacher, digits.pixels(range(50)), Bits(activations=4)))[0][0] == 8


def test_rounded_weights_have_as_many_values_as_their_bits_allow(simulated):
    own = simulated(Bits(weights=3, activations=2, first=3, last=3))
    for node, _, weight in own.layers():
        rounded = weight(own.graph.get_parameter(str(node.args[1].args[0].target))).detach()
        for channel, step in zip(rounded, weight.step.detach(), strict=True):
            levels = (channel / step).round()
            assert levels.abs().max() <= 3
            torch.testing.assert_close(levels * step, channel)


def test_ranges_are_those_of_the_images_that_were_shown(normed, shown):
    steps = [float(next(calibrate(normed, share * shown).layers())[1].step.detach()) for share in (1.0, 0.25)]
    assert steps[1] < 0.4 * steps[0]


def test_biases_are_whole_numbers_of_their_inputs_step_times_their_weights(normed, shown):
    for options in ({}, {"correct_bias": "none", "equalise": True}):
        own = calibrate(normed, shown, **options)
        for node, data, weight in own.layers():
            units = own.graph.get_parameter(str(node.args[2].target)).detach() / (data.step * weight.step).detach()
            torch.testing.assert_close(units, units.round(), rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize(
    ("images", "how", "left"),
    [
        ("shown", "empirical", 0.2),
        (None, "analytic", 0.9),
        pytest.param("shown", "analytic", 0.9, marks=pytest.mark.slow),
        pytest.param("noise", "analytic", 0.9, marks=pytest.mark.slow),
    ],
)
def test_bias_correction_takes_the_mean_error_out_of_the_outputs(images, how, left, normed, shown):
    noise = torch.rand(shown.shape, generator=torch.Generator().manual_seed(0))
    expected, errors = normed.predict(shown).mean(0), []
    for correct in ("none", how):
        pixels = {"shown": shown, "noise": noise, None: None}[images]
        own = calibrate(normed, pixels, Bits(weights=3, activations=8), equalise=False, correct_bias=correct)
        errors.append(float((own.network.predict(shown).mean(0) - expected).norm()))
    assert errors[1] < left * errors[0]


def test_without_batch_norms_the_analytic_correction_leaves_biases_and_without_images_the_empirical_is_refused(
    teacher, shown
):
    plain, own = (calibrate(teacher, shown, Bits(weights=3), correct_bias=how) for how in ("none", "analytic"))
    assert torch.equal(plain.network.predict(shown), own.network.predict(shown))
    with pytest.raises(UserError, match="correct_bias: got 'empirical' without images, expected images to correct on"):
        calibrate(teacher, None, correct_bias="empirical")


def test_packed_bytes_fall_with_the_bits_and_count_weights_steps_and_biases(simulated):
    weights, channels, biases = 6 * 9 + 6 * 8 * 9 + 320, 6 + 8 + 10, 6 + 8 + 10
    for asked, bits in ((8, 7), (4, 4), (2, 2)):
        own = simulated(Bits(weights=asked))
        assert own.nbytes() == weights * bits // 8 + (54 * bits % 8 > 0) + 4 * channels + 4 * biases


def test_a_quantized_network_has_one_mode_and_gradients_for_weights_and_grids(normed, shown):
    own = calibrate(normed, shown[:64], Bits(weights=4, activations=4))
    module = own.network.module
    assert isinstance(module, Simulated)
    with torch.no_grad():
        answers = [module.train(mode)(shown[:5]) for mode in (True, False)]
    assert torch.equal(*answers)
    module(shown[:5]).square().sum().backward()
    learnt = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in learnt)
    assert len(own.steps()) == len([name for name, _ in module.named_parameters() if name.endswith("learnt")])


def test_the_biases_that_folded_batch_norms_leave_behind_are_learnt_too(normed, shown):
    own = calibrate(normed, shown[:64])
    assert all(parameter.requires_grad for parameter in own.network.module.parameters())


def test_the_same_images_give_the_same_network_and_progress_ends_at_all_of_them(normed, shown):
    calls = []
    one, other = (calibrate(normed, shown, progress=lambda *own: calls.append(own)) for _ in range(2))
    assert one.network.fingerprint() == other.network.fingerprint()
    assert calls[-1] == (300, 300) and len(calls) == 10


@pytest.mark.parametrize(
    ("pixels", "text"),
    [
        (torch.rand(0, 1, 8, 8), "pixels: got no image, expected at least 1 to calibrate on; give some"),
        (torch.rand(4, 3, 8, 8), "images of shape (3, 8, 8), expected (1, 8, 8) (channels, height, width)"),
        (torch.rand(4, 1, 6, 8), "images of shape (1, 6, 8), expected (1, 8, 8)"),
        (torch.full((4, 1, 8, 8), -1.0), "pixels from -1 to -1, expected 0 to 1; scale the images first"),
        (torch.full((4, 1, 8, 8), 255.0), "pixels from 255 to 255, expected 0 to 1"),
        (torch.full((4, 1, 8, 8), torch.nan), "images with NaN or infinity"),
    ],
    ids=["empty", "channels", "height", "below", "bytes", "nan"],
)
def test_images_that_do_not_fit_are_one_line(pixels, text, normed):
    with pytest.raises(UserError) as caught:
        calibrate(normed, pixels)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
