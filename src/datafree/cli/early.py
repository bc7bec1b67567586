"""What can be seen to be wrong with a command line before torch is imported, which takes seconds: names of networks, data
and folders. What is seen here is refused with the words of the place where it would be used."""

from __future__ import annotations

from pathlib import Path

from .._core.code_names import code_name
from .._core.errors import UserError, unknown
from .._core.files.unfinished import check_finished
from .._core.folder_kinds import EXPORTED, check_original, is_release, is_zoo, no_release, without_logs
from ..data.registry import check_exists
from ..models import zoo
from ..releases.builder_names import check_name
from .common import chosen

__all__ = ["check"]

TRAINED = ("record", "synthesize", "expand", "distill", "quantize", "evaluate", "similarity")
"""Verbs whose first argument is a trained network."""
CHANGED = ("record", "synthesize", "expand", "quantize")
"""Verbs that need its gradients, layers or weights; for the others its answers are enough."""
UNGUIDED = (None, "gaussian")
"""Values of distill's --online that need neither the teacher's gradients nor its record."""
FRESH = ("train", "pack")


def check(argv: list[str]) -> None:
    """Raises UserError for a network, data set or folder that is not there."""
    verb, words = argv[0], argv[1:]
    if any(word in ("--help", "-h") for word in words):
        return
    if words and not words[0].startswith("-"):
        if verb in TRAINED:
            _check_trained(words[0])
            if verb in CHANGED or (verb == "distill" and chosen(argv, "--online") not in UNGUIDED):
                check_original(words[0])
        elif verb in FRESH:
            _check_fresh(words[0])
        elif verb == "report":
            flags = [index for index, word in enumerate(words) if word.startswith("-")]
            for word in without_logs(map(Path, words[: flags[0]] if flags else words)):
                if not word.is_dir():
                    raise UserError(
                        f"no folder {word}, wanted a release (config.json, model.safetensors); check the path"
                    )
    if verb in (*TRAINED, "train", "condense", "report") and (data := chosen(argv, "--data")) is not None:
        check_exists(data)


def _check_trained(name: str) -> None:
    if is_release(name):
        if not (Path(name) / "config.json").is_file():
            check_finished(name)
            raise UserError(no_release(Path(name)))
        return
    if Path(name).suffix not in EXPORTED:  # for those the loader has words of its own
        _check_code(name)
        if code_name(name) is None and not is_zoo(name):
            raise unknown("model", name, zoo.names(), "the zoo, and no such release folder")


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
        if code.is_file and not Path(code.place).is_file():
            raise UserError(f"no file {code.place}, wanted the Python file that builds the model; check the path")
