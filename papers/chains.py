"""What every paper's run.py shares: its flags, its chains side by side in processes of their own, the claims at the end.

A chain is everything of one pair and one seed: `Chain(pair, seed, ...)` with `run(say)`, which writes each cell when it is
done and skips those that are there.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from claims import render

__all__ = ["arguments", "run", "with_gpu"]


def arguments(doc: str | None, paper: str, budgets: Mapping[str, Any], example: str) -> argparse.ArgumentParser:
    """The flags; `example` is an id that --only could begin."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", choices=tuple(budgets), default="smoke")
    parser.add_argument("--work", type=Path, default=None, help=f"where cells are kept; runs/{paper}/BUDGET by default")
    parser.add_argument("--out", type=Path, default=None, help="claims.json to write; printed only where not given")
    parser.add_argument("--only", default="", help=f"only pairs whose id starts with this, e.g. {example}")
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--collect", action="store_true", help="run nothing, write the claims of the cells that are there"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=None, help="only these of the budget's seeds")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="chains side by side, one thread each")
    return parser


def run(args: argparse.Namespace, plan: Any, make: Callable[[Any, int], Any], collect: Callable[[], list[Any]]) -> int:
    """Runs the chains that `make` builds, then prints and writes what `collect` finds."""
    chains = [
        (pair, seed)
        for seed in args.seeds or plan.seeds
        for pair in plan.pairs
        if pair.id.startswith(args.only) and not args.collect
    ]
    with ProcessPoolExecutor(max(1, args.jobs)) as pool:
        jobs = [pool.submit(_one, make, pair, seed, args.device) for pair, seed in chains]
        for done in as_completed(jobs):
            print(f"done: {done.result()}", flush=True)
    claims = collect()
    print(render(claims))
    if args.out is not None:
        args.out.write_text(json.dumps({"claims": claims}, indent=1) + "\n", encoding="utf-8")
    return 0


def with_gpu(budget: str, work: Path, collect: Callable[[str, Path], list[Any]]) -> list[Any]:
    """What `collect` finds of a budget, and of the gpu budget beside the cpu one, which is "not run" until it is."""
    return collect(budget, work) + (collect("gpu", work.parent / "gpu") if budget == "cpu" else [])


def _one(make: Callable[[Any, int], Any], pair: Any, seed: int, device: str) -> str:
    """In a process of its own, on one thread, so that chains side by side do not disturb each other."""
    if device == "cpu":
        torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    make(pair, seed).run(lambda text: print(text, flush=True))
    return f"{pair.id} seed {seed}"
