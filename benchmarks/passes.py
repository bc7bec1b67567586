"""A step on the pixels in every way the teacher's passes can run: number format, order in memory, torch.compile.

    python benchmarks/passes.py                    # ResNet-20 and LeNet-5
    python benchmarks/passes.py --cases resnet44:bns

CPU time of a step by the clock of the process, on one thread, all ways in turn, round by round, in one process a case. The
objective is eager in every way. With torch.compile the network's forward and backward are one graph each, whose outputs
are the logits and the activations that the objective asks for; "ready" is how long the first step took; only a case's
first compiled way finds nothing compiled before. Weights are untrained: the speed does not depend on their values.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, nullcontext
from multiprocessing import get_context
from statistics import median

import torch
from torch import Tensor

from datafree.models import hooks
from datafree.models.input_spec import InputSpec
from datafree.models.memory_format import channels_last
from datafree.models.network import Network, frozen
from datafree.releases.load import new_model
from datafree.synthesis import methods
from datafree.synthesis.losses import View

Step = Callable[[], object]
Way = tuple[str, bool, bool]
"""Number format, channels last, compiled."""


def a_step(stack: ExitStack, model: str, method: str, way: Way, images: int) -> Step:
    """The gradient of the objective to the pixels of a network of this way's own, for as long as `stack` is open."""
    precision, last, compiled = way
    shape = (1 if model.startswith("lenet5") else 3, 32, 32)
    network = new_model(model, InputSpec(shape=shape, classes=tuple("0123456789")), seed=0)
    objective = methods.from_name(method).bind(network, None).objective
    stack.enter_context(channels_last(network) if last else nullcontext())
    stack.enter_context(frozen(network.module))
    look = _looked(stack, network, objective.taps, precision == "bfloat16")
    # these hooks stay for the life of the graph; a graph outlives hooks that go, and does not notice
    look = torch.compile(look, dynamic=False, fullgraph=True) if compiled else look
    start, labels = torch.rand(images, *shape, generator=torch.Generator().manual_seed(0)), torch.arange(images) % 10

    def step() -> Tensor:
        pixels = start.clone().requires_grad_(True)
        logits, activations = look(pixels)
        total, _ = objective(View(pixels, labels, logits, {**activations, hooks.INPUT: pixels}))
        return torch.autograd.grad(total, pixels)[0]

    return step


def _looked(
    stack: ExitStack, network: Network, wanted: tuple[str, ...], narrow: bool
) -> Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]:
    wanted = tuple(tap for tap in wanted if tap != hooks.INPUT)
    seen = stack.enter_context(hooks.watch(network, wanted))

    def look(pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            logits = network.logits(pixels)
        return logits, {tap: seen[tap] for tap in wanted}

    return look


def timed(model: str, method: str, images: int, rounds: int) -> dict[Way, tuple[list[float], float, float]]:
    """Way -> CPU ms of a step by round, seconds until its first step was done, distance of its gradient to the plain one."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    found: dict[Way, tuple[list[float], float, float]] = {}
    ways = [(form, last, own) for form in ("float32", "bfloat16") for last in (False, True) for own in (False, True)]
    with ExitStack() as stack:
        steps = {way: a_step(stack, model, method, way, images) for way in ways}
        plain = steps[ways[0]]()
        for way, step in steps.items():
            began = time.perf_counter()
            gradient = step()
            apart = float((gradient - plain).norm() / plain.norm())  # type: ignore[operator, union-attr]
            found[way] = ([], time.perf_counter() - began, apart)
            step()
        for _ in range(rounds):
            for way, step in steps.items():
                began = time.process_time()
                for _ in range(3):
                    step()
                found[way][0].append(1e3 * (time.process_time() - began) / 3)
    return found


def table(found: dict[Way, tuple[list[float], float, float]]) -> str:
    """Markdown; speeds are the medians over rounds of the ratio within a round."""
    lines = [
        "| number format | in memory | passes | CPU ms a step, by round | speed, plain = 1 | ready, s | gradient apart |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    plain = next(iter(found.values()))[0]
    for (precision, last, compiled), (rounds, ready, apart) in found.items():
        speed = median(base / own for base, own in zip(plain, rounds, strict=True))
        lines.append(
            f"| {precision} | {'channels last' if last else 'contiguous'} | {'compiled' if compiled else 'eager'} "
            f"| {', '.join(f'{own:.0f}' for own in rounds)} | {speed:.2f} | {ready:.1f} | {apart:.0e} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = ["resnet20:bns", "resnet20:inception", "lenet5:inception"]
    parser.add_argument("--cases", nargs="+", default=cases, metavar="MODEL:METHOD", help="a method without a record")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    for case in args.cases:
        model, _, method = case.partition(":")
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # so that "ready" is what a first run waits
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                found = pool.submit(timed, model, method, args.images, args.rounds).result()
        print(f"### {model}, `{method}`, {args.images} images, torch {torch.__version__}\n")
        print(table(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
