"""claims.json as earlier versions wrote it: one entry per number instead of one per experiment."""

from __future__ import annotations

from typing import Any

__all__ = ["is_flat", "nested"]

AVERAGED = {
    "mean": "mean_accuracy", "best": "best_accuracy", "lost": "drop_from_best", "drawdown": "largest_fall",
    "decreases": "sum_of_falls", "sd": "sd_of_epochs", "speed": "images_per_cpu_second", "bytes": "replayed_bytes",
}  # fmt: skip
"""Earlier suffix of an online run's id -> metric."""
GROUPS = ("int8", "similarity")
"""Rows that were several numbers and no accuracy."""
UNAVERAGED = ", the student that learns"
FIELDS = {
    "record bytes": "record_bytes", "forecast AUC": "forecast_auc", "agreement, mean %": "mean_agreement",
    "record to student, seconds": "record_to_student_seconds",
}  # fmt: skip
PER_NUMBER = {"id", "unit", "place", "paper", "ours", "status"}


def is_flat(claims: list[dict[str, Any]]) -> bool:
    """Whether the entries are those of an earlier version."""
    return any("metrics" not in entry for entry in claims)


def nested(claims: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same numbers with one entry per experiment. Raises ValueError for an entry whose seeds and values differ in
    number.
    """
    ids = {entry["id"] for entry in claims}
    experiments: dict[str, dict[str, Any]] = {}
    for entry in claims:
        data, teacher, row = entry["id"].split("/", 2)
        pair = f"{data}/{teacher}"
        experiment, metric = _split(row, {identity.removeprefix(f"{pair}/") for identity in ids})
        fields = {FIELDS.get(key, key): value for key, value in entry.items() if key not in PER_NUMBER}
        found = experiments.setdefault(f"{pair}/{experiment}", {"id": f"{pair}/{experiment}", "metrics": {}, **fields})
        if metric is not None:
            title = {"title": row} if experiment in GROUPS else {}
            found["metrics"][metric] = {**title, **_metric(entry)}
    return list(experiments.values())


def _split(row: str, rows: set[str]) -> tuple[str, str | None]:
    """(row of the experiment, metric); no metric for a group of numbers that was not measured."""
    online = row.removesuffix(UNAVERAGED)
    prefix = "unaveraged_" if online != row else ""
    name, _, suffix = online.rpartition("/")
    if suffix in AVERAGED and f"{name}/speed" in rows:
        return name, prefix + AVERAGED[suffix]
    if prefix:
        return online, f"{prefix}accuracy"
    if row in GROUPS:
        return row, None
    for group in GROUPS:
        if row.startswith((f"{group}-", f"{group}/")):
            return group, _snake_case(row[len(group) + 1 :])
    return row, "accuracy"


def _snake_case(name: str) -> str:
    name = name.replace(", shown as in training", "_augmented")
    return name.replace("-", "_").replace("/", "_")


def _metric(entry: dict[str, Any]) -> dict[str, Any]:
    ours, paper = entry["ours"], entry["paper"]
    if ours is not None:
        if len(ours["seeds"]) != len(ours["values"]):
            raise ValueError(f"{entry['id']}: {len(ours['seeds'])} seeds but {len(ours['values'])} values")
        by_seed = {str(seed): value for seed, value in zip(ours["seeds"], ours["values"], strict=True)}
        ours = {"mean": ours["mean"], "sd": ours["sd"], "by_seed": by_seed}
    published = None if paper is None else {"place": entry["place"], "value": paper}
    return {"unit": entry["unit"], "ours": ours, "paper": published, "status": entry["status"]}
