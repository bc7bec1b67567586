"""The settings of a run under the names that the command line has for them now, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..._core.flag_names import FLAG_NAMES, flag_name
from ..._core.plugins import Family
from ...data.condensed.methods import FAMILY as CONDENSING
from ...distillation.replay import FAMILY as REPLAY
from ...records.statistics import FAMILY as STATISTICS
from ...runs.run_reader import FinishedRun
from ...synthesis.losses.alignment import FAMILY as ALIGNMENT
from ...synthesis.methods import FAMILY as SYNTHESIS

__all__ = ["named_settings"]

_OF_VERB = {"quantize": ("Bits",), "expand": ("Expansion",)}
"""Verb -> settings classes whose fields its log has."""
_OF_GROUP = {"online": ("OnlineDistillation",)}
"""Group of settings in a log -> settings classes."""
_FAMILIES: tuple[Family[Any], ...] = (REPLAY, ALIGNMENT, STATISTICS, CONDENSING, SYNTHESIS)
_PREFIXED = ("method",)
"""Groups whose settings may have the names of others in the log, so that the group's name is before theirs."""
_FORMER = {"checkpoint": "weights"}
"""Settings of `quantize` in logs -> flag in words; its `weights` are the bits."""


def named_settings(log: FinishedRun) -> dict[str, Any]:
    """The settings of a run by name, such as ``generator learning rate``. Groups are flattened."""
    classes = [*_OF_VERB.get(log.verb or "", ()), *_classes(log.settings)]
    named: dict[str, Any] = {}
    for key, value in log.settings.items():
        if isinstance(value, Mapping) and value:
            group = [*_OF_GROUP.get(key, ()), *_classes(value)]
            for inner, entry in value.items():
                name = _words(group, str(inner))
                prefixed = (key in _PREFIXED and inner != key) or name in named
                named[f"{_words((), key)} {name}" if prefixed else name] = _listed(entry)
        else:
            former = _FORMER.get(key) if log.verb == "quantize" else None
            named[former or _words(classes, key)] = _listed(value)
    return named


def _listed(value: Any) -> Any:
    """A value in which the settings of each entry of a list, such as a record's statistics, have their names too."""
    if isinstance(value, Mapping):
        return {_words(_classes(value), str(key)): _listed(entry) for key, entry in value.items()}
    return [_listed(entry) for entry in value] if isinstance(value, list | tuple) else value


def _classes(settings: Mapping[str, Any]) -> list[str]:
    """Names of the classes that the settings are of, as their `method`, `kind`, `replay` or `alignment` says."""
    pairs = [(family, settings.get(family.field)) for family in _FAMILIES]
    classes = [family.built_in().get(name) for family, name in pairs if isinstance(name, str)]
    return [cls.__name__ for cls in classes if cls is not None]


def _words(classes: Sequence[str], field: str) -> str:
    """The name of the flag of a field that one of the classes has, in words."""
    cls = next((cls for cls in classes if (cls, field) in FLAG_NAMES), "")
    return flag_name(cls, field).replace("-", " ")
