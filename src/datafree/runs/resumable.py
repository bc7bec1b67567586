"""Where a stopped run leaves its state. Imports nothing of datafree: it is used while a process is being stopped."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["CELLS", "SHARDS", "STATE", "holds_state", "is_resumable", "recording_state"]

STATE = "training.safetensors"
"""State file from which a stopped run continues."""
SHARDS = "unit-*.safetensors"
CELLS = "cells/*/*/seed-*/*.json"
"""Files of the cells of a comparison."""


def is_resumable(place: str | Path) -> bool:
    """Whether a stopped run left a state in an output folder, or its sums beside a release, to continue from."""
    out = Path(place)
    return holds_state(out) or recording_state(out).exists() or next(out.glob(CELLS), None) is not None


def recording_state(release: Path) -> Path:
    """The file for the sums of a stopped recording: beside the release and not in it, since the release is shared."""
    place = Path(os.path.realpath(release)) if release.name in ("", "..") else release
    return place.with_name(f"{place.name}.recording")


def holds_state(out: Path) -> bool:
    """Whether the folder has a state, or part of a set."""
    return (out / STATE).exists() or next(out.glob(SHARDS), None) is not None
