"""ONNX files of other tools are read from their bytes: what is accepted, and what is refused and with which words."""

from __future__ import annotations

import time

import numpy as np
import pytest

from datafree._core.errors import UserError
from datafree.releases.onnx_import import onnx_files, onnx_spec, read_onnx

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FLOAT = TensorProto.FLOAT


def info(name, sizes, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, sizes)


def array(name, content):
    return numpy_helper.from_array(np.asarray(content), name)


def model(nodes, weights=(), *, inputs=None, outputs=None, opset=13, ir=8, domains=()):
    inputs = inputs or [info("x", ["batch", 1, 4, 4])]
    outputs = outputs or [info("y", ["batch", 3])]
    graph = helper.make_graph(list(nodes), "graph", inputs, outputs, list(weights))
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir)


def linear(*, before=(), source="x", **options):
    """A file that flattens and multiplies by 16 x 3 weights."""
    nodes = [
        *before,
        helper.make_node("Flatten", [source], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["y"]),
    ]
    weights = [array("w", np.ones((16, 3), np.float32)), array("b", np.zeros(3, np.float32))]
    return model(nodes, [*weights, *options.pop("weights", ())], **options)


def written(folder, content):
    path = folder / "net.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def test_shape_and_classes_are_those_that_the_file_states(tmp_path):
    spec = onnx_spec(written(tmp_path, linear()))
    assert spec.shape == (1, 4, 4) and spec.classes == ("0", "1", "2") and not spec.normalises


@pytest.mark.parametrize(("opset", "ir"), [(7, 3), (9, 4), (11, 6), (13, 8), (17, 9), (21, 10), (23, 11), (26, 14)])
def test_opsets_from_7_on_are_read(tmp_path, opset, ir):
    assert read_onnx(written(tmp_path, linear(opset=opset, ir=ir))).classes == 3


def test_a_size_that_is_free_comes_from_the_caller(tmp_path):
    path = written(tmp_path, linear(inputs=[info("x", ["batch", 1, "height", "width"])]))
    assert read_onnx(path, (1, 4, 4)).shape == (1, 4, 4)
    with pytest.raises(
        UserError, match=r"its input 'x' has shape \(any, 1, any, any\), expected a shape of its images"
    ):
        read_onnx(path)
    with pytest.raises(UserError, match=r"has shape \(any, 1, any, any\), and got a shape of \(3, 4, 4\)"):
        read_onnx(path, (3, 4, 4))


def test_a_file_for_one_image_is_read_for_any_number(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "to"], ["flat"]), helper.make_node("Gemm", ["flat", "w"], ["y"])]
    weights = [array("to", np.array([1, 16])), array("w", np.ones((16, 3), np.float32))]
    fixed = model(nodes, weights, inputs=[info("x", [1, 1, 4, 4])], outputs=[info("y", [1, 3])])
    file = read_onnx(written(tmp_path, fixed))
    assert file.foreign.batch == 1 and file.classes == 3


def node(kind, inputs, outputs=("z",), **attributes):
    return helper.make_node(kind, list(inputs), list(outputs), **attributes)


def branch():
    inner = helper.make_graph([node("Identity", ["x"])], "inner", [], [info("z", None)])
    return linear(
        before=[node("If", ["c"], then_branch=inner, else_branch=inner)],
        source="z",
        weights=[array("c", np.array(True))],
    )


def huge(kind):
    sizes = array("sizes", np.array([1 << 20, 1 << 20]))
    if kind == "ConstantOfShape":
        before = [node("ConstantOfShape", ["sizes"], ["big"])]
        weights = [sizes]
    else:
        before = [node(kind, ["one", "sizes"], ["big"])]
        weights = [sizes, array("one", np.ones((1, 1), np.float32))]
    before += [node("ReduceMean", ["big"], ["mean"], keepdims=0), node("Add", ["x", "mean"])]
    return linear(before=before, source="z", weights=weights)


def without_data():
    made = linear()
    made.graph.initializer[0].dims[0] = 1 << 30
    return made


def elsewhere(place):
    made = linear()
    made.graph.initializer[0].ClearField("raw_data")
    made.graph.initializer[0].data_location = TensorProto.EXTERNAL
    made.graph.initializer[0].external_data.add(key="location", value=place)
    return made


def kernel():
    weights = [array("k", np.ones((1, 1, 1, 1), np.float32))]
    return linear(before=[node("Conv", ["x", "k"], kernel_shape=[40_000, 40_000])], source="z", weights=weights)


def normed(training):
    ones = [array(name, np.ones(1, np.float32)) for name in "gbmv"]
    ones[1].name = "shift"
    before = node("BatchNormalization", ["x", "g", "shift", "m", "v"], ["z", "m2", "v2"] if training else ["z"])
    if training:
        before.attribute.append(helper.make_attribute("training_mode", 1))
    return linear(before=[before], source="z", weights=ones, opset=15)


