"""Where a stopped run leaves what it goes on from. Imports nothing of ours: asked while a process is being stopped."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["SHARDS", "STATE", "holds_state", "is_resumable", "recording_state"]

STATE = "training.safetensors"
"""What a stopped run goes on from."""
SHARDS = "unit-*.safetensors"


def is_resumable(place: str | Path) -> bool:
    """Whether a stopped run left something in an output folder, or its sums beside a release, that it goes on from."""
    out = Path(place)
    return holds_state(out) or recording_state(out).exists()


def recording_state(release: Path) -> Path:
    """The sums of a stopped recording: beside the release, which is handed over, and not in it."""
    place = Path(os.path.realpath(release)) if release.name in ("", "..") else release
    return place.with_name(f"{place.name}.recording")


def holds_state(out: Path) -> bool:
    """Whether there is a state, or a part of a set, in the folder."""
    return (out / STATE).exists() or next(out.glob(SHARDS), None) is not None
