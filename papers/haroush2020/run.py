"""The Knowledge Within (Haroush et al. 2020): synthetic samples for quantization, and data similarity; the field beside it.

    python papers/haroush2020/run.py --budget smoke   # seconds, on scikit-learn's digits; what the tests run
    python papers/haroush2020/run.py --budget cpu     # under two hours on 2 cores
    python papers/haroush2020/run.py --budget more    # and four more rows of fine-tuning; the numbers in claims.json
    python papers/haroush2020/run.py --budget gpu --device cuda

The trained networks are read from WEIGHTS/cifar10-resnet20.safetensors and cifar10-resnet44.safetensors, WEIGHTS being
--weights or the data folder's `weights`. Each cell (network, row, seed) is written when it is done, so a stopped run goes
on where it was. Accuracy is that of the last epoch on the whole test set; nothing is chosen by it.
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

import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from cells import by_seed, common, deviations, keep, read
from chains import arguments
from chains import run as run_chains
from claims import claim
from rows import BUDGETS, FIELD, Pair

from datafree._core.files import read_weights
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

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
UNIT = 128
SHOWN: dict[str, dict[str, Any]] = {"cifar10": {"shift": 4, "flip": True}}
"""How networks on a data set were shown its images in training."""


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
    """What decides a cell's number: a cell of other settings is run again, and is no claim."""
    source = row.rpartition("/")[2]
    found: dict[str, Any] = {"units": pair.units, "steps": pair.steps, "calibration": pair.calibration}
    if row.partition("/")[0].endswith("-corrected"):
        found["biases"] = "analytic"
    if row.startswith(("w4a4/", "w3a3/")):
        found["tuning"] = pair.tuning
    if source in methods.methods():
        found["method"] = method(pair, source).model_dump(mode="json")
    if row in ("fp32", "similarity"):
        found = {"measured": pair.measured, "steps": pair.steps, "shown": SHOWN.get(pair.data)}
    return {**found, "limit": pair.limit}


def method(pair: Pair, source: str) -> Any:
    own = {} if source == "gaussian" else {"steps": pair.steps, "precision": "bfloat16"}
    return methods.from_name(source, **own)


