# pyright: strict
"""Every public function as a user's editor sees it: `make lint` checks in strict mode that no type is unknown.

It is not run; what the calls do is tested elsewhere.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import datafree as df


def networks(module: nn.Module) -> df.Network:
    network = df.Network(module, input_shape=(3, 32, 32), classes=10, mean=0.5, std=(0.2, 0.2, 0.2))
    spec: df.InputSpec = network.spec
    fresh = df.new_model("lenet5", spec, seed=0)
    df.write_release("teacher", network)
    release: df.Release = df.Release.open("teacher")
    loaded = df.load_model(str(release.folder), module=module)
    parameters: int = fresh.parameters + loaded.parameters
    print(parameters, network.fingerprint(), network.device)
    return network.to("cpu")


def publisher(
    teacher: df.Network, data: Dataset[tuple[Tensor, int]], loader: DataLoader[tuple[Tensor, int]]
) -> df.Record:
    digits: df.Dataset = df.load_data("digits", "train")
    passed: df.Dataset = df.as_dataset(data, teacher)
    curve: df.Curve = df.train(teacher, digits, df.Schedule(epochs=1))
    scores: df.Evaluation = df.evaluate(teacher, loader)
    record: df.Record = df.record(teacher, passed, "safe")
    more: df.Record = df.record(
        teacher, (np.zeros((2, 3, 32, 32), np.uint8), np.zeros(2, np.int64)), "moments", add_to=record
    )
    forecast: float = df.forecast_auc(more.released_statistics(teacher))
    shots: df.Condensed = df.condense("dm", data=digits, teacher=teacher, per_class=1)
    print(curve.loss[-1], scores.accuracy, forecast, shots.spec)
    return record


def deployer(teacher: df.Network, record: df.Record, pixels: Tensor) -> None:
    made: df.SyntheticSet = df.synthesize(teacher, record, df.method("all", steps=2), Path("set"), images=20)
    samples: df.Samples = df.sample(teacher, "bns-inception", n=256)
    images: Tensor = samples.pixels
    x, logits = df.sample(teacher, {"method": "gaussian"}, n=8)
    student = df.distill(teacher, record=record, epochs=2)
    student = df.distill(teacher, "hinton16", images=made, settings=df.Distillation(epochs=2))
    online = df.distill_online(teacher, epochs=2, replay="vae")
    history: df.History = online.history
    df.save_student("student", online)
    scores: Tensor = student(pixels)
    few: df.Condensed = df.import_condensed("few.npz", teacher, pixels="0-1")
    more: df.SyntheticSet = df.expand(teacher, few, Path("more"), images=20)
    ranking: list[df.Similarity] = df.similarity(teacher, {"set": images})
    page: df.WrittenReport = df.report(["student"], out="report.html")
    print(x.shape, logits.shape, history.loss, scores.shape, more.spec, ranking[0].total, page.path)


def researcher(teacher: df.Network, student: df.Network, made: df.SyntheticSet, record: df.Record) -> None:
    source: df.StoredImages = df.stored_images(made)
    fresh: df.FreshImages = df.fresh_images("distribution", teacher, record, images=100)
    real: df.StoredImages = df.soft_labelled(teacher, df.load_data("digits", "train"))
    curve: df.Curve = df.train_student(teacher, student, source, df.Distillation(epochs=1))
    loss: Tensor = df.kl(student(real.pixels), real.targets, 4.0)
    comparison: df.Comparison = df.compare(teacher, "digits", methods=["bns", df.method("bns", steps=2)], budget="10m")
    accuracy: float = comparison.cells[0].accuracy
    print(curve.loss, len(fresh), loss, comparison.markdown(), comparison.rows[0].n, accuracy)


def quantized(teacher: df.Network, pixels: Tensor) -> Tensor:
    network: df.QuantizedNetwork = df.quantize(
        teacher, df.Bits(weights=4), calibrate="bns", fine_tune=df.FineTuning(epochs=1)
    )
    folder: Path = network.save("int4", mobile=False)
    print(folder, network.nbytes(), network.agreement().equal)
    return network(pixels)
