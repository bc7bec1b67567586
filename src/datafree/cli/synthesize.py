"""datafree synthesize"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from .._core.distributed import main_process, together
from .._core.errors import UserError
from .._core.memory import check_cost
from ..models.network import Network
from ..runs.output_folder import output_folder
from ..runs.run_log import RunLog
from ..synthesis import methods
from ..synthesis.cost import inversion_bytes
from ..synthesis.methods.inversion import InversionSettings
from ..synthesis.synthetic_set import SET_FOLDER, SyntheticSet, check_grows, unit_of
from ..synthesis.synthetic_set import synthesize as make
from .common import Model, Run, Whole, bar, chosen, inputs_of, listed, load_record, load_teacher

__all__ = ["check_counts", "command", "finish", "synthesize"]


def command(argv: list[str]) -> Callable[..., None]:
    """`synthesize` with the flags of the method named by --method."""
    settings = type(methods.from_name(chosen(argv, "--method") or methods.DEFAULT))

    def one_method(
        model: str,
        /,
        *,
        out: Path,
        images: int = 10_000,
        method: str = methods.DEFAULT,
        settings: Any = None,
        unit: int | None = None,
        workers: int | None = None,
        source: Model | None = None,
        run: Run | None = None,
    ) -> None:
        own = settings if settings is not None else methods.from_dict({"method": method})
        synthesize(model, own, out=out, images=images, unit=unit, workers=workers, source=source, run=run)

    one_method.__doc__ = (synthesize.__doc__ or "").replace("METHODS", listed(methods.methods()))
    one_method.__annotations__ = {
        "model": str, "out": Path, "images": Whole, "method": str, "unit": Whole | None, "workers": Whole | None,  # type: ignore[operator]
        "settings": Annotated[settings | None, Parameter(name="*")],  # type: ignore[valid-type]
        "source": Model | None, "run": Run | None, "return": None,
    }  # fmt: skip
    return one_method


@together()
def synthesize(
    model: str,
    method: Any,
    *,
    out: Path,
    images: int,
    unit: int | None,
    workers: int | None,
    source: Model | None,
    run: Run | None,
) -> None:
    """Make images from a network and its record, without data; stopped, it goes on where it was.

    Example: datafree synthesize teacher --images 20000 --out set

    Example: torchrun --nproc-per-node 2 -m datafree synthesize teacher --method spectral-pairs --out set

    Parameters
    ----------
    model
        A release folder. With --weights or --record, those are used instead of its own.
    out
        The folder for the set: checksummed safetensors shards, set.json, run.json.
    images
        Number of images; a larger number on a second run appends.
    method
        Synthesis method; each has flags of its own, shown by `datafree synthesize --method METHOD --help`. METHODS
    unit
        Number of images per work unit; a run resumes, and is split among processes, by whole units. By default 256; for
        `matched` enough for a batch of each few classes.
    workers
        Number of units made at a time, one thread each; the number of cores by default.
    """
    source, run = source or Model(), run or Run()
    check_counts(out, images=images, unit=unit, workers=workers)
    network = load_teacher(model, source, run)
    unit = unit_of(method, network, images, out) if unit is None else unit
    record = load_record(model, source, network)
    optimised = isinstance(method, InversionSettings)
    if optimised:
        check_unit(network, unit, min(workers or os.cpu_count() or 1, -(-images // unit)))
    options = {
        "model": model,
        "images": images,
        "unit": unit,
        **method.model_dump(mode="json"),
        **asdict(source),
        **asdict(run),
    }
    log = RunLog("synthesize", options, inputs_of(model, source, record=True))
    units: dict[str, Any] = {"images": images, "chunk": unit, "workers": workers, "seed": run.seed}
    with output_folder(out, SET_FOLDER, log) as folder, bar(f"synthesize {method.method}", run.quiet) as progress:
        if folder is not None:
            finish(make(network, record, method, folder, progress=progress, **units), folder, log)


def check_unit(network: Network, unit: int, workers: int) -> None:
    """Raises UserError where the units that are made at a time cannot fit in memory, naming fewer or smaller ones."""
    one = inversion_bytes(network, 1)
    smaller = [("--workers 1", one * unit)] if workers > 1 else []
    smaller += [(f"--workers 1 --unit {size}", one * size) for size in (unit // 4, unit // 16, 1) if size]
    check_cost(one * unit * workers, f"making {workers} x {unit:,} images at a time", smaller)


def check_counts(out: Path, *, images: int, unit: int | None, workers: int | None) -> None:
    """Raises UserError for counts below 1, and for fewer images than the set in `out` has already."""
    if workers is not None and workers < 1:
        raise UserError(f"--workers: got {workers}, wanted at least 1; give a positive count")
    for name, count in (("images", images), ("unit", unit)):
        if count is not None and count < 1:
            raise UserError(f"--{name}: got {count}, wanted at least 1; give a positive count")
    check_grows(out, images)


def finish(made: SyntheticSet, out: Path, log: RunLog) -> None:
    """Writes the log of a set and says what was made, in the first process alone."""
    if not main_process():
        return
    consistent = 100 * made.about["hits"]
    warning = made.warning()
    log.write(out, {"images": len(made), "consistent": consistent, "warning": warning})
    seen = f"; the teacher sees the wanted class in {consistent:.1f} % of them" if made.targeted else ""
    print(f"{len(made):,} images in {out}{seen}")
    if warning is not None:
        print(f"warning: {warning}; {_advice(made.about['method'])}")


def _advice(settings: dict[str, Any]) -> str:
    """What may help, of what this method has."""
    flags = {"steps": "more --steps", "learning_rate": "a higher --learning-rate"}
    options = [
        *(words for name, words in flags.items() if name in settings),
        "another --method",
        "a record that holds more",
    ]
    return f"try {', '.join(options[:-1])}, or {options[-1]}"
