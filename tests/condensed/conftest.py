"""What the tests of condensed sets share: a teacher's release in the working directory, and sets in its authors' formats."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

from datafree.cli.main import run


@pytest.fixture
def here(release, tmp_path, monkeypatch) -> Path:
    """The working directory; `teacher` in it is the digits' release."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teacher").symlink_to(release, target_is_directory=True)
    return tmp_path


def two_each(digits):
    """Two real digits a class: pixels (20, 1, 8, 8) in [0, 1] and labels (20,)."""
    rows = torch.cat([(digits.labels == label).nonzero()[:2, 0] for label in range(10)])
    return digits.pixels(rows), digits.labels[rows]


@pytest.fixture
def shots(digits):
    return two_each(digits)


@pytest.fixture
def command(capsys):
    """Runs one command line: exit code, standard output, standard error."""

    def one(line: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(shlex.split(line))
        text = capsys.readouterr()
        return code, text.out, text.err

    return one


@pytest.fixture
def refused(command, here):
    """The one line of an error, once it is seen that nothing was written."""

    def one(line: str) -> str:
        before = sorted(path.name for path in here.rglob("*"))
        code, out, err = command(line)
        assert (code, err.count("\n"), err.startswith("datafree: ")) == (2, 1, True), (code, out, err)
        assert sorted(path.name for path in here.rglob("*")) == before
        return err

    return one
