"""Network and InputSpec: told apart by their weights, left as they were found."""

from __future__ import annotations

import copy
import hashlib

import pytest
import torch
from torch import nn

from datafree._core.errors import UserError
from datafree._core.seeds import seed_of, stream
from datafree._core.settings import Settings, parse
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network, frozen


def test_frozen_is_eval_without_gradients_and_puts_every_flag_back(tiny):
    module = tiny("norm").module
    module.train()
    module.bn.eval()
    module.conv.weight.requires_grad_(False)
    before = [part.training for part in module.modules()], [p.requires_grad for p in module.parameters()]

    def failing():
        with frozen(module):
            assert not any(part.training for part in module.modules())
            assert not any(p.requires_grad for p in module.parameters())
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert before == ([part.training for part in module.modules()], [p.requires_grad for p in module.parameters()])
    assert before[0].count(False) == before[1].count(False) == 1


def test_pixels_in_double_precision_are_taken_in_that_of_the_weights(tiny):
    network, pixels = tiny("norm"), torch.rand(3, *tiny("norm").spec.shape, dtype=torch.float64)
    assert torch.equal(network.predict(pixels), network.predict(pixels.float()))
    double = Network(copy.deepcopy(network.module).double(), network.spec, "double")
    assert double.logits(pixels).dtype == torch.float64


def test_the_fingerprint_changes_with_any_one_weight_buffer_or_normalisation_and_not_with_names(tiny):
    network = tiny("norm")
    found = {network.fingerprint()}
    for name, tensor in network.module.state_dict().items():
        other = tiny("norm")
        state = other.module.state_dict()
        state[name].view(-1)[-1] += 1 if tensor.dtype == torch.int64 else 1e-6
        found.add(other.fingerprint())
    found |= {tiny("norm", mean=(0.5,)).fingerprint(), tiny("norm", high=255.0).fingerprint()}
    assert len(found) == 1 + len(network.module.state_dict()) + 2
    renamed = Network(network.module, network.spec.model_copy(update={"classes": ("x", "y", "z")}), "another")
    assert renamed.fingerprint() == network.fingerprint()


def test_the_fingerprint_tells_signed_zeros_and_number_formats_apart(tiny):
    prints = set()
    for change in (lambda m: m, lambda m: m.half(), lambda m: m.double()):
        network = tiny("linear")
        change(network.module)
        prints.add(network.fingerprint())
    zero, minus = tiny("linear"), tiny("linear")
    nn.init.zeros_(zero.module.fc1.bias)
    nn.init.constant_(minus.module.fc1.bias, -0.0)
    assert len(prints | {zero.fingerprint(), minus.fingerprint()}) == 5


def test_answers_are_the_same_for_any_mode_of_the_module(tiny):
    network = tiny("norm")
    answers = network.answers()
    network.module.train()
    assert torch.equal(network.answers(), answers)
    assert answers.shape == (16, 3)
    assert network.module.training


def test_predict_is_the_same_for_any_batch_and_keeps_the_order(tiny):
    network, x = tiny("norm"), torch.rand(33, 1, 4, 4)
    torch.testing.assert_close(network.predict(x, batch=5), network.predict(x))
    torch.testing.assert_close(network.predict(x)[7], network.predict(x[7:8])[0])
    assert network.predict(x[:0]).shape == (0, 3)


def test_the_network_sees_normalised_pixels():
    spec = InputSpec(shape=(2, 1, 1), mean=(0.5, 1.0), std=(0.25, 2.0), classes=("a", "b"))
    network = Network(nn.Flatten(), spec, "identity")
    assert network.logits(torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)).tolist() == [[2.0, 0.5]]
    x = torch.rand(3, 2, 1, 1)
    torch.testing.assert_close(spec.denormalize(spec.normalize(x)), x)


def test_check_says_what_is_wrong_with_a_network(tiny):
    wrong = tiny("linear")
    wrong.module.fc2.weight.data[0, 0] = torch.nan
    cases = {
        "weight 'fc2.weight' of tiny has NaN or infinity; use weights that are finite": wrong,
        "tiny returns outputs of shape (16, 3), expected (images, 4 classes); give a classifier for these classes": Network(
            tiny("linear").module, InputSpec(shape=(1, 4, 4), classes=tuple("abcd")), "tiny"
        ),
        "tiny returns outputs of shape (16, 1, 4, 4), expected (images, 3 classes); give a classifier for these classes": (
            Network(nn.Identity(), wrong.spec, "tiny")
        ),
    }
    for text, network in cases.items():
        with pytest.raises(UserError) as caught:
            network.check()
        assert str(caught.value) == text
    with pytest.raises(UserError, match=r"tiny does not take images of shape \(1, 4, 4\): .*; give the shape it was"):
        Network(nn.Linear(5, 3), wrong.spec, "tiny").check()
    huge = tiny("linear")
    huge.module.fc3.weight.data.fill_(3e38)
    huge.module.fc2.bias.data.fill_(3e38)
    with pytest.raises(UserError, match="the logits of tiny are not finite"):
        huge.check()


