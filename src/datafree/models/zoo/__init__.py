"""The papers' architectures, one per file. `build` creates one by name for any InputSpec, He-initialised."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..._core.errors import UserError, cut, nearest, similar, unknown

if TYPE_CHECKING:
    from torch import nn

    from ..input_spec import InputSpec

__all__ = ["build", "half", "names", "no_model", "on_meta"]

SIZES = {"hinton": 99_999, "alexnet/": 999, "resnet": 1202}
"""The largest number in a name; the deepest network of He et al. 2016 has 1202 layers."""
ALL = r"(hinton|alexnet/)([0-9]{1,40})|(resnet)([0-9]{1,40})(?:/([0-9]{1,40}))?|lenet5(?:-half)?|alexnet(?:-half)?"
"""Every name, as a regular expression: two kinds with their sizes."""
RESNET_WIDTH = 16
"""Channels of the first stage of a residual network."""
WEIGHTS = 1 << 36
"""Largest number of weights; files with more could not be read."""
_HALVES = {"hinton1200": "hinton800", "lenet5": "lenet5-half", "alexnet": "alexnet-half"}


def names() -> tuple[str, ...]:
    """The names used in the papers; `hintonN`, `resnetN`, `resnetN/K` and `alexnet/N` accept other sizes too."""
    return ("hinton1200", "hinton800", "lenet5", "lenet5-half", "alexnet", "alexnet-half", "resnet20", "resnet44")


def no_model(name: str) -> UserError:
    """The error for what is neither a release folder nor a name of the zoo."""
    if "/" in name or "\\" in name or name.startswith("."):
        return UserError(f"no release folder {cut(name)!r}, expected a folder with config.json; check the path")
    is_misspelt = bool(similar(name, names()))
    expected = nearest(name, names()) if is_misspelt else "expected a folder with config.json; check the path"
    return UserError(f"no release folder {cut(name)!r}, and no network of that name in the zoo; {expected}")


def half(name: str) -> str | None:
    """The student that the papers pair with a teacher, or one of half the size; None if there is none."""
    match = re.fullmatch(r"(hinton|alexnet/)([0-9]+)", name)
    if match and name not in _HALVES:
        return match[1] + str(int(match[2]) // 2 if match[1] == "hinton" else int(match[2]) * 2)
    if (resnet := re.fullmatch(r"resnet([0-9]{1,4})", name)) and (blocks := (int(resnet[1]) - 2) // 12) > 0:
        return f"resnet{6 * blocks + 2}"
    return _HALVES.get(name)


def narrower(name: str) -> str | None:
    """The network with half the channels in every layer; None if the zoo has none."""
    if match := re.fullmatch(r"(resnet[0-9]{1,4})(?:/([0-9]{1,2}))?", name):
        divide = 2 * int(match[2] or 1)
        return f"{match[1]}/{divide}" if divide <= RESNET_WIDTH // 2 else None
    return None if half(name) is None or name.startswith("resnet") else half(name)


def shallower(name: str) -> str | None:
    """The residual network with a block fewer in every stage; None for other networks, and for one with one block."""
    match = re.fullmatch(r"resnet([0-9]{1,4})(/[0-9]{1,2})?", name)
    return f"resnet{int(match[1]) - 6}{match[2] or ''}" if match and int(match[1]) >= 14 else None


def check(name: str, spec: InputSpec) -> None:
    """Raises UserError for a name that is not in the zoo or whose network is too large. Builds nothing."""
    match = re.fullmatch(ALL, name)
    if match is None:
        raise unknown("model", name, names(), "the zoo, and no such file, module or folder")
    kind, size = match[1] or match[3], int(match[2] or match[4] or 1)
    if (divide := int(match[5] or 1)) not in range(1, RESNET_WIDTH + 1) or RESNET_WIDTH % divide:
        raise UserError(f"model {name[:60]!r}: got /{divide}, expected /2, /4, /8 or /16 of the channels; name another")
    if kind is not None and size > SIZES[kind]:
        raise UserError(f"model {name[:60]!r}: got size {size}, expected at most {SIZES[kind]:,}; name a smaller one")
    if kind == "hinton" and size * (spec.pixels + size + len(spec.classes)) > WEIGHTS:
        raise UserError(f"model {name!r} for images {spec.shape} has more than {WEIGHTS:,} weights; name a smaller one")


def build(name: str, spec: InputSpec) -> nn.Module:
    """A new network by its zoo name, with weights from torch's global random stream, which the caller seeds."""
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
    if resnet := re.fullmatch(r"resnet([0-9]{1,4})(?:/([0-9]{1,2}))?", name):
        return CifarResNet(spec, depth=int(resnet[1]), width=RESNET_WIDTH // int(resnet[2] or 1))
    raise unknown("model", name, names(), "the zoo, and no such file, module or folder")


def on_meta(name: str, spec: InputSpec) -> nn.Module:
    """`build` on the meta device: only names and sizes of weights, without using torch's random stream."""
    import torch

    with torch.device("meta"):
        return build(name, spec)


def _size(name: str, value: int) -> int:
    if value < 1:
        raise UserError(f"model {name!r}: got size {value}, expected at least 1; name a larger one")
    return value
