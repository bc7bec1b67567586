"""claims.json: the results of a paper's experiments beside the paper's own figures. Builds, reads and checks the file.

    python -m papers.claims render papers/lopes2017     # prints the tables as Markdown
    python -m papers.claims update papers/lopes2017     # writes them into the README and the docs
    python -m papers.claims check  papers/*/claims.json # exit status 1 if a claim is malformed or contradicts itself

The file is `{"claims": [experiment, ...]}`, with one entry per experiment:

    id          data set/teacher/row
    metrics     name -> {unit, ours: {mean, sd, by_seed} or null, paper: {place, value} or null, status, title}
    deviation   why the result differs from the paper's; empty if there is nothing to explain
    seconds     mean wall-clock time per seed
    device, versions, commit, budget    where, with what and at which size the experiment was measured

`accuracy` is in % of the test set after the last epoch. `title` is optional: the metric's label in the tables. A paper may
add fields of its own, for example `record_bytes` and `forecast_auc` in `lopes2017`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if not __package__:  # started by its path: the imports below need the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from papers.earlier_claims import is_flat, nested
from papers.tables import PAGES, compare, insert, render

__all__ = ["ACCURACY", "STATUSES", "check", "experiment", "load", "metric", "save", "status_of"]

ACCURACY = "% test accuracy, last epoch"
STATUSES = ("reproduced", "better", "worse", "no paper figure", "not run")
FIELDS = {"id", "metrics", "deviation", "seconds", "device", "versions", "commit", "budget"}
METRIC_FIELDS = {"unit", "ours", "paper", "status"}
TOLERANCE = 0.5


def metric(
    unit: str, by_seed: Mapping[int, float], *, paper: tuple[str, float] | None = None, title: str | None = None
) -> dict[str, Any]:
    """One metric of an experiment from its value per seed. `paper` is the place in the paper and the figure there."""
    ours = _summary(by_seed) if by_seed else None
    published = None if paper is None else {"place": paper[0], "value": paper[1]}
    entry = {"unit": unit, "ours": ours, "paper": published, "status": status_of(published, ours)}
    return entry if title is None else {"title": title, **entry}


def experiment(identity: str, metrics: Mapping[str, dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """One entry of claims.json: `identity` is `data set/teacher/row`, `fields` is what `FIELDS` names and more."""
    return {"id": identity, "metrics": dict(metrics), **fields}


def _summary(by_seed: Mapping[int, float]) -> dict[str, Any]:
    seeds = sorted(by_seed)
    return {**_mean_and_sd([by_seed[seed] for seed in seeds]), "by_seed": {str(seed): by_seed[seed] for seed in seeds}}


def _mean_and_sd(values: list[float]) -> dict[str, float]:
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.fmean(values), 3), "sd": round(sd, 3)}


def status_of(paper: Mapping[str, Any] | None, ours: Mapping[str, Any] | None) -> str:
    """How our mean compares with the paper's figure, a percentage of which more is better.

    It is "reproduced" if the two differ by at most 0.5, or by at most our standard deviation between seeds.
    """
    if ours is None:
        return "not run"
    if paper is None:
        return "no paper figure"
    if abs(ours["mean"] - paper["value"]) <= max(TOLERANCE, ours["sd"]):
        return "reproduced"
    return "better" if ours["mean"] > paper["value"] else "worse"


def check(claims: list[dict[str, Any]]) -> list[str]:
    """The problems of a list of experiments, one line each; empty if there are none."""
    ids = [str(entry.get("id")) for entry in claims]
    problems = [
        f"{identity}: listed {ids.count(identity)} times" for identity in sorted({i for i in ids if ids.count(i) > 1})
    ]
    for identity, entry in zip(ids, claims, strict=True):
        missing = sorted(FIELDS - entry.keys())
        if missing:
            problems.append(f"{identity}: no {', '.join(missing)}")
            continue
        for name, values in entry["metrics"].items():
            problems += [f"{identity}, {name}: {problem}" for problem in _metric_problems(values)]
        if any(values.get("status") == "worse" for values in entry["metrics"].values()) and not entry["deviation"]:
            problems.append(f"{identity}: worse than the paper and no reason given")
    return problems


def _metric_problems(entry: dict[str, Any]) -> list[str]:
    missing = sorted(METRIC_FIELDS - entry.keys())
    if missing:
        return [f"no {', '.join(missing)}"]
    problems = []
    status = status_of(entry["paper"], entry["ours"])
    if entry["status"] != status:
        problems.append(f"status {entry['status']!r}, but the numbers say {status!r}")
    if entry["ours"] is not None:
        stated = {key: entry["ours"][key] for key in ("mean", "sd")}
        expected = _mean_and_sd(list(entry["ours"]["by_seed"].values()))
        if stated != expected:
            problems.append(f"{_in_words(stated)}, but the seeds have {_in_words(expected)}")
    return problems


def _in_words(summary: dict[str, float]) -> str:
    return f"mean {summary['mean']} and sd {summary['sd']}"


def load(path: Path) -> list[dict[str, Any]]:
    """The experiments in a file, or in the claims.json of a folder. Files of earlier versions are converted."""
    path = path / "claims.json" if path.is_dir() else path
    claims = json.loads(path.read_text(encoding="utf-8"))["claims"]
    return nested(claims) if is_flat(claims) else claims


def save(path: Path, claims: list[dict[str, Any]]) -> None:
    """Writes the experiments as claims.json."""
    path.write_text(json.dumps({"claims": claims}, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("render", "update", "check"))
    parser.add_argument("paths", type=Path, nargs="+")
    args = parser.parse_args()
    problems = []
    for path in args.paths:
        if args.verb == "render":
            print(render(load(path)))
        elif args.verb == "update":
            path = path.resolve()
            insert(path / "README.md", "claims", render(load(path)))
            for page, name, columns, rows in PAGES.get(path.name, ()):
                insert(path.parents[1] / page, name, compare(load(path), columns, rows))
        else:
            problems += [f"{path}: {line}" for line in check(load(path))]
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
