"""datafree train"""

# Annotations are evaluated: the options are a class that is made from settings.

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .._core.distributed import main_process, together, world
from .._core.errors import UserError
from .arguments import Data, Input, Model, Run, WithCode
from .loading import (
    code_for_release,
    identity_of,
    inputs_of,
    load_data,
    on_device,
    resumed,
    say_code,
    say_size,
    spec_of,
)
from .method_options import of_settings, values
from .progress_bar import bar
from .results import say_batch, say_learned
from .settings_source import read

if TYPE_CHECKING:
    from ..data import Dataset
    from ..distillation.schedule import Schedule

__all__ = ["train"]

Settings = of_settings(read("datafree.distillation.schedule", "Schedule"))


def train(
    model: str,
    /,
    *,
    out: Path,
    data: Data | None = None,
    input: Input | None = None,
    schedule: Annotated[Settings | None, Parameter(name="*")] = None,  # pyright: ignore[reportInvalidTypeForm]
    output: str | None = None,
    with_code: WithCode = False,
    run: Run | None = None,
) -> None:
    """Train a network on labelled data and write it as a release folder.

    Example: datafree train lenet5 --data mnist --out teacher

    Example: torchrun --nproc-per-node 2 -m datafree train lenet5 --data mnist --out teacher

    Parameters
    ----------
    model
        A zoo name, or file.py:function of your own. The zoo: hinton1200, hinton800, lenet5, lenet5-half, alexnet,
        alexnet-half, resnet20, resnet44, and other sizes as hintonN (two hidden layers of N), resnetN (8, 14, 20, ...
        layers), resnetN/K (a Kth of the channels) and alexnet/N (an Nth).
    out
        The release folder to write: config.json, model.safetensors, README.md, run.json.
    output
        Which of several tensors that a network given by name returns are the logits: position or name, with / between
        nested ones; by default the one named `logits`, or the only one of that shape.
    with_code
        Put the Python file that builds the network, and what it imports from its folder, into the release as text.
    """
    from ..distillation.schedule import Schedule

    _train(model, out, data or Data(), input or Input(), Schedule(**values(schedule)), output, with_code, run or Run())


@together()
def _train(
    model: str,
    out: Path,
    data: Data,
    input: Input,
    schedule: "Schedule",
    output: str | None,
    with_code: bool,
    run: Run,
) -> None:
    from ..distillation.train import train as fit_network
    from ..evaluation.accuracy import evaluate, in_words
    from ..releases.load import new_model
    from ..releases.release import RELEASE_FOLDER, write_release
    from ..runs.output_folder import STATE, output_folder
    from ..runs.run_log import RunLog

    run = resumed(run, out / STATE)
    training = load_data(data, "train")
    test = load_data(replace(data, limit=None), "test", beside=training)
    if data.limit is None:
        _check_classes(training, test)
    network = on_device(new_model(model, spec_of(training, model, input), seed=run.seed, output=output), run)
    code = code_for_release(model, network, with_code)
    if main_process():
        say_size(network, training)
        if test.shape != training.shape:
            say_size(network, test, "test images")
    settings = {"model": model, **asdict(data), **asdict(input), **schedule.model_dump(), **asdict(run)}
    settings |= {"with_code": True} if with_code else {}
    settings |= {} if output is None else {"output": output}
    log = RunLog("train", settings, inputs_of(model, Model()), training, test)
    with output_folder(out, RELEASE_FOLDER, log) as folder, bar(f"train {model}", run.quiet) as progress:
        if folder is None:
            return
        state, identity = folder / STATE, identity_of(log.content["settings"], network, log)
        curve = fit_network(
            network, training, schedule, seed=run.seed, state=state, identity=identity, progress=progress
        )
        if not main_process():
            return
        result = evaluate(network, test)
        write_release(
            folder, network, notes=f"trained on {training.public}: {in_words(result, test.public)}", code=code
        )
        results = {"evaluation": asdict(result), "curve": vars(curve), "images": len(training)}
        log.write(folder, {**results, "processes": world().size})
    print(f"{model}: accuracy {result.accuracy:.2f} % on {result.images} test images; release in {folder}")
    say_batch(schedule.batch, len(training))
    say_learned(result.accuracy, result.images, len(result.by_class))
    say_code(model, code)


def _check_classes(training: "Dataset", test: "Dataset") -> None:
    """Raises UserError for a class without training images, by what is there of it."""
    count, names = len(training.classes), training.classes
    trained, tested = training.labels.bincount(minlength=count), test.labels.bincount(minlength=count)
    missing = (trained == 0).nonzero().flatten().tolist()
    stray = [label for label in missing if tested[label]]
    if stray:
        first = (test.labels == stray[0]).nonzero().flatten().tolist()
        raise UserError(
            f"label {stray[0]} (class {names[stray[0]]!r}) of test image {first[0]} in {training.name}, of {len(first):,} "
            "such, is that of no training image; expected training images of each class; correct it, or add such images"
        )
    if missing and len(names) > 1:
        raise UserError(
            f"no image in {training.name} is of class {names[missing[0]]!r}, one of {len(names)}; expected some of "
            "each; add "
            "images of it, or number the labels from 0 without a gap (np.unique(labels, return_inverse=True)[1])"
        )
