"""Checkpoints of networks of timm and torchvision on the command line."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from datafree._core.code_names import LIBRARIES
from datafree.models.input_spec import InputSpec
from datafree.releases.load import new_model
from datafree.releases.release import Release


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in LIBRARIES), reason="timm and torchvision are not installed"
)
def test_a_checkpoint_of_a_library_is_packed_with_what_the_library_says(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    spec = InputSpec(shape=(3, 32, 32), classes=tuple("abcdefg"))
    torch.save(new_model("torchvision:resnet18", spec, seed=0).module.state_dict(), "w.pth")
    line = "pack torchvision:resnet18 --weights w.pth --shape 3 32 32"
    done = command(f"{line} --out p")
    assert done.code == 0 and "mean 0.485 0.456 0.406" in done.out
    assert (
        Release.open(tmp_path / "p").spec.mean == (0.485, 0.456, 0.406)
        and len(Release.open(tmp_path / "p").spec.classes) == 7
    )
    assert "torchvision builds the network: open the release with --code torchvision:resnet18" in done.out
    for flags, expected in (
        (
            "--arg pretrained=True",
            "--arg: got pretrained, expected no argument that loads weights; give a file as --weights",
        ),
        ("--arg width=3", "the code of model 'torchvision:resnet18(width=3)' fails with TypeError"),
        ("--classes 9", "weight 'fc.weight' in w.pth is (7, 512), expected (9, 512)"),
    ):
        refused = command(f"{line} {flags} --out q")
        assert refused.code == 2 and refused.line.startswith(expected), refused.line
    assert command("pack timm:resnet81 --weights w.pth --out q").line.startswith(
        "no network 'resnet81' in timm; nearest"
    )
    assert "no config.json in the folder 'hf-hub/x'" in command("pack timm:hf-hub/x --weights w.pth --out q").line
    assert "names no network of timm" in command("pack timm:hf+hub --weights w.pth --out q").line
