"""Checks what a statistic of the user's own returns, before a record of it is written."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from torch import Tensor

from .._core.errors import UserError, cut
from .statistics import Accumulator, Summary, Table, table

__all__ = ["check_summary"]


def check_summary(name: str, statistic: Any, accumulator: Accumulator, summary: Any, images: int) -> None:
    """Raises UserError, naming the statistic, if what it measured on `images` images for the entry `name` cannot be
    recorded: if the summary does not fit the accumulator's `layout`, has NaN or infinity, does not pass the accumulator's
    `check`, or counts other images, and if `released_statistics` returns no number.
    """
    method = "finish" if statistic.needs_data else "read"
    subject = f"the statistic {statistic.kind!r}: {method} returns"
    layout = accumulator.layout()
    if not isinstance(summary, dict) or not all(
        isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in summary.items()
    ):
        raise UserError(
            f"{subject} {cut(_described(summary))} for {name!r}, expected a table of the tensors {_names(layout)}; correct "
            "what it returns"
        )
    if problem := _misfit(table(summary), layout):
        raise UserError(f"{subject} for {name!r} {problem}, as its layout says; correct one of them")
    for key, tensor in summary.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise UserError(
                f"{subject} NaN or infinity in {key!r} for {name!r}, expected finite numbers; correct what it returns"
            )
    accumulator.check(summary)
    _check_count(f"{subject} a 'count'", name, summary, images)
    released: Any = accumulator.released_statistics(summary)
    if isinstance(released, bool) or not isinstance(released, Real) or not 0 <= float(released) < math.inf:
        raise UserError(
            f"the statistic {statistic.kind!r}: released_statistics returns {cut(_described(released))} for {name!r}, "
            "expected a finite number of at least 0; correct what it returns"
        )


def _check_count(subject: str, name: str, summary: Summary, images: int) -> None:
    count = summary.get("count")
    if count is not None and images and int(count.sum()) != images:
        raise UserError(
            f"{subject} of {int(count.sum()):,} in total for {name!r}, expected {images:,}, the number of images; correct "
            "what it returns"
        )


def _misfit(found: Table, layout: Table) -> str | None:
    """The first tensor that does not fit the layout, in words."""
    for key in sorted({*found, *layout}):
        if found.get(key) != layout.get(key):
            return f"{_shown(found.get(key))} as {key[:80]!r}, expected {_shown(layout.get(key))}"
    return None


def _shown(part: tuple[str, tuple[int, ...]] | None) -> str:
    return "no tensor" if part is None else f"{part[0]} {tuple(part[1])}"


def _names(layout: Table) -> str:
    return ", ".join(f"{key!r} ({number} {tuple(shape)})" for key, (number, shape) in layout.items())


def _described(value: Any) -> str:
    """A number, text or None as it is; the type of anything else."""
    if value is None or isinstance(value, (str, int, float)):
        return repr(value)
    if isinstance(value, dict):
        entries = ((key, part) for key, part in value.items() if not isinstance(part, Tensor))
        key, part = next(entries, ("", None))
        return f"a {type(part).__name__} as {key!r}"
    return f"a {type(value).__name__}"
