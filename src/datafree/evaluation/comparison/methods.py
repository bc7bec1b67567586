"""The methods of a comparison: images of a synthesis method, a generator beside the student, and the two controls."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ..._core.arguments import check_argument
from ..._core.errors import UserError, unknown
from ..._core.files.paths import safe_name
from ..._core.user_code import code_entry
from ...distillation import replay as memories
from ...distillation.distill_online import REPLAY
from ...distillation.online.settings import PRESETS
from ...models.behaviour import check_pixel_gradient
from ...models.network import Network
from ...records.divergence import has_statistics
from ...records.record import Record
from ...synthesis import methods as synthesis
from ...synthesis.methods import Synthesizer

__all__ = ["NOISE", "REAL", "ComparedMethod", "MethodLike", "compared_methods", "default_methods", "label_of"]

MethodLike: TypeAlias = str | Mapping[str, Any] | Synthesizer
"""A name (`bns`, `online`, `online:vae`, `file.py:Class`), a mapping with `method`, or settings of a synthesis method."""
ONLINE = "online"
REAL, NOISE = "real", "noise"
"""The controls: the student on real training images, and on Gaussian noise."""


@dataclass(frozen=True)
class ComparedMethod:
    """One method. `settings` are those of a synthesis method, or of the memory of an online one."""

    name: str
    """Its name in the table."""
    label: str
    """Its name in paths and in `METHOD/STUDENT/SEED`."""
    kind: Literal["images", "online", "real"]
    settings: Any = None
    preset: str | None = None
    """A published method of online distillation."""
    control: bool = False

    def identity(self) -> dict[str, Any]:
        """Everything that decides its images, as JSON values."""
        dumped = {} if self.settings is None else self.settings.model_dump(mode="json")
        return {"kind": self.kind, **({"preset": self.preset} if self.preset else {}), **dumped}

    def code(self) -> dict[str, str]:
        """The hash of the code of a class of the user's own; else empty."""
        return code_entry(self.settings)


def default_methods(teacher: Network, record: Record | None) -> list[str]:
    """The methods that need nothing but this teacher and record."""
    names = ["bns", "meta-generator"] if has_statistics(teacher) else []
    if record is not None and _fits("distribution", teacher, record):
        names.append("distribution")
    try:
        check_pixel_gradient(teacher, "method inception")
    except UserError:
        return names
    return [*(names or ["inception"]), ONLINE]


def _fits(name: str, teacher: Network, record: Record) -> bool:
    try:
        synthesis.from_name(name).check(teacher, record)
    except UserError:
        return False
    return True


def compared_methods(
    methods: Sequence[MethodLike] | Mapping[str, MethodLike] | None, teacher: Network, record: Record | None, *,
    controls: bool, has_training_data: bool,
) -> tuple[ComparedMethod, ...]:  # fmt: skip
    """The methods, then the controls. Raises UserError for an unknown name, none, and two of one name."""
    if methods is None:
        methods = default_methods(teacher, record)
    if isinstance(methods, Mapping):
        for name in methods:
            check_argument("methods: name of a method", name, str)
        chosen = [_method(value, name) for name, value in methods.items()]
    else:
        chosen = [_method(value) for value in ([methods] if isinstance(methods, str) else methods)]
    if not chosen:
        raise UserError(
            f"methods: got none, expected at least one that fits {teacher.name}; name some, such as 'gaussian' or 'online'"
        )
    for method in chosen:
        if method.label in (REAL, NOISE) and not method.control:
            raise UserError(
                f"methods: got {method.name!r} as the name of a method, which a control has, expected another; rename it"
            )
    present = {method.label for method in chosen}
    names = [name for name in (REAL, NOISE) if controls and name not in present]
    chosen += [_method(name) for name in names if name != REAL or has_training_data]
    if not has_training_data and REAL in present:
        raise UserError("methods: got 'real' without training data, expected images to train on; give `train`")
    for index, method in enumerate(chosen):
        if method.label in {other.label for other in chosen[:index]}:
            several = (
                method.settings is not None
                and not isinstance(methods, (str, Mapping))
                and not all(isinstance(value, str) for value in methods)
            )
            advice = "give a dict {name: method} for several settings" if several else "leave one out"
            raise UserError(f"methods: got {method.name!r} twice, expected each once; {advice}")
    return tuple(sorted(chosen, key=lambda method: method.control))


def _method(value: MethodLike, name: str | None = None) -> ComparedMethod:
    if value == REAL:
        return ComparedMethod(REAL, REAL, "real", control=True)
    if value == NOISE:
        return ComparedMethod(NOISE, NOISE, "images", synthesis.from_name("gaussian"), control=True)
    if isinstance(value, str) and (value == ONLINE or value.startswith(f"{ONLINE}:")):
        return _online(value, name)
    if isinstance(value, str) and ":" not in value and value not in synthesis.FAMILY.built_in():
        return _plugin(value, name)
    settings = synthesis.resolve(value, "methods")
    method_name = settings.method if name is None else name
    return ComparedMethod(method_name, label_of(method_name), "images", settings)


def _plugin(value: str, name: str | None) -> ComparedMethod:
    """An installed method; the error for an unknown name lists the online ones too."""
    kinds = synthesis.methods()
    if value not in kinds:
        raise unknown("method", value, [*kinds, ONLINE, *_online_names(), REAL, NOISE])
    method_name = value if name is None else name
    return ComparedMethod(method_name, label_of(method_name), "images", synthesis.resolve(value))


def _online(value: str, name: str | None) -> ComparedMethod:
    """`online`, `online:MEMORY` or `online:PRESET`; a preset comes first where both have that name."""
    word = value.partition(":")[2]
    if value.endswith(":") or (":" not in word and word and value not in _online_names()):
        raise unknown("method", value, [ONLINE, *_online_names()])
    preset = word if word in PRESETS else None
    memory = PRESETS[word][1] if preset else word or REPLAY
    replay: Any = memories.FAMILY.resolve(memory, "methods")
    if name is None:
        name = value if preset or not word else f"{ONLINE}:{replay.replay}"
    return ComparedMethod(name, label_of(name), "online", replay, preset)


def _online_names() -> list[str]:
    return [f"{ONLINE}:{word}" for word in (*PRESETS, *memories.kinds())]


def label_of(name: str) -> str:
    """The name as a part of a path: `online:vae` is `online-vae`. Raises UserError for one that cannot be."""
    return safe_name(re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-"))
