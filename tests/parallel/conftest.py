"""What the tests of two processes share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.forked import forked

from datafree.cli.main import run


@pytest.fixture(scope="session")
def alone(tmp_path_factory) -> Path:
    """A folder where one process has trained a teacher, made a set, and distilled a student."""
    from .test_parallel import COMMAND, DISTILL

    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as inside:
        inside.chdir(folder)
        for line in (
            "train hinton16 --data digits --epochs 4 --batch 32 --learning-rate 5e-3 --quiet --out teacher",
            DISTILL.format("student"),
        ):
            assert run(line.split()) == 0
    (folder / "start.py").write_text(COMMAND)
    return folder


@pytest.fixture(scope="session")
def done_in_turn(alone, tmp_path_factory) -> tuple[Path, str]:
    """The folder where two processes of torchrun have done what in_turn.py says, and what they printed."""
    from .test_parallel import DISTILL, FORKED, HERE, TORCHRUN

    folder = tmp_path_factory.mktemp("in-turn")
    for name in ("agreeing", "playing"):
        (folder / name).mkdir()
    images, labels = np.random.default_rng(0).integers(0, 255, (20, 8, 8), np.uint8), np.arange(20) % 10
    np.savez(folder / "few.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.MonkeyPatch.context() as inside:
        inside.chdir(folder)
        assert run(["train", "hinton8", "--data", "few.npz", "--epochs", "1", "--out", "t", "--quiet"]) == 0
        program = [str(HERE / "in_turn.py"), str(folder), str(alone), DISTILL.format("two")]
        code, out, err = forked(FORKED, [*TORCHRUN[3:], *program], timeout=300)
    assert code == 0, err
    assert {path.name for path in folder.glob("pid-*")} == {"pid-0-of-2", "pid-1-of-2"}, "not two processes"
    return folder, out
