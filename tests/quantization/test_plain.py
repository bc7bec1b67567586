"""Operators that onnx has no form for are written with others, and give the same logits in the file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from datafree._core.errors import UserError
from datafree._core.optional_packages import quiet
from datafree.models.network import Network

from .small_networks import SPEC, Of, images

with quiet():
    pytest.importorskip("torchao")
    pytest.importorskip("onnxscript")
    from datafree.quantization import Bits, calibrate, convert, run, session, to_onnx


def masked(x, *where):
    y = x.clone()
    for mask, value in where:
        y[mask(y)] = value
    return y


OPERATIONS = {
    "clamp of an int and a float": lambda x: x.clamp(min=0, max=0.3),
    "clamp of a float and an int": lambda x: x.clamp(-0.2, 1),
    "clamp from below": lambda x: x.clamp(min=0),
    "clamp from above": lambda x: torch.clamp(x, max=0.25),
    "rrelu": lambda x: F.rrelu(x),
    "rrelu of other slopes": lambda x: F.rrelu(x, 0.1, 0.5),
    "values under a mask": lambda x: masked(x, (lambda y: y < 0, 0.1)),
    "images under a mask": lambda x: masked(x, (lambda y: y.mean((1, 2, 3)) < 0, 2.0)),
    "channels under a mask": lambda x: masked(x, (lambda y: y.amax((2, 3)) > 0.5, -1.0), (lambda y: y > 0.4, 0.0)),
    "average pool with a divisor": lambda x: F.avg_pool2d(x, 2, divisor_override=3),
    "average pool with a divisor, padded": lambda x: F.avg_pool2d(x, 3, 2, 1, divisor_override=1),
    "average pool that rounds up": lambda x: F.avg_pool2d(x, 2, 2, 0, True),
    "average pool that rounds up, padded": lambda x: F.avg_pool2d(x, 3, 2, 1, True),
    "average pool that rounds up and leaves out": lambda x: F.avg_pool2d(x, 3, 2, 1, True, False),
    "average pool of sides of their own": lambda x: F.avg_pool2d(x, (3, 2), (2, 3), (1, 0), True, divisor_override=5),
    "average pool over rows that rounds up": lambda x: F.avg_pool1d(x.flatten(2), 5, 3, 2, True)[..., None],
    "average pool over space": lambda x: F.avg_pool3d(x[:, :, None], (1, 3, 3), (1, 2, 2), (0, 1, 1), True)[:, :, 0],
    "two average pools": lambda x: F.avg_pool2d(F.avg_pool2d(x, 2, 1, ceil_mode=True), 2, 2, 1, divisor_override=7),
    "a filled mask": lambda x: x.masked_fill(x > 0.2, 0.2),
}


def network(operation) -> Network:
    torch.manual_seed(0)
    parts = {"conv": nn.Conv2d(3, 6, 3), "fc": nn.Linear(6, 5)}
    module = Of(lambda own, x: own.fc(operation(own.conv(x)).mean((2, 3))), **parts)
    return Network(module.eval(), SPEC, "net")


QUICK = (
    "values under a mask", "images under a mask", "average pool over rows that rounds up", "two average pools",
)  # fmt: skip
"""The others are slow tests: an export takes a second."""


def parameters(*names):
    marks = {name: [] if name in QUICK else [pytest.mark.slow] for name in names}
    return [pytest.param(OPERATIONS[name], id=name, marks=marks[name]) for name in names]


@pytest.mark.parametrize("operation", parameters(*OPERATIONS))
def test_the_file_gives_the_logits_of_the_network(tmp_path, operation):
    own = network(operation)
    expected = own.predict(images(16))
    path = to_onnx(own, tmp_path / "model.onnx", SPEC.shape)
    np.testing.assert_allclose(run(session(path, threads=1), images(16)).numpy(), expected.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (
            lambda x: x * torch.special.bessel_j0(x),
            r"torch's operator (aten|prims)\.(special_)?bessel_j0 has no ONNX form here",
        ),
        (lambda x: F.adaptive_max_pool2d(x, 4), r"torch's operator aten\.adaptive_max_pool2d has no ONNX form here"),
    ],
    ids=["bessel", "adaptive"],
)
def test_an_operator_without_a_form_is_named_in_a_line(tmp_path, operation, words):
    line = f"^this network cannot be written as ONNX: {words}; write that part of it with other operators$"
    with pytest.raises(UserError, match=line):
        to_onnx(network(operation), tmp_path / "model.onnx", SPEC.shape)


@pytest.mark.parametrize("bits", [Bits(), pytest.param(Bits(weights=16, activations=16), marks=pytest.mark.slow)])
@pytest.mark.parametrize("operation", parameters(*(name for name in OPERATIONS if "pool" in name)))
def test_the_file_of_a_quantized_network_pools_as_its_graph_does(tmp_path, operation, bits):
    graph = convert(calibrate(network(operation), images(64), bits))
    before = graph(images(16))
    path = to_onnx(graph, tmp_path / "model.onnx", SPEC.shape)
    logits = run(session(path, threads=1), images(16))
    before = before.detach()
    spread = float((before - before.mean(0)).abs().max())
    assert float((logits - before).abs().mean()) < 0.02 * spread  # a rare rounding tie, and not another divisor
    assert torch.equal(graph(images(16)), before)


def bf16(x):
    return (x.bfloat16() * 2).float()


def test_what_onnxruntime_cannot_run_or_answers_otherwise_is_said_before_anything_is_written(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"cannot run net as ONNX: .*compute that part in float32, or with other"):
        to_onnx(network(bf16), tmp_path / "model.onnx", SPEC.shape)
    monkeypatch.setattr("datafree.quantization.export.run", lambda _, pixels: 1.5 * network(F.relu).predict(pixels))
    with pytest.raises(UserError, match=r"onnxruntime answers differently from net: .* with other operators"):
        to_onnx(network(F.relu), tmp_path / "model.onnx", SPEC.shape)
    assert list(tmp_path.iterdir()) == []


def test_logits_of_another_format_are_refused_with_what_to_do(tmp_path):
    module = Of(lambda own, x: own.fc(x.mean((2, 3))).double(), fc=nn.Linear(3, 5))
    with pytest.raises(UserError, match=r"its logits are of type .*; return them as float32, with \.float\(\)"):
        to_onnx(Network(module.eval(), SPEC, "net"), tmp_path / "model.onnx", SPEC.shape)
