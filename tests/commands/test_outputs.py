"""The option --output, of networks that return several tensors."""

from __future__ import annotations

import torch

from datafree.releases.release import Release

BUILDER = """
import torch
from torch import nn


class Two(nn.Module):
    def __init__(self, alone=False):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
        self.head, self.other = nn.Linear(288, 10), nn.Linear(288, 10)
        self.alone = alone

    def forward(self, images):
        features = self.body(images)
        return self.head(features) if self.alone else (self.other(features), self.head(features))
"""


def test_the_option_is_of_every_command_and_of_the_release(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.py").write_text(BUILDER)
    namespace: dict = {}
    exec(BUILDER, namespace)
    torch.manual_seed(0)
    torch.save(namespace["Two"]().state_dict(), tmp_path / "w.pth")
    pack = "pack two.py:Two --weights w.pth --shape 1 8 8 --classes 10"
    refused = command(f"{pack} --out no")
    assert refused.code == 2 and "choose it, such as --output 0" in refused.line
    refused = command(f"{pack} --arg alone=True --output 0 --out no")
    assert refused.code == 2 and refused.line.startswith(
        "--output: got '0', expected none, since two.py:Two(alone=True)"
    )
    refused = command(f"{pack} --output 2 --out no")
    assert refused.code == 2 and refused.line.startswith("--output: got 2, expected one of 0 (16, 10), 1 (16, 10)")
    assert command(f"{pack} --output 1 --out teacher").code == 0
    assert "--output 1" in command("rerun teacher --out again").out
    opened = command("evaluate teacher --code two.py:Two --data digits --json")
    assert opened.code == 0
    refused = command("evaluate teacher --code two.py:Two --output 0 --data digits")
    assert refused.code == 2 and "a release has its own" in refused.line
    assert command("evaluate teacher --code two.py:Two --output 1 --data digits").code == 0
    made = command("quantize teacher --code two.py:Two --calibrate noise --images 32 --out int8 --quiet")
    assert made.code == 0
    assert command("distill teacher two.py:Two --code two.py:Two --data digits --epochs 1 --out s --quiet").code == 0
    assert Release.open(tmp_path / "s").output == "1"


AUXILIARY = """
from torch import nn


class Auxiliary(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Flatten()
        self.head, self.other = nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, images):
        features = self.body(images)
        return (self.head(features), self.other(features)) if self.training else self.head(features)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, images):
        return {"first": self.net(images)}
"""


def test_students_have_an_output_of_their_own(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.py").write_text(BUILDER)
    (tmp_path / "aux.py").write_text(AUXILIARY)
    assert command("train two.py:Two --data digits --limit 100 --epochs 1 --output 1 --out teacher --quiet").code == 0
    assert "--output 1" in command("rerun teacher --trust --out again").out
    assert Release.open(tmp_path / "again").output == "1"
    base = "distill teacher --code two.py:Two --data digits --limit 100 --epochs 1 --quiet"
    for student, output in (("hinton8", None), ("aux.py:Named", None), ("aux.py:Auxiliary", "1")):
        made = command(f"{base.replace('teacher', f'teacher {student}', 1)} --out {student[-6:]}")
        assert made.code == 0, made.line
        assert Release.open(tmp_path / student[-6:]).output == output


def test_a_network_with_several_outputs_in_training_alone_is_packed_with_its_output(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "aux.py").write_text(AUXILIARY)
    refused = command("train aux.py:Auxiliary --data digits --limit 100 --epochs 1 --out no --quiet")
    assert refused.code == 2 and "choose it, such as --output 0, or call one" in refused.line
    assert command("train aux.py:Auxiliary --data digits --limit 100 --epochs 1 --output 0 --out net --quiet").code == 0
    weights = "--weights net/model.safetensors --shape 1 8 8 --classes 10"
    packed = command(f"pack aux.py:Auxiliary {weights} --output 0 --data digits --limit 100 --out packed")
    assert packed.code == 0 and "train for more epochs" not in packed.out
    assert Release.open(tmp_path / "packed").output == "0"
