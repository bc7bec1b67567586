"""Operators that onnx has no form for are written with others, and give the same logits in the file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from datafree.errors import UserError
from datafree.network import Network
from datafree.quantization.stack import quiet

from .small_networks import SPEC, Of, images

with quiet():
    pytest.importorskip("torchao")
    pytest.importorskip("onnxscript")
    from datafree.quantization import run, session, to_onnx


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
    "a filled mask": lambda x: x.masked_fill(x > 0.2, 0.2),
}


def network(operation) -> Network:
    torch.manual_seed(0)
    parts = {"conv": nn.Conv2d(3, 6, 3), "fc": nn.Linear(6, 5)}
    module = Of(lambda own, x: own.fc(operation(own.conv(x)).mean((2, 3))), **parts)
    return Network(module.eval(), SPEC, "net")


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
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
            r"torch's operator (aten|prims)\.(special_)?bessel_j0 has no form in it here",
        ),
        (lambda x: F.adaptive_max_pool2d(x, 4), r"torch's operator aten\.adaptive_max_pool2d has no form in it here"),
    ],
    ids=["bessel", "adaptive"],
)
def test_an_operator_without_a_form_is_named_in_a_line(tmp_path, operation, words):
    line = f"^this network cannot be written as ONNX: {words}; write that part of it with other operators$"
    with pytest.raises(UserError, match=line):
        to_onnx(network(operation), tmp_path / "model.onnx", SPEC.shape)
