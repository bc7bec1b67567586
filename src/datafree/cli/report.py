"""datafree report"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .._core.errors import UserError
from .arguments import Data, Run, Trust
from .loading import check_data, load_data, use_threads

__all__ = ["report"]


def report(
    *runs: Path,
    out: Path = Path("report.html"),
    data: Data | None = None,
    title: str = "datafree report",
    code: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    trust: Trust = False,
    split: str = "test",
    replace: Annotated[bool, Parameter(negative="")] = False,
    run: Run | None = None,
) -> None:
    """One self-contained page about any number of runs: table, images, curves, settings; run.json's content beside it.

    Example: datafree report teacher baseline student set --data mnist --out report.html

    Parameters
    ----------
    runs
        Release folders, synthetic sets, quantized networks and similarities, as the commands wrote them.
    out
        The HTML file to write.
    title
        Heading of the page.
    code
        Code of a custom network, as file.py:function; without it the network is not measured. Repeat it in the order of the
        runs, or give FOLDER=file.py:function.
    trust
        Run the code that the releases hold; read it first. Without it, none of it runs, and these networks are not measured.
    split
        `test`, `train`, or, of an image folder or .npz file without splits of its own, `all`.
    replace
        Overwrite the existing report.
    """
    from .._core.folder_kinds import without_logs
    from ..evaluation.report import collect

    data, run = data or Data(), run or Run()
    check_data(data)
    if split != "test" and data.data is None:
        raise UserError(
            f"--split: got {split} without --data, expected the data that it is a split of; name it with --data"
        )
    use_threads(run)
    test = None if data.data is None else load_data(data, split)
    folders = list(map(str, without_logs(runs)))
    settings = {"runs": folders, "title": title, "code": list(code), **asdict(data), **asdict(run)}
    if split != "test":  # as in reports of earlier versions
        settings["split"] = split
    if trust:
        settings["trust"] = True
    page = collect.report(
        folders, out, test, title=title, code=code, device=run.device, seed=run.seed, replace=replace,
        settings=settings, trust=trust,
    )  # fmt: skip
    if page.unchanged:
        print(f"already complete: report in {out}, of the same runs and settings; nothing was changed")
        return
    print(f"{out}: {_count(page.networks, 'network')}, {_count(page.sets, 'set')} of images")
    for warning in page.warnings:
        print(f"  {warning}")


def _count(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
