"""Networks that return tuples, mappings and dataclasses."""

# ruff: noqa: ARG005

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from datafree import Network, UserError, load_model, write_release
from datafree.distillation.distill import Distillation, distill
from datafree.models.outputs import logits_of
from datafree.quantization.capture import capture
from datafree.records.record import record
from datafree.releases.release import Release

CLASSES, FEATURES = 3, 5
Heads = namedtuple("Heads", "main auxiliary")


@dataclass
class Answer:
    loss: Tensor | None
    logits: Tensor
    hidden: tuple[Tensor, ...] = ()


class Net(nn.Module):
    """A small network with batch norm whose outputs `pack` puts into some container."""

    def __init__(self, pack=lambda features, logits, other: logits):
        super().__init__()
        self.pack = pack
        self.body = nn.Sequential(nn.Conv2d(1, FEATURES, 3), nn.BatchNorm2d(FEATURES), nn.ReLU())
        self.head, self.other = nn.Linear(FEATURES, CLASSES), nn.Linear(FEATURES, CLASSES)

    def forward(self, images):
        features = self.body(images).mean((2, 3))
        return self.pack(features, self.head(features), self.other(features))


PLAIN = {
    "tuple": lambda features, logits, other: (features, logits),
    "list": lambda features, logits, other: [logits],
    "dict": lambda features, logits, other: {"out": logits, "aux": features},
    "ordered": lambda features, logits, other: OrderedDict(logits=logits, other=other),
    "dataclass": lambda features, logits, other: Answer(None, logits, (features, other)),
    "namedtuple": lambda features, logits, other: Heads(logits, features),
    "nested": lambda features, logits, other: ((features,), {"head": (logits,)}),
    "1 x 1": lambda features, logits, other: logits[..., None, None],
    "1 x 1 in a tuple": lambda features, logits, other: (features, logits[..., None, None]),
}
CHOSEN = {
    "tuple": (lambda features, logits, other: (other, logits), 1),
    "namedtuple": (lambda features, logits, other: Heads(other, logits), "auxiliary"),
    "dict": (lambda features, logits, other: {"a": other, "b": logits}, "b"),
    "nested": (lambda features, logits, other: (other, [other, {"b": logits}]), "1/1/b"),
    "beside logits": (lambda features, logits, other: Answer(None, other, (features, logits)), "hidden/1"),
}
TWO = CHOSEN["tuple"][0]


def net(pack, output=None) -> Network:
    torch.manual_seed(0)
    return Network(Net(pack).eval(), input_shape=(1, 8, 8), classes=CLASSES, name="net", output=output)


def same_logits(network: Network, other: Network) -> bool:
    return torch.equal(network.answers(), other.answers())


@pytest.mark.parametrize("kind", PLAIN)
def test_the_only_logits_are_taken(kind):
    network = net(PLAIN[kind])
    network.check()
    assert same_logits(network, net(lambda features, logits, other: logits))


@pytest.mark.parametrize("kind", CHOSEN)
def test_chosen_logits_are_taken(kind):
    pack, output = CHOSEN[kind]
    network = net(pack, output)
    network.check()
    assert same_logits(network, net(lambda features, logits, other: logits))
    assert network.output == str(output) and network.to("cpu").output == str(output)


