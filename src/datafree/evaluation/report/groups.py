"""The similarities and the online runs among the runs of a report, grouped by what can be compared."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from ...records.divergence import UNITS
from ...runs.difference import IGNORED
from ...runs.provenance import place
from ...runs.run_reader import FinishedRun
from ..similarity import Similarity
from .model import OnlineRun, SimilarityTable
from .online import online_run

__all__ = ["online_runs", "similarity_tables"]


def similarity_tables(logs: dict[Path, FinishedRun]) -> list[SimilarityTable]:
    """The similarities among the runs, grouped by what can be compared: network, form and augmentation."""
    groups: dict[tuple[str, ...], list[Path]] = {}
    for folder, log in logs.items():
        if log.verb == "similarity" and log.result.similarity:
            network = [str(log.settings.get(key)) for key in ("model", "code", "weights", "record")]
            measure = [str(log.settings.get(key, 0)) for key in ("form", "shift", "flip", "border")]
            inputs = [log.inputs.get(path, path) for path in network]
            groups.setdefault((*inputs, log.inputs.get("record", ""), *measure), []).append(folder)
    names = {place(folder): folder.name for folder in logs}
    return [_table({folder: logs[folder] for folder in group}, names) for group in groups.values()]


def _table(logs: dict[Path, FinishedRun], releases: dict[str, str]) -> SimilarityTable:
    pairs = [(folder, entry) for folder, log in logs.items() for entry in log.result.similarity]
    counts_by_name = Counter(entry.name for _, entry in pairs)
    similarities = [
        Similarity(
            **{
                **entry.model_dump(),
                "name": entry.name if counts_by_name[entry.name] == 1 else f"{entry.name} ({folder.name})",
            }
        )
        for folder, entry in pairs
    ]
    settings = next(iter(logs.values())).settings
    form, counts = str(settings.get("form", "forward")), sorted({entry.images for entry in similarities})
    unit = UNITS.get(form, "")
    name = releases.get(str(settings.get("model")), settings.get("model"))
    parts = [
        f"{name}: {form}, {f'in {unit}' if unit else 'without a unit'}",
        f"{counts[0]:,} images each" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,} images",
        _augmentation(settings),
        f"from {', '.join(folder.name for folder in logs)}",
    ]
    return SimilarityTable("; ".join(parts), sorted(similarities, key=lambda entry: entry.total), unit)


def online_runs(networks: list[Path], logs: dict[Path, FinishedRun]) -> list[OnlineRun]:
    """The online runs. Runs with the same inputs and the same settings except for the seed form a series."""
    runs = []
    for folder in networks:
        log = logs[folder]
        if log.result.online is not None:
            settings = {key: value for key, value in log.settings.items() if key not in (*IGNORED, "seed")}
            series = json.dumps([log.verb, settings, log.inputs], sort_keys=True)
            memory = log.settings.get("replay")
            kind = str(memory.get("replay", ""))[:80] if isinstance(memory, dict) else ""
            runs.append(online_run(folder.name, log.result.online, kind, series))
    return runs


def _augmentation(settings: dict[str, Any]) -> str:
    """The augmentation in words."""
    ground = " on their mean colour" if settings.get("border") == "mean" else ""
    changes = [f"moved by up to {settings['shift']} pixels{ground}"] if settings.get("shift") else []
    changes += ["mirrored half of the time"] if settings.get("flip") else []
    return f"shown as in training ({', '.join(changes)})" if changes else "shown as they are"
