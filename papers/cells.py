"""The files that a chain keeps: a cell is what one row of one pair and seed gave, beside the settings that decide it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from datafree._core.files import read_json, write_json
from datafree.runs.run_log import commit, device_name, versions

__all__ = ["Chain", "by_seed", "common", "deviations", "file_of", "keep", "read"]


class Chain(Protocol):
    """What `keep` asks of a chain."""

    pair: Any
    seed: int
    folder: Path
    device: str

    def row(self, name: str, /) -> dict[str, Any]:
        """What the row's cell says, measured now."""
        ...


def file_of(folder: Path, row: str) -> Path:
    """Where the row's cell is, in the folder of its pair and seed."""
    return folder / f"{row.replace('/', '_')}.json"


def read(folder: Path, row: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The row's cell; None where there is none, or one of other settings."""
    path = file_of(folder, row)
    found = read_json(path) if path.exists() else {}
    return found if found.get("settings") == settings else None


def keep(chain: Chain, row: str, settings: dict[str, Any], say: Callable[[str], None]) -> None:
    """Measures a row, writes its cell with the seconds that it took, and says one line."""
    began = time.perf_counter()
    result = chain.row(row)
    result |= {"seconds": round(time.perf_counter() - began, 2), "device": device_name(chain.device)}
    path = file_of(chain.folder, row)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**result, "versions": versions(), "settings": settings, "commit": commit()})
    shown = f"{result['accuracy']:.2f} %" if "accuracy" in result else "measured"
    say(f"{chain.pair.id}/{row} seed {chain.seed}: {shown} in {result['seconds']:.0f} s")


def by_seed(folder: Path, row: str, seeds: Iterable[int], settings: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Seed -> the row's cell in the folder of its pair, of the seeds that have one of these settings."""
    cells = {seed: read(folder / f"seed-{seed}", row, settings) for seed in seeds}
    return {seed: cell for seed, cell in cells.items() if cell is not None}


def common(found: dict[int, dict[str, Any]], budget: str) -> dict[str, Any]:
    """What every claim of a row has, from its cells by seed: the mean of their seconds, and where the first was measured."""
    first = next(iter(found.values()), {})
    return {
        "seconds": round(sum(cell["seconds"] for cell in found.values()) / len(found), 1) if found else None,
        "device": first.get("device"), "versions": first.get("versions"), "commit": first.get("commit"),
        "budget": budget,
    }  # fmt: skip


def deviations(paper: Path) -> dict[str, str]:
    """Claim's id -> why it differs from the paper, from the folder's deviations.json where it has one."""
    path = paper / "deviations.json"
    return read_json(path) if path.exists() else {}