@pytest.mark.parametrize(
    ("pack", "output", "text"),
    [
        (
            TWO,
            None,
            "tuple of 0 (16, 3), 1 (16, 3), expected one output of shape (images, 3 classes), which 2 have; choose",
        ),
        (TWO, 2, "output: got 2, expected one of 0 (16, 3), 1 (16, 3), which net returns"),
        (TWO, "logits", "output: got logits, expected one of 0 (16, 3)"),
        (lambda features, logits, other: (features, 1), None, "a tuple of 0 (16, 5), expected one of shape (images, 3"),
        (lambda features, logits, other: None, None, "returns a NoneType, expected a tensor of logits"),
        (lambda features, logits, other: {}, None, "returns a dict, expected a tensor of logits"),
        (lambda features, logits, other: {"logits": features}, None, "outputs of shape (16, 5), expected (images, 3"),
        (lambda features, logits, other: logits[..., None, None].expand(-1, -1, 2, 2), None, "shape (16, 3, 2, 2)"),
        (TWO, "", "output: got '', expected the position or name of an output"),
        (TWO, "a\nb", "expected the position or name of an output"),
    ],
)
def test_an_output_that_does_not_fit_is_refused(pack, output, text):
    with pytest.raises(UserError) as caught:
        net(pack, output).check()
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_outputs_that_refer_to_themselves_end():
    returned: list = []
    returned.append(returned)
    with pytest.raises(UserError, match="returns a list"):
        logits_of(returned, 2, CLASSES, name="net")


def test_another_output_is_another_network():
    assert net(TWO, 0).fingerprint() != net(TWO, 1).fingerprint()
    assert net(TWO, 1).fingerprint() == net(TWO, "1").fingerprint()


def test_a_release_remembers_the_output(tmp_path):
    network = net(TWO, 1)
    write_release(tmp_path / "release", network)
    assert Release.open(tmp_path / "release").output == "1"
    opened = load_model(str(tmp_path / "release"), module=Net(TWO))
    assert opened.output == "1" and same_logits(opened, network)
    assert same_logits(load_model(str(tmp_path / "release"), module=Net(TWO), output=1), network)
    with pytest.raises(UserError, match=r"output: got '0', expected that of .*, which has '1'; leave it out"):
        load_model(str(tmp_path / "release"), module=Net(TWO), output=0)
    write_release(tmp_path / "plain", net(PLAIN["dict"]))
    assert "output" not in Release.open(tmp_path / "plain").config


@pytest.mark.parametrize("kind", [*PLAIN, "chosen"])
def test_a_captured_network_returns_logits_alone(kind):
    network = net(TWO, 1) if kind == "chosen" else net(PLAIN[kind])
    logits = capture(network)(network.probes())
    assert isinstance(logits, Tensor)
    torch.testing.assert_close(logits, network.answers(), rtol=1e-4, atol=1e-5)


def test_students_use_the_output_of_their_teacher():
    teacher, images = net(TWO, 1), torch.rand(64, 1, 8, 8)
    student = distill(teacher, Net(TWO), images=images, settings=Distillation(epochs=1, batch=32), seed=0)
    assert student.output == "1"
    plain = distill(teacher, Net(), images=images, settings=Distillation(epochs=1, batch=32), seed=0)
    assert plain.answers().shape == (16, CLASSES)


def test_a_record_is_of_one_output():
    images, labels = torch.rand(64, 1, 8, 8), torch.arange(64) % CLASSES
    made = record(net(TWO, 1), (images, labels), "small")
    made.check_teacher(net(TWO, 1))
    with pytest.raises(UserError, match="record"):
        made.check_teacher(net(TWO, 0))


@pytest.mark.parametrize("pack", [lambda f, y, o: {"0": y, 0: o}, lambda f, y, o: {"a/b": y, "a": {"b": o}}])
def test_two_outputs_of_one_name_are_refused(pack):
    with pytest.raises(UserError, match="returns two outputs called"):
        Network(Net(pack).eval(), input_shape=(1, 8, 8), classes=CLASSES).check()


def test_code_beside_a_network_by_name_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"code: got net.py:build with 'resnet20', expected a release folder"):
        load_model("resnet20", code="net.py:build", weights=tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"datafree pack net.py:build --weights w.pth --output 1 --shape CHANNELS"):
        load_model("net.py:build", weights="w.pth", output=1)


def test_a_network_called_as_a_device_of_windows_can_be_released(tmp_path):
    module = net(PLAIN["tuple"]).module
    network = Network(module, input_shape=(1, 8, 8), classes=CLASSES, name="net.py:Aux")
    assert Release.open(write_release(tmp_path / "aux", network)).config["architecture"] == "custom:Aux-network"
