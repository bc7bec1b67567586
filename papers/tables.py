"""Claims as Markdown: the tables of a paper's README and the comparisons in the docs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["PAGES", "compare", "insert", "render", "spread"]

STABILITY = {
    "mean_accuracy": "mean", "best_accuracy": "best", "drop_from_best": "best - last", "largest_fall": "largest fall",
    "sum_of_falls": "sum of falls", "sd_of_epochs": "sd of epochs", "images_per_cpu_second": "images per CPU-second",
    "replayed_bytes": "bytes replayed from",
}  # fmt: skip
"""Metrics of an online run beside its last epoch, and their columns; with the prefix `unaveraged_` for the second
student.
"""
WHOLE = ("images_per_cpu_second", "replayed_bytes")
"""Metrics that are shown without decimals."""
UNAVERAGED = "unaveraged_"
"""Prefix of the metrics of the student that learns; without it they are those of its moving average, which is kept."""


def render(claims: Iterable[Mapping[str, Any]]) -> str:
    """One table per data set and teacher, with the rows in the order of the file; the stability of online runs is
    another.
    """
    pairs: dict[str, dict[str, Mapping[str, Any]]] = {}
    for entry in claims:
        data, teacher, row = entry["id"].split("/", 2)
        pairs.setdefault(f"{data}/{teacher}", {})[row] = entry
    return "\n\n".join(_pair(name, rows) for name, rows in pairs.items()) + "\n"


def _pair(name: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [f"### {name}", "", "| row | paper | ours | seeds | seconds | status |", "|---|---:|---:|---:|---:|---|"]
    for row, entry in rows.items():
        lines += _result_lines(row, entry)
    lines += ["", *(f"- {row}: {entry['deviation']}" for row, entry in rows.items() if entry["deviation"])]
    stability = [line for row, entry in rows.items() for line in _stability_lines(row, entry["metrics"])]
    if stability:
        columns = STABILITY.values()
        lines.append("| over the second half of the epochs | " + " | ".join(columns) + " |")
        lines += ["|---|" + "---:|" * len(columns), *stability]
    return "\n".join(lines)


def _result_lines(row: str, entry: Mapping[str, Any]) -> list[str]:
    seconds = "-" if entry["seconds"] is None else f"{entry['seconds']:.0f}"
    if not entry["metrics"]:
        return [f"| {row} | - | - | 0 | {seconds} | not run |"]
    lines = []
    for name, metric in entry["metrics"].items():
        if name.removeprefix(UNAVERAGED) in STABILITY:
            continue
        ours = metric["ours"]
        paper = "-" if metric["paper"] is None else f"{metric['paper']['value']:.2f}"
        seeds = 0 if ours is None else len(ours["by_seed"])
        label = metric.get("title") or _label(row, name)
        lines.append(f"| {label} | {paper} | {spread(ours)} | {seeds} | {seconds} | {metric['status']} |")
    return lines


def _label(row: str, metric: str) -> str:
    if metric == "accuracy":
        return row
    return f"{row}, the student that learns" if metric == f"{UNAVERAGED}accuracy" else f"{row}, {metric}"


def _stability_lines(row: str, metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for prefix in ("", UNAVERAGED):
        cells = [
            spread(metrics[prefix + name]["ours"], 0 if name in WHOLE else 2) if prefix + name in metrics else ""
            for name in STABILITY
        ]
        if any(cells):
            lines.append(f"| {_label(row, f'{prefix}accuracy')} | " + " | ".join(cells) + " |")
    return lines


def spread(ours: Mapping[str, Any] | None, digits: int = 2) -> str:
    """Mean and standard deviation; for a single seed, which has no spread, the mean alone."""
    if ours is None:
        return "-"
    mean = f"{ours['mean']:,.{digits}f}"
    if len(ours["by_seed"]) == 1 or (digits == 0 and not ours["sd"]):
        return mean
    return f"{mean} ± {ours['sd']:,.{digits}f}"


Columns = Mapping[str, str]
"""Data set and teacher -> title of the column."""
Rows = Mapping[str | tuple[str, str], str]
"""Row, or row and metric -> title of the line. A row alone stands for its accuracy."""


def compare(claims: Iterable[Mapping[str, Any]], columns: Columns, rows: Rows) -> str:
    """One column per data set and teacher, one line per row: mean, standard deviation and number of seeds."""
    metrics = {entry["id"]: entry["metrics"] for entry in claims}
    lines = ["| | " + " | ".join(columns.values()) + " |", "|---|" + "---:|" * len(columns)]
    for key, title in rows.items():
        row, metric = (key, "accuracy") if isinstance(key, str) else key
        results = [metrics.get(f"{pair}/{row}", {}).get(metric, {}).get("ours") for pair in columns]
        cells = [spread(ours) + (f" (n = {len(ours['by_seed'])})" if ours else "") for ours in results]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def insert(page: Path, name: str, text: str) -> None:
    """Replaces the text between `<!-- name:begin -->` and `<!-- name:end -->` in a Markdown page."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    content = page.read_text(encoding="utf-8")
    if begin not in content or end not in content:
        raise SystemExit(f"{page} has no {begin} ... {end}; add the marks where the text should stand")
    head, rest = content.split(begin, 1)
    page.write_text(f"{head}{begin}\n{text}{end}{rest.split(end, 1)[1]}", encoding="utf-8")


