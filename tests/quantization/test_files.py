"""What is written: integers alone, the files' ends, operators and speed in onnxruntime, what cannot be written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from datafree._core.errors import UserError
from datafree._core.optional_packages import quiet
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network

with quiet():
    pytest.importorskip("torchao")
    pytest.importorskip("onnxruntime")
    import onnx
    from onnx import numpy_helper

    from datafree.quantization import (  # fmt: skip
        Bits,
        Speed,
        check,
        convert,
        integer_operators,
        run,
        session,
        speed,
        to_onnx,
        write_program,
    )

SPEC = InputSpec(shape=(1, 8, 8), classes=tuple("abc"))


@pytest.fixture(scope="module")
def unseen(digits):
    return digits.pixels(range(300, 700))


def initializers(path) -> dict[str, np.ndarray]:
    return {own.name: numpy_helper.to_array(own) for own in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("bits", [Bits(), Bits(weights=4, activations=4)], ids=str)
def test_no_weight_is_kept_in_floating_point_beside_its_integers(bits, exported):
    own = exported(bits)
    whole = [t for _, t in (*own.graph.named_parameters(), *own.graph.named_buffers())]
    assert sorted(t.numel() for t in whole if t.dtype == torch.int8) == [54, 320, 432]
    assert max(t.numel() for t in whole if t.is_floating_point()) == 10  # steps and biases
    stored = list(initializers(own.path).values())
    assert sorted(a.size for a in stored if a.dtype == np.int8 and a.ndim > 1) == [54, 320, 432]
    assert max(a.size for a in stored if a.dtype == np.float32) == 10


def test_weights_are_stored_within_their_levels(exported):
    stored = initializers(exported(Bits(weights=4, activations=4)).path).values()
    assert {int(abs(a.astype(int)).max()) for a in stored if a.dtype == np.int8 and a.ndim > 1} == {7}


def test_converting_leaves_the_simulated_network_as_it_was_and_is_repeatable(exported, unseen, tmp_path):
    own = exported(Bits()).own
    before, answers = own.network.fingerprint(), own.network.predict(unseen)
    graph = convert(own)
    assert own.network.fingerprint() == before
    assert torch.equal(own.network.predict(unseen), answers)
    again = to_onnx(graph, tmp_path / "again.onnx", SPEC.shape)
    assert again.read_bytes() == exported(Bits()).path.read_bytes()


def test_the_file_names_its_ends_and_nothing_of_this_machine(exported):
    path = exported(Bits()).path
    model = onnx.load(path)
    assert [own.name for own in model.graph.input] == ["pixels"]
    assert [own.name for own in model.graph.output] == ["logits"]
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape[1:] == [1, 8, 8] and shape[0] == 0
    assert b".py" not in path.read_bytes()


@pytest.fixture(scope="module")
def original(normed, tmp_path_factory):
    return to_onnx(normed, tmp_path_factory.mktemp("original") / "original.onnx", normed.spec.shape)


def test_an_original_is_exported_with_its_normalisation(normed, unseen, original):
    assert check(normed.predict(unseen), run(session(original), unseen)).largest < 1e-4


def test_conv_layers_and_pools_run_in_integers_at_8_bits_and_nothing_does_in_the_original(exported, original):
    found = integer_operators(exported(Bits()).path)
    assert found["QLinearConv"] == 2 and found["QLinearAveragePool"] == 1
    assert [path.name for path in exported(Bits()).path.parent.glob(".*")] == []
    none = integer_operators(original)
    assert set(none) == {"other"} and none["other"] > 0


def test_torchs_program_is_loaded_and_answers_alike(exported, unseen, tmp_path):
    own = exported(Bits(weights=4, activations=4))
    path = write_program(own.graph, tmp_path / "model.pt2", SPEC.shape)
    with quiet():
        loaded = torch.export.load(path).module()
    with torch.no_grad():
        torch.testing.assert_close(loaded(unseen), own.graph(unseen), rtol=0, atol=0)


def test_speed_is_measured_of_both_files_with_their_bytes(exported, original):
    path = exported(Bits()).path
    own = speed(original, path, SPEC.shape, batch=4)
    assert (own.batch, own.threads) == (4, 1)
    assert (own.original_bytes, own.quantized_bytes) == (original.stat().st_size, path.stat().st_size)
    assert 0 < own.original_ms < 1e4 and 0 < own.quantized_ms < 1e4
    made = Speed(64, 2, 10.0, 4.0, 1000, 250)
    assert (made.faster, made.smaller) == (2.5, 0.25)


def test_a_file_that_is_no_onnx_is_one_line(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError) as caught:
        session(tmp_path / "bad.onnx")
    assert str(caught.value).startswith(f"onnxruntime cannot run {tmp_path / 'bad.onnx'}: ")
    assert "\n" not in str(caught.value)


class Unexportable(nn.Module):
    """torch.export takes it, ONNX has no such operator."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.linalg.svdvals(x[:, 0]))


@pytest.fixture(scope="module")
def lacking(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("lacking") / "odd.onnx"
    with pytest.raises(UserError) as caught:
        to_onnx(Network(Unexportable().eval(), SPEC, "odd"), path, SPEC.shape)
    assert not path.exists()
    return str(caught.value)


def test_an_operator_that_onnx_lacks_is_one_line(lacking):
    assert lacking.startswith("this network cannot be written as ONNX: ") and "\n" not in lacking


def test_the_operator_that_onnx_lacks_is_named(lacking):
    assert "svd" in lacking and "\x1b" not in lacking
