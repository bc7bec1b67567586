"""The size and leakage of a record against the accuracy of its student, a trade-off that the paper mentions without numbers.

    python -m papers.lopes2017.tradeoff --out papers/lopes2017/tradeoff.json

Every kind of record of one teacher (LeNet-5 on MNIST, the teachers of run.py --budget cpu): its bytes, the forecast AUC of a
membership attack, and the accuracy of a half-size student. Student and number of steps are the same for every record. The
schedule is shorter than that of `best` in claims.json, so its accuracy is lower.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from shutil import rmtree
from typing import Any

if not __package__:  # started by its path: the imports below need the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch

from datafree._core.files import read_json, write_json, write_text
from datafree.distillation.distill import Distillation, distill
from datafree.distillation.sources import FreshImages, stored_images
from datafree.evaluation.accuracy import evaluate
from datafree.evaluation.report import tradeoff_svg
from datafree.models.network import Network
from datafree.records import presets
from datafree.records.forecast import forecast_auc
from datafree.records.record import Record, record
from datafree.records.statistics.input import InputMoments
from datafree.records.statistics.moments import Moments
from datafree.records.statistics.spectral import SpectralAll, SpectralPairs
from datafree.releases.load import load_model
from datafree.runs.run_log import device_name, versions
from datafree.synthesis import methods
from datafree.synthesis.synthetic_set import synthesize
from papers.cells import current_keys
from papers.lopes2017.rows import BUDGETS
from papers.lopes2017.run import HERE, Chain
from papers.tables import insert

LEARNING = Distillation(epochs=5, batch=128, learning_rate=3e-3)
EPOCH_IMAGES = 61_440
STEPS, IMAGES = 20, 10_240

START = [(InputMoments(), None)]
PIXELS = ("input",)
KINDS = (
    "small", "safe-0.53", "safe-0.55", "safe-0.60", "safe-0.70", "safe-0.80", "mean", "diagonal", "lowrank-8",
    "lowrank-32", "shrunk", "full", "top", "all-diagonal", "all-pooled", "all-full", "spectral-all", "spectral-pairs",
    "spectral-all-class-mean", "spectral-all-examples", "all-full-matched",
)  # fmt: skip
"""Kinds of records. Names without `all`, `top` or `spectral` are moments of the pixels. `spectral-all-SIGNAL` names
the signal if it is not `class-moments`; `all-full-matched` is the record of `all-full`, used by the method
`matched`."""


def choose(kind: str, network: Network, counts: list[int]) -> tuple[list[Any], str]:
    """(statistics to record, method that uses them)."""
    if kind == "small":
        return presets.statistics("small", network, counts), "top"
    if kind.startswith("safe"):
        return presets.statistics("safe", network, counts, leak=float(kind[5:])), "distribution"
    if kind == "mean":
        return [*START, (Moments(covariance="none"), PIXELS)], "distribution"
    if kind.startswith("lowrank"):
        return [*START, (Moments(covariance="lowrank", rank=int(kind[8:])), PIXELS)], "distribution"
    if kind in ("diagonal", "shrunk", "full"):
        return [*START, (Moments(covariance=kind), PIXELS)], "distribution"  # type: ignore[arg-type]
    if kind == "all-diagonal":
        return [*START, (Moments(), None)], "all"
    if kind == "all-full-matched":
        return presets.paper_row("all", network), "matched"
    if kind == "all-pooled":
        return [*START, (Moments(covariance="lowrank", rank=32, pooled=True), None)], "all"
    if kind == "spectral-pairs":
        return [*START, (SpectralPairs(), None)], kind
    if kind.startswith("spectral-all"):
        signal: Any = kind.removeprefix("spectral-all-") if kind != "spectral-all" else "class-moments"
        return [*START, (SpectralAll(signal=signal), None)], "spectral-all"
    return presets.paper_row(kind.removesuffix("-full"), network), kind.removesuffix("-full")


def measure(kind: str, seed: int, work: Path, data_dir: str | None) -> dict[str, Any]:
    """The accuracy, size and cost of one record and its student."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    cell, folder = work / "tradeoff" / f"{kind}-{seed}.json", work / "tradeoff" / f"{kind}-{seed}"
    pair = next(pair for pair in BUDGETS["cpu"].pairs if pair.id == "mnist/lenet5")
    chain = Chain(pair, seed, work, data_dir, "cpu")
    teacher = load_model(str(chain.folder / "teacher"))
    chosen, method = choose(kind, teacher, chain.train.labels.bincount().tolist())
    limit = pair.spectral_limit if kind.startswith("spectral") else None
    settings = {
        "teacher": teacher.fingerprint(), "method": method, "recorded_images": limit, "learning": LEARNING.model_dump(),
        "what": [[statistic.model_dump(mode="json"), taps and list(taps)] for statistic, taps in chosen],
        "images": EPOCH_IMAGES if method == "distribution" else [IMAGES, STEPS],
    }  # fmt: skip
    settings = json.loads(json.dumps(settings))  # tuples are lists in the file
    stored = current_keys(read_json(cell)) if cell.exists() else {}
    if stored.get("settings") == settings:
        return stored
    rmtree(folder, ignore_errors=True)  # a set of other settings
    teacher_record = record(teacher, chain.train.subset(limit), chosen)
    start = time.perf_counter()
    student = _student(chain, teacher, teacher_record, method, folder)
    result = {
        "accuracy": evaluate(student, chain.test).accuracy, "bytes": teacher_record.nbytes(),
        "released": teacher_record.released_statistics(teacher), "seconds": round(time.perf_counter() - start, 1),
        "settings": settings,
    }  # fmt: skip
    cell.parent.mkdir(parents=True, exist_ok=True)
    write_json(cell, result)
    print(f"{kind} seed {seed}: {result['accuracy']:.2f} %, {result['bytes']:,} bytes", flush=True)
    return result


