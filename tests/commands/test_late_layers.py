"""Networks that make layers in their first forward pass, or change with their mode: what is trained opens again."""

from __future__ import annotations

import pytest
import torch

from datafree.models.input_spec import InputSpec
from datafree.releases.load import new_model
from datafree.runs.run_reader import FinishedRun

SPEC = InputSpec(shape=(1, 8, 8), classes=tuple("0123456789"))
LATER = """
import torch
from torch import nn
class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), None
    def forward(self, x):
        x = self.conv(x).flatten(1)
        if self.fc is None:
            self.fc = nn.Linear(x.shape[1], 10)
        return self.fc(x)
class Buffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(128, 10)
    def forward(self, x):
        if not hasattr(self, "grid"):
            self.register_buffer("grid", torch.linspace(0, 1, 64))
        return self.fc(torch.cat([x.flatten(1), self.grid.expand(len(x), -1)], 1))
class Lora(nn.Linear):
    def __init__(self, wide, narrow):
        super().__init__(wide, narrow)
        self.lora_A, self.lora_B = nn.Parameter(torch.randn(4, wide) / 8), nn.Parameter(torch.zeros(narrow, 4))
        self.merged = self.weight.requires_grad = self.bias.requires_grad = False
    def train(self, mode=True):
        super().train(mode)
        if mode == self.merged:
            with torch.no_grad():
                self.weight += (self.lora_B @ self.lora_A) * (-1 if mode else 1)
            self.merged = not mode
        return self
    def forward(self, x):
        y = super().forward(x)
        return y if self.merged else y + x @ self.lora_A.T @ self.lora_B.T
def lora():
    return nn.Sequential(nn.Flatten(), Lora(64, 16), nn.ReLU(), Lora(16, 10))
class Frozen(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(64, 16), nn.Linear(16, 10)
    def train(self, mode=True):
        super().train(mode)
        self.stem.eval().requires_grad_(False)
        return self
    def forward(self, x):
        return self.head(self.stem(x.flatten(1)).relu())
"""


@pytest.fixture
def later(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "later.py").write_text(LATER)


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("name", ["Layer", "Buffer", "lora", "Frozen"])
def test_networks_that_are_made_or_changed_on_their_way_train_and_open_again(name, command):
    assert command(f"train later.py:{name} --data digits --epochs 2 --learning-rate 1e-2 --out net --quiet").code == 0
    done = command(f"evaluate net --code later.py:{name} --data digits")
    assert done.code == 0, done.err
    accuracy = float(done.out.split("accuracy ")[1].split(" %")[0])
    assert accuracy == pytest.approx(FinishedRun.of("net").result.evaluation.accuracy, abs=0.3)
    assert (
        command(f"distill net later.py:{name} --code later.py:{name} --data digits --epochs 1 --out s --quiet").code
        == 0
    )


@pytest.mark.usefixtures("later")
def test_layers_that_are_made_by_the_first_forward_pass_follow_the_seed():
    states = [new_model("later.py:Layer", SPEC, seed=seed).module.state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["fc.weight"], states[2]["fc.weight"])