class Chain:
    """Everything of one network and one seed."""

    def __init__(self, pair: Pair, seed: int, work: Path, data_dir: str | None, weights: Path, device: str):
        self.pair, self.seed, self.device, self.weights, self.data_dir = pair, seed, device, weights, data_dir
        self.folder = work / pair.id / f"seed-{seed}"
        self.train, self.test = (load(pair.data, split, data_dir=data_dir) for split in ("train", "test"))
        if pair.limit is not None:
            self.test = self.test.subset(pair.limit)

    def run(self, say: Any) -> None:
        for row in self.pair.rows:
            asked = settings(self.pair, row)
            if read(self.folder, row, asked) is None:
                keep(self, row, asked, say)

    def row(self, name: str) -> dict[str, Any]:
        """What the row's cell says."""
        if name in ("fp32", "int8", "similarity"):
            return getattr(self, f"row_{name}")()
        bits, _, source = name.partition("/")
        return self.quantized(bits, source)

    @cached_property
    def network(self) -> Network:
        if self.pair.data == "cifar10":
            spec = InputSpec(shape=(3, 32, 32), classes=self.train.classes, **IMAGENET)
            path = self.weights / f"cifar10-{self.pair.name}.safetensors"
            found = load_model(self.pair.name, weights=path, spec=spec)
        else:
            found = self.trained()
        found.module.to(self.device)
        return found

    def trained(self) -> Network:
        """A network with batch norm, trained here; once a seed."""
        spec = InputSpec(shape=self.train.shape, classes=self.train.classes, mean=(0.5,), std=(0.5,))
        torch.manual_seed(self.seed)
        network, path = Network(small(spec), spec, self.pair.name), self.folder / "teacher.safetensors"
        if not path.exists():
            train(network, self.train, Schedule(epochs=3, batch=128, learning_rate=2e-3), seed=self.seed)
            from datafree._core.files import write_tensors

            self.folder.mkdir(parents=True, exist_ok=True)
            write_tensors(path, dict(network.module.state_dict()), {}, kind="weights")
        network.module.load_state_dict(read_weights(path))
        network.module.eval()
        return network

    # -- images ---------------------------------------------------------------------------------------------------

    def images(self, source: str, units: int) -> Tensor:
        """Pixels (N, C, H, W) in [0, 1]; a set of more units begins with those of fewer."""
        if source == "real":
            count = min(len(self.train), units * UNIT if units * UNIT <= self.pair.calibration else len(self.train))
            return self.train.subset(count).pixels(range(count), self.network.spec.shape[1:])
        made = synthesize(
            self.network, None, method(self.pair, source), self.folder / f"set-{source}", images=units * UNIT, chunk=UNIT,
            seed=self.seed, workers=1,
        )  # fmt: skip
        return to_pixels(made.load()[0][: units * UNIT], self.network.spec)

    # -- rows -----------------------------------------------------------------------------------------------------

    def row_fp32(self) -> dict[str, Any]:
        return asdict(evaluate(self.network, self.test))

    def quantized(self, name: str, source: str) -> dict[str, Any]:
        """One row: calibrated on a source, equalised with corrected biases where its name says so, or fine-tuned on it."""
        width = int(name[1])
        tuned, corrected = name in ("w4a4", "w3a3"), name.endswith("-corrected")
        units = self.pair.units if tuned else -(-self.pair.calibration // UNIT)
        pixels = None if source == "none" else self.images(source, units)
        shown = None if pixels is None else pixels[: self.pair.calibration]
        plain = source == "none"
        own = calibrate(
            self.network, shown, Bits(weights=width, activations=width), target_cpu="vnni",
            equalise=plain or corrected,
            correct_bias="analytic" if plain or corrected else "empirical" if tuned else "none",
        )  # fmt: skip
        result: dict[str, Any] = {}
        if tuned and pixels is not None:
            result["before"] = evaluate(own.network, self.test).accuracy
            tuning = self.pair.fine(len(pixels))
            began = time.perf_counter()
            curve = finetune(own, self.network, pixels, tuning, seed=self.seed)
            result |= {"loss": curve.loss, "fine-tuning, seconds": round(time.perf_counter() - began, 1)}
            result |= {"images": len(pixels), "epochs": tuning.epochs}
        return {**result, **asdict(evaluate(own.network, self.test, self.network)), "packed_bytes": own.nbytes()}

    def row_int8(self) -> dict[str, Any]:
        """The int8 file calibrated on `bns` samples, beside the fp32 file: size, speed, and how far the forms differ."""
        own = calibrate(self.network, self.images("bns", -(-self.pair.calibration // UNIT)), Bits(), target_cpu="vnni")
        graph, shape = convert(own), self.network.spec.shape
        pixels = self.test.pixels(range(len(self.test)), shape[1:])
        simulated = own.network.predict(pixels)
        with torch.no_grad():
            converted = torch.cat([graph(part) for part in pixels.split(64)])
        with tempfile.TemporaryDirectory() as folder:
            files = [to_onnx(what, Path(folder) / name, shape) for what, name in ((self.network, "a"), (graph, "b"))]
            exported = run(session(files[1]), pixels)
            timed, kinds = speed(*files, shape), integer_operators(files[1])
        right = exported.argmax(1) == self.test.labels
        return {
            "accuracy": round(100 * float(right.double().mean()), 4), "speed": asdict(timed), "faster": timed.faster,
            "smaller": 100 * timed.smaller, "operators": kinds, "converted": asdict(check(simulated, converted)),
            "exported": asdict(check(simulated, exported)),
        }  # fmt: skip

    def row_similarity(self) -> dict[str, Any]:
        """The divergence of each data set, as it is, and shown as the training images were: shifted and mirrored."""
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
        found = {own.name: own for own in similarity(self.network, sources)}
        if self.pair.data in SHOWN:
            shown = similarity(self.network, sources, seed=self.seed, **SHOWN[self.pair.data])
            found |= {f"{own.name}, shown as in training": own for own in shown}
        return {
            "divergence": {name: own.total for name, own in found.items()},
            "layers": {name: own.by_layer for name, own in found.items()},
        }


def values_of(row: str, cell: dict[str, Any]) -> dict[str, float]:
    """Claim row -> value, of one cell."""
    if row == "int8":
        return {
            "int8-speedup": round(cell["faster"], 3), "int8-size": round(cell["smaller"], 3),
            "int8-exported/argmax": cell["exported"]["equal"], "int8-exported/logits": cell["exported"]["largest"],
            "int8-converted/logits": cell["converted"]["largest"],
        }  # fmt: skip
    if row == "similarity":
        return {f"similarity/{name}": value for name, value in cell["divergence"].items()}
    return {row: cell["accuracy"]}


UNIT_OF = {
    "int8-speedup": "times as fast as fp32, batch 64, onnxruntime, one thread", "int8-size": "% of the fp32 file",
    "int8-exported/argmax": "% of test images", "int8-exported/logits": "largest logit difference",
    "int8-converted/logits": "largest logit difference",
}  # fmt: skip


def collect(budget: str, work: Path) -> list[dict[str, Any]]:
    """Claims from the cells that are there; a row that was not run is listed as such."""
    made, plan, notes = [], BUDGETS[budget], deviations(HERE)
    quick = {pair.id: pair.rows for pair in BUDGETS["cpu"].pairs}
    for pair in plan.pairs:
        for row in pair.rows:
            label = "cpu" if budget == "more" and row in quick[pair.id] else budget
            found = by_seed(work / pair.id, row, plan.seeds, settings(pair, row))
            each = {seed: values_of(row, own) for seed, own in found.items()}
            for name in next(iter(each.values()), {row: None}):
                identity = f"{pair.id}/{name}"
                unit = UNIT_OF.get(name, "nats" if name.startswith("similarity") else "% test accuracy, last epoch")
                made.append(
                    claim(
                        identity, "ours", unit, None, {seed: own[name] for seed, own in each.items()},
                        **common(found, label), deviation=notes.get(identity, ""), **_field(identity),
                    )
                )  # fmt: skip
    return made


def _field(identity: str) -> dict[str, Any]:
    """What others reach in that row with a network of 93.89 %, in %."""
    column = {"cifar10/resnet20/w4a4/bns-inception": 0, "cifar10/resnet20/w3a3/bns-inception": 1}.get(identity)
    return {} if column is None else {"field": {name: own[column] for name, own in FIELD.items()}}


def main() -> int:
    parser = arguments(__doc__, "haroush2020", BUDGETS, "cifar10/resnet20")
    parser.add_argument("--weights", type=Path, default=None, help="folder of the trained networks")
    args = parser.parse_args()
    work, data_dir = (
        args.work or Path("runs") / "haroush2020" / ("cpu" if args.budget == "more" else args.budget),
        args.data_dir or os.environ.get("DATAFREE_DATA"),
    )
    weights = args.weights or Path(data_dir or ".") / "weights"
    make = partial(Chain, work=work, data_dir=data_dir, weights=weights, device=args.device)
    return run_chains(args, BUDGETS[args.budget], make, partial(collect, args.budget, work))


if __name__ == "__main__":
    sys.exit(main())
