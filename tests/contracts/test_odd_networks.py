"""Networks of kinds that people have: refused where their answers cannot be relied on, else taken as plain torch does."""

from __future__ import annotations

import math
import random
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from datafree._core.errors import Notice, UserError
from datafree.distillation.online.run import train_online
from datafree.evaluation.accuracy import evaluate
from datafree.models.behaviour import check_learns
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network, copied
from datafree.records.record import record
from datafree.records.statistics.moments import Moments
from datafree.releases.load import load_model
from datafree.releases.release import Release, write_release

SPEC = InputSpec(shape=(1, 8, 8), classes=tuple("0123456789"))


def base() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


class Of(nn.Module):
    """`base` with a forward pass of its own."""

    def __init__(self, forward):
        super().__init__()
        self.base, self.how = base(), forward

    def forward(self, x):
        return self.how(self, x)


class Experts(nn.Module):
    """Switch-style routing: an expert takes so many images of a batch, and answers zeros to the others."""

    def __init__(self, capacity: float):
        super().__init__()
        torch.manual_seed(0)
        self.gate, self.experts = nn.Linear(64, 4), nn.ModuleList([base() for _ in range(4)])
        self.capacity = capacity
        with torch.no_grad():
            self.gate.weight.mul_(4)
            for index, expert in enumerate(self.experts):
                expert[3].bias.add_(index)

    def forward(self, x):
        chosen, out = self.gate(x.flatten(1)).argmax(1), x.new_zeros(len(x), 10)
        for index, expert in enumerate(self.experts):
            rows = (chosen == index).nonzero()[:, 0][: max(1, math.ceil(self.capacity * len(x) / 4))]
            out = out.index_copy(0, rows, expert(x[rows]))
        return out


def in_chunks(net, x):
    whole = len(x) // 4 * 4 if len(x) >= 4 else len(x)
    return torch.cat([net.base(x[:whole]), x.new_zeros(len(x) - whole, 10)])


def of_numpy(net, x):
    return net.base(x) * (1 + float(np.random.rand() < 0.5))


def of_python(net, x):
    return net.base(x) * (1 + float(random.random() < 0.5))


def decaying(net, x):
    net.base[1].weight.data.mul_(1 - 1e-5)
    return net.base(x)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (lambda: Experts(0.5), "gives another answer to an image in another batch"),
        (lambda: Of(in_chunks), "gives another answer to an image in another batch"),
        (lambda: Of(of_numpy), "gives different answers to the same images in each call"),
        (lambda: Of(of_python), "gives different answers to the same images in each call"),
        (lambda: Of(decaying), r"changes its 'base\.1\.weight' in a forward pass"),
    ],
    ids=["experts with a capacity", "whole chunks", "numpy", "python", "weights that decay"],
)
def test_a_network_whose_answers_cannot_be_relied_on_is_refused_everywhere(module, words, digits, tmp_path):
    network = Network(module().eval(), SPEC, "odd")
    for call in (
        network.check,
        lambda: evaluate(network, digits),
        lambda: record(network, digits, [Moments()]),
        lambda: write_release(tmp_path / "r", network),
    ):
        with pytest.raises(UserError, match=words):
            call()
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("how", [lambda y: y.round(), lambda y: y.topk(3).values.sum(1, keepdim=True) - y, torch.relu])
def test_networks_that_round_or_choose_are_taken(how):
    Network(Of(lambda net, x: how(net.base(x))).eval(), SPEC, "steps").check()
    Network(Experts(100.0).eval(), SPEC, "experts").check()


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1.0, -1e8), (0.01, -1e6), (1e-50, 0.0)])
def test_logits_in_float64_that_float32_cannot_hold_are_refused(scale, shift, digits):
    module = base().double().eval()
    network = Network(Of(lambda _, x: module(x.double()) * scale + shift).eval(), SPEC, "wide")
    pixels = digits.pixels(range(50), (8, 8))
    expected = module(pixels.double()).argmax(1)
    if (scale, shift) == (1.0, 0.0):
        assert torch.equal(network.predict(pixels).argmax(1), expected)
    else:
        with pytest.raises(UserError, match="in float64, whose differences float32 cannot hold"):
            network.predict(pixels)


@pytest.mark.parametrize("wrap", [nn.utils.weight_norm, nn.utils.spectral_norm], ids=["weight", "spectral"])
@pytest.mark.filterwarnings("ignore")
def test_a_network_with_a_weight_that_is_computed_can_be_copied_after_a_gradient(wrap):
    module = nn.Sequential(nn.Flatten(), wrap(nn.Linear(64, 10)))
    check_learns(Network(module, SPEC, "computed"))
    module(torch.rand(2, 1, 8, 8)).sum().backward()
    twin = copied(module.eval()).eval()
    x = torch.rand(3, 1, 8, 8)
    assert torch.allclose(twin(x), module(x), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("classes", [10, 100])
def test_probabilities_are_told_in_every_number_format(dtype, classes):
    torch.manual_seed(0)
    head = nn.Linear(64, classes)
    module = Of(lambda _, x: (30 * head(x.flatten(1))).to(dtype).softmax(1))
    spec = InputSpec(shape=(1, 8, 8), classes=tuple(map(str, range(classes))))
    with pytest.warns(Notice, match="probabilities"):
        Network(module.eval(), spec, "soft").check()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Network(Of(lambda _, x: head(x.flatten(1)).to(dtype)).eval(), spec, "logits").check()


def test_a_student_that_cannot_be_relied_on_does_not_play(teacher):
    with pytest.raises(UserError, match="gives different answers to the same images in each call"):
        train_online(teacher, Network(Of(lambda net, x: F.dropout(net.base(x), 0.5)), teacher.spec, "noise"))


@pytest.mark.parametrize("name", ["mine", "a network", "hinton16", "lenet5", "", "x:y", "ü"])
def test_a_release_of_a_network_of_any_name_is_its_publishers_own(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text("from parts import base\ndef build(): return base()\n")
    (tmp_path / "parts.py").write_text(
        "from torch import nn\ndef base():\n    layers = nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)\n"
        "    return nn.Sequential(*layers)\n"
    )
    network = Network(base().eval(), SPEC, name)
    write_release(tmp_path / "r", network)
    assert Release.open(tmp_path / "r").custom
    with pytest.raises(UserError, match=r"is a custom network .* name it with `code='FILE.py"):
        load_model(str(tmp_path / "r"))
    loaded = load_model(str(tmp_path / "r"), code="own.py:build")
    assert torch.equal(loaded.answers(), network.answers())


def test_masked_classes_are_told_as_such():
    mask = torch.arange(10) < 5
    network = Network(Of(lambda net, x: net.base(x).masked_fill(~mask, -torch.inf)).eval(), SPEC, "masked")
    with pytest.raises(UserError, match=r"are -inf for 5 of 10 classes on every image, .* such as -1e4"):
        network.predict(torch.rand(3, 1, 8, 8))


@pytest.mark.parametrize(
    "draw", [lambda: torch.rand(1).item(), np.random.rand, random.random], ids=["torch", "numpy", "python"]
)
def test_a_layer_that_is_left_out_one_time_in_ten_is_found(draw):
    found = 0
    for seed in range(10):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        network = Network(Of(lambda net, x: net.base(x) * (1 + (draw() < 0.1))).eval(), SPEC, "depth")
        try:
            network.check()
        except UserError:
            found += 1
    assert found >= 8  # each is missed once in 25 times