REFUSED = {
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
        "is a Git LFS pointer, expected the",
    ),
    "empty": (b"", "it is of ONNX IR version None, expected 3 to 14; give an ONNX file"),
    "other": (b"PK\x03\x04 a zip file of some kind", "give an ONNX file, or get it again"),
    "truncated": (linear().SerializeToString()[:-40], "goes beyond the end; the file is truncated or damaged"),
    "opset": (linear(opset=6), "it is of ONNX opset 6, expected 7 to 26; export it again"),
    "two inputs": (
        linear(inputs=[info("x", ["n", 1, 4, 4]), info("mask", ["n", 4])]),
        r"it has 2 inputs \('x', 'mask'\), expected 1, the pixels; export it with one input",
    ),
    "two outputs": (
        linear(outputs=[info("y", ["n", 3]), info("flat", ["n", 16])]),
        r"it has 2 outputs \('y', 'flat'\), expected 1, the logits",
    ),
    "uint8": (
        linear(inputs=[info("x", ["n", 1, 4, 4], TensorProto.UINT8)]),
        "input 'x' is of type uint8, expected float32",
    ),
    "vectors": (
        linear(inputs=[info("x", ["n", 16])]),
        r"input 'x' has shape \(any, 16\), expected \(images, channels,",
    ),
    "channels last": (
        linear(inputs=[info("x", [1, 224, 224, 3])]),
        r"has shape \(1, 224, 224, 3\), channels last, expected \(images, channels, height, width\); export it with",
    ),
    "maps": (
        model([node("Identity", ["x"], ["y"])], outputs=[info("y", ["n", 1, 4, 4])]),
        "its output has shape 1 x 1 x 4 x 4 for 1 image, expected 1 x classes",
    ),
    "domain": (
        model([helper.make_node("Tree", ["x"], ["y"], domain="ai.onnx.ml")], domains=["ai.onnx.ml"]),
        "it uses the operator 'Tree' of domain 'ai.onnx.ml'",
    ),
    "operator": (linear(before=[node("NonZero", ["x"])]), "it uses the operator 'NonZero', which is not supported"),
    "control flow": (branch(), "it has control flow"),
    "quantized": (
        linear(before=[node("DequantizeLinear", ["x", "s"])], weights=[array("s", np.float32(1))]),
        "it is a quantized network .operator 'DequantizeLinear'., whose layers cannot be read; give the original",
    ),
    "ConstantOfShape": (huge("ConstantOfShape"), "expected at most|beyond any size"),
    "Expand": (huge("Expand"), "expected at most|beyond any size"),
    "Tile": (huge("Tile"), "expected at most|beyond any size"),
    "no data": (without_data(), "holds 48 numbers, expected|expected up to"),
    "kernel": (
        kernel(),
        "the operator Conv that computes 'z' does not fit its inputs .channels and kernel.; export",
    ),
    "training": (normed(True), "it has a batch norm in training mode .that makes 'z'., expected eval mode; call eval"),
    "path": (elsewhere("../secret"), r"it reads weights from '../secret', expected a file in its own folder"),
    "absolute path": (
        elsewhere("/etc/passwd"),
        r"it reads weights from '/etc/passwd', expected a file in its own folder",
    ),
    "missing": (elsewhere("net.data"), "its weights are in 'net.data', which is not beside it; put both in one folder"),
    "wrong wires": (linear(source="other"), "Flatten takes 'other', which nothing before it makes; export it again"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_file_is_one_line_with_the_reason_in_a_second(tmp_path, name):
    content, reason = REFUSED[name]
    path = written(tmp_path, content)
    began = time.perf_counter()
    with pytest.raises(UserError, match=reason) as caught:
        read_onnx(path)
    assert str(path) in str(caught.value) and ";" in str(caught.value)
    assert time.perf_counter() - began < 30


@pytest.mark.parametrize("opset", [7, 11, 13])
def test_dropout_is_left_out_unless_it_is_in_training_mode(tmp_path, opset):
    inputs = ["x", "ratio", "mode"] if opset == 13 else ["x"]
    weights = [array("ratio", np.float32(0.5)), array("mode", np.array(False))] if opset == 13 else []
    before = [node("Dropout", inputs, ["z", "mask"])]
    assert read_onnx(written(tmp_path, linear(before=before, source="z", weights=weights, opset=opset))).classes == 3
    if weights:
        weights[1].CopyFrom(array("mode", np.array(True)))
        with pytest.raises(UserError, match=r"it has a dropout in training mode .that makes 'z'., expected eval mode"):
            read_onnx(written(tmp_path, linear(before=before, source="z", weights=weights, opset=opset)))


def test_a_batch_norm_in_eval_mode_is_read(tmp_path):
    assert read_onnx(written(tmp_path, normed(False))).classes == 3


def test_weights_in_a_file_of_the_same_folder_are_read_within_its_size(tmp_path):
    path = written(tmp_path, elsewhere("net.data"))
    (tmp_path / "net.data").write_bytes(np.ones((16, 3), np.float32).tobytes())
    assert read_onnx(path).classes == 3
    assert onnx_files(path) == [tmp_path / "net.data"]
    (tmp_path / "net.data").write_bytes(b"short")
    with pytest.raises(UserError, match=r"holds 1.25 numbers, expected 48"):
        read_onnx(path)
    made = elsewhere("net.data")
    made.graph.initializer[0].external_data.add(key="offset", value="4096")
    with pytest.raises(UserError, match=r"is at bytes 4,096 to 5 of 'net.data', which has 5"):
        read_onnx(written(tmp_path, made))
    (tmp_path / "net.data").unlink()
    (tmp_path / "net.data").symlink_to(path)
    with pytest.raises(UserError, match="is a link; expected a regular file"):
        read_onnx(path)


def test_a_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no file .*gone.onnx, expected an ONNX file; check the path"):
        read_onnx(tmp_path / "gone.onnx")
