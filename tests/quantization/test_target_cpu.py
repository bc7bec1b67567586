"""`target_cpu`: weights whose products fit 16 bits in pairs, on grids chosen for them; what the card says of processors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datafree._core.optional_packages import quiet
from datafree.releases.processors import instruction_sets, processor_lines

with quiet():
    pytest.importorskip("torchao")
    pytest.importorskip("onnxruntime")
    import onnx
    from onnx import numpy_helper

    from datafree.quantization import Bits, calibrate, check
    from datafree.quantization.fake_quantize import nearest_step
    from datafree.releases.bits import largest_weight


def ends(own) -> list[tuple[int, int]]:
    return [(data.quant_max, weight.quant_max) for _, data, weight in own.layers()]


@pytest.mark.parametrize("weights", range(2, 17))
@pytest.mark.parametrize("activations", range(2, 17))
def test_the_sum_of_two_products_fits_16_bits_wherever_onnxruntime_multiplies_bytes(weights, activations):
    if weights <= 8 and activations <= 8:
        assert 2 * (2**activations - 1) * largest_weight(weights, activations, "any") < 2**15
    assert largest_weight(weights, activations, "vnni") == 2 ** (weights - 1) - 1
    if (weights, activations) != (8, 8):
        assert largest_weight(weights, activations, "any") == largest_weight(weights, activations, "vnni")


@pytest.mark.parametrize(
    ("bits", "expected", "reduced"),
    [
        (Bits(), [(255, 63)] * 3, True),
        pytest.param(Bits(weights=7), [(255, 63)] * 3, False, marks=pytest.mark.slow),
        pytest.param(Bits(weights=4), [(255, 7)] * 3, False, marks=pytest.mark.slow),
        (Bits(weights=4, activations=8, first=8), [(255, 63), (255, 7), (255, 7)], True),
        (Bits(activations=4), [(255, 63), (15, 127), (15, 127)], True),
        pytest.param(Bits(activations=16), [(65535, 127)] * 3, False, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_weights_of_8_bits_that_meet_activations_of_8_bits_use_7_of_them(bits, expected, reduced, normed, shown):
    own = calibrate(normed, shown[:32], bits)
    assert ends(own) == expected
    assert own.reduced() is reduced and own.fits_16_bits()
    full = calibrate(normed, shown[:32], bits, target_cpu="vnni")
    assert not full.reduced() and full.fits_16_bits() is not reduced


def test_the_default_is_any_and_grids_are_nearest_within_the_reduced_range(normed, shown):
    own = calibrate(normed, shown[:32], equalise=False, correct_bias="none")
    assert own.target_cpu == "any"
    for node, _, grid in own.layers():
        weight = own.graph.get_parameter(str(node.args[1].args[0].target)).detach()
        torch.testing.assert_close(grid.step.detach(), nearest_step(weight, 63))


HAS_VNNI = any("vnni" in name for name in instruction_sets()) or instruction_sets()[:1] != ["x86_64"]
"""Without it, sums of `vnni` are cut to 16 bits."""


def integers(path) -> list[np.ndarray]:
    """The int8 tensors of two dimensions or more in an ONNX file."""
    tensors = map(numpy_helper.to_array, onnx.load(path).graph.initializer)
    return [tensor for tensor in tensors if tensor.dtype == np.int8 and tensor.ndim > 1]


def test_the_integers_of_the_file_are_within_63_and_it_answers_as_the_simulation(normed, shown, export):
    for target_cpu, most in (("any", 63), ("vnni", 127)):
        own = export(calibrate(normed, shown, target_cpu=target_cpu))
        found = [int(np.abs(tensor.astype(int)).max()) for tensor in integers(own.path)]
        assert len(found) == 3 and max(found) <= most
        assert (max(found) > 63) is (target_cpu == "vnni")
        simulated, converted, ran = own.answers(shown)
        assert torch.equal(simulated, converted)
        if target_cpu == "any" or HAS_VNNI:
            assert check(simulated, ran).equal >= 99


def cut_to_16_bits(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sums (N, out) of bytes (N, K) and int8 (out, K) as `vpmaddubsw` makes them: by pairs, each cut to 16 bits."""
    products = activations[:, None].astype(np.int32) * weights[None].astype(np.int32)
    return np.clip(products[..., 0::2] + products[..., 1::2], -(2**15), 2**15 - 1).sum(-1)


def test_without_vnni_sums_are_exact_for_any_and_not_for_vnni():
    rng = np.random.default_rng(0)
    activations = rng.integers(0, 256, (200, 64))
    for target_cpu, exact in (("any", True), ("vnni", False)):
        end = largest_weight(8, 8, target_cpu)
        weights = rng.choice([-end, end], (16, 64))
        sums = activations @ weights.T
        assert bool((cut_to_16_bits(activations, weights) == sums).all()) is exact


RESULT = {
    "bits": "w8a8",
    "target_cpu": {"reduced": True, "integer": True, "fits_16_bits": True, "checked_on": ["x86_64", "avx2"]},
}


def test_the_card_names_the_reduced_range_the_instruction_sets_and_what_was_not_tried():
    text = " ".join(processor_lines(RESULT))
    assert (
        "W8A8, reduced range" in text and "x86_64, avx2" in text and "ARM and other processors were not tried" in text
    )
    full = " ".join(processor_lines({**RESULT, "target_cpu": {**RESULT["target_cpu"], "fits_16_bits": False}}))
    assert "reduced" not in full and "without VNNI" in full and "gives other answers" in full


def test_instruction_sets_are_those_that_linux_lists(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags\t\t: fpu avx2 avx512_vnni sse\nflags : avx_vnni\n")
    assert instruction_sets(tmp_path / "cpuinfo")[1:] == ["avx2", "avx512_vnni"]
    assert len(instruction_sets(tmp_path / "none")) == 1
