"""Formats numbers with units and separators; missing values become `not measured`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["NOT_MEASURED", "count", "duration", "factor", "percent", "setting", "share", "size", "spread"]

NOT_MEASURED = "not measured"


def percent(value: float | None) -> str:
    """Two decimals, without the % sign, which is in the column's header."""
    return NOT_MEASURED if value is None or not math.isfinite(value) else f"{value:.2f}"


def spread(sd: float | None, seeds: int) -> str:
    """``± 0.12, n = 5``; empty for one seed."""
    if seeds <= 1:
        return ""
    is_measured = sd is not None and math.isfinite(sd)
    return f"± {sd:.2f}, n = {seeds}" if is_measured else f"sd {NOT_MEASURED}, n = {seeds}"


def count(value: int | None) -> str:
    """With thousands separators."""
    return NOT_MEASURED if value is None else f"{value:,}"


def factor(parameters: int, teacher: int | None) -> str:
    """Size relative to the teacher, such as ``3.2× smaller``; empty without a teacher or for an equal size."""
    if not teacher or parameters < 1 or parameters == teacher:
        return ""
    ratio = teacher / parameters
    return f"{ratio:,.1f}× smaller" if ratio > 1 else f"{1 / ratio:,.1f}× larger"


def size(nbytes: float) -> str:
    """Decimal units: ``812 B``, ``45.3 kB``, ``1.2 MB``."""
    if nbytes < 1000:
        return f"{nbytes:.0f} B"
    for unit in ("kB", "MB", "GB"):
        nbytes /= 1000
        if nbytes < 999.95:
            return f"{nbytes:.1f} {unit}"
    return f"{nbytes / 1000:,.1f} TB"


def duration(seconds: float | None) -> str:
    """``0.35 s``, ``12.3 s``, ``4 min 12 s``, ``1 h 03 min``."""
    if seconds is None or not math.isfinite(seconds):
        return NOT_MEASURED
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, whole_seconds = divmod(round(seconds), 60)
    return f"{minutes} min {whole_seconds:02d} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02d} min"


def share(value: float) -> str:
    """A share in percent. Never rounds a positive share to 0, or a share below 1 to 100%."""
    if 0 < value < 0.0001:
        return "less than 0.01%"
    return "more than 99.99%" if 0.9999 < value < 1 else f"{100 * value:.2f}%"


def setting(value: Any) -> str:
    """One setting as text."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {setting(entry)}" for key, entry in value.items())
    if isinstance(value, (set, frozenset)):
        return ", ".join(sorted(setting(entry) for entry in value))
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return ", ".join(setting(entry) for entry in value)
    return str(value)
