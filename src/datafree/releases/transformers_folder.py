"""Image classifiers of the package transformers, from a folder with config.json and weights. Nothing is downloaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._core.errors import UserError, cut
from .._core.files import read_json
from .._core.optional_packages import first_line, quiet
from ..models.input_spec import InputSpec
from .libraries import LibraryInput, import_torchvision, imported
from .library_folders import LARGEST_CONFIG, check_folder, check_memory, described, is_size, read_config

__all__ = ["build", "input_of", "named_as_built"]

INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""PIL's numbers, as `resample` of a processor."""


def build(folder: str, spec: InputSpec) -> nn.Module:
    """The network of config.json with random weights, for the spec's classes.

    Raises UserError for a network that is no image classifier of the installed transformers, and for one whose weights
    cannot be meant.
    """
    config = _config(folder)
    config.num_labels = len(spec.classes)
    transformers, name = _transformers(), type(config).__name__
    with quiet():
        if type(config) not in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
            raise UserError(f"{folder} is of {name}, expected an image classifier of transformers; give another folder")
        with described(folder, "transformers"):
            with torch.device("meta"):
                module = transformers.AutoModelForImageClassification.from_config(config, trust_remote_code=False)
            check_memory(folder, module)
            return transformers.AutoModelForImageClassification.from_config(config, trust_remote_code=False)


def named_as_built(folder: str, spec: InputSpec, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the names of the installed version, which renames parts of networks and converts older files.

    Raises UserError for weights that are missing, of another shape or too many.
    """
    module = build(folder, spec)
    if module.state_dict().keys() == tensors.keys():
        return tensors
    try:
        with quiet():
            module, report = type(module).from_pretrained(  # type: ignore[attr-defined]
                None,
                config=module.config,
                state_dict=dict(tensors),
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"transformers cannot load the weights of {folder}: {first_line(error)}; use weights of this config.json"
        ) from None
    for kind, words in (
        ("missing_keys", "no"),
        ("mismatched_keys", "another shape of"),
        ("unexpected_keys", "an unknown"),
    ):
        for key in sorted(entry[0] if isinstance(entry, tuple) else str(entry) for entry in report[kind]):
            raise UserError(
                f"the weights have {words} {cut(key)!r}, expected those that {folder}/config.json describes; use these"
            )
    return module.state_dict()


def input_of(folder: str) -> LibraryInput:
    """The input in preprocessor_config.json, and the classes in config.json. Without the first, pixels from 0 to 1."""
    check_folder(folder)
    config, path = _config(folder), Path(folder) / "preprocessor_config.json"
    processor = read_json(path, cap=LARGEST_CONFIG) if path.exists() else {}
    if processor.get("do_flip_channel_order"):
        raise UserError(
            f"{path}: the network takes blue first (do_flip_channel_order), expected red first; write a file.py:function "
            "that reverses the channels in the forward pass"
        )
    channels = getattr(config, "num_channels", 3)
    mean, std = _normalisation(processor, path)
    if not {len(mean), len(std)} <= {1, channels}:
        raise UserError(
            f"{path}: got {len(mean)} numbers as image_mean and {len(std)} as image_std, expected 1, or one for each of the "
            f"{channels} channels of config.json; correct them"
        )
    resample = processor.get("resample")
    interpolation = INTERPOLATIONS.get(resample, "unknown") if isinstance(resample, int) else "unknown"
    labels = config.id2label if isinstance(config.id2label, Mapping) else {}
    names = tuple(str(labels.get(index, index)) for index in range(config.num_labels))
    shape = (channels, *_size(processor, config, path))
    return LibraryInput(
        shape, mean, std, interpolation, config.num_labels, names if len(set(names)) == len(names) else ()
    )


def _normalisation(processor: Mapping[str, Any], path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of pixels in [0, 1], from a processor that rescales pixels from 0 to 255 and then normalises them."""
    scale = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    offset = 1.0 if processor.get("rescale_offset") else 0.0
    mean, std = processor.get("image_mean"), processor.get("image_std")
    if not processor.get("do_normalize", bool(mean)) or mean is None or std is None:
        mean, std = 0.0, 1.0
    means, stds = (value if isinstance(value, list) else [value] for value in (mean, std))
    values = (scale, *means, *stds)
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) != len(values) or not all(map(math.isfinite, numbers)) or min(scale, *stds) <= 0:
        raise UserError(
            f"{path}: got image_mean {cut(mean)}, image_std {cut(std)} and rescale_factor {cut(scale)}, expected numbers, "
            "the last two above 0; correct them"
        )
    return tuple((value + offset) / (255 * scale) for value in means), tuple(value / (255 * scale) for value in stds)


def _size(processor: Mapping[str, Any], config: Any, path: Path) -> tuple[int, int]:
    """Height and width of the images after resizing and cropping."""
    cropped = processor.get("crop_size") if processor.get("do_center_crop") else None
    size = cropped or processor.get("size") or getattr(config, "image_size", None)
    if isinstance(size, Mapping):
        size = (size["height"], size["width"]) if {"height", "width"} <= size.keys() else size.get("shortest_edge")
    sides = list(size) if isinstance(size, (list, tuple)) else [size, size]
    whole = [side for side in sides if is_size(side)]
    if len(sides) != 2 or len(whole) != 2:
        raise UserError(
            f"{path} states no size of the images (got {cut(size)}), expected height and width; give `shape` instead"
        )
    return whole[0], whole[1]


def _config(folder: str) -> Any:
    """The configuration, of one of the package's own classes; code of the folder never runs."""
    stated, transformers = read_config(folder), _transformers()
    if "auto_map" in stated and stated.get("model_type") not in transformers.CONFIG_MAPPING:
        raise UserError(
            f"{folder}/config.json: auto_map: got a network of custom code, which is not run, expected one of transformers; "
            "write a file.py:function that builds it"
        )
    with quiet(), described(folder, "transformers"):
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        config.dtype = torch.float32  # it may name the format of the file; images are float32
        return config


def _transformers() -> Any:
    import_torchvision(needed=False)  # transformers imports it where it is installed
    with quiet():
        return imported("transformers")
