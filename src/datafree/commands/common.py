"""What verbs share on the command line: seed and device, data, an input spec, a bar with an estimate of the time left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import UserError
from ..progress import Progress, silent

if TYPE_CHECKING:
    from ..data import Dataset
    from ..network import Network
    from ..records import Record
    from ..spec import InputSpec

__all__ = [
    "Data",
    "Input",
    "Model",
    "Run",
    "bar",
    "chosen",
    "identity_of",
    "load_data",
    "load_teacher",
    "on_device",
    "spec_of",
]


@Parameter(name="*")
@dataclass(frozen=True)
class Run:
    """How a run is made."""

    seed: int = 0
    """Decides every random number; the same seed gives the same result on the same machine."""
    device: str = "cpu"
    """`cpu`, `cuda` or `cuda:1`."""
    threads: int | None = None
    """Threads of torch; as many as there are cores unless given."""
    quiet: bool = False
    """No progress bar."""


@Parameter(name="*")
@dataclass(frozen=True)
class Data:
    """Where data comes from."""

    data: str | None = None
    """`digits`, `mnist`, `fashion-mnist`, `cifar10`, `cifar100`, `celeba`, an image folder, or an .npz file."""
    data_dir: Path | None = None
    """The folder with the standard layouts; else the environment's DATAFREE_DATA."""
    attribute: str = "Attractive"
    """CelebA's attribute to classify."""
    limit: Annotated[int | None, Parameter(show_default=False)] = None
    """Use so many images, the same share of each class."""


@Parameter(name="*")
@dataclass(frozen=True)
class Model:
    """How a model is built that is not a release of the zoo's networks."""

    code: str | None = None
    """file.py:function or package.module:function that builds the network, for a release of somebody's own."""
    weights: Path | None = None
    """Its weights as safetensors, where the model is not a release folder."""
    record: Path | None = None
    """The record; by default the one in the release folder."""


@Parameter(name="*")
@dataclass(frozen=True)
class Input:
    """What the network takes, where the model is not a release that says so itself."""

    size: int | None = None
    """Height and width the images are resized to; the data's own by default, 32 for lenet5."""
    mean: tuple[float, ...] = (0.0,)
    """Subtracted from pixels in [0, 1]; one number, or one a channel."""
    std: tuple[float, ...] = (1.0,)
    """Divides them; one number, or one a channel."""


def load_data(options: Data, split: str) -> Dataset:
    """The named data set. Raises UserError where none was named."""
    from ..data import load

    if options.data is None:
        raise UserError("no data named, wanted --data; give digits, mnist, a folder or an .npz file")
    if options.limit is not None and options.limit < 1:
        raise UserError(f"--limit: got {options.limit}, wanted at least 1; give a positive count")
    extra = {"attribute": options.attribute} if options.data == "celeba" else {}
    found = load(options.data, split, data_dir=options.data_dir, **extra)
    return found.subset(options.limit) if options.limit is not None else found


def load_teacher(name: str, options: Model, run: Run, spec: InputSpec | None = None) -> tuple[Network, Record | None]:
    """A trained network on its device, and its record where there is one."""
    from ..models import load_model
    from ..records import Record
    from ..release import Release, is_release

    network = on_device(load_model(name, code=options.code, weights=options.weights, spec=spec), run)
    if is_release(name):
        return network, Release.open(name).record(network, options.record)
    return network, Record.load(options.record, network) if options.record is not None else None


def identity_of(settings: dict[str, Any], network: Network) -> dict[str, Any]:
    """What must be the same for a stopped run to be gone on with."""
    ignored = ("quiet", "threads", "data_dir", "device", "workers")
    kept = {key: str(value) for key, value in settings.items() if key not in ignored}
    return {**kept, "spec": network.spec.model_dump(mode="json")}


def chosen(argv: list[str], flag: str) -> str | None:
    """The value of `--flag VALUE` or `--flag=VALUE` in a command line, before it is parsed in full."""
    for here, word in enumerate(argv):
        if word == flag and here + 1 < len(argv):
            return argv[here + 1]
        if word.startswith(f"{flag}="):
            return word.split("=", 1)[1]
    return None


def spec_of(data: Dataset, model: str, options: Input) -> InputSpec:
    """The spec for a fresh `model` on `data`."""
    from ..spec import InputSpec

    side = options.size if options.size is not None else 32 if model.startswith("lenet5") else None
    if side is not None and side < 1:
        raise UserError(f"--size: got {side}, wanted at least 1; give a positive size")
    shape = data.shape if side is None else (data.shape[0], side, side)
    return InputSpec(shape=shape, mean=options.mean, std=options.std, classes=data.classes)


def on_device(network: Network, run: Run) -> Network:
    """Moves the network in place, sets torch's threads, and returns it."""
    import torch

    if run.threads is not None:
        if run.threads < 1:
            raise UserError(f"--threads: got {run.threads}, wanted at least 1; give a positive count")
        torch.set_num_threads(run.threads)
    try:
        network.module.to(run.device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"--device: got {run.device!r}, wanted one that is here ({first}); give cpu") from None
    return network


@contextmanager
def bar(text: str, quiet: bool) -> Iterator[Progress]:
    """A progress bar on standard error with the time gone and an estimate of the time left."""
    if quiet:
        yield silent
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=False) as shown:
        task, last = shown.add_task(text, total=None), [0.0]

        def update(done: int, total: int) -> None:
            if done >= total or time.perf_counter() - last[0] > 0.1:
                last[0] = time.perf_counter()
                shown.update(task, completed=done, total=total)

        yield update
