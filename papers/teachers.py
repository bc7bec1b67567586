"""Trained networks that come with the data folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.releases.load import load_model

__all__ = ["RESNET20", "RESNET44", "SIMPNET", "SIMPNET600K", "PublishedTeacher", "spec_of", "teacher_of"]


@dataclass(frozen=True)
class PublishedTeacher:
    """A network that others have trained."""

    network: str
    """Name of the zoo, or `file.py:function`."""
    weights: str
    """File name in the data folder's `weights`."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """`mean` and `std` of the input, and the `border` of the training images if it was not black."""

    def load(self, spec: InputSpec, data_dir: str | None, device: str = "cpu") -> Network:
        """The network on `device`. A process reads each only once."""
        folder = Path(data_dir or os.environ.get("DATAFREE_DATA", ".")) / "weights"
        return _load(self.network, folder / self.weights, spec, device)  # pyright: ignore[reportArgumentType]: a frozen model is hashable


def spec_of(
    published: PublishedTeacher | None, shape: tuple[int, int, int], classes: tuple[str, ...], size: int | None = None
) -> InputSpec:
    """The input of a teacher: images of `shape`, resized to `size`. One that is trained here takes pixels that are not
    normalised.
    """
    shape = shape if size is None else (shape[0], size, size)
    return InputSpec(shape=shape, classes=classes, **({} if published is None else published.constants))


def teacher_of(
    published: PublishedTeacher | None, folder: Path, spec: InputSpec, data_dir: str | None, device: str
) -> Network:
    """The published teacher, or else the one that was trained into `folder`."""
    if published is None:
        return load_model(str(folder)).to(device)
    return published.load(spec, data_dir, device)


@cache
def _load(network: str, weights: Path, spec: InputSpec, device: str) -> Network:
    return load_model(network, weights=weights, spec=spec).to(device)


_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
RESNET20 = PublishedTeacher("resnet20", "cifar10-resnet20.safetensors", _IMAGENET)
RESNET44 = PublishedTeacher("resnet44", "cifar10-resnet44.safetensors", _IMAGENET)
_CIFAR100_MEAN = (0.5070751592371323, 0.48654887331495095, 0.4409178433670343)
SIMPNET = Path(__file__).with_name("simpnet.py")
SIMPNET600K = PublishedTeacher(
    f"{SIMPNET}:simpnet600k",
    "cifar100-simpnet600k.safetensors",
    {
        "mean": _CIFAR100_MEAN,
        "std": (0.2673342858792401, 0.2564384629170883, 0.27615047132568404),
        "border": _CIFAR100_MEAN,
    },
)
