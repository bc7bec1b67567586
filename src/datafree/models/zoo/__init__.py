"""The papers' architectures. One file each; `build` makes one by name for any InputSpec, He-initialised."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..._core.errors import UserError, unknown

if TYPE_CHECKING:
    from torch import nn

    from ..input_spec import InputSpec

__all__ = ["build", "half", "names", "on_meta"]

SIZES = {"hinton": 99_999, "alexnet/": 999, "resnet": 1202}
"""The largest number in a name; 1202 layers are the deepest of He et al. 2016."""
WEIGHTS = 1 << 36
"""More than a file of weights could be read for."""
_HALVES = {"hinton1200": "hinton800", "lenet5": "lenet5-half", "alexnet": "alexnet-half"}


def names() -> tuple[str, ...]:
    """The names that the papers use; `hintonN`, `resnetN` and `alexnet/N` take other sizes too."""
    return ("hinton1200", "hinton800", "lenet5", "lenet5-half", "alexnet", "alexnet-half", "resnet20", "resnet44")


def half(name: str) -> str | None:
    """The smaller student that the papers pair with a teacher, or one of half the size; None where there is none."""
    sized = re.fullmatch(r"(hinton|alexnet/)([0-9]+)", name)
    if sized and name not in _HALVES:
        return sized[1] + str(int(sized[2]) // 2 if sized[1] == "hinton" else int(sized[2]) * 2)
    if (deep := re.fullmatch(r"resnet([0-9]{1,4})", name)) and (blocks := (int(deep[1]) - 2) // 12) > 0:
        return f"resnet{6 * blocks + 2}"
    return _HALVES.get(name)


def check(name: str, spec: InputSpec) -> None:
    """Raises UserError for a name that is none of the zoo's, or whose network no machine could hold; nothing is built."""
    sized = re.fullmatch(r"(hinton|alexnet/|resnet)([0-9]{1,40})|lenet5(?:-half)?|alexnet(?:-half)?", name)
    if sized is None:
        raise unknown("model", name, names(), "the zoo, and no such file, module or folder")
    kind, size = sized[1], int(sized[2] or 1)
    if kind is not None and size > SIZES[kind]:
        raise UserError(f"model {name[:60]!r}: got size {size}, expected at most {SIZES[kind]:,}; name a smaller one")
    if kind == "hinton" and size * (spec.pixels + size + len(spec.classes)) > WEIGHTS:
        raise UserError(f"model {name!r} for images {spec.shape} has more than {WEIGHTS:,} weights; name a smaller one")


def build(name: str, spec: InputSpec) -> nn.Module:
    """A fresh network by its zoo name; weights from torch's global random stream, seeded by the caller."""
    check(name, spec)
    from .alexnet import AlexNet
    from .hinton import Hinton
    from .lenet5 import LeNet5
    from .resnet import CifarResNet

    if hinton := re.fullmatch(r"hinton([0-9]{1,5})", name):
        width = int(hinton[1])
        return Hinton(spec, width=_size(name, width), dropout=0.5 if name == "hinton1200" else 0.0)
    if name in ("lenet5", "lenet5-half"):
        return LeNet5(spec, half=name.endswith("half"))
    if alexnet := re.fullmatch(r"alexnet(?:/([0-9]{1,3})|-half)?", name):
        return AlexNet(spec, divide=2 if name.endswith("half") else _size(name, int(alexnet[1] or 1)))
    if resnet := re.fullmatch(r"resnet([0-9]{1,4})", name):
        return CifarResNet(spec, depth=int(resnet[1]))
    raise unknown("model", name, names(), "the zoo, and no such file, module or folder")


def on_meta(name: str, spec: InputSpec) -> nn.Module:
    """`build` without memory: names and sizes of weights only, and no number of torch's random stream."""
    import torch

    with torch.device("meta"):
        return build(name, spec)


def _size(name: str, value: int) -> int:
    if value < 1:
        raise UserError(f"model {name!r}: got size {value}, wanted at least 1; name a larger one")
    return value
