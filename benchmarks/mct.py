"""Sony's model_compression_toolkit beside us on one checkpoint: their images and ours, their quantizer and ours.

    make bench-mct     # an environment of its own, since it wants older pydantic and matplotlib; then this file

Reads CIFAR-10 and weights/cifar10-resnet20.safetensors under --data-dir or DATAFREE_DATA. Every source of images gives the
same number; its cost is CPU time on one thread. Their images are made with their defaults, which are for ImageNet (64 x 64
cut to 32 x 32, batches of 32), and again with 4 more pixels and our batch of 128. Their loop asks for CUDA's
half precision, which on a CPU changes nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from datafree.data import load
from datafree.evaluation.accuracy import evaluate
from datafree.evaluation.similarity import similarity
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.quantization import Bits, calibrate
from datafree.releases.load import load_model
from datafree.synthesis import methods

UNIT = 128


def toolkit() -> Any:
    """The toolkit; torchvision, which it imports, fails beside a CPU build of torch for two operators of no use here."""
    try:
        import torchvision  # noqa: F401  # pyright: ignore[reportMissingImports]
    except RuntimeError:
        for name in [own for own in sys.modules if own.startswith("torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        globals()["_library"] = library
    import model_compression_toolkit  # pyright: ignore[reportMissingImports]

    return model_compression_toolkit


def quietly(work: Callable[[], Any]) -> Any:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            return work()
        finally:
            logging.disable(logging.NOTSET)


def theirs(mct: Any, network: Network, images: int, seed: int, **options: Any) -> Tensor:
    """Pixels (N, C, H, W) in the spec's range; their images are normalised as this network's are."""
    torch.manual_seed(seed)
    own = mct.data_generation
    config = own.get_pytorch_data_generation_config(**options)
    size = network.spec.shape[1:]
    made = quietly(lambda: own.pytorch_data_generation_experimental(network.module, images, tuple(size), config))
    return network.spec.clamp(network.spec.denormalize(torch.cat(list(made))[:images].float()))


def ours(network: Network, images: int, seed: int, name: str, **options: Any) -> Tensor:
    maker = methods.from_name(name, **options).bind(network, None)
    made = [maker.chunk(index, seed, UNIT).pixels for index in range(-(-images // UNIT))]
    return network.spec.clamp(torch.cat(made)[:images])


class Theirs(nn.Module):
    """Their quantized model as one of ours, for `evaluate`."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def by_their_quantizer(mct: Any, network: Network, pixels: Tensor) -> Network:
    """W8A8 by their defaults (IMX500: steps that are powers of two for activations)."""

    def shown() -> Any:
        for part in network.spec.normalize(pixels).split(64):
            yield [part]

    model, _ = quietly(lambda: mct.ptq.pytorch_post_training_quantization(network.module, shown))
    return Network(Theirs(model.eval()), network.spec, "mct")


def sources(args: argparse.Namespace, mct: Any, network: Network, data: Any) -> dict[str, Callable[[int], Tensor]]:
    """Name -> what makes the images of a seed."""
    count, steps = args.images, args.iterations
    mine, their = partial(ours, network, count), partial(theirs, mct, network, count)
    return {
        "real": lambda seed: data.pixels(range(seed * count, (seed + 1) * count), network.spec.shape[1:]),
        "noise": partial(mine, name="gaussian"),
        "ours, `bns`, 40 steps": partial(mine, name="bns", steps=40),
        f"ours, `bns`, {steps} steps": partial(mine, name="bns", steps=steps),
        "theirs, 40 steps": partial(their, n_iter=40),
        f"theirs, {steps} steps": partial(their, n_iter=steps),
        f"theirs, {steps} steps, 36 x 36, batches of {UNIT}": partial(
            their, n_iter=steps, extra_pixels=4, data_gen_batch_size=UNIT
        ),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--iterations", type=int, default=500, help="their default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--limit", type=int, default=None, help="test images; all by default")
    parser.add_argument("--data-dir", default=os.environ.get("DATAFREE_DATA"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    mct = toolkit()
    train, test = (load("cifar10", split, data_dir=args.data_dir) for split in ("train", "test"))
    test = test if args.limit is None else test.subset(args.limit)
    spec = InputSpec(shape=(3, 32, 32), classes=train.classes, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    weights = Path(args.data_dir or ".") / "weights" / f"cifar10-{args.model}.safetensors"
    network = load_model(args.model, weights=weights, spec=spec)
    plain = evaluate(network, test).accuracy
    print(f"{args.model}: {plain:.2f} % of {len(test):,} test images; {args.images} images to calibrate on\n")
    print("| images | CPU ms an image | divergence | W8A8, ours | W8A8, theirs | W4A4, ours |")
    print("|---|---:|---:|---:|---:|---:|", flush=True)
    for name, make in sources(args, mct, network, train).items():
        found: list[tuple[float, ...]] = []
        for seed in args.seeds:
            began = time.process_time()
            pixels = make(seed)
            cost = 1e3 * (time.process_time() - began) / len(pixels)
            eight = calibrate(network, pixels, Bits())
            four = calibrate(network, pixels, Bits(weights=4, activations=4))
            found.append(
                (
                    cost, similarity(network, {"own": pixels})[0].total, evaluate(eight.network, test).accuracy,
                    evaluate(by_their_quantizer(mct, network, pixels), test).accuracy,
                    evaluate(four.network, test).accuracy,
                )
            )  # fmt: skip
        cells = [
            f"{mean(own):.{digits}f}" + (f" ± {stdev(own):.{digits}f}" if len(own) > 1 else "")
            for own, digits in zip(zip(*found, strict=True), (1, 1, 2, 2, 2), strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
