"""What the tests of the command line share: a folder as a user has it, and one command run in it."""

from __future__ import annotations

import hashlib
import shlex
import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.exported import exported_once

from datafree.cli.main import run

MAKE = (
    "train hinton16 --data digits --epochs 3 --out teacher --quiet",
    "record teacher --data digits --preset full --quiet",
    "train hinton16 --data digits --epochs 1 --seed 1 --out other --quiet",
    "synthesize teacher --images 48 --chunk 16 --workers 2 --out set --quiet",
    "distill teacher --set set --epochs 2 --out student --quiet",
)
NORMED = (
    "train normed.py:build --data digits --epochs 4 --batch 32 --learning-rate 5e-3 --out net --quiet",
    "synthesize bns net --code normed.py:build --steps 20 --images 64 --chunk 64 --out shown --quiet",
    "synthesize bns net --code normed.py:build --no-box --steps 2 --images 8 --chunk 8 --out unboxed --quiet",
)
NORMED_CODE = """
from torch import nn

def build(spec):
    layers = [nn.Conv2d(spec.shape[0], 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()]
    layers += [nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, len(spec.classes)))
"""
OWN = """
from torch import nn

def build(spec):
    return nn.Sequential(nn.Flatten(), nn.Linear(spec.pixels, len(spec.classes)))
"""


@dataclass(frozen=True)
class Done:
    """One command's end."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line of an error."""
        assert self.code == 2, (self.code, self.out, self.err)
        others = [line for line in self.out.splitlines() if SPLIT not in line]  # the choice of a split comes first
        assert not others, others
        assert self.err.startswith("datafree: ")
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("datafree: ").rstrip("\n")


SPLIT = ": a fixed fifth of each class, "


def tree(folder: Path) -> dict[str, str]:
    """Every file and folder below, with its content's hash."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


@pytest.fixture(autouse=True)
def _exported_once(request):
    """Unless a test is marked by `exported_anew`."""
    with nullcontext() if "exported_anew" in request.fixturenames else exported_once():
        yield


@pytest.fixture
def exported_anew():
    """For tests that promise equal bytes of two runs."""


@pytest.fixture
def command(capsys):
    def one(line: str) -> Done:
        threads = torch.get_num_threads()
        capsys.readouterr()
        try:
            code = run(shlex.split(line))
        finally:
            torch.set_num_threads(threads)
        text = capsys.readouterr()
        return Done(code, text.out, text.err)

    return one


@pytest.fixture
def run_card(command):
    """Runs the commands of a model card one after another, briefly, with `words` replaced; each must succeed."""

    def run_all(lines: list[str], words: dict[str, str], student: str) -> None:
        for place, line in enumerate(lines):
            for word, replacement in {**words, "--out student": f"--out {student}-{place}"}.items():
                line = line.replace(word, replacement)
            done = command(f"{line}{' --quiet' * ('inspect' not in line)}{' --epochs 1' * ('distill' in line)}")
            assert done.code == 0, (line, done)

    return run_all


@pytest.fixture(scope="session")
def made_plain(tmp_path_factory) -> Path:
    """teacher (with every record), another teacher, a set, a student, own.py: never written to."""
    folder = tmp_path_factory.mktemp("commands")
    patch = pytest.MonkeyPatch()
    with patch.context() as inside:
        inside.chdir(folder)
        for line in MAKE:
            assert run(shlex.split(line)) == 0
    (folder / "own.py").write_text(OWN)
    return folder


@pytest.fixture(scope="session")
def made(made_plain) -> Path:
    return made_plain


@pytest.fixture(scope="session")
def made_normed(made_plain, tmp_path_factory) -> Path:
    """As `made`, and net (two batch norms, own code in normed.py), sets of its images, data that is off."""
    folder = tmp_path_factory.mktemp("normed") / "made"
    shutil.copytree(made_plain, folder)
    (folder / "normed.py").write_text(NORMED_CODE)
    patch = pytest.MonkeyPatch()
    with patch.context() as inside:
        inside.chdir(folder)
        for line in NORMED:
            assert run(shlex.split(line)) == 0
    rng, labels = np.random.default_rng(0), np.arange(40) % 10
    images = rng.random((40, 8, 8))
    broken = images.copy()
    broken[3, 2, 2] = np.nan
    off = {
        "five": (images, labels % 5), "colour": (rng.random((40, 8, 8, 3)), labels), "nan": (broken, labels),
        "range": (images * 255, labels), "empty": (images[:0], labels[:0]), "one": (images[:1], labels[:1]),
    }  # fmt: skip
    for name, (pixels, wanted) in off.items():
        np.savez(folder / f"{name}.npz", images=pixels, labels=wanted)
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch) -> Path:
    """A copy of `made` of one's own, as the working directory."""
    folder = tmp_path / "here"
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DATAFREE_DATA", raising=False)
    return folder


@pytest.fixture
def refused(command, here):
    """The line of an error, once it is seen that the command left every file and folder as it was."""

    def one(line: str) -> str:
        before = tree(here)
        text = command(line).line
        assert tree(here) == before
        return text

    return one
