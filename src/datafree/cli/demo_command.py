"""datafree demo: its options; what it does is in demo.py, which imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .arguments import Whole

__all__ = ["demo"]


def demo(
    *,
    out: Path = Path("demo"),
    images: Whole = 2560,
    seed: Whole = 0,
    quiet: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Train a teacher on digits, record it, distill students of half its width with data and without, compare.

    Example: datafree demo --out demo

    Parameters
    ----------
    out
        The folder for all results; open report.html in it.
    images
        Number of synthetic images per method.
    seed
        Seed of every random number.
    quiet
        No progress bar.
    """
    from .demo import demo as show

    show(out=out, images=images, seed=seed, quiet=quiet)
