"""Under a limit of address space a command ends in one line before it imports what would wait for ever."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from datafree._core.errors import UserError
from datafree.cli import startup

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="asks Linux how much memory it has")
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv.pop(1)) << 20, resource.RLIM_INFINITY))
from datafree.cli.main import main
sys.argv[0] = "datafree"
main()
"""


@pytest.mark.parametrize("megabytes", [200, 450, 650, 690])
def test_a_limit_below_the_imports_is_refused_in_one_line_at_once(megabytes):
    words = [sys.executable, "-c", LIMITED, str(megabytes), "inspect", "there is none"]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, env={**os.environ, **threads}, check=False)
    assert done.returncode == 2, done.stderr
    assert (
        done.stderr.count("\n") == 1
        and "under the limit of this shell (ulimit -v), expected at least 768 MiB" in done.stderr
    )


@pytest.mark.parametrize(("cores", "told", "expected"), [
    (1, {}, 768), (4, {}, 1056), (4, {"OMP_NUM_THREADS": "1"}, 768), (4, {"OMP_NUM_THREADS": "64"}, 1056),
    (4, {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "4"}, 864), (4, {"OMP_NUM_THREADS": "x"}, 1056),
])  # fmt: skip
def test_the_memory_that_is_asked_for_grows_with_the_threads(monkeypatch, cores, told, expected):
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))
    monkeypatch.setattr(startup, "LAST", "not imported")
    for there, fits in ((expected << 20, True), ((expected << 20) - 1, False), (None, True)):
        monkeypatch.setattr(startup, "_left", lambda there=there: there)
        if fits:
            startup.check_address_space()
        else:
            with pytest.raises(UserError, match=f"expected at least {expected} MiB"):
                startup.check_address_space()


def test_once_everything_is_imported_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(startup, "_left", lambda: 0)
    monkeypatch.setattr(startup, "LAST", "sys")
    startup.check_address_space()
