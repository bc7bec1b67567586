"""datafree train"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..parallel import main_process, together, world
from ..schedule import Schedule
from .common import (
    Data,
    Input,
    Model,
    Run,
    bar,
    identity_of,
    inputs_of,
    load_data,
    on_device,
    resumed,
    say_size,
    spec_of,
)

__all__ = ["train"]


def train(
    model: str,
    /,
    *,
    out: Path,
    data: Data | None = None,
    input: Input | None = None,
    schedule: Annotated[Schedule | None, Parameter(name="*")] = None,
    run: Run | None = None,
) -> None:
    """Train a network on labelled data and write it as a release folder.

    Example: datafree train lenet5 --data mnist --out teacher

    Example: torchrun --nproc-per-node 2 -m datafree train lenet5 --data mnist --out teacher

    Parameters
    ----------
    model
        A zoo name (hinton1200, lenet5, alexnet, resnet20 ...), or file.py:function of your own.
    out
        The release folder to write: config.json, model.safetensors, README.md, run.json.
    """
    _train(model, out, data or Data(), input or Input(), schedule or Schedule(), run or Run())


@together()
def _train(model: str, out: Path, data: Data, input: Input, schedule: Schedule, run: Run) -> None:
    from ..evaluation import evaluate
    from ..models import new_model
    from ..output_folder import STATE, output_folder
    from ..release import write_release
    from ..runlog import RunLog
    from ..training import train as fit_network

    run = resumed(run, out / STATE)
    training = load_data(data, "train")
    test = load_data(replace(data, limit=None), "test", beside=training)
    network = on_device(new_model(model, spec_of(training, model, input), seed=run.seed), run)
    if main_process():
        say_size(network, training)
        if test.shape != training.shape:
            say_size(network, test, "test images")
    settings = {"model": model, **asdict(data), **asdict(input), **schedule.model_dump(), **asdict(run)}
    log = RunLog("train", settings, inputs_of(model, Model()), training, test)
    with output_folder(out, "release", log) as folder, bar(f"train {model}", run.quiet) as progress:
        if folder is None:
            return
        state, identity = folder / STATE, identity_of(log.content["settings"], network, log)
        curve = fit_network(
            network, training, schedule, seed=run.seed, state=state, identity=identity, progress=progress
        )
        if not main_process():
            return
        result = evaluate(network, test)
        write_release(folder, network)
        found = {"evaluation": asdict(result), "curve": vars(curve), "images": len(training)}
        log.write(folder, {**found, "processes": world().size})
    print(f"{model}: accuracy {result.accuracy:.2f} % on {result.images} test images; release in {folder}")
