"""Trained networks that come with the data folder."""

from __future__ import annotations

import os
from pathlib import Path

from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.releases.load import load_model

__all__ = ["published"]


def published(name: str, weights: str, spec: InputSpec, data_dir: str | None) -> Network:
    """The network `name`, of the zoo or `file.py:function`, with a file of the data folder's `weights`."""
    folder = Path(data_dir or os.environ.get("DATAFREE_DATA", ".")) / "weights"
    return load_model(name, weights=folder / weights, spec=spec)
