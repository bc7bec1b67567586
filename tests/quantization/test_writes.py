"""Networks that write into tensors in place are captured as what they compute, or refused in one line."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from datafree._core.errors import UserError
from datafree._core.optional_packages import quiet
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network

from .small_networks import images

with quiet():
    pytest.importorskip("torchao")
    from datafree.quantization import Bits, calibrate
    from datafree.quantization.capture import capture

SPEC = InputSpec(shape=(3, 8, 8), classes=tuple("abcde"))


class Writing(nn.Module):
    """A conv layer, an operation, another conv layer."""

    def __init__(self, operation, channels: int = 8):
        super().__init__()
        self.operation = operation
        self.a, self.b, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(channels, 8, 3), nn.Linear(8, 5)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("scratch", torch.ones(8, 1, 1))
        self.constant = torch.ones(8, 1, 1)

    def forward(self, x):
        return self.fc(self.b(self.operation(self, self.a(x))).relu().mean((2, 3)))


def padded(_, x):
    y = x.new_zeros(x.shape[0], 12, 8, 8)
    y[:, :8] = x
    return y


def interleaved(_, x):
    y = torch.empty_like(x)
    y[:, 0::2], y[:, 1::2] = x[:, :4], x[:, 4:]
    return y


def border(_, x):
    x[:, :, 0] = 0
    x[..., -1:] = 1.0
    return x


def added(_, x):
    x[:, 0] += 1
    x[:, :4] += x[:, 4:]
    return x


def swapped(_, x):
    x[:, :4], x[:, 4:] = x[:, 4:].clone(), x[:, :4].clone()
    return x


def one_by_one(_, x):
    for index in range(1, 8):
        x[:, index] = x[:, index] + x[:, index - 1] * 0.5
    return x


def masked(_, x):
    x[x > 0.2] = 0.1
    x.masked_fill_(x < -0.2, -0.1)
    return x


def indexed(_, x):
    x[:, [1, 3]] = x[:, [0, 2]]
    x[:, torch.tensor([5, 6])] = 3.0
    x.index_add_(1, torch.tensor([1, 2]), x[:, :2].clone())
    return x


def scattered(_, x):
    return x + torch.zeros_like(x).scatter_(1, x.argmax(1, keepdim=True), 1.0)


def copied_into_view(_, x):
    y = torch.empty(8, x.shape[0], 8, 8)
    y.copy_(x.transpose(0, 1))
    return y.transpose(0, 1)


def view_of_view(_, x):
    x.view(x.shape[0], 2, 4, 64)[:, 1].transpose(1, 2)[:, ::2].mul_(2.0).sub_(0.5)
    return x


def diagonal(_, x):
    torch.diagonal(x, dim1=2, dim2=3).mul_(3)
    return x


def into_out(_, x):
    y = torch.empty_like(x)
    torch.add(x, 1, out=y)
    return y


def chunks(_, x):
    a, b = x.chunk(2, 1)
    a.add_(b)
    return torch.cat((a, b), 1)


def splits(_, x):
    x.split([2, 6], 1)[0].zero_()
    return x


def not_assigned(_, x):
    x.sub_(0.1).relu_()
    return x


def other_branch(_, x):
    y = x
    y.mul_(2).add_(x.sigmoid())
    return x + y


def residual(_, x):
    return F.relu_(x) + x


def activations(m, x):
    F.elu_(x)
    F.leaky_relu_(x, 0.2)
    F.hardtanh_(x)
    F.silu(x, inplace=True)
    F.dropout(x, 0.5, m.training, inplace=True)
    return x


def detached(_, x):
    x.detach().mul_(2)
    return x


def in_list(_, x):
    torch._foreach_mul_([x[:, index] for index in range(8)], 2.0)
    return x


def scratch(m, x):
    m.scratch.copy_(m.constant * 2)
    return x * m.scratch


def counted(m, x):
    m.count += 1
    return x


def counted_in_logits(m, x):
    m.count += 1
    return x + m.count


def scratch_in_part(m, x):
    m.scratch[:4] = x.mean()
    return x * m.scratch


def constant(m, x):
    m.constant.mul_(2.0)
    return x * m.constant


def data(_, x):
    y = x.clone()
    y.data = x * 2
    return y


def unbound(_, x):
    y = list(x.unbind(1))
    y[0] += 1
    return x


KEPT = [
    padded, interleaved, border, added, swapped, one_by_one, masked, indexed, scattered, copied_into_view, view_of_view,
    diagonal, into_out, chunks, splits, not_assigned, other_branch, residual, activations, detached, in_list, scratch,
]  # fmt: skip
REFUSED = [
    (counted, "changes its 'count' in a forward pass"),
    (counted_in_logits, "writes its tensor 'count' on every call and its logits depend on it"),
    (scratch_in_part, "writes its tensor 'scratch' on every call and its logits depend on it"),
    (constant, "Constant"),
    (data, "answers differently from data"),
    (unbound, "it only works for fixed numbers of images"),
]


def network(operation) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network(Writing(operation, 12 if operation is padded else 8).eval(), SPEC, operation.__name__)


SLOW = (border, swapped, one_by_one, copied_into_view, diagonal, into_out, splits, other_branch, residual, padded)
"""Variants of the others, in the slow tests alone: a capture takes half a second."""


@pytest.mark.parametrize(
    "operation",
    [pytest.param(own, marks=[pytest.mark.slow] * (own in SLOW)) for own in KEPT],
    ids=lambda own: own.__name__,
)
def test_the_captured_graph_computes_what_the_network_does(operation):
    original, x = network(operation), images()
    expected, graph = original.predict(x), capture(original)
    with torch.no_grad():
        assert float((graph(x) - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert [
        node.name
        for node in graph.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
    ] == []


@pytest.mark.parametrize(("operation", "text"), REFUSED, ids=lambda own: getattr(own, "__name__", "-"))
def test_what_cannot_be_captured_is_refused_in_one_line(operation, text):
    with pytest.raises(UserError) as caught:
        calibrate(network(operation), images())
    assert text in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "bits",
    [Bits(), pytest.param(Bits(weights=16, activations=16), marks=pytest.mark.slow), Bits(weights=16, activations=7)],
    ids=str,
)
@pytest.mark.parametrize("operation", [padded, border])
def test_quantized_it_answers_as_the_network_does_and_nothing_of_the_callers_changes(operation, bits):
    original, x = network(operation), images()
    expected, shown, before = original.predict(x), x.clone(), original.fingerprint()
    logits = calibrate(original, x, bits).network.predict(x)
    assert float((logits - expected).norm() / (expected - expected.mean(0)).norm()) < (0.1 if bits == Bits() else 0.2)
    assert torch.equal(x, shown) and original.fingerprint() == before
    assert torch.equal(original.predict(x), expected)
