"""Networks of timm, torchvision and transformers, by name or folder and without weights: nothing is downloaded."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from .._core.code_names import CodeName
from .._core.errors import UserError, cut, unknown
from ..models.input_spec import InputSpec

__all__ = ["LOADING", "LibraryInput", "build", "check_no_folder", "import_torchvision", "imported", "input_of"]

LOADING = (
    "pretrained",
    "checkpoint_path",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "weights",
    "weights_backbone",
    "cache_dir",
)
"""Arguments that make a library fetch or open a file of weights."""
_OPERATORS: list[Any] = []
"""Definitions of operators, which end with the object that made them."""


@dataclass(frozen=True)
class LibraryInput:
    """What a network of a library was trained to take, according to the library."""

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    classes: int
    names: tuple[str, ...] = ()
    """Names of the classes, if they are known and differ."""


def build(code: CodeName, spec: InputSpec) -> nn.Module:
    """A network with random weights for the spec's classes, channels and, where the library fixes it, size of images.

    Arguments in the name come first. Raises UserError for a name that the library does not have, and for arguments that
    load weights.
    """
    keywords = code.keywords()
    if code.is_folder:
        if keywords:
            raise UserError(f"arg: got {next(iter(keywords))}, expected none, since config.json has them; leave it out")
        return _reader(code).build(code.attribute, spec)
    for name in LOADING:
        if name in keywords:
            raise UserError(f"arg: got {name}, expected no argument that loads weights; give a file as `weights`")
    library = _library(code)
    channels, *size = spec.shape
    keywords = {"num_classes": len(spec.classes), **keywords}
    if code.place == "torchvision":
        if code.attribute.startswith("vit_"):
            keywords = {"image_size": size[0], **keywords}
        return library.models.get_model(code.attribute, weights=None, **keywords)
    config = library.get_pretrained_cfg(code.attribute)
    if config is not None and config.fixed_input_size:
        keywords = {"img_size": tuple(size), **keywords}
    return library.create_model(code.attribute, pretrained=False, **{"in_chans": channels, **keywords})


def input_of(code: CodeName) -> LibraryInput | None:
    """The input of the published weights; None if the library has none for this network. No file is opened."""
    if code.is_folder:
        return _reader(code).input_of(code.attribute)
    library = _library(code)
    return _of_timm(library, code.attribute) if code.place == "timm" else _of_torchvision(library, code.attribute)


def _reader(code: CodeName) -> ModuleType:
    """The module that reads folders of this library."""
    if code.place == "timm":
        from . import timm_folder

        return timm_folder
    from . import transformers_folder

    return transformers_folder


def _of_timm(timm: Any, name: str) -> LibraryInput | None:
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.input_size:
        return None
    return LibraryInput(tuple(config.input_size), config.mean, config.std, config.interpolation, config.num_classes)


def _of_torchvision(torchvision: Any, name: str) -> LibraryInput | None:
    weights = getattr(torchvision.models.get_model_weights(name), "DEFAULT", None)
    if weights is None:
        return None
    preset = weights.transforms()
    side = preset.crop_size[0]
    mode, classes = preset.interpolation.value, len(weights.meta["categories"])
    return LibraryInput((3, side, side), tuple(preset.mean), tuple(preset.std), mode, classes)


def _library(code: CodeName) -> Any:
    """The imported library, after checking that it has the network."""
    torchvision = import_torchvision(needed=code.place == "torchvision")
    if code.place == "torchvision":
        assert torchvision is not None
        names = torchvision.models.list_models(module=torchvision.models)
        library, has_network = torchvision, code.attribute in names
    else:
        library = imported("timm")
        names, has_network = library.list_models(), library.is_model(code.attribute)
    if not has_network and code.place == "timm":
        check_no_folder(code.attribute)
    if not has_network:
        raise unknown("network", code.attribute, names, code.place)
    return library


def check_no_folder(name: str) -> None:
    """Raises UserError if `timm:NAME`, of no network or without weights, is the name of a folder here."""
    if name and os.path.isfile(Path(name) / "config.json"):
        raise UserError(f"timm: got {cut(name)!r}, which is a folder, expected a slash in its name; give timm:./{name}")


def imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(f"no package {name!r}, expected it for networks of its names; pip install {name}") from None


def import_torchvision(*, needed: bool) -> ModuleType | None:
    """torchvision, or None if it is not installed and not needed.

    A build for CUDA beside a torch without it lacks two operators of object detection, whose declarations fail the
    import. They are declared here; classification does not use them.
    """
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return imported("torchvision") if needed else None
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    if not _OPERATORS:
        fragment = torch.library.Library("torchvision", "FRAGMENT")
        fragment.define("nms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        fragment.define("qnms(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        _OPERATORS.append(fragment)
    return importlib.import_module("torchvision")
