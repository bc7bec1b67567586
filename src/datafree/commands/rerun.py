"""datafree rerun"""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from ..files import read_json

__all__ = ["rerun"]


def rerun(run: Path, /, *, out: Path | None = None) -> None:
    """Repeat a run from its run.json: the same command, settings and seed.

    Example: datafree rerun student/run.json --out again

    Parameters
    ----------
    run
        A run.json, or the folder that holds one.
    out
        Where to write instead of the first run's folder.
    """
    from ..__main__ import run as run_command

    path = run / "run.json" if run.is_dir() else run
    if not path.is_file():
        raise UserError(f"no file {path}, wanted a run.json; name the folder of a run")
    argv = read_json(path).get("argv")
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv) or argv[0] == "rerun":
        raise UserError(f"{path} names no command line; it was made from Python, call the same function again")
    words = list(argv)
    if out is not None and "--out" in words:
        words[words.index("--out") + 1] = str(out)
    elif out is not None:
        words += ["--out", str(out)]
    print("datafree " + " ".join(words))
    code = run_command(words)
    if code:
        raise SystemExit(code)
