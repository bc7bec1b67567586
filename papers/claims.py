"""claims.json: every number of a paper beside ours, in one schema; renders it as tables and checks it.

python papers/claims.py render papers/lopes2017     # prints the tables as Markdown
python papers/claims.py check  papers/*/claims.json # exit 1 where a claim is malformed or contradicts itself
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

STATUS = ("reproduced", "better", "worse", "no paper figure", "not run")
FIELDS = {
    "id", "place", "unit", "paper", "ours", "seconds", "device", "versions", "commit", "budget", "status", "deviation",
}  # fmt: skip


def claim(
    identity: str,
    place: str,
    unit: str,
    paper: float | None,
    values: dict[int, float],
    *,
    tolerance: float = 0.5,
    **rest: Any,
) -> dict[str, Any]:
    """One claim from our value by seed; `status` follows from the numbers: see `status_of`."""
    ours = None
    if values:
        numbers = [values[seed] for seed in sorted(values)]
        sd = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
        mean = round(statistics.fmean(numbers), 3)
        ours = {"mean": mean, "sd": round(sd, 3), "n": len(numbers), "seeds": sorted(values), "values": numbers}
    known = {"id": identity, "place": place, "unit": unit, "paper": paper, "ours": ours, **rest}
    return {**known, "status": status_of(paper, ours, tolerance)}


def status_of(paper: float | None, ours: dict[str, Any] | None, tolerance: float = 0.5) -> str:
    """How ours stands to the paper's figure, a percentage where more is better.

    Within `tolerance`, or within one standard deviation between seeds where that is more, it is "reproduced".
    """
    if ours is None:
        return "not run"
    if paper is None:
        return "no paper figure"
    if abs(ours["mean"] - paper) <= max(tolerance, ours["sd"]):
        return "reproduced"
    return "better" if ours["mean"] > paper else "worse"


def check(claims: list[dict[str, Any]]) -> list[str]:
    """What is wrong with them, one line each; empty where nothing is."""
    wrong = []
    identities = [own.get("id") for own in claims]
    wrong += [f"{identity}: twice" for identity in sorted(set(identities)) if identities.count(identity) > 1]
    for own in claims:
        missing = FIELDS - own.keys()
        if missing:
            wrong.append(f"{own.get('id')}: no {', '.join(sorted(missing))}")
            continue
        if own["status"] not in STATUS or own["status"] != status_of(own["paper"], own["ours"]):
            wrong.append(
                f"{own['id']}: status {own['status']!r}, the numbers say {status_of(own['paper'], own['ours'])!r}"
            )
        if own["ours"] is not None and own["ours"]["n"] != len(own["ours"]["seeds"]):
            wrong.append(f"{own['id']}: n {own['ours']['n']} but seeds {own['ours']['seeds']}")
        if own["status"] == "worse" and not own["deviation"]:
            wrong.append(f"{own['id']}: worse than the paper and no reason given")
    return wrong


WAY = {
    "mean": "mean", "best": "best", "lost": "best - last", "drawdown": "largest fall", "decreases": "sum of falls",
    "sd": "sd of epochs", "speed": "images a CPU-second", "bytes": "bytes replayed from",
}  # fmt: skip
"""Figures of a game beside its last epoch, and their titles."""


def render(claims: list[dict[str, Any]]) -> str:
    """Markdown: one table a data set and teacher, rows in the order of the file; what happens on a game's way is another."""
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    for own in claims:
        data, teacher, row = own["id"].split("/", 2)
        groups.setdefault(f"{data}/{teacher}", {})[row] = own
    return "\n\n".join(_group(name, rows) for name, rows in groups.items()) + "\n"


