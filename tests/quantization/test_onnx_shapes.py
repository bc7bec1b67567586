"""What is worked out of each operator's results is what onnxruntime returns: shapes, types, small contents."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnxruntime
from onnx import ModelProto, helper, numpy_helper

from datafree._core.errors import UserError
from datafree.releases.onnx_session.cost import MALFORMED, has_rule
from datafree.releases.onnx_session.graph import TYPES, read
from datafree.releases.onnx_session.values import RULES, Call, Value

from .onnx_operators import KINDS, one_operator

EDGES = ("AveragePool", "DFT", "Div", "LpPool", "MaxPool", "Mod", "Pad", "Range", "Resize", "Shape", "Slice")
"""Kinds whose standard leaves much open, or has many special cases: drawn more often."""
STRICTER = {"Resize": "keep_aspect_ratio_policy"}
"""Kinds that are refused here though onnxruntime runs them, and the reason."""
LAST = 2**63 - 1


def session(model: ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def worked_out(model: ModelProto) -> list[Value]:
    """The results by datafree's rules. Raises ValueError or UserError where they refuse the operator."""
    alone = ModelProto.FromString(model.SerializeToString())
    del alone.graph.output[1:]
    graph = read(alone.SerializeToString(), has_rule)
    inputs = [graph.tensors[name] if name else None for name in graph.nodes[0].inputs]
    values = [own and Value(own.type, own.shape, own.values(), True) for own in inputs]
    try:
        results = RULES[graph.nodes[0].kind](Call(graph.nodes[0], values, graph.opset)).values
    except MALFORMED as error:
        raise ValueError(str(error)) from None
    if min((size for value in results for size in value.shape), default=0) < 0:
        raise ValueError("less than nothing")
    return results


def returned(model: ModelProto, results: list[Value] | None) -> list[np.ndarray] | None:
    """What onnxruntime returns; None where it refuses."""
    for index, own in enumerate(model.graph.output):
        if results is None:
            own.ClearField("type")
        else:
            own.type.tensor_type.elem_type = results[index].type
    try:
        return session(model).run(None, {"pixels": np.zeros((1, 1, 2, 2), np.float32)})
    except Exception:  # onnxruntime's own share no base but Exception
        return None


def differences(results: list[Value], arrays: list[np.ndarray]) -> list[tuple[Any, Any]]:
    pairs: list[tuple[Any, Any]] = []
    for value, array in zip(results, arrays):
        pairs += [(value.shape, array.shape), (TYPES[value.type], array.dtype.name)]
        if value.shape == array.shape and value.data is not None:
            same = np.allclose if array.dtype.kind == "f" else np.array_equal
            more = {"equal_nan": True, "rtol": 1e-5} if array.dtype.kind == "f" else {}
            pairs += [] if same(value.data, array, **more) else [(value.data.tolist(), array.tolist())]
    return [pair for pair in pairs if pair[0] != pair[1]]


def test_every_operator_that_is_let_through_is_compared():
    assert set(KINDS) == set(RULES)


def test_results_of_random_operators_are_those_of_onnxruntime():
    rng, agreed, wrong = random.Random(0), set(), []
    for kind in [*sorted(KINDS) * 6, *EDGES * 40]:
        model = one_operator(kind, rng)
        try:
            results, reason = worked_out(model), ""
        except (UserError, ValueError) as error:
            results, reason = None, str(error)
            if kind in ("Div", "Mod") or (kind in STRICTER and STRICTER[kind] in reason):
                continue  # a division that is refused may end this process
        arrays = returned(model, results)
        if results is None:
            wrong += [] if arrays is None else [(kind, reason)]
        elif arrays is not None:
            pairs = differences(results, arrays)
            wrong += [(kind, pairs, str(model.graph.node[0]))] if pairs else []
            agreed.add(kind)
    assert wrong == []
    assert set(KINDS) == agreed


