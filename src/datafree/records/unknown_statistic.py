"""Stands for a statistic whose class this process has not loaded, so that a record's other entries can be used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from .._core.errors import UserError
from .statistics import FAMILY

__all__ = ["UnknownStatistic", "unknown_statistic"]

LONGEST = 80


@dataclass(frozen=True)
class UnknownStatistic:
    """The stored settings of a class of the publisher's own. They are shown and saved again; nothing can be measured."""

    kind: str
    settings: dict[str, Any]
    needs_data: ClassVar[bool] = True

    def model_dump(self, **_: Any) -> dict[str, Any]:
        return dict(self.settings)

    def model_dump_json(self) -> str:
        return json.dumps(self.settings, sort_keys=True)

    def plan(self, network: Any, taps: Sequence[str]) -> NoReturn:  # noqa: ARG002
        raise self.missing()

    def bind(self, network: Any, taps: Sequence[str]) -> NoReturn:  # noqa: ARG002
        raise self.missing()

    def missing(self) -> UserError:
        return UserError(
            f"the statistic {self.kind!r} of the record is a class of its publisher's own that is not loaded, expected it "
            "for that; get its file, and name it file.py:Class in the command that needs it, or install it as a plug-in"
        )


def unknown_statistic(values: Any) -> UnknownStatistic | None:
    """Stored settings of a class that is neither built in nor loaded; None for others, and for a name that no class has."""
    kind = values.get("kind") if isinstance(values, dict) else None
    if not isinstance(kind, str) or not kind or not kind.isprintable() or len(kind) > LONGEST:
        return None
    if {":", "/", "\\"} & set(kind) or FAMILY.known(kind) is not None:
        return None
    return UnknownStatistic(kind, values)
