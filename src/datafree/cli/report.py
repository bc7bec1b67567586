"""datafree report"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .arguments import Data, Run
from .loading import check_data, load_data, use_threads

__all__ = ["report"]


def report(
    *runs: Path,
    out: Path = Path("report.html"),
    data: Data | None = None,
    title: str = "datafree report",
    code: Annotated[tuple[str, ...], Parameter(negative="")] = (),
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
        file.py:function that builds a custom network, which is not measured without; repeat it for several, in
        their order among the runs, or as FOLDER=file.py:function.
    """
    from .._core.folder_kinds import without_logs
    from ..evaluation.report import collect

    data, run = data or Data(), run or Run()
    check_data(data)
    use_threads(run)
    test = None if data.data is None else load_data(data, "test")
    folders = list(map(str, without_logs(runs)))
    settings = {"runs": folders, "title": title, "code": list(code), **asdict(data), **asdict(run)}
    page = collect.report(
        folders, out, test, title=title, code=code, device=run.device, seed=run.seed, settings=settings
    )
    if page.unchanged:
        print(f"already complete: report in {out}, of the same runs and settings; nothing was changed")
        return
    print(f"{out}: {_count(page.networks, 'network')}, {_count(page.sets, 'set')} of images")
    for warning in page.warnings:
        print(f"  {warning}")


def _count(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
