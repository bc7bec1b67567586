"""The Knowledge Within (Haroush et al. 2020): synthetic samples for quantization, and data similarity; the field beside it.

    python -m papers.haroush2020.run --budget smoke   # seconds, on scikit-learn's digits; what the tests run
    python -m papers.haroush2020.run --budget cpu     # under two hours on 2 cores
    python -m papers.haroush2020.run --budget more    # and four more rows of fine-tuning; the numbers in claims.json
    python -m papers.haroush2020.run --budget imagenet  # a published ImageNet classifier, hours on a slow CPU
    python -m papers.haroush2020.run --budget gpu --device cuda

The trained networks are read from WEIGHTS/cifar10-resnet20.safetensors and cifar10-resnet44.safetensors, WEIGHTS being
--weights or the data folder's `weights`. Each cell (network, row, seed) is written as soon as it is measured, so an
interrupted run resumes. Accuracy is measured after the last epoch on the whole test set; nothing is chosen by it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

if not __package__:  # started by its path: the imports below need the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch
from torch import Tensor, nn

from datafree._core.files import read_weights, write_tensors
from datafree.data import load
from datafree.distillation.train import train
from datafree.distillation.training_loop import Schedule
from datafree.evaluation.accuracy import evaluate
from datafree.evaluation.similarity import similarity
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.models.pixel_bytes import to_pixels
from datafree.quantization import (  # fmt: skip
    Bits,
    calibrate,
    check,
    convert,
    finetune,
    integer_operators,
    run,
    session,
    speed,
    to_onnx,
)
from datafree.releases.load import load_model
from datafree.synthesis import methods
from datafree.synthesis.synthetic_set import synthesize
from papers.cells import cells_by_seed, deviations, provenance
from papers.chains import arguments
from papers.chains import run as run_chains
from papers.claims import ACCURACY, experiment, metric
from papers.haroush2020 import imagenet
from papers.haroush2020.chain import RowsOfSeed
from papers.haroush2020.rows import BUDGETS, FIELD, Pair

HERE = Path(__file__).resolve().parent
IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
UNIT = 128
AUGMENTATION: dict[str, dict[str, Any]] = {"cifar10": {"shift": 4, "flip": True}}
"""Data set -> augmentation with which its networks were trained."""


def small(spec: InputSpec, width: int = 16) -> nn.Module:
    """LeNet-5's depth with batch norm and without a bias beside it, for images of any size."""
    channels, classes = spec.shape[0], len(spec.classes)
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(2 * width, 4 * width, 3, padding=1, bias=False), nn.BatchNorm2d(4 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, classes),
    )  # fmt: skip


def settings(pair: Pair, row: str) -> dict[str, Any]:
    """Everything that decides a cell's result. A cell with other settings is measured again and is no claim."""
    if pair.data == "imagenet":
        return imagenet.settings(pair, row)
    if row in ("fp32", "similarity"):
        shown = AUGMENTATION.get(pair.data)
        return {"measured": pair.measured, "steps": pair.steps, "shown": shown, "limit": pair.limit}
    source = row.rpartition("/")[2]
    result: dict[str, Any] = {"units": pair.units, "steps": pair.steps, "calibration": pair.calibration}
    kind = row.partition("/")[0].partition("-")[2]
    if kind in ("corrected", "default"):
        result["biases"] = "analytic"
    if kind in ("squant", "default"):
        result["rounding"] = "squant"
    if row.startswith(("w4a4/", "w3a3/")):
        result["tuning"] = pair.tuning
    if source in methods.methods():
        result["method"] = method(pair, source).model_dump(mode="json")
    return {**result, "limit": pair.limit}


def method(pair: Pair, source: str) -> Any:
    options = {} if source == "gaussian" else {"steps": pair.steps, "precision": "bfloat16"}
    return methods.from_name(source, **options)


