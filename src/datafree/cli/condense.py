"""datafree condense"""

# Annotations are evaluated: the options of each method are a class that is made from its settings.

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group

from .._core.errors import UserError
from .arguments import Data, Input, Model, Run, Whole, settings_of
from .loading import (
    check_code,
    code_of_settings,
    inputs_of,
    load_data,
    load_network,
    resumed,
    say_fit,
    spec_of,
    use_threads,
)
from .method_options import flattened, of_settings, values
from .progress_bar import bar
from .settings_source import SettingsText, family

if TYPE_CHECKING:
    from ..data import Dataset
    from ..data.condensed.condensed_set import Condensed
    from ..data.condensed.methods import Job
    from ..models.network import Network

__all__ = ["DEFAULT", "METHODS", "app", "method_command"]

DEFAULT = "dm"
METHODS = family("datafree.data.condensed.methods", "method")

app = App(name="condense")


def method_command(method: str, text: SettingsText) -> Callable[..., None]:
    """The command of one method, whose flags are the fields of its settings."""
    Options = of_settings(text, without=["method"], group=Group(f"Options of {method}", sort_key=1))

    def condense(
        *,
        out: Path,
        per_class: Whole,
        settings: Annotated[Options | None, flattened(Options)] = None,  # pyright: ignore[reportInvalidTypeForm]
        teacher: str | None = None,
        data: Data | None = None,
        source: Model | None = None,
        input: Input | None = None,
        run: Run | None = None,
    ) -> None:
        """Make a few images per class that represent a data set, and report what they reveal. For publishers.

        The first word after `condense` is the method. Without one it is `dm`. Stopped with Ctrl-C, `dm` continues from a
        state that is at most ten seconds old.

        Example: datafree condense dm --data mnist --per-class 1 --teacher teacher --out condensed

        Parameters
        ----------
        out
            Folder to write: condensed.safetensors, README.md, run.json.
        per_class
            Number of images per class.
        teacher
            Release whose image size and classes are used; the set is tested with it. Without one give --size, --mean and
            --std.
        """
        from ..data.condensed import methods

        chosen = methods.from_name(method, **values(settings))
        _condense(chosen, out, per_class, teacher, data or Data(), source or Model(), input or Input(), run or Run())

    return condense


def _condense(
    method: Any, out: Path, per_class: int, teacher: str | None, data: Data, source: Model, input: Input, run: Run
) -> None:
    from .._core.settings import with_paths
    from ..data.condensed import methods
    from ..data.dataset_checks import check_classes
    from ..runs.difference import LATER
    from ..runs.output_folder import CONDENSED_FOLDER, STATE, output_folder
    from ..runs.run_log import RunLog, lasting

    run = resumed(run, out / STATE)
    training = load_data(data, "train")
    network = None if teacher is None else load_network(teacher, source, run)
    if teacher is not None and network is not None:
        check_code(teacher, source, network)
    if network is None:
        spec = spec_of(training, "", input)
        use_threads(run)
    elif input != Input():
        raise UserError(f"--size, --mean, --std: {teacher} says them itself; leave them out, or --teacher")
    else:
        check_classes(network, training)
        spec = network.spec
    settings = {
        **{"per_class": per_class, "teacher": teacher}, **with_paths(method),
        **asdict(data), **settings_of(source), **asdict(input), **asdict(run),
    }  # fmt: skip
    inputs = inputs_of(teacher, source, role="teacher") if teacher else {}
    log = RunLog("condense", settings, inputs | code_of_settings("method", method), training)
    job = methods.Job(training, spec, per_class, seed=run.seed, device=run.device)
    began = time.perf_counter()
    with output_folder(out, CONDENSED_FOLDER, log) as folder, bar(f"condense {method.method}", run.quiet) as progress:
        if folder is None:
            return
        inputs = {role: digest for role, digest in log.identity["inputs"].items() if not role.startswith(LATER)}
        identity = {**log.identity, "settings": lasting(log.content["settings"]), "inputs": inputs}
        condensed = _made(method, job.resumed(folder / STATE, identity, progress), network)
        condensed.save(folder)
        log.write(folder, {"images": len(condensed), "teacher": condensed.about.get("teacher")})
    _say(condensed, folder, time.perf_counter() - began, network, training)


def _made(method: Any, job: "Job", network: "Network | None") -> "Condensed":
    from ..data.condensed import methods

    condensed = methods.condense(method, job)
    if network is not None:
        condensed.about["teacher"] = {
            "fingerprint": network.fingerprint(),
            "accuracy": round(condensed.accuracy(network), 2),
        }
    return condensed


def _say(condensed: "Condensed", folder: Path, seconds: float, network: "Network | None", data: "Dataset") -> None:
    from ..data.condensed.condensed_set import FILE

    size = (folder / FILE).stat().st_size
    images = f"{len(condensed)} images of {len(condensed.spec.classes)} classes of {data.name}"
    print(f"{images} in {seconds:.1f} s; {size:,} bytes in {folder}")
    if network is not None:
        say_fit(network, data)
        print(f"  the teacher predicts the labelled class for {condensed.accuracy(network):.1f} % of them")
    print(f"  what they reveal: {condensed.about['leakage']}")


app.default(method_command(DEFAULT, METHODS[DEFAULT]))
for _name, _text in METHODS.items():
    app.command(method_command(_name, _text), name=_name, help=_text.summary)
