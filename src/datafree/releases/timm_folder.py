"""Networks of the package timm from a folder of the Hugging Face hub. Nothing is downloaded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._core.errors import UserError, cut, unknown
from .._core.optional_packages import quiet
from ..models.input_spec import InputSpec
from .libraries import LOADING, LibraryInput, import_torchvision, imported
from .library_folders import check_memory, described, is_size, read_config

__all__ = ["build", "input_of"]

IMAGENET = (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225)))


def build(folder: str, spec: InputSpec) -> nn.Module:
    """The network of config.json with random weights, for the spec's classes, channels and, where timm fixes it, size.

    Raises UserError for a network that the installed timm does not have, for arguments that load weights, and for weights
    that do not fit into memory.
    """
    config, timm = read_config(folder), _timm()
    name, keywords = _architecture(folder, config), config.get("model_args", {})
    if not timm.is_model(name):
        raise unknown("network", name, timm.list_models(), f"the installed timm, which {folder}/config.json names")
    if not isinstance(keywords, dict) or (loading := next((key for key in LOADING if key in keywords), None)):
        got = loading if isinstance(keywords, dict) else cut(keywords)
        raise UserError(f"{folder}/config.json: model_args: got {got}, expected arguments of the network; correct them")
    published = timm.get_pretrained_cfg(name)
    fixed = _stated(folder, config).get("fixed_input_size", published is not None and published.fixed_input_size)
    if fixed or "img_size" in keywords:
        keywords = {**keywords, "img_size": tuple(spec.shape[1:])}
    if "global_pool" in config:
        keywords = {"global_pool": config["global_pool"], **keywords}
    keywords = {**keywords, "num_classes": len(spec.classes), "in_chans": spec.shape[0]}
    with quiet(), described(folder, "timm", name):
        with torch.device("meta"):
            check_memory(folder, timm.create_model(name, pretrained=False, **keywords))
        return timm.create_model(name, pretrained=False, **keywords)


def input_of(folder: str) -> LibraryInput:
    """The input and the classes that config.json states. Without mean and std they are ImageNet's, as for timm itself."""
    config, path = read_config(folder), Path(folder) / "config.json"
    published = _stated(folder, config)
    size = published.get("input_size")
    if not isinstance(size, list) or len(size) != 3 or not all(is_size(side) for side in size):
        raise UserError(
            f"{path}: input_size: got {cut(size)}, expected channels, height and width; correct it, or give `shape`"
        )
    classes = config.get("num_classes", published.get("num_classes"))
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 2:
        raise UserError(
            f"{path}: num_classes: got {cut(repr(classes))}, expected a whole number of at least 2; give a folder of a "
            "classifier"
        )
    names = config.get("label_names", published.get("label_names"))
    names = tuple(map(str, names)) if isinstance(names, list) else ()
    mean, std = (_values(published, key, default, size[0], path) for key, default in IMAGENET)
    interpolation = str(published.get("interpolation", "unknown"))[:40]
    distinct = len(names) == classes == len(set(names))
    return LibraryInput((size[0], size[1], size[2]), mean, std, interpolation, classes, names if distinct else ())


def _stated(folder: str, config: dict[str, Any]) -> dict[str, Any]:
    """What config.json states of the trained network; in older folders it is not nested."""
    published = config.get("pretrained_cfg", config)
    if not isinstance(published, dict):
        raise UserError(
            f"{folder}/config.json: pretrained_cfg: got {cut(published)}, expected a JSON object; get the folder again"
        )
    return published


def _values(
    published: dict[str, Any], key: str, default: tuple[float, ...], channels: int, path: Path
) -> tuple[float, ...]:
    values = published.get(key, default if channels == 3 else (sum(default) / 3,))
    values = tuple(values) if isinstance(values, (list, tuple)) else (values,)
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) != len(values) or not all(map(math.isfinite, numbers)) or len(values) not in (1, channels):
        raise UserError(
            f"{path}: {key}: got {cut(values)}, expected a number, or one for each of {channels} channels; correct it"
        )
    if key == "std" and min(numbers) <= 0:
        raise UserError(f"{path}: std: got {min(numbers):g}, expected above 0; correct it")
    return tuple(map(float, numbers))


def _architecture(folder: str, config: dict[str, Any]) -> str:
    name = config.get("architecture")
    if not isinstance(name, str):
        raise UserError(
            f"{folder}/config.json: architecture: got {cut(name)}, expected the name of a network of timm; for another "
            "package's folder, name that package"
        )
    return name


def _timm() -> Any:
    import_torchvision(needed=False)  # timm imports it where it is installed
    with quiet():
        return imported("timm")
