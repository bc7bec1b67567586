"""Settings of quantization, and the packages it needs: what is said where one is off."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest
from tests.forked import FORGET, forked

from datafree import quantization
from datafree._core import optional_packages
from datafree._core.errors import UserError
from datafree.quantization import Bits, FineTuning, require

WANTED = {"torchao": ">=0.18,<0.19", "onnx": ">=1.17,<2", "onnxscript": ">=0.5,<1", "onnxruntime": ">=1.20,<2"}


@pytest.mark.parametrize("field", ["weights", "activations", "first", "last"])
@pytest.mark.parametrize(
    ("value", "expected"), [(1, "at least 2"), (0, "at least 2"), (17, "at most 16"), (-4, "at least 2")]
)
def test_bits_outside_2_to_16_are_one_line(field, value, expected):
    with pytest.raises(UserError) as caught:
        Bits(**{field: value})
    assert str(caught.value) == f"{field}: got {value}, expected {expected}; give such a value"


@pytest.mark.parametrize("field", ["weights", "activations", "first", "last"])
def test_bits_of_2_to_16_are_taken_and_no_fraction_of_one(field):
    assert [getattr(Bits(**{field: bits}), field) for bits in range(2, 17)] == list(range(2, 17))
    with pytest.raises(UserError, match=f"{field}: got 4.5, expected a valid integer"):
        Bits(**{field: 4.5})


def test_a_number_of_bits_is_named_as_the_field_does_and_called_simulated_where_no_kernel_has_it():
    assert (Bits().name, Bits(weights=4, activations=3).name) == ("w8a8", "w4a3")
    assert not Bits().simulated and not Bits(first=8, last=8).simulated
    for own in (Bits(weights=4), Bits(activations=4), Bits(first=4), Bits(last=2), Bits(weights=16)):
        assert own.simulated
    assert Bits().integer and Bits(weights=4).integer and Bits(last=4).integer
    for own in (Bits(activations=4), Bits(activations=16), Bits(weights=9), Bits(first=12), Bits(last=9)):
        assert not own.integer


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"epochs": 0}, "epochs: got 0, expected at least 1"),
        ({"repeats": 0}, "repeats: got 0, expected at least 1"),
        ({"mixup": 1.5}, "mixup: got 1.5, expected at most 1"),
        (
            {"repeats": 100},
            "repeats: got 100, expected at most 64, the images per step; give fewer, or a larger `batch`",
        ),
        (
            {"batch": 1, "repeats": 2},
            "repeats: got 2, expected at most 1, the images per step; give fewer, or a larger `batch`",
        ),
        ({"shift": -1}, "shift: got -1, expected at least 0"),
        ({"learning_rate": 0}, "learning_rate: got 0, expected above 0"),
    ],
)
def test_a_setting_of_fine_tuning_that_is_off_is_one_line(settings, text):
    with pytest.raises(UserError, match=text):
        FineTuning(**settings)


@pytest.mark.parametrize("name", WANTED)
def test_a_missing_package_is_named_with_the_line_that_installs_it(name, monkeypatch):
    def version(asked: str) -> str:
        if asked == name:
            raise PackageNotFoundError(asked)
        return {"torchao": "0.18.0", "onnx": "1.20.0", "onnxscript": "0.6.0", "onnxruntime": "1.25.0"}[asked]

    monkeypatch.setattr(optional_packages, "version", version)
    with pytest.raises(UserError) as caught:
        require()
    assert str(caught.value) == (
        f'quantization needs {name}{WANTED[name]}, got none; install it: pip install "datafree[quantize]"'
    )
    require(*(other for other in WANTED if other != name))


@pytest.mark.parametrize(
    ("name", "found"),
    [("torchao", "0.17.0"), ("torchao", "0.19.0"), ("torchao", "1.0"), ("onnx", "1.16.2"), ("onnxruntime", "2.0.0")],
)
def test_another_version_is_named_beside_the_wanted_one(name, found, monkeypatch):
    monkeypatch.setattr(optional_packages, "version", lambda _: found)
    with pytest.raises(UserError) as caught:
        require(name)
    assert str(caught.value) == (
        f'quantization needs {name}{WANTED[name]}, got {found}; install it: pip install "datafree[quantize]"'
    )


@pytest.mark.parametrize("found", ["0.18.0", "0.18", "0.18.1+cpu", "0.18.0rc1", "0.18.0.dev20260101+cu126"])
def test_builds_and_patches_of_a_version_will_do(found, monkeypatch):
    monkeypatch.setattr(optional_packages, "version", lambda _: found)
    require("torchao")


def test_without_torchao_the_quantizer_is_refused_when_it_is_asked_for_and_the_settings_are_not(monkeypatch):
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(optional_packages, "version", missing)
    for name in ("quantize", "calibrate", "convert", "to_onnx", "finetune"):
        monkeypatch.delitem(vars(quantization), name, raising=False)
        with pytest.raises(UserError, match=r'needs torchao>=0.18,<0.19, got none; install it: pip install "datafree'):
            getattr(quantization, name)
    assert quantization.Bits is Bits
    with pytest.raises(AttributeError, match="has no attribute 'quantise'"):
        _ = quantization.quantise


def test_every_name_that_the_package_promises_is_there():
    pytest.importorskip("torchao")
    pytest.importorskip("onnxruntime")
    assert all(getattr(quantization, name) is not None for name in quantization.__all__)


def test_the_verbs_are_found_beside_the_others_without_torchao_until_used():
    pytest.importorskip("torchao")
    code = "import sys\nfor name in [name for name in sys.modules if name.partition('.')[0] == 'datafree']:\n"
    code += "    del sys.modules[name]\n" + FORGET.replace("PACKAGES", "('torchao',)")
    code += "import datafree; from datafree import *; Bits, FineTuning; assert 'torchao' not in sys.modules; "
    code += "from datafree import quantize, finetune; assert 'torchao' in sys.modules; import datafree.quantization as own; "
    code += "assert quantize is own.quantize and finetune is own.finetune and 'quantize' in dir(datafree)"
    ended, _, err = forked(code, [])
    assert ended == 0, err


def test_the_ends_are_named_where_they_differ():
    assert Bits(weights=2, activations=3).words == "w2a3"
    assert Bits(weights=2, activations=3, first=8, last=4).words == "w2a3 (first layer 8 bits, last layer 4 bits)"
