"""Whether numpy, torch and scipy can be imported under a limit of address space (ulimit -v); imports none of them."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from .._core.errors import UserError

__all__ = ["check_address_space"]

ONE_THREAD, THREAD = 768 << 20, 96 << 20
"""Bytes that the imports take on one thread (705 MB with torch 2.13 for CPUs), and for a further one (82 MB)."""
LAST = "scipy.linalg"
"""Once it is imported, all are."""


def check_address_space() -> None:
    """Raises UserError where the imports would not fit.

    OpenBLAS, which numpy and scipy bring, asks for its buffers again and again, for ever, where the limit leaves none; a
    little earlier it ends the process.
    """
    available = _left()
    if LAST in sys.modules or available is None:
        return
    threads = _threads()
    needed = ONE_THREAD + THREAD * (threads - 1)
    if available < needed:
        fewer = ", or set OMP_NUM_THREADS=1" if threads > 1 else ""
        raise UserError(
            f"there are {max(0, available) >> 20} MiB of memory under the limit of this shell (ulimit -v), expected at "
            f"least {needed >> 20} MiB for {threads} thread{'s' if threads > 1 else ''}; raise the limit{fewer}"
        )


def _left() -> int | None:
    """Bytes of address space; None without a limit, or where the system does not say."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return None
        with open("/proc/self/statm") as file:
            return limit - int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError, ValueError):
        return None


def _threads() -> int:
    """Number of OpenBLAS's threads: the cores, or what the environment says where that is less."""
    cores = os.cpu_count() or 1
    with suppress(AttributeError):
        cores = len(os.sched_getaffinity(0))
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdecimal() and int(value) > 0:
            return min(cores, int(value))
    return cores
