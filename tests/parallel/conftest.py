"""What the tests of two processes share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datafree.cli.main import run


@pytest.fixture(scope="session")
def done_in_turn(tmp_path_factory) -> tuple[Path, str]:
    """The folder where two processes have done what in_turn.py says, and what they printed."""
    from .test_parallel import HERE, both_without_torchrun

    folder = tmp_path_factory.mktemp("in-turn")
    for name in ("agreeing", "playing"):
        (folder / name).mkdir()
    images, labels = np.random.default_rng(0).integers(0, 255, (20, 8, 8), np.uint8), np.arange(20) % 10
    np.savez(folder / "few.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.MonkeyPatch.context() as inside:
        inside.chdir(folder)
        assert run(["train", "hinton8", "--data", "few.npz", "--epochs", "1", "--out", "t", "--quiet"]) == 0
    code, out, err = both_without_torchrun(folder, str(HERE / "in_turn.py"), str(folder))
    assert code == 0, err
    return folder, out
