"""datafree expand"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from .._core.distributed import main_process, together
from ..data.condensed.condensed_set import Condensed
from ..models import hooks
from ..records.divergence import known
from ..runs.output_folder import output_folder
from ..runs.run_log import RunLog
from ..synthesis.expansion import Expansion
from ..synthesis.expansion import expand as make
from ..synthesis.losses import alignment as kinds
from ..synthesis.synthetic_set import SET_FOLDER, UNIT
from .common import Model, Run, Whole, bar, chosen, inputs_of, listed, load_record, load_teacher
from .synthesize import check_counts, finish

__all__ = ["command", "expand"]


def command(argv: list[str]) -> Callable[..., None]:
    """`expand` with the flags of the kind of alignment named by --alignment."""
    kind = type(kinds.from_name(chosen(argv, "--alignment") or kinds.DEFAULT))

    def one_kind(
        teacher: str,
        condensed: Path,
        /,
        *,
        out: Path,
        images: int = 10_000,
        alignment: str = kinds.DEFAULT,
        guide: Any = None,
        settings: Expansion | None = None,
        unit: int = UNIT,
        workers: int | None = None,
        source: Model | None = None,
        run: Run | None = None,
    ) -> None:
        how = settings or Expansion(), guide if guide is not None else kinds.from_name(alignment)
        expand(teacher, condensed, how, out=out, images=images, unit=unit, workers=workers, source=source, run=run)

    one_kind.__doc__ = (expand.__doc__ or "").replace("KINDS", listed(kinds.kinds()))
    one_kind.__annotations__ = {
        "teacher": str, "condensed": Path, "out": Path, "images": Whole, "alignment": str,
        "guide": Annotated[kind | None, Parameter(name="*")],  # type: ignore[valid-type]
        "settings": Annotated[Expansion | None, Parameter(name="*")], "unit": Whole, "workers": Whole | None,  # type: ignore[operator]
        "source": Model | None, "run": Run | None, "return": None,
    }  # fmt: skip
    return one_kind


@together()
def expand(
    teacher: str,
    condensed: Path,
    how: tuple[Expansion, Any],
    *,
    out: Path,
    images: int,
    unit: int,
    workers: int | None,
    source: Model | None,
    run: Run | None,
) -> None:
    """Make many images from a few condensed or real ones and the network alone; stopped, it goes on where it was.

    The few are not part of the set: datafree distill --images SET --condensed CONDENSED learns from both.

    Example: datafree expand teacher condensed --images 5000 --out set

    Parameters
    ----------
    teacher
        A release folder. With --weights, those weights are used instead of its own.
    condensed
        What `datafree condense` or `import-condensed` wrote: the folder, or its condensed.safetensors.
    out
        The folder for the set: checksummed safetensors shards, set.json, run.json.
    images
        Number of images; a larger number on a second run appends.
    alignment
        Distance to the few that is reduced; each has flags of its own (`datafree expand --alignment KIND --help`). KINDS
    unit
        Number of images per work unit; a run resumes, and is split among processes, by whole units.
    workers
        Number of units made at a time, one thread each; the number of cores by default.
    """
    source, run, (settings, guide) = source or Model(), run or Run(), how
    check_counts(out, images=images, unit=unit, workers=workers)
    network = load_teacher(teacher, source, run)
    hooks.shapes(network, (hooks.FEATURES,))  # before the folder is claimed
    few = Condensed.open(condensed, network)
    record = load_record(teacher, source, network)
    options = {
        "teacher": teacher, "condensed": condensed, "images": images, "unit": unit, **settings.model_dump(mode="json"),
        **guide.model_dump(mode="json"), **asdict(source), **asdict(run),
    }  # fmt: skip
    log = RunLog("expand", options, {**inputs_of(teacher, source, role="teacher", record=True), "condensed": condensed})
    units: dict[str, Any] = {"images": images, "chunk": unit, "workers": workers, "seed": run.seed}
    with output_folder(out, SET_FOLDER, log) as folder, bar("expand", run.quiet) as progress:
        if folder is None:
            return
        anchors = few.clamped(), few.labels
        made = make(network, anchors, folder, settings, guide, record=record, progress=progress, **units)
        finish(made, folder, log)
    if not main_process():
        return
    if record is not None and settings.statistics is None and not known(network, record):
        print("  the record has no moments by channel (record --kind moments --conv units), so none were matched")
    if few.missing():
        names = ", ".join(few.missing()[:8]) + (" ..." if len(few.missing()) > 8 else "")
        print(f"  no image of {names} in {condensed}: those classes were made by plain inversion, unguided")
