"""The memory that is available, and a check before work that may need more. Does not import torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .errors import UserError

__all__ = ["available", "check_cost", "in_words"]

LARGEST = 10**18
"""Bytes from which no exact number is named; far larger integers are no floats."""


def available() -> int | None:
    """Bytes that this process can still allocate: on the machine, in its control group, under `ulimit -v`; None if
    unknown.
    """
    limits = [limit for limit in (_machine(), _group(), _limit()) if limit is not None]
    return max(0, min(limits)) if limits else None


def in_words(count: int) -> str:
    """`15.6 GB`, or MB below 1 GB."""
    if count >= LARGEST:
        return f"over {LARGEST // 10**9:,} GB"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def check_cost(needed: int, subject: str, advice: Sequence[tuple[str, int]] = (), otherwise: str = "") -> None:
    """Raises UserError if `subject` needs more bytes than are available, with the first piece of advice that fits.

    `advice` is a list of (what to give instead, the bytes that it needs).
    """
    free = available()
    if free is None or needed <= free:
        return
    fitting = next((f"{text} (about {in_words(cost)})" for text, cost in advice if cost <= free), None)
    remedy = f"give {fitting}" if fitting else otherwise or "use a machine with more memory"
    raise UserError(
        f"{subject} needs about {in_words(needed)} of memory, expected at most the {in_words(free)} available; {remedy}"
    )


def _machine() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    names = getattr(os, "sysconf_names", {})
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_PHYS_PAGES" in names else None


def _group() -> int | None:
    """Bytes left in this process's control groups and their parents; their file cache counts as free."""
    remaining: list[int] = []
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, place = line.split(":", 2)
            if kinds == "":  # version 2
                root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.current", "inactive_file")
            elif "memory" in kinds.split(","):
                root = Path("/sys/fs/cgroup/memory")
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            else:
                continue
            group = root / place.lstrip("/")
            remaining += [
                count for folder in (group, *group.parents) if (count := _remaining(folder, *names)) is not None
            ]
    return min(remaining, default=None)


def _remaining(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    with suppress(OSError, ValueError):
        maximum = (folder / limit).read_text().strip()
        if maximum != "max":
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            return int(maximum) - int((folder / usage).read_text()) + int(stat.get(cache, 0))
    return None


def _limit() -> int | None:
    """Bytes left of the address space under `ulimit -v`."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            return soft - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return None
