"""How much memory is left, and refusing work that needs more. Free of torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UserError

if TYPE_CHECKING:
    pass


__all__ = ["available", "check_cost", "in_words"]


def available() -> int | None:
    """Bytes that this process can still take: of the machine, of its control group, under `ulimit -v`; None if unknown."""
    found = [own for own in (_machine(), _group(), _limit()) if own is not None]
    return max(0, min(found)) if found else None


def in_words(count: int) -> str:
    """`15.6 GB`, or in MB below a thousand of them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def check_cost(needed: int, what: str, advice: Sequence[tuple[str, int]] = (), otherwise: str = "") -> None:
    """Raises UserError where `what` needs more bytes than there are, naming the first piece of advice that fits.

    `advice` are pairs of what to give instead and what that would cost.
    """
    there = available()
    if there is None or needed <= there:
        return
    fitting = next((f"{text} (about {in_words(cost)})" for text, cost in advice if cost <= there), None)
    do = f"give {fitting}" if fitting else otherwise or "use a machine with more memory"
    raise UserError(
        f"{what} needs about {in_words(needed)} of memory, expected at most the {in_words(there)} available; {do}"
    )


def _machine() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    names = getattr(os, "sysconf_names", {})
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_PHYS_PAGES" in names else None


def _group() -> int | None:
    """What the control groups of this process, and those above, leave; their file cache can be taken back."""
    left: list[int] = []
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
            own = root / place.lstrip("/")
            left += [count for folder in (own, *own.parents) if (count := _left(folder, *names)) is not None]
    return min(left, default=None)


def _left(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    with suppress(OSError, ValueError):
        most = (folder / limit).read_text().strip()
        if most != "max":
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            return int(most) - int((folder / usage).read_text()) + int(stat.get(cache, 0))
    return None


def _limit() -> int | None:
    """What `ulimit -v` leaves of the address space."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            return soft - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return None
