"""A quantized network on disk: opened it answers as it was written; what is not ours or not whole is one line."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import nullcontext

import pytest
import torch

from datafree._core.errors import Notice, UserError
from datafree._core.files import read_json, sha256_file, write_sealed_json
from datafree._core.optional_packages import quiet
from datafree.evaluation.accuracy import evaluate
from datafree.releases.load import load_model

with quiet():
    pytest.importorskip("torchao")
    pytest.importorskip("onnxruntime")
    from datafree.quantization import Bits, card, write_program, write_quantized
    from datafree.releases.quantized import open_quantized

RESULT = {
    "exported": {"equal": 100.0, "images": 64},
    "speed": {
        "quantized_bytes": 250, "smaller": 0.25, "faster": 2.5, "batch": 64, "threads": 2, "original_bytes": 1000,
        "original_ms": 10.0, "quantized_ms": 4.0,
    },
    "integer_operators": {"QLinearConv": 2, "other": 7},
    "left_in_float": [],
    "packed_bytes": 123,
    "asked": "images it was made with",
    "agreement_on_its_own_images": {"images": 300, "equal": 98.5, "largest": 0.1},
}  # fmt: skip


@pytest.fixture(scope="module")
def written(normed, exported, tmp_path_factory):
    """A folder as `datafree quantize` leaves it; not to be changed."""
    folder, own = tmp_path_factory.mktemp("quantized") / "int8", exported(Bits())
    folder.mkdir()
    (folder / ".datafree.json").write_text('{"kind": "quantized"}')
    (folder / "model.onnx").write_bytes(own.path.read_bytes())
    write_program(own.graph, folder / "model.pt2", normed.spec.shape)
    return write_quantized(folder, normed, Bits(), card(normed, Bits(), RESULT), fits_16_bits=True)


@pytest.fixture
def own(written, tmp_path):
    """A copy to damage."""
    return shutil.copytree(written, tmp_path / "own")


@pytest.mark.parametrize(
    ("fits", "sets", "words"),
    [
        (True, ["x86_64", "avx2"], None),
        (False, ["x86_64", "avx2", "avx512f"], "is for processors with VNNI, which this one lacks"),
        (None, ["AMD64", "avx2"], "does not say for which processors it is"),
        (False, ["x86_64", "avx2", "avx_vnni"], None),
        (None, ["x86_64", "avx512f", "avx512_vnni"], None),
        (False, ["aarch64", "asimddp"], None),
    ],
)
def test_a_file_that_this_processor_may_run_differently_is_opened_with_a_notice(
    fits, sets, words, own, normed, monkeypatch
):
    monkeypatch.setattr("datafree.releases.processors.instruction_sets", lambda: sets)
    write_quantized(own, normed, Bits(), "card", fits_16_bits=fits)
    with pytest.warns(Notice, match=words) if words else nullcontext():
        open_quantized(own)


def test_it_answers_as_it_was_written(written, exported, normed, shown):
    _, _, ran = exported(Bits()).answers(shown)
    for network in (open_quantized(written), open_quantized(written, threads=1), load_model(str(written))):
        torch.testing.assert_close(network.predict(shown), ran, rtol=0, atol=1e-5)
        assert network.name == "normed-w8a8"
        assert network.spec.shape == normed.spec.shape and network.spec.classes == normed.spec.classes


def test_it_is_evaluated_as_any_network(written, normed, digits):
    some = digits.subset(300)
    found = evaluate(open_quantized(written), some, normed)
    assert found.agreement > 97
    assert abs(found.accuracy - evaluate(normed, some).accuracy) < 2


def test_its_fingerprint_is_that_of_its_file(written, own):
    assert open_quantized(written).fingerprint() == open_quantized(own).fingerprint()
    content = own / "model.onnx"
    content.write_bytes(content.read_bytes() + b"\x32\x01a")  # a description: the same network
    config = read_json(own / "config.json")
    config["sha256"]["model.onnx"] = sha256_file(content)
    write_sealed_json(own / "config.json", config)
    assert open_quantized(written).fingerprint() != open_quantized(own).fingerprint()


def test_config_says_what_it_is_of_and_its_files_by_their_checksums(written, normed):
    config = read_json(written / "config.json")
    assert (config["format"], config["kind"], config["architecture"]) == (1, "quantized", "normed")
    assert config["original"] == normed.fingerprint()
    assert config["bits"] == {"weights": 8, "activations": 8, "first": None, "last": None}
    assert config["sha256"] == {name: sha256_file(written / name) for name in ("model.onnx", "model.pt2")}
    assert sorted(path.name for path in written.iterdir()) == [
        ".datafree.json", "README.md", "config.json", "model.onnx", "model.pt2"
    ]  # fmt: skip


def test_its_card_says_what_it_takes_what_it_is_worth_and_calls_a_simulation_one(normed):
    text = card(normed, Bits(), RESULT)
    for line in (
        "# normed at w8a8",
        "- input `pixels`: (images, 1, 8, 8) float32 in [0, 1]; normalisation is within the files",
        "- `model.onnx`: 250 bytes, 25.0 % of the original as ONNX",
        "- 2.50 times as fast as the original, 64 images at a time on 2 threads of onnxruntime, both in one run",
        "- operators: 2 in integers, 7 others",
        "- agreement with the original on 300 images it was made with: 98.50 %",
    ):
        assert line in text.splitlines()
    assert "simulated" not in text
    few = card(normed, Bits(weights=4, activations=4, last=8), RESULT)
    assert "Weights of 4 bits, activations of 4; last layer of 8, made by datafree." in few
    assert (
        "- bits other than 8 are simulated: no kernels for them exist; this file runs with 2 operators in integers of 8 "
        "bits and the others in floating point, at 2.50 times the original's speed; packed, the weights would take 123 bytes"
    ) in few
    worth = {"accuracy": 91.25, "agreement": 99.0, "images": 400}
    assert "accuracy 91.25 % (original 92.00 %) on 400 test images" in card(
        normed, Bits(), {**RESULT, "evaluation": worth, "original": {"accuracy": 92.0}}
    )


def test_the_snippets_of_its_card_run(written, shown, monkeypatch):
    monkeypatch.chdir(written)
    parts = (written / "README.md").read_text().split("```python\n")[1:]
    assert len(parts) == 2
    found = []
    for part, pixels in zip(parts, (shown[:5].numpy(), shown[:5])):
        names = {"pixels": pixels}
        with quiet(), torch.no_grad():
            exec(part.split("```")[0], names)
        found.append(torch.as_tensor(names["logits"]))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("failing", range(5))
def test_no_file_ever_stands_under_the_config_of_another(failing, tmp_path, monkeypatch):
    from datafree.quantization.folder import put_in_place

    old, new, names = tmp_path / "old", tmp_path / "new", ("README.md", "config.json", "model.onnx", "run.json")
    for folder, text in ((old, "old"), (new, "new")):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(text)
    (old / "model.pte").write_text("old")
    calls, sync, replace = [], os.fsync, os.replace

    def fsync(number: int) -> None:
        if failing == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(number)

    def replaced(*paths) -> None:
        calls.append(paths)
        if len(calls) == failing:
            raise KeyboardInterrupt
        replace(*paths)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replaced)
    with pytest.raises((KeyboardInterrupt, UserError)):
        put_in_place(new, old)
    found = {path.name: path.read_text() for path in old.iterdir()}
    if failing == 0:
        assert found == dict.fromkeys([*names, "model.pte"], "old")
    else:
        assert "config.json" not in found and found.keys() < {*names}
    monkeypatch.undo()
    put_in_place(new, old)
    assert {path.name: path.read_text() for path in old.iterdir()} == dict.fromkeys(names, "new")


def refused(folder) -> str:
    found = []
    for way in (open_quantized, lambda path: load_model(str(path))):
        with pytest.raises(UserError) as caught:
            way(folder)
        assert "\n" not in str(caught.value)
        found.append(str(caught.value))
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("how", ["a byte", "the end", "another file"])
def test_a_file_that_is_not_as_it_was_written_is_refused(how, own):
    path = own / "model.onnx"
    content = bytearray(path.read_bytes())
    if how == "a byte":
        content[len(content) // 2] ^= 1
    path.write_bytes(content[:-7] if how == "the end" else b"anything" if how == "another file" else content)
    assert refused(own) == f"{path} is not as it was written; get or write it again"


def test_a_folder_without_its_file_or_its_checksum_is_refused(own):
    (own / "model.onnx").unlink()
    assert refused(own) == f"{own} has no model.onnx, expected one to run; quantize again"
    config = read_json(own / "config.json")
    del config["sha256"]["model.onnx"]
    write_sealed_json(own / "config.json", config)
    (own / "model.onnx").write_bytes(b"")
    assert refused(own) == f"{own} has no model.onnx, expected one to run; quantize again"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format": 2}, "holds no quantized network of format 1; make one with datafree quantize"),
        ({"sha256": ["a"]}, "holds no quantized network of format 1"),
        ({"sha256": {"model.onnx": 5}}, "is not as it was written"),
        ({"bits": {"weights": 1}}, "config.json: weights: got 1, expected at least 2; get it again"),
        ({"architecture": "a\x1b[31mb"}, "config.json: architecture: got 'a\\x1b[31mb', expected a name"),
        ({"architecture": ["a"]}, "config.json: architecture"),
        ({"original": "a\x1b[31mb"}, "config.json: original: expected the fingerprint of a network"),
        ({"bits": None}, "Bits is NoneType, expected a table of settings"),
        ({"spec": {"shape": [1, 8, 8]}}, "classes"),
        ({"spec": 3}, "InputSpec is int"),
    ],
    ids=str,
)
def test_a_config_that_is_off_is_one_line(change, text, own):
    config = read_json(own / "config.json")
    write_sealed_json(own / "config.json", {**config, **change})
    assert text in refused(own)


def test_a_link_is_not_followed(own, tmp_path):
    path = own / "model.onnx"
    path.rename(tmp_path / "elsewhere.onnx")
    path.symlink_to(tmp_path / "elsewhere.onnx")
    assert "is a link; expected a regular file" in refused(own)


def with_model(own, node, inputs) -> None:
    """Puts a valid graph of one node in the place of model.onnx, with its checksum."""
    from onnx import TensorProto, helper

    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 64])
    graph = helper.make_graph([node], "g", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    (own / "model.onnx").write_bytes(model.SerializeToString())
    config = read_json(own / "config.json")
    config["sha256"]["model.onnx"] = sha256_file(own / "model.onnx")
    write_sealed_json(own / "config.json", config)


def test_a_file_without_an_input_is_one_line(own):
    from onnx import TensorProto, helper

    value = helper.make_tensor("v", TensorProto.FLOAT, [1, 64], [0.0] * 64)
    with_model(own, helper.make_node("Constant", [], ["logits"], value=value), [])
    assert "is not run: it has 0 inputs, expected 1, the pixels; get it again, or quantize again" in refused(own)


def test_a_file_for_a_fixed_number_of_images_is_one_line(own):
    from onnx import TensorProto, helper

    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 1, 8, 8])
    with_model(own, helper.make_node("Flatten", ["pixels"], ["logits"]), [pixels])
    assert "is not run: it takes exactly 1 images at a time, expected any number; write it again so" in refused(own)


def with_spec(folder, **change) -> None:
    config = read_json(folder / "config.json")
    spec = {**config["spec"], **change, "mean": [0.0], "std": [1.0]}
    write_sealed_json(folder / "config.json", {**config, "spec": spec})


def test_a_config_of_a_network_with_other_classes_is_one_line(own):
    with_spec(own, classes=["a", "b"])
    assert "is not run: it returns 1 x 10 for one image, expected 1 x 2 logits; use the config.json" in refused(own)


def test_a_config_of_a_network_of_other_images_is_one_line(own):
    with_spec(own, shape=[3, 8, 8])
    assert "is not run: it takes images of shape (1, 8, 8), expected (3, 8, 8) as config.json states" in refused(own)


def test_a_release_is_no_quantized_folder_and_neither_is_an_empty_one(release, tmp_path):
    for folder, text in [(release, "holds no quantized network of format 1"), (tmp_path, "cannot read")]:
        with pytest.raises(UserError, match=text):
            open_quantized(folder)


def test_a_folder_of_something_else_is_not_written_to(release, normed):
    before = sorted(path.name for path in release.iterdir())
    with pytest.raises(UserError, match="holds 'release'; expected 'quantized'"):
        write_quantized(release, normed, Bits(), "card")
    assert sorted(path.name for path in release.iterdir()) == before


def test_a_network_of_its_publishers_own_code_leaves_no_path_in_the_folder(normed, tmp_path):
    from datafree.models.network import Network

    folder = tmp_path / "own"
    write_quantized(folder, Network(normed.module, normed.spec, "/home/somebody/net.py:build"), Bits(), "card")
    assert read_json(folder / "config.json")["architecture"] == "custom:build"
    assert "somebody" not in (folder / "config.json").read_text()


def test_a_file_that_answers_otherwise_than_the_simulation_says_so():
    from datafree.quantization.folder import exported_difference

    assert exported_difference({"exported": {"equal": 99.9, "images": 1000}}) is None
    said = exported_difference({"exported": {"equal": 99.22, "images": 1024}})
    assert "on 0.78 % of 1,024 images; measure the file itself with datafree evaluate" in str(said)


def test_nothing_of_a_folder_is_run_to_inspect_it_and_only_the_onnx_file_to_measure_it(own, capsys, monkeypatch):
    """torch's program is never opened, no process is started by inspect."""
    from datafree.cli.inspect import inspect
    from datafree.releases.onnx_session import Process

    def never(*_, **__):
        raise AssertionError("opened")

    (own / "model.pt2").write_bytes(b"anything")
    config = read_json(own / "config.json")
    config["sha256"]["model.pt2"] = sha256_file(own / "model.pt2")
    write_sealed_json(own / "config.json", config)
    for place, name in ((torch.export, "load"), (torch, "load"), (torch.jit, "load")):
        monkeypatch.setattr(place, name, never)
    assert open_quantized(own).predict(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    monkeypatch.setattr(Process, "__init__", never)
    inspect(own)
    text = capsys.readouterr().out
    assert "quantized to w8a8, model.onnx of " in text and "model.onnx, read but not run: " in text
    assert " 2 Conv\n" in text and "no other files, no control flow" in text
    with pytest.raises(AssertionError, match="opened"):
        open_quantized(own)


def test_a_resealed_file_that_is_another_program_is_refused_by_inspect_too(own, monkeypatch):
    from onnx import TensorProto, helper

    from datafree.cli.inspect import inspect
    from datafree.releases.onnx_session import Process

    monkeypatch.setattr(Process, "__init__", lambda *_: pytest.fail("started"))
    size = helper.make_node("ConstantOfShape", ["s"], ["logits"])
    held = helper.make_node("Constant", [], ["s"], value_ints=[1 << 30])
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 1, 8, 8])
    for nodes, text in (
        (size, "takes 's', which nothing before it makes"),
        (held, "'logits' is the output of no operator"),
    ):
        with_model(own, nodes, [pixels])
        with pytest.raises(UserError) as caught:
            inspect(own)
        assert text in str(caught.value) and str(caught.value) == refused(own)


def test_a_file_that_could_not_be_opened_again_is_not_written():
    from datafree.quantization.export import check_written

    with pytest.raises(UserError) as caught:
        check_written(b"", (1, 8, 8))
    assert str(caught.value) == (
        "this network cannot be written as ONNX that can be opened again: it is of ONNX IR version None, "
        "expected 8 to 13; write that part of it with other operators"
    )
