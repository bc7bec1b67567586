"""`make test-portable`: runs the test suite once per entry of FACTORS, each changing one thing that CPUs differ in.

A test that passes here and fails there asserts identical floats where none are promised. Takes about 7 minutes per
factor on 2 cores. `python tests/portable.py NAME ... -- PYTEST_ARGUMENTS` runs some factors, or some tests.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

FACTORS: dict[str, dict[str, str]] = {
    "as-is": {},
    "aten-default": {"ATEN_CPU_CAPABILITY": "default"},
    "aten-avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "onednn-sse41": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "onednn-avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "mkl-avx2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "two-threads": {"DATAFREE_TEST_THREADS": "2"},
    "onnxruntime-unoptimized": {"DATAFREE_TEST_ONNXRUNTIME": "unoptimized"},
}
"""Name -> environment variables. The last two are read by tests/conftest.py."""
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+.{,300})", re.MULTILINE)
CLOSING = re.compile(r"^=* ?((?:\d+ \w+(?:, )?)+) in ([\d.]+)s", re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Runs the factors named before `--`, all by default; returns 1 where a test failed under one of them."""
    names, _, extra = (
        (arguments, "", []) if "--" not in arguments else
        (arguments[: arguments.index("--")], "", arguments[arguments.index("--") + 1 :])
    )  # fmt: skip
    unknown = sorted(set(names) - FACTORS.keys())
    if unknown:
        print(f"no factor {unknown[0]!r}; choose from {', '.join(FACTORS)}", file=sys.stderr)
        return 2
    results = {name: run(name, extra) for name in names or FACTORS}
    print(f"\n{'factor':<26}{'seconds':>8}  result")
    for name, (summary, seconds, failures) in results.items():
        print(f"{name:<26}{seconds:>8.0f}  {summary}")
        print("".join(f"{'':<36}{failure}\n" for failure in failures), end="")
    return int(any(failures or "passed" not in summary for summary, _, failures in results.values()))


def run(name: str, extra: list[str]) -> tuple[str, float, list[str]]:
    """pytest's closing words, seconds, and the tests that failed under one factor."""
    print(
        f"{name}: {' '.join(f'{key}={value}' for key, value in FACTORS[name].items()) or 'nothing changed'}", flush=True
    )
    command = [sys.executable, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider", *extra]
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=Path(__file__).parent.parent, env={**os.environ, "COLUMNS": "400", **FACTORS[name]},
        capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    closing = CLOSING.findall(done.stdout)
    summary = closing[-1][0] if closing else f"pytest ended with {done.returncode}: {done.stderr.strip()[-300:]}"
    failures = FAILED.findall(done.stdout)
    print(f"  {summary} in {seconds:.0f} s{''.join(f'; {failure}' for failure in failures)}", flush=True)
    return summary, seconds, failures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