def _group(name: str, rows: dict[str, dict[str, Any]]) -> str:
    lines = [f"### {name}", "", "| row | paper | ours | seeds | seconds | status |", "|---|---:|---:|---:|---:|---|"]
    way: dict[str, dict[str, str]] = {}
    for row, own in rows.items():
        ours, (game, _, figure) = own["ours"], row.partition("/")
        figure, comma, who = figure.partition(", ")
        if figure in WAY and f"{game}/speed" in rows:
            digits = 0 if figure in ("speed", "bytes") else 2
            way.setdefault(game + comma + who, {})[figure] = spread(ours, digits)
            continue
        paper = "-" if own["paper"] is None else f"{own['paper']:.2f}"
        seconds = "-" if own["seconds"] is None else f"{own['seconds']:.0f}"
        lines.append(f"| {row} | {paper} | {spread(ours)} | {ours['n'] if ours else 0} | {seconds} | {own['status']} |")
    notes = [f"- {row}: {own['deviation']}" for row, own in rows.items() if own["deviation"]]
    if way:
        notes += [
            "| over the second half of the epochs | " + " | ".join(WAY.values()) + " |",
            "|---|" + "---:|" * len(WAY),
        ]
        notes += [f"| {game} | " + " | ".join(own.get(key, "") for key in WAY) + " |" for game, own in way.items()]
    return "\n".join([*lines, "", *notes])


def spread(ours: dict[str, Any] | None, digits: int = 2) -> str:
    """Mean and standard deviation; the mean alone of a single seed, which has no spread."""
    if ours is None:
        return "-"
    return f"{ours['mean']:,.{digits}f}" + (
        f" ± {ours['sd']:,.{digits}f}" if ours["n"] > 1 and (digits or ours["sd"]) else ""
    )