def test_a_slice_with_any_ends_is_that_of_onnxruntime():
    ends = [helper.make_tensor_value_info(name, 7, [1]) for name in ("start", "end", "axis", "step")]
    values = helper.make_tensor_value_info("x", 7, ["n"])
    node = helper.make_node("Slice", ["x", "start", "end", "axis", "step"], ["y"])
    graph = helper.make_graph([node], "g", [values, *ends], [helper.make_tensor_value_info("y", 7, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    runner, rule, wrong = session(model), RULES["Slice"], []
    operator = read(one_operator("Slice", random.Random(0)).SerializeToString(), has_rule).nodes[0]
    numbers = [-LAST - 1, -LAST, -(2**31), -7, -6, -2, -1, 0, 1, 5, 6, 7, 2**31 - 2, 2**31 - 1, 2**31, LAST - 1, LAST]
    for size in (0, 1, 6):
        for start, end, step in itertools.product(numbers, numbers, (1, 2, -1, -2, 7, -7, LAST, -LAST - 1)):
            arrays = [np.arange(size), *(np.array([own]) for own in (start, end, 0, step))]
            expected = runner.run(None, dict(zip(("x", "start", "end", "axis", "step"), arrays)))[0]
            inputs: list[Value | None] = [Value(7, array.shape, array, True) for array in arrays]
            value = rule(Call(operator, inputs, 18)).values[0]
            if value.data is None or value.data.tolist() != expected.tolist():
                wrong.append((size, start, end, step, value.shape, expected))
    assert wrong == []


def of(kind: str, *inputs: Any, opset: int = 20, **attributes: Any) -> Value:
    """The first result of an operator, by datafree's rules."""
    arrays = [None if own is None else np.asarray(own) for own in inputs]
    names = ["" if array is None else f"i{index}" for index, array in enumerate(arrays)]
    held = [numpy_helper.from_array(array, name) for array, name in zip(arrays, names) if array is not None]
    pixels = helper.make_tensor_value_info("pixels", 1, ["n", 1, 2, 2])
    node = helper.make_node(kind, names, ["y"], **attributes)
    graph = helper.make_graph([node], "g", [pixels], [helper.make_tensor_value_info("y", 1, None)], held)
    return worked_out(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10))[0]


def maps(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (lambda: of("Slice", maps(1, 5, 6, 8), [7], [LAST], [2], [-1]), (1, 5, 6, 8)),
        (lambda: of("DFT", maps(1, 8, 5, 2), None, 2, inverse=1, onesided=1), (1, 8, 8, 1)),
        (lambda: of("DFT", maps(1, 8, 5, 2), 9, 2, inverse=1, onesided=1), (1, 8, 9, 1)),
        (lambda: of("DFT", maps(1, 5, 3, 2), opset=18, axis=1, inverse=1, onesided=1), (1, 8, 3, 1)),
        (lambda: of("DFT", maps(1, 8, 8, 1), None, 2, onesided=1), (1, 8, 5, 2)),
        (lambda: of("Shape", maps(1, 5, 3, 3), start=1, end=-6), (0,)),
        (lambda: of("MaxPool", maps(1, 1, 2, 2), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), (1, 1, 1, 1)),
        (lambda: of("Squeeze", maps(1, 3, 1), np.zeros(0, np.int64)), (3,)),
        (lambda: of("Resize", maps(1, 1, 10, 10), None, np.float32([1, 1, 0.7, 0.9])), (1, 1, 7, 9)),
    ],
    ids=["slice", "irfft", "irfft of 9", "irfft of opset 18", "rfft", "shape", "ceil", "squeeze", "0.7 of 10"],
)
def test_sizes_are_those_of_the_standard(value, shape):
    """As numpy slices x[:, :, 7::-1], `np.fft.irfft(x).shape`, `np.shape(x)[1:-6]`, torch's MaxPool2d(3, 2, ceil_mode=True)
    and `F.interpolate(x, scale_factor=(0.7, 0.9))`."""
    assert value().shape == shape


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_a_quotient_of_whole_numbers_is_rounded_towards_zero_to_the_least_number(dtype):
    least = np.iinfo(dtype).min
    value = of("Div", np.array([least, least, 7, -7, 7], dtype), np.array([3, least, -2, 2, least], dtype)).data
    assert value is not None and value.tolist() == [-(-least // 3), 1, -3, -3, 0]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("ReduceSum", np.array([2**31 - 1, 5], np.int32)),
        ("ReduceSum", np.array([2**60 + 1, -(2**60)])),
        ("ReduceProd", np.array([3] * 40)),
        ("ReduceSum", np.array([0.1, 1e8, 0.3], np.float32)),
        ("Neg", np.array([0.1], np.float16)),
        ("ReduceMax", np.array([1, 1 << 31])),
        ("ReduceMax", np.array([1, np.nan, 2], np.float32)),
        ("ReduceMin", np.array([1, -(1 << 40), 3])),
        ("Relu", np.array([1 << 40, -1])),
    ],
)
def test_contents_that_engines_round_in_their_own_way_are_not_relied_upon(kind, values):
    assert of(kind, values).data is None


def test_the_largest_of_some_reals_is_relied_upon():
    assert of("ReduceMax", np.array([0.5, np.inf, -2.5], np.float32), keepdims=0).data == np.inf
    assert of("ReduceMin", np.array([[0.5, 1.5], [-2.5, 7]], np.float32), [1], keepdims=0).data.tolist() == [0.5, -2.5]


@pytest.mark.parametrize("kind", ["Max", "Min"])
def test_the_larger_of_two_int64_is_relied_upon_within_32_bits_alone(kind):
    """onnxruntime 1.31 returns 4 as the larger of 2^31 and 4 where there are four pairs, on x86 with AVX."""
    least, most = -(1 << 31), (1 << 31) - 1
    assert (
        of(kind, np.array([least, most]), np.array([most, least])).data.tolist()
        == [most if kind == "Max" else least] * 2
    )
    assert of(kind, np.array([4, most + 1]), np.array([1, 2])).data is None
    assert of(kind, np.array([4, 5]), np.array([least - 1])).data is None


@pytest.mark.parametrize("number", [300.0, -1.0, np.inf, np.nan, 2.0**63])
def test_a_number_that_does_not_fit_is_not_relied_upon(number):
    assert of("Cast", np.array([number], np.float32), to=2).data is None
