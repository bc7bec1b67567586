"""The two tasks: data, teacher, student and CPU limit. The test images are only measured on, between training steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from datafree.data import Dataset, load
from datafree.distillation.train import train
from datafree.distillation.training_loop import Schedule
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.releases.load import load_model
from datafree.releases.load import new_model as new_model
from datafree.releases.release import write_release

__all__ = ["TASKS", "Task", "accuracy_on", "new_model", "teacher_of"]

BATCH = 500


@dataclass(frozen=True)
class Task:
    data: str
    teacher: str
    student: str
    seconds: float
    """CPU limit of a run."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    feature: str
    """Layer whose input is the penultimate feature that some methods read."""
    methods: tuple[str, ...]
    """The rows of the table, in order."""
    reference: str
    """Row that the paired differences are taken to."""
    reference_variant: str = "default"
    """Settings of that row, which fit the limit."""
    size: int | None = None
    weights: str | None = None
    """File name of a trained teacher in the data folder's `weights`; None: the teacher is trained by the first run."""

    def images(self, split: str, data_dir: str | None) -> Dataset:
        return load(self.data, split, data_dir=data_dir)

    def spec(self, data: Dataset) -> InputSpec:
        shape = data.shape if self.size is None else (data.shape[0], self.size, self.size)
        return InputSpec(shape=shape, classes=data.classes, mean=self.mean, std=self.std)


TASKS = {
    "mnist": Task(
        data="mnist", teacher="lenet5", student="lenet5-half", seconds=180.0, size=32, feature="fc2",
        mean=(0.1307,), std=(0.3081,), reference="ours-online-random", reference_variant="epochs=10",
        methods=(
            "dafl", "dfad", "kegnet", "pre-dfkd", "ours-online-teacher", "ours-online-random", "ours-set", "real-data",
        ),
    ),
    "cifar10": Task(
        data="cifar10", teacher="resnet20", student="resnet20/2", seconds=1800.0, feature="linear",
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), weights="cifar10-resnet20.safetensors",
        reference="ours-set", methods=("fast", "cmi", "ours-set", "real-data"),
    ),
}  # fmt: skip


def teacher_of(task: Task, folder: Path, data_dir: str | None, seed: int) -> Network:
    """The trained teacher; one that has no published weights is trained on the first call, as `datafree train` does."""
    if task.weights is not None:
        path = Path(data_dir or ".") / "weights" / task.weights
        return load_model(task.teacher, weights=path, spec=task.spec(task.images("test", data_dir)))
    if not folder.exists():
        images = task.images("train", data_dir)
        teacher = new_model(task.teacher, task.spec(images), seed=seed)
        train(teacher, images, Schedule(), seed=seed)
        write_release(folder, teacher)
    return load_model(str(folder))


def accuracy_on(test: Dataset, spec: InputSpec) -> Callable[[Network], float]:
    """A function that measures a network of this spec on all test images, in %. It leaves every layer's mode unchanged.

    It resizes and normalises the images once, and needs nothing of the library later, which a peer's package may hide.
    """
    pixels = test.pixels(torch.arange(len(test)).numpy(), spec.shape[1:])
    inputs, labels = spec.normalize(pixels), torch.as_tensor(test.labels)
    return lambda network: _accuracy(network.module, inputs, labels)


def _accuracy(module: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    with torch.no_grad():
        predicted = torch.cat([module(batch).argmax(1) for batch in inputs.split(BATCH)])
    for part, training in modes:
        part.training = training
    return round(100 * float((predicted == labels).double().mean()), 2)