def compare(claims: list[dict[str, Any]], columns: dict[str, str], rows: dict[str, str]) -> str:
    """Markdown: one column a pair (id -> title) and one row a row (name -> title), mean, sd and number of seeds."""
    known = {own["id"]: own["ours"] for own in claims}
    lines = ["| | " + " | ".join(columns.values()) + " |", "|---|" + "---:|" * len(columns)]
    for row, title in rows.items():
        cells = [known.get(f"{pair}/{row}") for pair in columns]
        texts = [spread(own) + (f" (n = {own['n']})" if own else "") for own in cells]
        lines.append(f"| {title} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


HEADLINE = (
    {"mnist/hinton": "HINTON 1200 -> 800", "mnist/lenet5": "LeNet-5 -> half"},
    {
        "teacher": "teacher",
        "kd": "student distilled on the real data (`kd`)",
        "safe": "**student without data**, the default record (30 kB)",
        "best": "**student without data**, the largest record (`best`)",
        "spectral-pairs": "the paper's best objective (`spectral-pairs`)",
        "top": "the paper's smallest record (`top`)",
    },
)


RESNETS = {"cifar10/resnet20": "ResNet-20", "cifar10/resnet44": "ResNet-44"}
QUANTIZED = (
    RESNETS,
    {
        "fp32": "full precision",
        "w8a8/none": "W8A8, no images (DFQ)",
        "w8a8/gaussian": "W8A8, noise",
        "w8a8/inception": "W8A8, `inception`",
        "w8a8/bns": "W8A8, `bns`",
        "w8a8-corrected/bns": "W8A8, `bns`, equalised, biases corrected",
        "w8a8/bns-inception": "W8A8, `bns-inception`",
        "w8a8/real": "W8A8, real images",
        "w4a4-calibrated/none": "W4A4, no images (DFQ)",
        "w4a4-calibrated/gaussian": "W4A4, noise",
        "w4a4-calibrated/bns": "W4A4, `bns`",
        "w4a4-calibrated/real": "W4A4, real images",
        "w4a4-corrected/gaussian": "W4A4, noise, equalised, biases corrected",
        "w4a4-corrected/bns": "W4A4, `bns`, equalised, biases corrected",
        "w4a4-corrected/real": "W4A4, real images, equalised, biases corrected",
        "w4a4/gaussian": "W4A4, fine-tuned on noise",
        "w4a4/bns": "W4A4, fine-tuned on `bns`",
        "w4a4/bns-inception": "**W4A4, fine-tuned on `bns-inception`**",
        "w4a4/real": "W4A4, fine-tuned on 10,000 real images",
        "w3a3/bns-inception": "W3A3, fine-tuned on `bns-inception`",
        "w3a3/real": "W3A3, fine-tuned on 10,000 real images",
        "int8-speedup": "int8 ONNX, times the speed of fp32 ONNX",
        "int8-size": "int8 ONNX, % of the size of fp32 ONNX",
        "int8-exported/argmax": "int8 ONNX answers as the simulation, % of test images",
    },
)
ALIKE = (
    {**RESNETS, "mnist/lenet5-bn": "small network on MNIST"},
    {
        "similarity/train": "its training data",
        "similarity/test": "its test data",
        "similarity/cifar100": "CIFAR-100",
        "similarity/fashion-mnist": "Fashion-MNIST",
        "similarity/bns": "`bns`",
        "similarity/bns-inception": "`bns-inception`",
        "similarity/inception": "`inception`",
        "similarity/noise": "noise",
        "similarity/train, shown as in training": "**shown as in training**: its training data",
        "similarity/test, shown as in training": "its test data",
        "similarity/cifar100, shown as in training": "CIFAR-100",
        "similarity/bns, shown as in training": "`bns`",
        "similarity/bns-inception, shown as in training": "`bns-inception`",
        "similarity/inception, shown as in training": "`inception`",
        "similarity/noise, shown as in training": "noise",
    },
)
EXPANDED = (
    {"mnist/lenet5": "MNIST", "fashion-mnist/lenet5": "Fashion-MNIST"},
    {
        "teacher": "teacher",
        "kd": "student on the real data, as many steps",
        "condensed-1/alone": "1 condensed image a class: alone",
        "condensed-1/naive": "and plain inversion",
        "condensed-1/anchors": "and `expand`, unguided",
        "condensed-1/guided": "and `expand`",
        "condensed-1/augmented": "**alone, bent and exposed**",
        "condensed-1/naive-augmented": "**and plain inversion**",
        "condensed-1/guided-augmented": "**and `expand`**",
        "few-10/alone": "10 real images a class: alone",
        "few-10/naive": "and plain inversion",
        "few-10/anchors": "and `expand`, unguided",
        "few-10/guided": "and `expand`",
        "few-10/augmented": "**alone, bent and exposed**",
        "few-10/guided-augmented": "**and `expand`**",
        "kmeans-1/alone": "1 k-means centre a class: alone",
        "kmeans-1/guided": "and `expand`",
    },
)
PAGES = {
    "binici2024": (("docs/condensed.md", "expanding", EXPANDED),),
    "lopes2017": (("README.md", "results", HEADLINE),),
    "haroush2020": (("docs/quantization.md", "quantization", QUANTIZED), ("docs/similarity.md", "similarity", ALIKE)),
}
"""Folder -> (page, name of the marks, columns and rows)."""


def between(page: Path, name: str, text: str) -> None:
    """Replaces what stands between `<!-- name:begin -->` and `<!-- name:end -->` in a Markdown page."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    whole = page.read_text(encoding="utf-8")
    if begin not in whole or end not in whole:
        raise SystemExit(f"{page} has no {begin} ... {end}; add the marks where the text should stand")
    head, rest = whole.split(begin, 1)
    page.write_text(f"{head}{begin}\n{text}{end}{rest.split(end, 1)[1]}", encoding="utf-8")


def load(path: Path) -> list[dict[str, Any]]:
    """The claims of a file, or of the claims.json in a folder."""
    path = path / "claims.json" if path.is_dir() else path
    return json.loads(path.read_text(encoding="utf-8"))["claims"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("render", "update", "check"))
    parser.add_argument("paths", type=Path, nargs="+")
    args = parser.parse_args()
    wrong = []
    for path in args.paths:
        if args.verb == "render":
            print(render(load(path)))
        elif args.verb == "update":
            path = path.resolve()
            between(path / "README.md", "claims", render(load(path)))
            for page, name, table in PAGES.get(path.name, ()):
                between(path.parents[1] / page, name, compare(load(path), *table))
        else:
            wrong += [f"{path}: {line}" for line in check(load(path))]
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
