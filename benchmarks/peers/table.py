"""Collects the cells into results.json and the README's tables: last and best accuracy, and paired differences to ours."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers.adapters import METHODS, adapter
from benchmarks.peers.tasks import TASKS
from datafree._core.files import read_json

__all__ = ["collected", "described", "rendered", "summary", "variant_of"]

STEP = 1.05
"""A run stops after the step that passes its limit: up to 5 % later."""


def variant_of(method: str, settings: Mapping[str, Any]) -> str:
    """`default`, or the settings that differ from the method's: `lr_S=0.01,nz=50`."""
    defaults = adapter(method).PEER.settings
    changed = [f"{key}={value}" for key, value in settings.items() if defaults.get(key) != value]
    return ",".join(changed) or "default"


def summary(by_seed: Mapping[int, float]) -> dict[str, Any]:
    """Mean, standard deviation (None for one seed), n and the values by seed."""
    values = list(by_seed.values())
    return {
        "mean": round(statistics.fmean(values), 2), "sd": round(statistics.stdev(values), 2) if len(values) > 1 else None,
        "n": len(values), "by_seed": {str(seed): by_seed[seed] for seed in sorted(by_seed)},
    }  # fmt: skip


def collected(work: Path, earlier: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All cells with their task's limit, and one table per task. A method without cells has a row too.

    `earlier` is a results.json: its cells stay where `work` has none, so that runs may be spread over machines.
    """
    cells = {_name(cell): cell for cell in ([] if earlier is None else earlier.get("cells", []))}
    for path in sorted(work.glob("*/*/*/seed-*.json")):
        cell = read_json(path)
        if cell["seconds"] == TASKS[cell["data"]].seconds:
            cells[_name(cell)] = cell
    rows: dict[str, dict[tuple[str, str], list[dict[str, Any]]]] = {data: {} for data in TASKS}
    for name in sorted(cells):
        data, method, variant, _ = name
        rows[data].setdefault((method, variant), []).append(cells[name])
    return {"cells": [cells[name] for name in sorted(cells)], "tables": [_table(data, rows[data]) for data in TASKS]}


def _name(cell: Mapping[str, Any]) -> tuple[str, str, str, int]:
    return cell["data"], cell["method"], variant_of(cell["method"], cell["settings"]), cell["seed"]


def _table(data: str, rows: Mapping[tuple[str, str], list[dict[str, Any]]]) -> dict[str, Any]:
    task = TASKS[data]
    order = {method: place for place, method in enumerate(task.methods)}
    names = sorted(
        {*rows, *((method, "default") for method in task.methods)}, key=lambda name: (order[name[0]], name[1])
    )
    names.sort(key=lambda name: (order[name[0]], name[1] != "default"))
    reference = {
        cell["seed"]: _last(cell) for cell in _measured(rows.get((task.reference, task.reference_variant), []))
    }
    cells = [cell for name in names for cell in _measured(rows.get(name, []))]
    return {
        "data": data, "teacher": task.teacher, "student": task.student, "seconds": task.seconds,
        "reference": task.reference, "reference_variant": task.reference_variant,
        "teacher_accuracy": cells[0]["teacher_accuracy"] if cells else None,
        "devices": sorted({cell["device"] for cell in cells}), "versions": cells[0]["versions"] if cells else None,
        "rows": [_row(*name, rows.get(name, []), reference) for name in names],
    }  # fmt: skip


def _row(method: str, variant: str, cells: list[dict[str, Any]], reference: Mapping[int, float]) -> dict[str, Any]:
    measured = _measured(cells)
    row: dict[str, Any] = {"method": method, "variant": variant}
    row["failed"] = {str(cell["seed"]): cell["failed"] for cell in cells if "failed" in cell}
    if not measured:
        return {**row, "status": "failed" if cells else "not run"}
    last = {cell["seed"]: _last(cell) for cell in measured}
    best = {cell["seed"]: max(accuracy for _, accuracy in cell["curve"]) for cell in measured}
    paired = {seed: round(value - reference[seed], 2) for seed, value in last.items() if seed in reference}
    return {
        **row, "status": "measured", "last": summary(last), "best": summary(best),
        "at_limit": summary({cell["seed"]: _at_limit(cell) for cell in measured}),
        "difference": summary(paired) if paired else None,
        "cpu_seconds": summary({cell["seed"]: cell["cpu_seconds"] for cell in measured}),
    }  # fmt: skip


def _measured(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [cell for cell in cells if "failed" not in cell]


def _at_limit(cell: Mapping[str, Any]) -> float:
    """The last accuracy measured within the limit and the step that passes it; the first one, if all are later."""
    within = [accuracy for seconds, accuracy in cell["curve"] if seconds <= STEP * cell["seconds"]]
    return within[-1] if within else cell["curve"][0][1]


def _last(cell: Mapping[str, Any]) -> float:
    return cell["curve"][-1][1]


def rendered(results: Mapping[str, Any]) -> str:
    """The tables as Markdown."""
    return "\n\n".join(_rendered(table) for table in results["tables"])


def _rendered(table: Mapping[str, Any]) -> str:
    caption = (
        f"{table['data']}: {table['teacher']} to {table['student']}, limit {table['seconds']:g} CPU seconds. "
        "Accuracy in % of the test set, mean ± sd (n)."
    )
    if table["devices"]:
        machine, torch = "; ".join(table["devices"]), table["versions"]["torch"]
        caption += f" The teacher has {table['teacher_accuracy']} %. {machine}; torch {torch}."
    columns = (
        "method", "settings", "last", "at the limit", "best of the intervals",
        f"last, paired difference to {table['reference']}, {table['reference_variant']}", "CPU seconds", "seeds",
    )  # fmt: skip
    lines = [caption, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in table["rows"]:
        name = f"| {row['method']} | {row['variant']} |"
        if row["status"] != "measured":
            lines.append(f"{name} {row['status']}: {_reason(row)} |{' |' * 5}")
            continue
        is_reference = (row["method"], row["variant"]) == (table["reference"], table["reference_variant"])
        difference = "" if row["difference"] is None or is_reference else _in_words(row["difference"], sign="+")
        seeds = " ".join(row["last"]["by_seed"])
        accuracies = (_in_words(row[column]) for column in ("last", "at_limit", "best"))
        cells = (*accuracies, difference, f"{row['cpu_seconds']['mean']:.0f}", seeds)
        lines.append(f"{name} {' | '.join(cells)} |")
    return "\n".join(lines)


def _reason(row: Mapping[str, Any]) -> str:
    return "; ".join(sorted(set(row["failed"].values()))) or "no run was finished"


def _in_words(values: Mapping[str, Any], sign: str = "") -> str:
    mean = f"{values['mean']:{sign}.2f}"
    return f"{mean} (1)" if values["sd"] is None else f"{mean} ± {values['sd']:.2f} ({values['n']})"


def described() -> str:
    """The peers as Markdown: where their code is, under which licence, and everything that differs from its defaults."""
    lines = [
        "| method | code, in the folder | commit | licence | differs from the code's own defaults |",
        "|---|---|---|---|---|",
    ]
    for method in METHODS:
        peer = adapter(method).PEER
        if peer.folder:
            code = f"{peer.url}, `{peer.folder}`"
            changes = "; ".join(peer.changes)
            lines.append(f"| `{method}`: {peer.title} | {code} | `{peer.commit[:12]}` | {peer.licence} | {changes} |")
    return "\n".join(lines)
