"""What is wrong with a command line is said before torch is imported, which takes seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

LINES = [
    "--version",
    "--help",
    "trian",
    "evaluate nosuch --data digits",
    "evaluate teacher --data nosuch",
    "evaluate teacher --bogus",
    "evaluate",
    "similarity teacher digits --form kl",
    "inspect nosuch",
    "inspect run.json",
    "quantize nosuch --out x",
    "quantize nosuch.py:build --out x",
    "distill set --set set --out x",
    "synthesize nosuch --out x",
    "record nosuch --data digits",
    "train hinton --data digits --out x",
    "train hinton16 --data digitz --out x",
    "pack w.pt",
    "pack net.py",
    "pack broken.py",
    "pack hinton16 --shape 1 8",
    "report nosuch --out page.html",
    "train hinton16 --data digits --out x --epochs 0",
    "train hinton16 --data digits --out x --epoch 3",
    "quantize teacher --out x --weight-bits 1",
    "quantize teacher --bits 4",
    "distill teacher --set set --out x --temprature 3",
    "distill teacher --set set",
    "rerun nosuch",
    "convert",
]
CODE = """
import sys
from datafree.cli.main import run
for line in sys.stdin.read().splitlines():
    try:
        run(line.split())
    except SystemExit:
        pass
    assert "torch" not in sys.modules, line
"""


@pytest.mark.usefixtures("tmp_path")
def test_what_is_wrong_with_a_command_line_is_said_without_torch(tmp_path):
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "config.json").write_text("{}")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "set.json").write_text("{}")
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "w.pt").write_bytes(b"")
    (tmp_path / "net.py").write_text("def build(): ...\n")
    (tmp_path / "broken.py").write_text("def build(:\n")
    done = subprocess.run(
        [sys.executable, "-c", CODE], input="\n".join(LINES), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    refusals = [line for line in done.stderr.splitlines() if line.startswith("datafree: ")]
    assert len(refusals) == len(LINES) - 3, done.stderr  # --version, --help and inspect run.json are right
