"""datafree report: its options; what it does is in report.py, which imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .arguments import Data, Run

__all__ = ["report"]


def report(
    *runs: Path,
    out: Path,
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
        file.py:function that builds a network of somebody's own, which is not measured without; repeat it for several, in
        their order among the runs, or as FOLDER=file.py:function.
    """
    from .report import report as make

    make(*runs, out=out, data=data, title=title, code=code, run=run)
