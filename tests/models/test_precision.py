"""bfloat16 on a processor that computes it in software is said, not silently slow."""

from __future__ import annotations

import warnings

import pytest
import torch
from tests.conftest import make_data, make_network

import datafree as df
from datafree._core.errors import Notice
from datafree.distillation.online.run import OnlineDistillation, train_online
from datafree.distillation.training_loop import Schedule
from datafree.models import precision

WORDS = "this CPU has no bfloat16 and emulates it, .* give `precision='float32'`"


@pytest.fixture
def emulated(monkeypatch):
    monkeypatch.setattr(precision, "_emulates_bfloat16", lambda: True)


def online(name: str) -> None:
    settings = OnlineDistillation(epochs=1, iterations=1, student_steps=1, batch=4, scene="none", precision=name)
    train_online(make_network("conv"), make_network("conv", seed=1), settings)


CALLS = {
    "train": lambda name: df.train(make_network(), make_data(), settings=Schedule(epochs=1, precision=name)),
    "synthesize": lambda name: df.sample(make_network("conv"), df.method("inception", steps=1, precision=name), n=2),
    "online": online,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.usefixtures("emulated")
def test_emulated_bfloat16_is_said(call):
    with pytest.warns(Notice, match=WORDS):
        call("bfloat16")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.usefixtures("emulated")
def test_float32_is_silent(call):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call("float32")


def test_autocast_computes_in_the_format_that_is_asked_for():
    layer, pixels = torch.nn.Linear(4, 4), torch.ones(1, 4)
    for name, expected in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with precision.autocast(name, torch.device("cpu")):
            assert layer(pixels).dtype == expected


def test_the_fastest_format_is_never_emulated(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for emulates, expected in ((False, "bfloat16"), (True, "float32")):
        monkeypatch.setattr(precision, "_emulates_bfloat16", lambda emulates=emulates: emulates)
        assert (precision.fastest_precision(cpu), precision.fastest_precision(gpu)) == (expected, "bfloat16")
