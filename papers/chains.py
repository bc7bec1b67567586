"""What every paper's run.py shares: its flags, its chains in parallel processes, and the claims at the end.

A chain is all rows of one pair and one seed: `Chain(pair, seed, ...)` with `run(say)`, which writes each cell as soon as it
is measured and skips cells that exist.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from datafree.models.precision import fastest_precision
from papers.claims import load, metric, save
from papers.tables import render

__all__ = ["PRECISION", "arguments", "merged", "run", "with_gpu"]

PRECISION = fastest_precision(torch.device("cpu"))
"""Number format of the CIFAR rows on a CPU: a seed that is measured on another CPU may have another one."""


def arguments(
    doc: str | None, paper: str, budgets: Mapping[str, Any], example: str, *, rows: str | None = None
) -> argparse.ArgumentParser:
    """The flags; `example` is a prefix of an id for the help of --only, `rows` a row for --rows, if there is that flag."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", choices=tuple(budgets), default="smoke", help="size of the runs; default: smoke")
    parser.add_argument("--work", type=Path, default=None, help=f"folder of the cells; default: runs/{paper}/BUDGET")
    parser.add_argument("--out", type=Path, default=None, help="claims.json to write; default: only print the tables")
    parser.add_argument("--only", default="", help=f"only pairs whose id starts with this, e.g. {example}")
    parser.add_argument("--data-dir", default=None, help="folder of data and weights; default: DATAFREE_DATA")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1; default: cpu")
    parser.add_argument("--collect", action="store_true", help="measure nothing, write the claims of existing cells")
    parser.add_argument("--merge", action="store_true", help="keep the seeds of --out that have no cell here")
    parser.add_argument("--seeds", type=int, nargs="+", default=None, help="only these of the budget's seeds")
    if rows is not None:
        parser.add_argument(
            "--rows",
            nargs="+",
            default=(),
            help=f"only these rows, e.g. {rows}; a teacher that is trained here is measured too",
        )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="chains in parallel, one thread each")
    return parser


def run(args: argparse.Namespace, plan: Any, make: Callable[[Any, int], Any], collect: Callable[[], list[Any]]) -> int:
    """Runs the chains that `make` builds, then prints and writes the claims that `collect` returns."""
    chains = [
        (pair, seed)
        for seed in args.seeds or plan.seeds
        for pair in plan.pairs
        if pair.id.startswith(args.only) and not args.collect
    ]
    with ProcessPoolExecutor(max(1, args.jobs)) as pool:
        jobs = [pool.submit(_run_chain, make, pair, seed, args.device) for pair, seed in chains]
        for job in as_completed(jobs):
            print(f"done: {job.result()}", flush=True)
    claims = collect()
    if args.merge and args.out is not None and args.out.exists():
        claims = merged(load(args.out), claims)
    print(render(claims))
    if args.out is not None:
        save(args.out, claims)
    return 0


def with_gpu(budget: str, work: Path, collect: Callable[[str, Path], list[Any]]) -> list[Any]:
    """The claims of a budget. The cpu budget also lists those of the gpu budget, which are "not run" until they are."""
    return collect(budget, work) + (collect("gpu", work.parent / "gpu") if budget == "cpu" else [])


def merged(earlier: list[dict[str, Any]], claims: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The claims with the seeds of their earlier entries beside their own: cells may lie on several machines.

    A seed that both have is that of the cell here. Device, versions and commit are those of the entry with more seeds.
    Nothing says with which settings the earlier entries were measured: leave out those of rows that have changed.
    """
    by_id = {entry["id"]: entry for entry in earlier}
    return [_joined(by_id[entry["id"]], entry) if entry["id"] in by_id else entry for entry in claims]


def _joined(earlier: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    seeds, earlier_seeds = _seeds(entry), _seeds(earlier)
    if not earlier_seeds - seeds:
        return entry
    if not seeds:
        return earlier
    metrics: dict[str, Any] = {}
    for name in entry["metrics"].keys() & earlier["metrics"].keys():  # others lack a seed
        paper = entry["metrics"][name]["paper"]
        values = {
            int(seed): value
            for source in (earlier, entry)
            for seed, value in source["metrics"][name]["ours"]["by_seed"].items()
        }
        metrics[name] = metric(
            entry["metrics"][name]["unit"], values, title=entry["metrics"][name].get("title"),
            paper=None if paper is None else (paper["place"], paper["value"]),
        )  # fmt: skip
    added = len(earlier_seeds - seeds)
    seconds = (entry["seconds"] * len(seeds) + earlier["seconds"] * added) / (len(seeds) + added)
    newest = entry if len(seeds) >= len(earlier_seeds) else earlier
    ordered = {name: metrics[name] for name in entry["metrics"] if name in metrics}
    return {**newest, "metrics": ordered, "deviation": entry["deviation"], "seconds": round(seconds, 1)}


def _seeds(entry: Mapping[str, Any]) -> set[str]:
    """The seeds of its accuracy; of all its metrics if it has none, as a row of speeds or divergences."""
    metrics = entry["metrics"]
    chosen = [metrics["accuracy"]] if "accuracy" in metrics else [*metrics.values()]
    return {seed for each in chosen if each["ours"] is not None for seed in each["ours"]["by_seed"]}


def _run_chain(make: Callable[[Any, int], Any], pair: Any, seed: int, device: str) -> str:
    """In its own process, on one thread, so that parallel chains do not slow each other down."""
    if device == "cpu":
        torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    make(pair, seed).run(lambda text: print(text, flush=True))
    return f"{pair.id} seed {seed}"
