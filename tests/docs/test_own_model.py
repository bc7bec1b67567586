"""The example of a custom network goes from training to a student by the commands in its docstring."""

from __future__ import annotations

import re
from pathlib import Path

from datafree.cli.main import run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_commands_of_own_model_make_a_student(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (EXAMPLES / "own_model.py").read_text(encoding="utf-8")
    commands = re.findall(r"^datafree (.*)$", text, flags=re.M)
    assert len(commands) == 3
    light = {"train": ["--epochs", "3"], "record": [], "distill": ["--epochs", "2", "--epoch-images", "256"]}
    for command in commands:
        argv = command.replace("examples/own_model.py", str(EXAMPLES / "own_model.py")).split()
        assert run([*argv, *light[argv[0]], "--quiet"]) == 0, capsys.readouterr().err
    assert (tmp_path / "student" / "model.safetensors").exists()
    assert "agreement with the teacher" in capsys.readouterr().out
