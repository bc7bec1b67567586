"""Fixtures for the readers of data sets: no environment, one thread, and the text of an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from datafree._core.errors import UserError
from datafree.data import load

REAL = Path(os.environ.get("DATAFREE_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.delenv("DATAFREE_DATA", raising=False)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def error():
    """Loads and reads all of a data set; gives the text of its UserError, which is one line that says what to do."""

    def read_all(name, split, options) -> None:
        dataset = load(name, split, **options)
        dataset.pixels(range(len(dataset)))

    def text(name, split="train", **options) -> str:
        with pytest.raises(UserError) as caught:
            read_all(str(name), split, options)
        message = str(caught.value)
        assert "\n" not in message
        assert "; " in message
        assert "0x7f" not in message, "the address of an object"
        return message

    return text


@pytest.fixture
def real() -> Path:
    if not REAL.is_dir():
        pytest.skip(f"no folder {str(REAL)!r}; set DATAFREE_DATA to the folder of the real data sets")
    return REAL
