"""One network in three forms: simulated, converted, in onnxruntime."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from datafree._core.optional_packages import quiet
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network

with quiet():
    pytest.importorskip("torchao")
    pytest.importorskip("onnxruntime")
    import onnx

    from datafree.quantization import Bits, Check, calibrate, check, run, session

SETTINGS = [
    Bits(),
    pytest.param(Bits(weights=4, activations=4), marks=pytest.mark.slow),
    pytest.param(Bits(weights=2, activations=3), marks=pytest.mark.slow),
    Bits(weights=4, activations=8, first=8, last=4),
]
SPEC = InputSpec(shape=(1, 8, 8), classes=tuple("abc"))


@pytest.fixture(scope="module")
def unseen(digits):
    return digits.pixels(range(300, 700))


@pytest.mark.parametrize("bits", SETTINGS, ids=str)
def test_simulated_converted_and_exported_are_one_network(bits, exported, unseen):
    exported(bits).check_one_network(unseen)


def test_they_are_one_after_biases_were_corrected_and_ranges_equalised(normed, shown, unseen, export):
    own = calibrate(normed, shown, Bits(weights=4), equalise=True, correct_bias="empirical")
    export(own).check_one_network(unseen)


def test_ranges_told_without_images_leave_at_most_ties_between_simulated_and_exported(normed, unseen, export):
    # The mean of four whole numbers of levels, which the pool computes, is a tie one time in four.
    export(calibrate(normed, None)).check_one_network(unseen, untied=False)


def test_pixels_in_double_precision_are_as_good(normed, shown):
    own, other = (calibrate(normed, pixels).network.predict(pixels) for pixels in (shown, shown.double()))
    assert torch.allclose(own, other, atol=1e-5)


def without(path, operator: str, to) -> None:
    """The ONNX file with every node of that kind passed by."""
    model = onnx.load(path)
    names = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == operator}
    assert names
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
    kept = [node for node in model.graph.node if node.op_type != operator]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    to.write_bytes(model.SerializeToString())


def test_a_grid_of_4_bits_ends_at_4_bits_in_the_onnx_file_too(normed, shown, unseen, export, tmp_path):
    """QuantizeLinear knows 256 levels whatever the number of bits; what is brighter than the grid would be let through."""
    own = export(calibrate(normed, 0.3 * shown, Bits(weights=8, activations=4)))
    own.check_one_network(unseen)
    simulated, _, _ = own.answers(unseen)
    without(own.path, "Clip", tmp_path / "open.onnx")
    let_through = run(session(tmp_path / "open.onnx"), unseen)
    assert check(simulated, let_through).largest > 0.1
    with pytest.raises(AssertionError):
        replace(own, path=tmp_path / "open.onnx").check_one_network(unseen)


@pytest.mark.parametrize("count", [1, 7, 65])
def test_any_number_of_images_is_taken(count, exported, unseen):
    _, converted, ran = exported(Bits()).answers(unseen[:count])
    whole = exported(Bits()).answers(unseen[:65])
    assert ran.shape == converted.shape == (count, 10)
    for part, all_65 in ((converted, whole[1]), (ran, whole[2])):
        assert check(part, all_65[:count]).equal >= 98


def test_a_check_is_the_largest_difference_and_the_share_of_equal_argmax():
    one = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 2.0], [0.0, 5.0]])
    other = one + torch.tensor([[0.0, 0.0], [0.25, 0.0], [0.0, 1.5], [0.0, 0.0]])
    assert check(one, other) == Check(4, 1.5, 75.0, 5.0)
    assert check(one, one) == Check(4, 0.0, 100.0, 5.0)


def test_more_than_8_bits_run_in_onnxruntime(exported, unseen):
    exported(Bits(weights=12, activations=10)).check_one_network(unseen)


def test_a_channel_that_its_batch_norm_all_but_closed_is_exported_as_simulated(export):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )
    module[1].weight.data[2], module[1].bias.data[2] = 1e-9, 0.5
    network, x = Network(module.eval(), SPEC, "closed"), torch.rand(50, *SPEC.shape)
    export(calibrate(network, x)).check_one_network(x)