def _student(chain: Chain, teacher: Network, teacher_record: Record, method: str, folder: Path) -> Network:
    student = chain.new_network(chain.pair.student)
    if method == "distribution":
        bound = methods.from_dict({"method": method}).bind(teacher, teacher_record)
        distill(teacher, student, FreshImages(chain.spec, bound, EPOCH_IMAGES), LEARNING, seed=chain.seed)
        return student
    settings = {"method": method, "precision": "bfloat16"}
    settings |= {} if method == "matched" else {"steps": STEPS, "learning_rate": 0.03}
    synthetic = synthesize(
        teacher, teacher_record, methods.from_dict(settings), folder, images=IMAGES, seed=chain.seed, workers=1
    )
    # the same number of steps: 30 passes over 10,240 images are 5 over 61,440
    schedule = LEARNING.model_copy(update={"epochs": LEARNING.epochs * EPOCH_IMAGES // IMAGES})
    distill(teacher, student, stored_images(synthetic), schedule, seed=chain.seed)
    return student


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs") / "lopes2017" / "cpu")
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    cells = [(kind, seed) for seed in args.seeds for kind in args.kinds]
    with ProcessPoolExecutor(args.jobs) as pool:
        futures = {cell: pool.submit(measure, *cell, args.work, args.data_dir) for cell in cells}
        results = {cell: future.result() for cell, future in futures.items()}
    rows = [_row(kind, [results[kind, seed] for seed in args.seeds]) for kind in args.kinds]
    rows.sort(key=lambda row: (row["forecast_auc"], row["bytes"]))
    print(table(rows))
    if args.out is not None:
        about = {"device": device_name("cpu"), "versions": versions(), "seeds": args.seeds}
        args.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
        points = [(row["record"], row["bytes"], row["forecast_auc"], row["accuracy"]) for row in rows]
        write_text(HERE / "tradeoff.svg", tradeoff_svg(points))
        insert(HERE.parents[1] / "docs" / "records.md", "tradeoff", table(rows))
    return 0


def _row(kind: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    accuracies = [result["accuracy"] for result in results]
    return {
        "record": kind, "bytes": results[0]["bytes"], "forecast_auc": round(forecast_auc(results[0]["released"]), 3),
        "accuracy": round(statistics.fmean(accuracies), 2),
        "sd": round(statistics.stdev(accuracies), 2) if len(results) > 1 else 0.0, "n": len(results),
        "seconds": round(statistics.fmean(result["seconds"] for result in results), 1),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| record | bytes | forecast AUC | student, % | seconds |", "|---|---:|---:|---:|---:|"]
    for r in rows:
        student = f"{r['accuracy']:.2f}" + (f" ± {r['sd']:.2f}" if r["n"] > 1 else "")
        lines.append(f"| {r['record']} | {r['bytes']:,} | {r['forecast_auc']:.3f} | {student} | {r['seconds']:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
