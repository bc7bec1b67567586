"""Speed and memory of every synthesis method: one command, one run, a table of ratios.

    python benchmarks/synthesis.py                 # MNIST from --data-dir / DATAFREE_DATA, else digits
    python benchmarks/synthesis.py --markdown      # the table of docs/benchmarks.md

Each method runs in a process of its own on one thread. Its speed is measured beside a large matrix product in the same
process, so that the share of the machine's peak means the same on any machine. Absolute times do not.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from datafree._core.errors import UserError
from datafree.data import load
from datafree.distillation.distill import Distillation, distill
from datafree.distillation.sources import FreshImages, stored_images
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.records import presets
from datafree.records.record import Record, record
from datafree.releases.load import new_model
from datafree.synthesis import methods
from datafree.synthesis.methods.inversion import BoundInversion
from datafree.synthesis.synthetic_set import synthesize

METHODS = ("top", "all", "all-dropout", "spectral-all", "spectral-pairs", "matched", "distribution")
BASELINE = "all"


@dataclass(frozen=True)
class Measured:
    """One method: images and steps by CPU-second, share of the matmul peak, seconds from record to student."""

    name: str
    images: float
    image_steps: float
    peak_share: float | None
    prepare: float
    student: float
    memory: float
    growth: float


def measure(name: str, model: str, precision: str, images: int, steps: int, data_dir: str | None) -> Measured:
    """Runs in a fresh process on one thread."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    teacher, known = _published(model, name, data_dir)
    settings = {} if name == "distribution" else {"steps": steps, "precision": precision}
    method = methods.from_dict({"method": name, **settings})
    began = time.process_time()
    maker = method.bind(teacher, known)
    maker.chunk(0, 0, 256)  # a graph's basis is built when it is first needed
    prepare = time.process_time() - began
    before = _memory()
    small = _seconds(lambda: [maker.chunk(index, 0, 256) for index in range(max(1, images // 1024))])
    large = _seconds(lambda: [maker.chunk(index, 0, 256) for index in range(images // 256)])
    rate = images / large
    student = _student(teacher, known, method, images)
    flops = _flops(teacher, maker) * steps if isinstance(maker, BoundInversion) else None
    share = None if flops is None else flops * rate / _matmul_peak(precision)
    made = max(1, images // 1024) * 256
    return Measured(
        name, rate, rate * (steps if flops else 1), share, prepare, student, max(_memory(), before),
        (large / images) / (small / made),
    )  # fmt: skip


def _published(model: str, name: str, data_dir: str | None) -> tuple[Network, Record]:
    """An untrained teacher with a record of what the method needs: speed does not depend on the weights' values."""
    try:
        data = load("mnist", "train", data_dir=data_dir).subset(6000)
    except UserError:
        data = load("digits", "train")
    side = (32, 32) if model.startswith("lenet5") else data.shape[1:]
    spec = InputSpec(shape=(data.shape[0], *side), classes=data.classes)
    teacher = new_model(model, spec, seed=0)
    if name == "matched":
        wanted = [*presets.paper_row("all", teacher), *presets.best(teacher)[1:]]
    else:
        wanted = presets.best(teacher) if name == "distribution" else presets.paper_row(name, teacher)
    return teacher, replace(record(teacher, data, wanted), accumulators={})  # so that preparing them is timed


def _seconds(work: Any) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _memory() -> float:
    """The process's largest resident size so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _flops(teacher: Network, maker: BoundInversion) -> float:
    """Floating-point operations (2 a multiply-add) of one image and step: the forward pass, and the gradient's."""
    x = torch.rand(1, *teacher.spec.shape, requires_grad=True)
    for parameter in maker.teacher.module.parameters():
        parameter.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        teacher.logits(x).sum().backward()
    return float(counter.get_total_flops())


def _matmul_peak(precision: str) -> float:
    """Operations a second of a 1024^3 matrix product in this number format on this thread."""
    a = torch.randn(1024, 1024).to(getattr(torch, precision))
    for _ in range(3):
        a @ a
    began, count = time.process_time(), 20
    for _ in range(count):
        a @ a
    return 2 * 1024**3 * count / (time.process_time() - began)


def _student(teacher: Network, known: Record, method: Any, images: int) -> float:
    """Seconds from the record to a student: making the images, then ten passes over them."""
    began = time.perf_counter()
    student = new_model({"hinton1200": "hinton800", "lenet5": "lenet5-half"}[teacher.name], teacher.spec, seed=1)
    settings = Distillation(epochs=10, batch=128, temperature=4)
    if method.method == "distribution":
        distill(teacher, student, FreshImages(teacher.spec, method.bind(teacher, known), images), settings)
    else:
        with tempfile.TemporaryDirectory() as folder:
            made = synthesize(teacher, known, method, Path(folder) / "set", images=images, workers=1)
            distill(teacher, student, stored_images(made), settings)
    return time.perf_counter() - began


def table(model: str, precision: str, rows: list[Measured]) -> str:
    """Markdown; the last columns are ratios to the baseline's."""
    base = next(row for row in rows if row.name == BASELINE)
    lines = [
        f"### {model}, {precision}",
        "",
        f"| method | images / CPU s | image-steps / CPU s | of matmul peak | prepare, s | record to student, s | peak MB "
        f"| cost per image at 4x the images | images / CPU s, `{BASELINE}` = 1 | to student, `{BASELINE}` = 1 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        share = "-" if row.peak_share is None else f"{100 * row.peak_share:.0f} %"
        lines.append(
            f"| {row.name} | {row.images:,.0f} | {row.image_steps:,.0f} | {share} | {row.prepare:.1f} | {row.student:.1f} "
            f"| {row.memory:,.0f} | {row.growth:.2f} | {row.images / base.images:.2f} | {row.student / base.student:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--models", nargs="+", default=["hinton1200", "lenet5"], choices=("hinton1200", "lenet5"))
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"], choices=("float32", "bfloat16"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--data-dir", default=os.environ.get("DATAFREE_DATA"))
    args = parser.parse_args()
    if args.images < 1024:
        parser.error("--images: wanted at least 1024, so that growth can be measured")
    for model in args.models:
        for precision in args.precisions:
            rows = []
            for name in dict.fromkeys([BASELINE, *args.methods]):
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    call = pool.submit(measure, name, model, precision, args.images, args.steps, args.data_dir)
                    rows.append(call.result())
                print(f"measured {model} {precision} {name}", file=sys.stderr)
            print(table(model, precision, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
