"""What the tests of files share: one thread, and one small file that has every part of the format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from datafree._core.files import write_tensors


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small() -> dict[str, torch.Tensor]:
    return {
        "fc1/mean": torch.tensor([0.5, -1.0, 2.0]),
        "fc1/count": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3, dtype=torch.float64),
        "half": torch.ones(1, 2, dtype=torch.bfloat16),
    }


@pytest.fixture
def record(tmp_path: Path, small: dict[str, torch.Tensor]) -> Path:
    path = tmp_path / "small.safetensors"
    write_tensors(path, small, {"layers": ["fc1"], "seed": 3}, kind="record")
    return path
