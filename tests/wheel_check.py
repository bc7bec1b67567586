"""`make wheel-check`: the installed wheel is used, from its console script and as a module, without the source tree."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.metadata import files, version
from pathlib import Path

COMMANDS = (
    "demo --help",
    "train hinton16 --data digits --epochs 1 --out teacher --quiet",
    "inspect teacher",
)


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    import datafree

    package = Path(datafree.__file__).parent
    if not package.is_relative_to(sys.prefix):
        sys.exit(f"datafree came from {package}, expected the wheel in {sys.prefix}")
    listed = {str(path) for path in files("datafree") or ()}
    for needed in ("datafree/py.typed", "datafree/_core/_version.py"):
        if needed not in listed:
            sys.exit(f"the wheel has no {needed}")
    script = Path(sys.executable).parent / "datafree"
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for start in ((str(script),), (sys.executable, "-m", "datafree")):
            printed = run(*start, "--version").strip()
            if printed != version("datafree"):
                sys.exit(f"{start[0]} --version: got {printed}, expected {version('datafree')}")
        for command in COMMANDS:
            run(str(script), *command.split())
    print(f"wheel-check: datafree {version('datafree')} works from its wheel")


if __name__ == "__main__":
    main()