HEADLINE: tuple[Columns, Rows] = (
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
QUANTIZED: tuple[Columns, Rows] = (
    RESNETS,
    {
        "fp32": "full precision",
        "w8a8/none": "W8A8, no images (DFQ)",
        "w8a8-squant/none": "W8A8, no images (SQuant alone)",
        "w8a8-default/none": "W8A8, no images (DFQ and SQuant)",
        "w8a8/gaussian": "W8A8, noise",
        "w8a8/inception": "W8A8, `inception`",
        "w8a8/bns": "W8A8, `bns`",
        "w8a8-corrected/bns": "W8A8, `bns`, equalised, biases corrected",
        "w8a8/bns-inception": "W8A8, `bns-inception`",
        "w8a8/real": "W8A8, real images",
        "w8a8-default/real": "W8A8, real images, equalised, biases corrected, SQuant",
        "w4a4-calibrated/none": "W4A4, no images (DFQ)",
        "w4a4-squant/none": "W4A4, no images (SQuant alone)",
        "w4a4-default/none": "W4A4, no images (DFQ and SQuant)",
        "w4a4-calibrated/gaussian": "W4A4, noise",
        "w4a4-calibrated/bns": "W4A4, `bns`",
        "w4a4-calibrated/real": "W4A4, real images",
        "w4a4-corrected/gaussian": "W4A4, noise, equalised, biases corrected",
        "w4a4-corrected/bns": "W4A4, `bns`, equalised, biases corrected",
        "w4a4-corrected/real": "W4A4, real images, equalised, biases corrected",
        "w4a4-default/real": "W4A4, real images, equalised, biases corrected, SQuant",
        "w4a4/gaussian": "W4A4, fine-tuned on noise",
        "w4a4/bns": "W4A4, fine-tuned on `bns`",
        "w4a4/bns-inception": "**W4A4, fine-tuned on `bns-inception`**",
        "w4a4/real": "W4A4, fine-tuned on 10,000 real images",
        "w3a3-squant/none": "W3A3, no images (SQuant alone)",
        "w3a3-default/none": "W3A3, no images (DFQ and SQuant)",
        "w3a3-default/real": "W3A3, real images, equalised, biases corrected, SQuant",
        "w3a3/bns-inception": "W3A3, fine-tuned on `bns-inception`",
        "w3a3/real": "W3A3, fine-tuned on 10,000 real images",
        ("int8", "speedup"): "int8 ONNX, times the speed of fp32 ONNX",
        ("int8", "size"): "int8 ONNX, % of the size of fp32 ONNX",
        ("int8", "exported_argmax"): "int8 ONNX answers as the simulation, % of test images",
    },
)
SIMILARITY: tuple[Columns, Rows] = (
    {**RESNETS, "mnist/lenet5-bn": "small network on MNIST"},
    {
        ("similarity", "train"): "its training data",
        ("similarity", "test"): "its test data",
        ("similarity", "cifar100"): "CIFAR-100",
        ("similarity", "fashion_mnist"): "Fashion-MNIST",
        ("similarity", "bns"): "`bns`",
        ("similarity", "bns_inception"): "`bns-inception`",
        ("similarity", "inception"): "`inception`",
        ("similarity", "noise"): "noise",
        ("similarity", "train_augmented"): "**shown as in training**: its training data",
        ("similarity", "test_augmented"): "its test data",
        ("similarity", "cifar100_augmented"): "CIFAR-100",
        ("similarity", "bns_augmented"): "`bns`",
        ("similarity", "bns_inception_augmented"): "`bns-inception`",
        ("similarity", "inception_augmented"): "`inception`",
        ("similarity", "noise_augmented"): "noise",
    },
)
EXPANDED: tuple[Columns, Rows] = (
    {"mnist/lenet5": "MNIST", "fashion-mnist/lenet5": "Fashion-MNIST"},
    {
        "teacher": "teacher",
        "kd": "student on the real data, as many steps",
        "condensed-1/alone": "1 condensed image per class: alone",
        "condensed-1/naive": "and plain inversion",
        "condensed-1/anchors": "and `expand`, unguided",
        "condensed-1/guided": "and `expand`",
        "condensed-1/augmented": "**alone, with warps and exposure changes**",
        "condensed-1/naive-augmented": "**and plain inversion**",
        "condensed-1/guided-augmented": "**and `expand`**",
        "few-10/alone": "10 real images per class: alone",
        "few-10/naive": "and plain inversion",
        "few-10/anchors": "and `expand`, unguided",
        "few-10/guided": "and `expand`",
        "few-10/augmented": "**alone, with warps and exposure changes**",
        "few-10/guided-augmented": "**and `expand`**",
        "kmeans-1/alone": "1 k-means centre per class: alone",
        "kmeans-1/guided": "and `expand`",
    },
)
PAGES: Mapping[str, tuple[tuple[str, str, Columns, Rows], ...]] = {
    "binici2024": (("docs/condensed.md", "expanding", *EXPANDED),),
    "lopes2017": (("README.md", "results", *HEADLINE),),
    "haroush2020": (
        ("docs/quantization.md", "quantization", *QUANTIZED),
        ("docs/similarity.md", "similarity", *SIMILARITY),
    ),
}
"""Folder of a paper -> (page, name of its marks, columns, rows)."""
