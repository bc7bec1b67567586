"""One run in a process of its own: `python -m benchmarks.peers.child JOB.json CELL.json`, started by run.py.

The process replaces parts of torch and of the import system for good, and the peer's code may do anything; nothing of that
reaches another run.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import chdir
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.adapters import Job, adapter
from benchmarks.peers.budget import Budget
from benchmarks.peers.tasks import TASKS, accuracy_on, new_model, teacher_of
from datafree._core.files import read_json, write_json
from datafree.models.network import Network
from datafree.runs.run_log import commit, device_name, versions


def measured(job: dict[str, Any]) -> dict[str, Any]:
    """Runs the job. Returns its cell: the curve of (CPU seconds, accuracy in %), and what decided it."""
    task = TASKS[job["data"]]
    train, test = (task.images(split, job["data_dir"]) for split in ("train", "test"))
    teacher = teacher_of(task, Path(job["teacher"]), job["data_dir"], seed=0)
    student = new_model(task.student, task.spec(test), seed=job["seed"])
    accuracy = accuracy_on(test, student.spec)

    def measure(network: Network) -> float:
        percent = accuracy(network)
        print(f"{time.process_time():.0f} CPU seconds of the process: {percent:.2f} %", flush=True)
        return percent

    budget = Budget(job["seconds"], lambda: measure(student))
    provenance = {"device": device_name("cpu"), "versions": versions(), "commit": commit()}
    teacher_accuracy = measure(teacher)
    for module in (teacher.module, student.module):
        module.train(module is student.module)
    run = Job(
        job["method"], task.data, teacher, student, task.feature, budget, job["settings"], job["seed"],
        Path(job["folder"]), train, measure,
    )  # fmt: skip
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as work, chdir(work):
        adapter(job["method"]).run(run)
    if not budget.curve:
        raise RuntimeError("the run ended without a measurement")
    return {
        "curve": budget.curve, "cpu_seconds": budget.curve[-1][0], "wall_seconds": round(time.perf_counter() - start, 1),
        "optimizer_steps": budget.steps, "teacher_accuracy": teacher_accuracy, **provenance,
    }  # fmt: skip


def main() -> int:
    job_path, cell_path = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    job = read_json(job_path)
    write_json(cell_path, {**job["identity"], **measured(job)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
