"""Memory and time of recording large images, and of optimising their pixels beside the estimate.

    python benchmarks/large_images.py                                     # about 40 minutes
    python benchmarks/large_images.py --cases torchvision:resnet18:bns:64
    python benchmarks/large_images.py --cases torchvision:resnet18:record-small:2000

A case is NETWORK:METHOD:IMAGES. Each runs in a process of its own on one thread, on images of 224 x 224 pixels in 1,000
classes: a method makes two steps on a chunk of so many images, and `record-PRESET` records as many. Weights are random:
neither memory nor time depends on their values. Memory is the largest resident set of the work minus that before, for a
method per image; time is CPU time per image (and step). Needs timm and torchvision.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CASES = (
    "torchvision:resnet18:bns:64", "torchvision:resnet18:inception:64", "torchvision:mobilenet_v2:bns:32",
    "timm:efficientnet_lite0:bns:32", "timm:densenet121:bns:16", "timm:vit_tiny_patch16_224:inception:64",
    "timm:convnext_atto:inception:64", *(f"torchvision:resnet18:record-{preset}:{images}" for preset in ("small", "safe")
    for images in (1000, 2000, 4000)),
)  # fmt: skip
LEAK = 1 - 1e-9
"""`safe` promises little with one image of each class; its record has the size of the smallest one."""
SIDE, CLASSES, STEPS = 224, 1000, 2
POLL = 0.002
"""Seconds between two readings of the resident set."""


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def largest_memory(call: Callable[[], object]) -> int:
    """Bytes by which the resident set of this process exceeds that before, at most, while `call` runs."""
    before, most, ended = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(POLL):
            most = max(most, resident())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        call()
    finally:
        ended.set()
        thread.join()
    return most - before


def measure(case: str) -> str:
    """The case's row of the table."""
    import torch

    import datafree as df
    from datafree.synthesis.cost import step_cost

    torch.set_num_threads(1)
    name, method, images = case.rsplit(":", 2)
    spec = df.InputSpec(shape=(3, SIDE, SIDE), classes=tuple(map(str, range(CLASSES))))
    network = df.new_model(name, spec, seed=0)
    network.module.eval()
    count = int(images)
    if method.startswith("record-"):
        return measure_record(network, name, method.removeprefix("record-"), count)
    cost = step_cost(network)
    bound = df.method(method, steps=STEPS).bind(network, None)
    began = time.process_time()
    measured = largest_memory(lambda: bound.chunk(0, 0, count)) / count / 1e6
    milliseconds = 1000 * (time.process_time() - began) / STEPS / count
    estimate = cost.bytes(count) / count / 1e6
    return f"| {name} | {method} | {count} | {estimate:.1f} | {measured:.1f} | {milliseconds:.0f} |"


def noise(count: int) -> Any:
    """A torch Dataset of images of random pixels, each computed when it is read."""
    import torch

    class Noise(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return count

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(index)), index % CLASSES

    return Noise()


def measure_record(network: Any, name: str, preset: str, count: int) -> str:
    import datafree as df

    options = {"leak": LEAK} if preset == "safe" else {}
    before, began, records = resident(), time.process_time(), []
    most = largest_memory(lambda: records.append(df.record(network, noise(count), preset, **options)))
    milliseconds = 1000 * (time.process_time() - began) / count
    size = sum(entry.nbytes() for entry in records[0].entries.values())
    return (
        f"| {name} | record-{preset} of {size / 1e6:.1f} MB | {count} | - | {most / 1e6:.0f} in all, "
        f"{(most + before) / 1e9:.2f} GB with torch and the network | {milliseconds:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="CASE")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(measure(options.one))
        return
    print("| network | method | images | MB an image, estimated | measured | CPU ms per image and step |")
    print("|---|---|---:|---:|---:|---:|")
    for case in options.cases:
        subprocess.run([sys.executable, __file__, "--one", case], check=True)


if __name__ == "__main__":
    main()
