"""Batch norms are folded, or kept, or refused; the network answers as before in every case."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from datafree._core.errors import UserError
from datafree._core.optional_packages import quiet
from datafree.models.network import Network

from .small_networks import BUILD, REFUSED, SPEC, conv, head, images, network

with quiet():
    pytest.importorskip("torchao")
    from datafree.quantization import Bits, calibrate, convert, post_training
    from datafree.quantization.annotate import BATCH_NORM
    from datafree.quantization.capture import capture
    from datafree.quantization.folding import fold_batch_norms, untie

IN_FLOAT = {
    "transposed", "transposed, 2 groups", "transposed, depthwise", "transposed, 4 groups wider", "transposed BN BN",
    "transposed 1d, 3 groups", "weight norm, transposed", "attention", "LSTM",
}  # fmt: skip


QUICK = (
    "BN BN BN", "BN ReLU BN", "BN before and behind", "linear BN BN", "flatten BN", "conv1d BN", "transposed, 2 groups",
    "transposed 1d, 3 groups", "BN without weights", "doubles", "conv and BN twice", "BN read twice", "BN of cat",
    "BN of split", "functional BN", "spectral norm", "weight norm, transposed", "stacked weights", "weight written",
    "tied weights", "channel shuffle", "attention", "residual in place", "paddings", "channels last",
)  # fmt: skip
"""A network of every kind; the others are slow tests: a capture takes a third of a second."""


def test_there_are_at_least_60_networks():
    assert len(BUILD) >= 60 and set(QUICK) < set(BUILD)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in BUILD])
def test_folding_keeps_the_logits_and_8_bits_keep_the_answers(name, monkeypatch):
    """The expected logits are torch's own, of the network as it was."""
    original, x = network(name), images()
    before = original.fingerprint()
    expected = original.predict(x)
    spread = (expected - expected.mean(0)).abs().max()
    graph = capture(original)
    with quiet():
        folded = copy.deepcopy(graph)
    untie(folded)
    fold_batch_norms(folded)
    with torch.no_grad():
        assert float((folded(x) - expected).abs().max() / spread) < 1e-4
    monkeypatch.setattr(post_training, "capture", lambda _: graph)
    quantized = calibrate(original, x)
    logits = quantized.network.predict(x)
    assert float((logits - expected).norm() / (expected - expected.mean(0)).norm()) < 0.12
    assert bool(quantized.left_in_float()) == (name in IN_FLOAT)
    assert original.fingerprint() == before
    with torch.no_grad():
        assert torch.equal(convert(quantized)(x), logits)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_quantized_is_refused_in_one_accurate_line(name):
    original = network(name)
    with pytest.raises(UserError) as caught:
        calibrate(original, images())
    assert REFUSED[name][1] in str(caught.value) and "\n" not in str(caught.value)


def batch_norms_left(name: str) -> int:
    graph = capture(network(name))
    untie(graph)
    fold_batch_norms(graph)
    return sum(node.target in BATCH_NORM for node in graph.graph.nodes)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("BN BN BN", 0), ("BN read twice", 0), ("conv and BN twice", 0), ("BN ReLU BN", 1), ("BN before conv", 1),
        ("linear BN BN", 0), ("transposed, 2 groups", 0), ("weight written", 0), ("BN of split", 2),
    ],
)  # fmt: skip
def test_every_batch_norm_behind_a_layer_is_folded_and_no_other(name, left):
    assert batch_norms_left(name) == left


def test_a_graph_that_answers_differently_from_the_network_is_refused_at_every_bit_width(monkeypatch):
    """Below 8 bits the forms that are compared afterwards all come from the graph, so that they agree whatever it is."""
    original = network("conv BN")

    def wrong(network: Network):
        graph = capture(network)
        next(own for name, own in graph.named_parameters() if name.endswith("0.weight")).data.mul_(1.2)
        return graph

    monkeypatch.setattr(post_training, "capture", wrong)
    for bits in (Bits(), Bits(weights=16, activations=7), Bits(weights=4, activations=4)):
        for pixels in (images(), None):
            with pytest.raises(UserError, match="answers differently from conv BN: logits differ by up to"):
                calibrate(original, pixels, bits)


@pytest.mark.parametrize("where", ["outside", "inside", "in place"])
def test_a_compiled_network_is_quantized_as_the_one_that_was_compiled(where):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Sequential(conv(3, 8), nn.BatchNorm2d(8)), head(8)).eval()
    expected = calibrate(Network(module, SPEC, "plain"), images()).network.predict(images())
    if where == "outside":
        compiled = torch.compile(module, backend="eager")
    elif where == "inside":
        compiled = nn.Sequential(torch.compile(module[0], backend="eager"), module[1]).eval()
    else:
        module.compile(backend="eager")
        compiled = module
    own = calibrate(Network(compiled, SPEC, "compiled"), images())  # type: ignore[arg-type]
    assert torch.allclose(own.network.predict(images()), expected, atol=1e-5)


def test_without_images_the_norms_that_are_there_are_named():
    for name, text in (("frozen BN", "Frozen"), ("group norm", "GroupNorm")):
        with pytest.raises(UserError, match=f"{text}.*no images were given"):
            calibrate(network(name), None)
