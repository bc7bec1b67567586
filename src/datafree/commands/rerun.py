"""datafree rerun"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..data.registry import names as data_names
from ..errors import UserError
from ..files import read_json

__all__ = ["rerun"]


def rerun(run: Path, /, *, out: Path | None = None, trust: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Repeat a run from its run.json: the same command, settings and seed.

    A run.json is a file like any other: one from strangers could name code to be run, so such a command needs --trust.

    Example: datafree rerun student/run.json --out again

    Parameters
    ----------
    run
        A run.json, or the folder that holds one.
    out
        Where to write instead of the first run's folder.
    trust
        Run it even where it names a network by file.py:function or package.module:function.
    """
    from ..__main__ import run as run_command
    from ..runlog import hash_of

    path = run / "run.json" if run.is_dir() else run
    if not path.is_file():
        raise UserError(f"no file {path}, wanted a run.json; name the folder of a run")
    log = read_json(path)
    argv = log.get("argv")
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv) or argv[0] == "rerun":
        raise UserError(f"{path} names no command line; it was made from Python, call the same function again")
    words = argv if out is None else _to(argv, str(out))
    print("datafree " + shlex.join(words))
    code = [word for word in words if _names_code(word)]
    if code and not trust:
        raise UserError(
            f"that command runs the code {code[0]!r}; if it is yours, or you have read it, add --trust, or type it yourself"
        )
    for name, digest in (log.get("inputs") or {}).items():
        if Path(name).exists() and hash_of(name) != digest:
            print(f"note: {name} has changed since that run")
    return run_command(words)


def _names_code(word: str) -> bool:
    """Whether a word of a command line, or the value in --flag=value, may name a function to call.

    `cuda:1` does not, nor does a split of a data set that we know, as in `cifar10:train`.
    """
    base, _, split = word.rpartition(":")
    if base in data_names() and split in ("train", "test"):
        return False
    return re.search(r":\s*[^\W\d]", word) is not None


def _to(argv: list[str], out: str) -> list[str]:
    """The command line with another --out, in either spelling, or with one where it had none."""
    words = [f"--out={out}" if word.startswith("--out=") else word for word in argv]
    if "--out" in words:
        return [*words[: words.index("--out") + 1], out, *words[words.index("--out") + 2 :]]
    return words if words != argv else [*words, "--out", out]