def test_counts_of_parameters_and_bytes(tiny):
    network = tiny("norm")
    assert network.parameters == (27 + 3) + 6 + (12 * 3 + 3)
    assert network.nbytes() == 4 * (network.parameters + 6) + 8


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"shape": (0, 4, 4)}, "channels, height and width, each at least 1"),
        ({"shape": (1, 4, 4), "std": (0.0,)}, "std above 0 and low below high"),
        ({"shape": (1, 4, 4), "low": 1.0}, "std above 0 and low below high"),
        ({"shape": (3, 4, 4), "mean": (0.1, 0.2)}, "mean with 1 number or one for each of 3 channels"),
        ({"shape": (1, 4, 4), "mean": (float("nan"),)}, "mean: got nan as number 1, expected a finite number"),
        ({"shape": (1, 4, 4), "sdt": 1}, "no setting 'sdt' in InputSpec; nearest: 'std'"),
        ({"shape": (1, 4, 4), "classes": ("a",)}, "classes: "),
    ],
)
def test_a_spec_that_cannot_be_is_one_line(values, text):
    with pytest.raises(UserError) as caught:
        InputSpec(**{"classes": ("a", "b"), **values})
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pixels_that_do_not_fit_are_refused(tiny):
    spec = tiny("linear").spec
    spec.check(torch.ones(2, 1, 4, 4))
    for pixels, text in (
        (torch.ones(2, 1, 4, 5), r"images of shape \(1, 4, 5\), expected \(1, 4, 4\)"),
        (torch.full((2, 1, 4, 4), torch.nan), "images with NaN or infinity"),
        (torch.full((2, 1, 4, 4), 255.0), "pixels from 255 to 255, expected 0 to 1; scale the images first"),
    ):
        with pytest.raises(UserError, match=text):
            spec.check(pixels)


def test_streams_depend_on_their_name_alone():
    torch.manual_seed(1)
    first = torch.rand(3, generator=stream(0, "unit", 12))
    torch.rand(7)
    assert torch.equal(first, torch.rand(3, generator=stream(0, "unit", 12)))
    names = [(0, "unit", 12), (1, "unit", 12), (0, "unit", 1), (0, "order", 12), (0, "unit")]
    assert len({seed_of(*name) for name in names}) == 5
    assert all(0 <= seed_of(*name) < 2**63 for name in names)
    assert seed_of(0, "unit", 12) == int(hashlib.sha256(b"0/unit/12").hexdigest()[:16], 16) >> 1


def test_settings_are_frozen_and_every_error_is_one_line():
    class Own(Settings):
        steps: int = 3

    with pytest.raises(UserError, match="no setting 'step' in Own; nearest: 'steps'"):
        parse(Own, {"step": 3})
    with pytest.raises(UserError, match="steps: got 'x', expected a valid integer"):
        Own(steps="x")
    with pytest.raises(Exception, match="frozen"):
        Own().steps = 4


@pytest.mark.parametrize("change", [
    {"low": -1e20}, {"high": 1e13}, {"mean": (1e300,)}, {"std": (1e-13,)}, {"std": (1e20,)}, {"low": 1e6, "high": 1e6 + 1},
    {"low": -1e9 - 1, "high": -1e9},
])  # fmt: skip
def test_a_range_that_float32_cannot_hold_is_refused(change):
    with pytest.raises(UserError, match="the settings of InputSpec do not fit together, expected "):
        InputSpec(shape=(1, 4, 4), classes=("a", "b"), **change)


@pytest.mark.parametrize("ends", [(0, 255), (-1, 1), (0, 65535), (0, 2.0**32), (1000, 1001), (0, 1e-9), (-1024, 3071)])
def test_ranges_with_256_levels_are_taken(ends):
    spec = InputSpec(shape=(1, 4, 4), classes=("a", "b"), low=ends[0], high=ends[1])
    levels = torch.lerp(torch.tensor(spec.low), torch.tensor(spec.high), torch.linspace(0, 1, 256))
    assert len(levels.unique()) == 256


def test_a_network_prints_as_one_line(tiny):
    network = tiny("norm", classes=4)
    assert repr(network) == f"Network(tiny; {network.parameters:,} parameters, input 1 x 4 x 4, 4 classes)"
