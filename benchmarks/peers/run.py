"""Runs the peers' own code with our teachers and students, and collects the table of the README.

    python -m benchmarks.peers.run --peers PEERS --data mnist --methods dafl dfad --seeds 0 1 2 --data-dir DATA
    python -m benchmarks.peers.run --data mnist --collect --out benchmarks/peers/results.json

PEERS is a folder with one checkout per peer, see README.md. Their code runs with your rights: fetch only what you trust.
Each run is one process with one thread, and is written as a cell as soon as it is measured; existing cells are skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

if not __package__:  # started by its path: the imports below need the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import datafree
from benchmarks.peers.adapters import METHODS, Peer, adapter, settings_of
from benchmarks.peers.table import collected, described, rendered, variant_of
from benchmarks.peers.tasks import TASKS, Task
from datafree._core.errors import UserError, unknown
from datafree._core.files import read_json, write_json
from papers.tables import insert

ROOT = Path(__file__).resolve().parents[2]


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, default=None, help="folder with one checkout per peer")
    parser.add_argument("--data", default="mnist", help=f"one of {', '.join(TASKS)}")
    parser.add_argument("--methods", nargs="+", default=None, help="default: every row of the table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: 0")
    parser.add_argument("--seconds", type=float, default=None, help="CPU limit of a run; default: the task's")
    parser.add_argument("--set", nargs="+", default=[], metavar="METHOD.KEY=VALUE", help="settings, for further cells")
    parser.add_argument(
        "--data-dir", default=os.environ.get("DATAFREE_DATA"), help="folder of data and weights; default: DATAFREE_DATA"
    )
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "peers", help="folder of the cells")
    parser.add_argument(
        "--out", type=Path, default=None, help="results.json to add to; README.md next to it is updated"
    )
    parser.add_argument("--collect", action="store_true", help="run nothing, collect the existing cells")
    return parser


def changes_by_method(assignments: list[str]) -> dict[str, dict[str, str]]:
    """`--set` as method -> key -> text. Raises UserError for an assignment of another form."""
    changes: dict[str, dict[str, str]] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        method, dot, key = name.partition(".")
        if not (equals and dot):
            raise UserError(f"--set: got {assignment!r}, expected METHOD.KEY=VALUE; write dafl.lr_S=0.002, for example")
        changes.setdefault(method, {})[key] = text
    return changes


def jobs_of(args: argparse.Namespace, task: Task) -> list[dict[str, Any]]:
    """One job per method and seed. Raises UserError for whatever would fail later."""
    changes, jobs = changes_by_method(args.set), []
    methods = args.methods or task.methods
    for method in [*methods, *changes]:
        adapter(method)
    for method in methods:
        peer: Peer = adapter(method).PEER
        if task.data not in peer.data:
            raise UserError(
                f"{method}: got --data {task.data}, expected {' or '.join(peer.data)}; leave the method out"
            )
        settings = settings_of(method, changes.get(method, {}))
        folder = Path(".")
        if peer.folder:
            if args.peers is None:
                raise UserError(
                    f"{method}: no --peers, expected the folder with {peer.folder}, a checkout of {peer.url}"
                )
            folder = peer.check(args.peers.resolve())
        seconds = float(args.seconds or task.seconds)
        for seed in args.seeds:
            identity = {
                "data": task.data, "method": method, "seed": seed, "seconds": seconds, "settings": settings,
                "peer_commit": _commit(folder) if peer.folder else None,
            }  # fmt: skip
            jobs.append({**identity, "folder": str(folder), "identity": identity})
    return jobs


def cell_of(work: Path, job: dict[str, Any]) -> Path:
    variant = variant_of(job["method"], job["settings"])
    return work / f"{job['data']}-{job['seconds']:g}s" / job["method"] / variant / f"seed-{job['seed']}.json"


def run(job: dict[str, Any], cell: Path, args: argparse.Namespace) -> None:
    """Runs the job in a process of its own. Its output goes to a file next to the cell, a failure into the cell."""
    cell.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    paths = [str(ROOT), str(Path(datafree.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    data_dir = None if args.data_dir is None else str(Path(args.data_dir).resolve())
    teacher = str((args.work / job["data"] / "teacher").resolve())
    with tempfile.TemporaryDirectory() as folder, cell.with_suffix(".log").open("w") as log:
        job_path = Path(folder) / "job.json"
        job_path.write_text(json.dumps({**job, "data_dir": data_dir, "teacher": teacher}), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.peers.child", str(job_path), str(cell.resolve())]
        status = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode
    if status:
        lines = [line for line in cell.with_suffix(".log").read_text(errors="replace").splitlines() if line.strip()]
        write_json(cell, {**job["identity"], "failed": lines[-1] if lines else f"exit status {status}"})


def _is_measured(cell: Path, identity: dict[str, Any]) -> bool:
    """Whether the cell has a result of the same settings and the same code of the peer."""
    stored = read_json(cell) if cell.exists() else {"failed": "absent"}
    return "failed" not in stored and all(stored.get(key) == value for key, value in identity.items())


def _commit(folder: Path) -> str | None:
    """The commit of a checkout; None if git does not know it."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD", "--show-toplevel"]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return output[0] if len(output) == 2 and Path(output[1]).resolve() == folder.resolve() else None


def main(words: list[str] | None = None) -> int:
    args = arguments().parse_args(words)
    try:
        if args.data not in TASKS:
            raise unknown("data", args.data, TASKS, "the benchmark")
        task = TASKS[args.data]
        for method in args.methods or ():
            if method not in METHODS:
                raise unknown("method", method, METHODS, "the benchmark")
        for job in [] if args.collect else jobs_of(args, task):
            cell = cell_of(args.work, job)
            if not _is_measured(cell, job["identity"]):
                run(job, cell, args)
            result = read_json(cell)
            outcome = (
                result.get("failed") or f"{result['curve'][-1][1]:.2f} % in {result['cpu_seconds']:.0f} CPU seconds"
            )
            print(f"{job['data']}/{job['method']} seed {job['seed']}: {outcome}", flush=True)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    earlier = read_json(args.out) if args.out is not None and args.out.exists() else None
    results = collected(args.work, earlier)
    print(rendered(results))
    if args.out is not None:
        write_json(args.out, results)
        readme = args.out.resolve().with_name("README.md")
        if readme.exists():
            insert(readme, "results", rendered(results) + "\n")
            insert(readme, "peers", described() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
