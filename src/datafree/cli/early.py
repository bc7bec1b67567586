"""What can be seen to be wrong with a command line before torch is imported, which takes seconds: names of networks, data
and folders. What is seen here is refused with the words of the place where it would be used."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .._core.code_names import code_name
from .._core.errors import UserError, unknown
from .._core.files.unfinished import check_finished
from .._core.folder_kinds import EXPORTED, check_original, is_onnx, is_release, is_zoo, no_release, without_logs
from ..data.registry import check_exists
from ..models import zoo
from ..releases.builder_names import check_name
from .arguments import Data
from .settings_source import family

__all__ = ["check"]

TRAINED = ("record", "synthesize", "expand", "distill", "prune", "quantize", "evaluate", "similarity", "compare")
"""Verbs whose first argument is a trained network."""
CHANGED = ("record", "synthesize", "expand", "prune", "quantize", "compare")
"""Verbs that need its gradients, layers or weights; for the others its answers are enough."""
FRESH = ("train", "pack")


def check(chain: Sequence[str], arguments: Mapping[str, Any]) -> None:
    """Raises UserError for a network, data set or folder that is not there; `chain` are the words of the command."""
    verb = chain[0] if chain else ""
    name = arguments.get("teacher", arguments.get("model"))
    if verb in TRAINED and isinstance(name, str):
        _check_trained(name, chain)
        if (
            verb in CHANGED
            or tuple(chain[1:2]) == ("online",)
            or (tuple(chain[1:2]) == ("fresh",) and "gaussian" not in chain)
        ):
            check_original(name)
    elif verb in FRESH and isinstance(name, str) and not (verb == "pack" and is_onnx(name)):
        _check_fresh(name)
    elif verb == "report":
        for folder in without_logs(arguments.get("runs", ())):
            if not folder.is_dir():
                raise UserError(
                    f"no folder {folder}, expected a release (config.json, model.safetensors); check the path"
                )
    data = arguments.get("data")
    if verb in (*TRAINED, "train", "condense", "report") and isinstance(data, Data) and data.data is not None:
        check_exists(data.data)


def _check_trained(name: str, chain: Sequence[str]) -> None:
    if is_release(name):
        if not (Path(name) / "config.json").is_file():
            check_finished(name)
            raise UserError(no_release(Path(name)))
        return
    if is_onnx(name):
        if not os.path.isfile(name):
            raise UserError(f"no file {name}, expected an ONNX file; check the path")
    elif Path(name).suffix not in EXPORTED:  # for those the loader has words of its own
        _check_code(name)
        if code_name(name) is None and not is_zoo(name):
            raise _unknown_model(name, chain)


def _unknown_model(name: str, chain: Sequence[str]) -> UserError:
    """That there is no such network; where the word may be a misspelt method, that method."""
    close = get_close_matches(name, _methods(chain), n=1)
    if close:
        return UserError(f"no model, release folder or method {name!r}; nearest: datafree {' '.join([*chain, *close])}")
    return zoo.no_model(name)


def _methods(chain: Sequence[str]) -> list[str]:
    """The words that may follow the command's."""
    if tuple(chain) in (("synthesize",), ("distill", "fresh")):
        return list(family("datafree.synthesis.methods", "method"))
    if tuple(chain) == ("expand",):
        return list(family("datafree.synthesis.losses.alignment", "alignment"))
    if tuple(chain) == ("record",):
        return list(family("datafree.records.statistics", "kind"))
    return ["fresh", "online"] if tuple(chain) == ("distill",) else []


def _check_fresh(name: str) -> None:
    if not is_release(name):
        _check_code(name)
        if code_name(name) is None and not is_zoo(name):
            raise unknown("model", name, zoo.names(), "the zoo, and no such file, module or folder")


def _check_code(name: str) -> None:
    check_name(name)
    code = code_name(name)
    if code is not None:
        code.check()
        if code.is_file and not os.path.isfile(code.place):
            raise UserError(f"no file {code.place}, expected the Python file that builds the model; check the path")