class Chain(RowsOfSeed):
    """All rows of one network and one seed."""

    ALONE = ("fp32", "int8", "similarity")

    settings = staticmethod(settings)

    @cached_property
    def network(self) -> Network:
        if self.pair.data == "cifar10":
            spec = InputSpec(shape=(3, 32, 32), classes=self.train.classes, **IMAGENET)
            path = self.weights / f"cifar10-{self.pair.name}.safetensors"
            network = load_model(self.pair.name, weights=path, spec=spec)
        else:
            network = self.trained()
        network.module.to(self.device)
        return network

    def trained(self) -> Network:
        """A network with batch norm, trained here once per seed."""
        spec = InputSpec(shape=self.train.shape, classes=self.train.classes, mean=(0.5,), std=(0.5,))
        torch.manual_seed(self.seed)
        network, path = Network(small(spec), spec, self.pair.name), self.folder / "teacher.safetensors"
        if not path.exists():
            train(network, self.train, Schedule(epochs=3, batch=128, learning_rate=2e-3), seed=self.seed)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_tensors(path, dict(network.module.state_dict()), {}, kind="weights")
        network.module.load_state_dict(read_weights(path))
        network.module.eval()
        return network

    # -- images ---------------------------------------------------------------------------------------------------

    def images(self, source: str, units: int) -> Tensor:
        """Pixels (N, C, H, W) in [0, 1]. A set with more units starts with the units of a smaller one."""
        if source == "real":
            count = min(len(self.train), units * UNIT if units * UNIT <= self.pair.calibration else len(self.train))
            return self.train.subset(count).pixels(range(count), self.network.spec.shape[1:])
        synthetic = synthesize(
            self.network, None, method(self.pair, source), self.folder / f"set-{source}", images=units * UNIT, chunk=UNIT,
            seed=self.seed, workers=1,
        )  # fmt: skip
        return to_pixels(synthetic.load()[0][: units * UNIT], self.network.spec)

    # -- rows -----------------------------------------------------------------------------------------------------

    def row_fp32(self) -> dict[str, Any]:
        return asdict(evaluate(self.network, self.test))

    def quantized(self, name: str, source: str) -> dict[str, Any]:
        """Ranges calibrated on a source, weights rounded to the nearest level. `-squant` rounds them by SQuant; `-corrected`
        equalises and corrects biases; `-default` does all three; `w4a4` and `w3a3` are fine-tuned.
        """
        width, kind = int(name[1]), name.partition("-")[2]
        tuned = name in ("w4a4", "w3a3")
        analytic = kind in ("corrected", "default") or (source == "none" and kind != "squant")
        units = self.pair.units if tuned else -(-self.pair.calibration // UNIT)
        pixels = None if source == "none" else self.images(source, units)
        quantized = calibrate(
            self.network, None if pixels is None else pixels[: self.pair.calibration],
            Bits(weights=width, activations=width), target_cpu="vnni", equalise=analytic,
            correct_bias="analytic" if analytic else "empirical" if tuned else "none",
            rounding="squant" if kind in ("squant", "default") else "nearest",
        )  # fmt: skip
        result: dict[str, Any] = {}
        if tuned and pixels is not None:
            result["before"] = evaluate(quantized.network, self.test).accuracy
            tuning = self.pair.fine_tuning(len(pixels))
            start = time.perf_counter()
            curve = finetune(quantized, self.network, pixels, tuning, seed=self.seed)
            result |= {"loss": curve.loss, "fine_tuning_seconds": round(time.perf_counter() - start, 1)}
            result |= {"images": len(pixels), "epochs": tuning.epochs}
        accuracy = asdict(evaluate(quantized.network, self.test, self.network))
        return {**result, **accuracy, "packed_bytes": quantized.nbytes()}

    def row_int8(self) -> dict[str, Any]:
        """The int8 file calibrated on `bns` samples: size and speed relative to the fp32 file, and how its logits differ."""
        samples = self.images("bns", -(-self.pair.calibration // UNIT))
        quantized = calibrate(self.network, samples, Bits(), target_cpu="vnni", rounding="nearest")
        graph, shape = convert(quantized), self.network.spec.shape
        pixels = self.test.pixels(range(len(self.test)), shape[1:])
        simulated = quantized.network.predict(pixels)
        with torch.no_grad():
            converted = torch.cat([graph(part) for part in pixels.split(64)])
        with tempfile.TemporaryDirectory() as folder:
            files = [
                to_onnx(module, Path(folder) / name, shape) for module, name in ((self.network, "a"), (graph, "b"))
            ]
            exported = run(session(files[1]), pixels)
            timing, operators = speed(files[0], files[1], shape), integer_operators(files[1])
        correct = exported.argmax(1) == self.test.labels
        return {
            "accuracy": round(100 * float(correct.double().mean()), 4), "speed": asdict(timing), "faster": timing.faster,
            "smaller": 100 * timing.smaller, "operators": operators, "converted": asdict(check(simulated, converted)),
            "exported": asdict(check(simulated, exported)),
        }  # fmt: skip

    def row_similarity(self) -> dict[str, Any]:
        """The divergence of each data set, as it is and with the augmentation of the training (shifted and mirrored)."""
        count = self.pair.measured
        sources: dict[str, Any] = {
            "train": self.train.subset(count), "test": self.test.subset(count),
            "noise": methods.from_name("gaussian").bind(self.network, None).chunk(0, self.seed, count).pixels,
        }  # fmt: skip
        if self.pair.data == "cifar10":
            sources["cifar100"] = load("cifar100", "test", data_dir=self.data_dir).subset(count)
        if self.pair.data == "mnist":
            sources["fashion-mnist"] = load("fashion-mnist", "test", data_dir=self.data_dir).subset(count)
        for source in ("inception", "bns", "bns-inception"):
            if source in {row.rpartition("/")[2] for row in self.pair.rows}:
                sources[source] = self.images(source, -(-self.pair.calibration // UNIT))
        divergences = {each.name: each for each in similarity(self.network, sources)}
        if self.pair.data in AUGMENTATION:
            augmented = similarity(self.network, sources, seed=self.seed, **AUGMENTATION[self.pair.data])
            divergences |= {f"{each.name}{AUGMENTED}": each for each in augmented}
        return {
            "divergence": {name: each.total for name, each in divergences.items()},
            "layers": {name: each.by_layer for name, each in divergences.items()},
        }


AUGMENTED = ", shown as in training"
"""Suffix of a data set's name in a cell whose images were augmented as in training."""
INT8 = {
    "speedup": ("int8-speedup", "times as fast as fp32, batch 64, onnxruntime, one thread"),
    "size": ("int8-size", "% of the fp32 file"),
    "exported_argmax": ("int8-exported/argmax", "% of test images"),
    "exported_logits": ("int8-exported/logits", "largest logit difference"),
    "converted_logits": ("int8-converted/logits", "largest logit difference"),
}
"""Metric of the row `int8` -> (title, unit)."""


def _int8_values(cell: dict[str, Any]) -> dict[str, float]:
    return {
        "speedup": round(cell["faster"], 3), "size": round(cell["smaller"], 3),
        "exported_argmax": cell["exported"]["equal"], "exported_logits": cell["exported"]["largest"],
        "converted_logits": cell["converted"]["largest"],
    }  # fmt: skip


def metrics_of(row: str, cells: dict[int, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The metrics of a row; the rows `int8` and `similarity` have none if they were not run."""
    if row == "int8":
        values = {seed: _int8_values(cell) for seed, cell in cells.items()}
        return {
            name: metric(unit, {seed: value[name] for seed, value in values.items()}, title=title)
            for name, (title, unit) in INT8.items()
            if values
        }
    if row == "similarity":
        names = next(iter(cells.values()))["divergence"] if cells else ()
        return {
            name.replace(AUGMENTED, "_augmented").replace("-", "_"): metric(
                "nats", {seed: cell["divergence"][name] for seed, cell in cells.items()}, title=f"similarity/{name}"
            )
            for name in names
        }
    return {"accuracy": metric(ACCURACY, {seed: cell["accuracy"] for seed, cell in cells.items()})}


def collect(budget: str, work: Path) -> list[dict[str, Any]]:
    """One experiment per row from the existing cells; a row that was not run is listed as such. `more` lists those of the
    budget `imagenet` too.
    """
    others = collect("imagenet", work.parent / "imagenet") if budget == "more" else []
    claims, plan, reasons = [], BUDGETS[budget], deviations(HERE)
    cpu_rows = {pair.id: pair.rows for pair in BUDGETS["cpu"].pairs}
    for pair in plan.pairs:
        for row in pair.rows:
            identity = f"{pair.id}/{row}"
            label = "cpu" if budget == "more" and row in cpu_rows[pair.id] else budget
            cells = cells_by_seed(work / pair.id, row, plan.seeds, settings(pair, row))
            fields = {**provenance(cells, label), "deviation": reasons.get(identity, ""), **_field(identity)}
            of_cells = imagenet.metrics_of if pair.data == "imagenet" else metrics_of
            claims.append(experiment(identity, of_cells(row, cells), **fields))
    return claims + others


def _field(identity: str) -> dict[str, Any]:
    """Accuracies that other methods publish for this row, with a network of 93.89 %, in %."""
    column = {"cifar10/resnet20/w4a4/bns-inception": 0, "cifar10/resnet20/w3a3/bns-inception": 1}.get(identity)
    return {} if column is None else {"field": {name: accuracies[column] for name, accuracies in FIELD.items()}}


def main() -> int:
    parser = arguments(__doc__, "haroush2020", BUDGETS, "cifar10/resnet20", rows="w4a4-squant/none")
    parser.add_argument("--weights", type=Path, default=None, help="folder of the trained networks")
    args = parser.parse_args()
    work = args.work or Path("runs") / "haroush2020" / ("cpu" if args.budget == "more" else args.budget)
    data_dir = args.data_dir or os.environ.get("DATAFREE_DATA")
    weights = args.weights or Path(data_dir or ".") / "weights"
    chain = imagenet.Imagenet if args.budget == "imagenet" else Chain
    make = partial(chain, work=work, data_dir=data_dir, weights=weights, device=args.device, rows=tuple(args.rows))
    return run_chains(args, BUDGETS[args.budget], make, partial(collect, args.budget, work))


if __name__ == "__main__":
    sys.exit(main())
