"""Resumable results: one cell is the result of one row, pair and seed, stored with the settings that decide it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from datafree._core.files import read_json, write_json
from datafree._core.settings import modern
from datafree.runs.run_log import commit, device_name, versions

__all__ = ["Chain", "cell_path", "cells_by_seed", "current_keys", "deviations", "measure", "provenance", "read_cell"]

RENAMED = {
    "CPU seconds": "cpu_seconds",
    "epoch images": "epoch_images",
    "fine-tuning, seconds": "fine_tuning_seconds",
    "forecast AUC": "forecast_auc",
    "images in them": "images_in_cpu_seconds",
    "record bytes": "record_bytes",
    "record to student, seconds": "record_to_student_seconds",
    "recorded images": "recorded_images",
    "robustness": "stability",
}
"""Keys of cells and of their settings that earlier versions wrote under another name: old name, new name."""


class Chain(Protocol):
    """All rows of one pair and one seed."""

    pair: Any
    seed: int
    folder: Path
    device: str

    def row(self, name: str, /) -> dict[str, Any]:
        """Measures a row."""
        ...


def current_keys(value: Any) -> Any:
    """A JSON value of any version with the keys that this version writes."""
    return _renamed(modern(value))


def _renamed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {RENAMED.get(key, key): _renamed(entry) for key, entry in value.items()}
    return [_renamed(entry) for entry in value] if isinstance(value, list) else value


def cell_path(folder: Path, row: str) -> Path:
    """The row's file in the folder of its pair and seed."""
    return folder / f"{row.replace('/', '_')}.json"


def read_cell(folder: Path, row: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The row's cell; None if there is none with these settings."""
    path = cell_path(folder, row)
    cell = current_keys(read_json(path)) if path.exists() else {}
    return cell if cell.get("settings") == settings else None


def measure(chain: Chain, row: str, settings: dict[str, Any], say: Callable[[str], None]) -> None:
    """Measures a row, writes its cell with the time it took, and reports it in one line."""
    start = time.perf_counter()
    result = chain.row(row)
    result |= {"seconds": round(time.perf_counter() - start, 2), "device": device_name(chain.device)}
    path = cell_path(chain.folder, row)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**result, "versions": versions(), "settings": settings, "commit": commit()})
    outcome = f"{result['accuracy']:.2f} %" if "accuracy" in result else "measured"
    say(f"{chain.pair.id}/{row} seed {chain.seed}: {outcome} in {result['seconds']:.0f} s")


def cells_by_seed(folder: Path, row: str, seeds: Iterable[int], settings: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Seed -> the row's cell in the folder of its pair, for the seeds that have one with these settings."""
    cells = {seed: read_cell(folder / f"seed-{seed}", row, settings) for seed in seeds}
    return {seed: cell for seed, cell in cells.items() if cell is not None}


def provenance(cells: Mapping[int, dict[str, Any]], budget: str) -> dict[str, Any]:
    """An experiment's mean seconds per seed, and the device, versions and commit of its first cell."""
    first = next(iter(cells.values()), {})
    seconds = [cell["seconds"] for cell in cells.values()]
    return {
        "seconds": round(sum(seconds) / len(seconds), 1) if seconds else None,
        "device": first.get("device"), "versions": first.get("versions"), "commit": first.get("commit"),
        "budget": budget,
    }  # fmt: skip


def deviations(paper: Path) -> dict[str, str]:
    """Experiment's id -> why it differs from the paper, from the folder's deviations.json if it has one."""
    path = paper / "deviations.json"
    return read_json(path) if path.exists() else {}
