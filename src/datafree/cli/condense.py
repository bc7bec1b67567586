"""datafree condense"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from .._core.errors import UserError
from ..data import Dataset
from ..data.condensed import methods
from ..data.condensed.condensed_set import FILE, Condensed
from ..data.dataset_checks import check_classes
from ..models.network import Network
from ..runs.difference import LATER
from ..runs.output_folder import CONDENSED_FOLDER, STATE, output_folder
from ..runs.run_log import RunLog, lasting
from .common import (
    Data,
    Input,
    Model,
    Run,
    Whole,
    bar,
    check_code,
    chosen,
    inputs_of,
    listed,
    load_data,
    load_network,
    resumed,
    say_fit,
    spec_of,
    use_threads,
)

__all__ = ["command", "condense"]


def command(argv: list[str]) -> Callable[..., None]:
    """`condense` with the flags of the method named by --method."""
    own = type(methods.from_name(chosen(argv, "--method") or "dm"))

    def one_method(
        *,
        out: Path,
        per_class: int,
        method: str = "dm",
        settings: Any = None,
        teacher: str | None = None,
        data: Data | None = None,
        source: Model | None = None,
        input: Input | None = None,
        run: Run | None = None,
    ) -> None:
        found = settings if settings is not None else methods.from_dict({"method": method})
        condense(found, out=out, per_class=per_class, teacher=teacher, data=data, source=source, input=input, run=run)

    one_method.__doc__ = (condense.__doc__ or "").replace("METHODS", listed(methods.methods()))
    one_method.__annotations__ = {
        "out": Path, "per_class": Whole, "method": str, "settings": Annotated[own | None, Parameter(name="*")],  # type: ignore[valid-type]
        "teacher": str | None, "data": Data | None, "source": Model | None, "input": Input | None, "run": Run | None,
        "return": None,
    }  # fmt: skip
    return one_method


def condense(
    method: Any,
    *,
    out: Path,
    per_class: int,
    teacher: str | None,
    data: Data | None,
    source: Model | None,
    input: Input | None,
    run: Run | None,
) -> None:
    """Make a few images a class that stand for a data set, and say what they give away; a publisher's command.

    Stopped with Ctrl-C, dm goes on from its last ten seconds.

    Example: datafree condense --data mnist --method dm --per-class 1 --teacher teacher --out condensed

    Parameters
    ----------
    out
        The folder to write: condensed.safetensors, README.md, run.json.
    per_class
        Number of images per class.
    method
        Condensing method; each has flags of its own, shown by `datafree condense --method METHOD --help`. METHODS
    teacher
        A release folder whose size and classes the images get, and which is tried on them; else --size, --mean, --std.
    """
    data, source, input, run = data or Data(), source or Model(), input or Input(), run or Run()
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
        **{"per_class": per_class, "teacher": teacher}, **method.model_dump(mode="json"),
        **asdict(data), **asdict(source), **asdict(input), **asdict(run),
    }  # fmt: skip
    log = RunLog("condense", settings, inputs_of(teacher, source, role="teacher") if teacher else {}, training)
    job = methods.Job(training, spec, per_class, seed=run.seed, device=run.device)
    began = time.perf_counter()
    with output_folder(out, CONDENSED_FOLDER, log) as folder, bar(f"condense {method.method}", run.quiet) as progress:
        if folder is None:
            return
        inputs = {role: own for role, own in log.identity["inputs"].items() if not role.startswith(LATER)}
        identity = {**log.identity, "settings": lasting(log.content["settings"]), "inputs": inputs}
        made = _made(method, job.resumed(folder / STATE, identity, progress), network)
        made.save(folder)
        log.write(folder, {"images": len(made), "teacher": made.about.get("teacher")})
    _say(made, folder, time.perf_counter() - began, network, training)


def _made(method: Any, job: methods.Job, network: Network | None) -> Condensed:
    made = methods.condense(method, job)
    if network is not None:
        made.about["teacher"] = {"fingerprint": network.fingerprint(), "accuracy": round(made.accuracy(network), 2)}
    return made


def _say(made: Condensed, folder: Path, seconds: float, network: Network | None, data: Dataset) -> None:
    size = (folder / FILE).stat().st_size
    what = f"{len(made)} images of {len(made.spec.classes)} classes of {data.name}"
    print(f"{what} in {seconds:.1f} s; {size:,} bytes in {folder}")
    if network is not None:
        say_fit(network, data)
        print(f"  the teacher sees the labelled class in {made.accuracy(network):.1f} % of them")
    print(f"  what they give away: {made.about['gives_away']}")
