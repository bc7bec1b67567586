"""Images for quantization, given by name, as data or as a synthesis method, and a description of their origin."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from .._core.errors import Notice, UserError, unknown
from .._core.folder_kinds import CONDENSED
from .._core.progress import Progress, hear_share, silent
from ..data import Dataset
from ..data import load as load_data
from ..data import names as data_names
from ..data.adapters import ImageData, as_dataset
from ..data.condensed import methods as condensing
from ..data.condensed.condensed_set import Condensed
from ..data.registry import PATHS
from ..models.missing_layers import is_program, no_batch_norm
from ..models.network import LARGE, Network
from ..models.pixel_bytes import pixels_for
from ..records.divergence import has_statistics
from ..records.record import Record
from ..runs.provenance import IN_MEMORY, is_known, place, shown
from ..synthesis import methods
from ..synthesis.cost import check_images
from ..synthesis.made_chunk import made_chunk
from ..synthesis.methods import Synthesizer
from ..synthesis.sampling import Samples
from ..synthesis.synthetic_set import SyntheticSet, chunk_size, images_made

__all__ = [
    "NO_IMAGES",
    "ImageSource",
    "Images",
    "Origin",
    "default_method",
    "is_made",
    "load_images",
    "reads_data",
    "reads_record",
]

ImageSource: TypeAlias = str | Path | ImageData | SyntheticSet | Samples | Condensed | Synthesizer
"""Where images come from: a synthesis method by name or with its settings, `noise`, a data set by name
(`cifar10:test`), the path of an image folder, .npz file, synthetic or condensed set, such a set, open, what `sample`
returned, a torch Dataset or DataLoader, or pixels (N, C, H, W) as a tensor or array."""

NO_IMAGES = "none"
"""The word for ranges from the batch norms, without images."""
NOISE = "noise"
STEPS = 40
"""Number of steps of a synthesis method given by name; ranges need fewer than students."""
NOISE_IMAGES = 1000
"""Default number of images that are made."""
CHUNK = 128
IMAGES, FEWEST = 256, 64
"""Number of images that ranges are chosen on by default, and the smallest of large images."""


@dataclass(frozen=True)
class Origin:
    """Where the images for quantizing a network came from."""

    description: str
    """In words, without a path: `256 synthetic images (bns)`."""
    synthetic: bool
    """Whether no real image is among them."""
    images: int | None = None
    """Number of images; None if only batch norms were used."""


BATCH_NORMS_ALONE = Origin("what the batch norms say", synthetic=True)


@dataclass(frozen=True, eq=False)
class Images:
    """Images as input of the network, and their description for the run log."""

    pixels: Tensor | None
    """float32 (N, C, H, W) in the network's range; None if only batch norms are used."""
    origin: Origin
    setting: Any
    """Their entry in the run log: a word, a path, or a method's settings."""
    content: Dataset | Tensor | None = None
    """Images to hash in the run log, if no seed reproduces them."""
    folder: Path | None = None
    """Folder of a set, to hash instead."""
    border: tuple[float, ...] | None = None
    """Colour on which a method shifted them; None: unknown, or not shifted. See `InputSpec`."""


def default_method(network: Network, record: Record | None) -> str:
    """Name of the default synthesis method for ranges: `bns` for a network with batch norms or a record of its layers, else
    `distribution` for a record of pixels.

    Raises UserError if neither can make images for this network.
    """
    if has_statistics(network, record) or is_program(network):
        return "bns"
    try:
        methods.from_name("distribution").check(network, record)
    except UserError:
        reason = "there is no record" if record is None else "no images can be made from this record"
        raise UserError(
            f"calibrate: got nothing, expected images to choose ranges on, since {no_batch_norm(network)}, and "
            f"{reason}; give "
            "a folder of images (labels are not needed), a data set, 'inception', or 'noise'"
        ) from None
    return "distribution"


def default_images(network: Network, source: ImageSource) -> int:
    """Default number of images that ranges are chosen on: fewer of large ones that are made, since they have more places."""
    is_method = isinstance(source, Synthesizer) and not isinstance(source, type)
    if not (is_method or (isinstance(source, (str, Path)) and is_made(str(source), "calibrate"))):
        return IMAGES
    return max(FEWEST, min(IMAGES, IMAGES * LARGE // network.spec.pixels))


def is_made(name: str, role: str = "") -> bool:
    """Whether the name is a synthesis method, `noise` or `none`. Raises UserError for a misspelt one."""
    words = (NO_IMAGES, NOISE, *methods.methods())
    if name not in words and not Path(name).exists() and get_close_matches(name, words, n=1):
        raise unknown("data set or method", name, (*words, *data_names()), where=role)
    return name in words


def reads_data(name: str) -> bool:
    """Whether the name is of a data set or of files, not of a method or a set. Raises UserError for a misspelt one."""
    return not (is_made(name) or (Path(name) / "set.json").is_file() or (Path(name) / CONDENSED).is_file())


def reads_record(network: Network, record: Record, source: Any) -> bool:
    """Whether the images of this source are made with the record; None is the default method, which is chosen by it."""
    if isinstance(source, str) and source in methods.methods():
        source = methods.from_name(source)
    if source is None:
        return True
    is_method = isinstance(source, Synthesizer) and not isinstance(source, type)
    return is_method and methods.reads_record(source, network, record)


def load_images(
    network: Network,
    source: ImageSource,
    count: int | None,
    *,
    role: str,
    record: Record | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Images:
    """`count` images from `source` as input of `network`, None for all; from a data set, the same share of each class.

    A tensor, array or `Samples` is used completely. `role` is the name of the parameter, for messages. Raises UserError
    for a source that does not exist or whose images do not fit the network.
    """
    if isinstance(source, (str, Path)):
        return _from_name(network, str(source), count, role=role, record=record, seed=seed, progress=progress)
    border = source.border if isinstance(source, Samples) else None
    if isinstance(source, Samples):
        source = network.spec.clamp(source.labelled_by(network, role)[0])
    if isinstance(source, Tensor) and source.dtype != torch.uint8:
        try:
            network.spec.check_set(source)
        except UserError as error:
            raise UserError(f"{role}: {error}") from None
        origin = Origin(
            f"{len(source):,} images given in memory, of unknown origin", synthetic=False, images=len(source)
        )
        return Images(source.float(), origin, IN_MEMORY, content=source, border=border)
    if isinstance(source, Dataset):
        return _from_dataset(network, source, count)
    if isinstance(source, SyntheticSet):
        return _from_set(network, source, count)
    if isinstance(source, Condensed):
        return _from_condensed(network, source.fitted(network), count, IN_MEMORY)
    if not isinstance(source, Synthesizer):
        in_memory = isinstance(source, (Tensor, np.ndarray))
        data = as_dataset(source, network, labelled=False, name=role)
        return _from_dataset(network, data, None if in_memory else count)
    name = source.method
    check_images(count or NOISE_IMAGES, network.spec)
    settings = source.model_dump(mode="json") if hasattr(source, "model_dump") else name  # type: ignore[attr-defined]
    return _synthetic(network, source, count or NOISE_IMAGES, settings, record, seed, progress)


def _from_name(
    network: Network, name: str, count: int | None, *, role: str, record: Record | None, seed: int, progress: Progress
) -> Images:
    is_method = is_made(name, role)
    if name == NO_IMAGES:
        return Images(None, BATCH_NORMS_ALONE, name)
    if name == NOISE:
        check_images(count or NOISE_IMAGES, network.spec)
        bound = methods.from_name("gaussian").bind(network, None)
        pixels = network.spec.clamp(bound.chunk(0, seed, count or NOISE_IMAGES).pixels)
        return Images(pixels, Origin(f"{len(pixels):,} images of noise", synthetic=True, images=len(pixels)), name)
    if is_method:
        check_images(count or NOISE_IMAGES, network.spec)
        method = method_of(name)
        return _synthetic(network, method, count or NOISE_IMAGES, name, record, seed, progress)
    if (Path(name) / "set.json").is_file():
        return _from_set(network, SyntheticSet.open(name), count)
    if (Path(name) / CONDENSED).is_file():
        return _from_condensed(network, Condensed.open(name, network), count, name)
    base, _, split = name.rpartition(":") if name.endswith((":train", ":test")) else (name, "", "train")
    labels: dict[str, Any] = {} if base in data_names() else {"labelled": False}
    return _from_dataset(network, load_data(base, split, **labels), count)


def method_of(name: str) -> Synthesizer:
    """The synthesis method of that name, with the settings for ranges."""
    settings = {"steps": STEPS} if "steps" in methods.methods()[name].model_fields else {}
    return methods.from_name(name, **settings)


def chunk_of(method: Synthesizer, network: Network, count: int) -> int:
    """Number of images that are made together."""
    size = chunk_size(method, network, count)
    return size if hasattr(method, "chunk_size") else min(size, CHUNK, count)


def _synthetic(
    network: Network, method: Any, count: int, setting: Any, record: Record | None, seed: int, progress: Progress
) -> Images:
    """`count` images from a method, made in chunks and clamped to the network's range."""
    bound, parts, size = methods.bind(method, network, record, progress=progress), [], chunk_of(method, network, count)

    def report(finished: int, share: float) -> None:
        progress(images_made(finished, share, size, count), count)

    for index in range(-(-count // size)):
        with hear_share(partial(report, index)):
            parts.append(made_chunk(bound, index, seed, size).pixels)
        report(index + 1, 0.0)
    pixels = network.spec.clamp(torch.cat(parts)[:count])
    return Images(pixels, _synthetic_origin(count, method.method), setting, border=bound.teacher.spec.border)


def _synthetic_origin(count: int, method: object) -> Origin:
    suffix = f" ({method})" if method in methods.methods() else ""
    return Origin(f"{count:,} synthetic images{suffix}", synthetic=True, images=count)


def _from_set(network: Network, source: SyntheticSet, count: int | None) -> Images:
    if source.spec.shape != network.spec.shape:
        raise UserError(
            f"the set {source.folder} has images of shape {source.spec.shape}, expected {network.spec.shape}; give another"
        )
    if source.about["teacher"] != network.fingerprint():
        warnings.warn(
            Notice(f"the set {source.folder} was made from another network than this {network.name}"), stacklevel=4
        )
    pixels = pixels_for(network.spec, source.load(count)[0], source.spec)
    network.spec.check(pixels)
    method = source.about["method"]
    origin = _synthetic_origin(len(pixels), method.get("method") if isinstance(method, dict) else None)
    return Images(pixels, origin, str(source.folder), folder=source.folder, border=source.spec.border)


def _from_condensed(network: Network, source: Condensed, count: int | None, setting: str) -> Images:
    pixels = source.chosen(count)
    network.spec.check(pixels)
    origin = Origin(f"{len(pixels):,} {_condensed_origin(source)}", synthetic=False, images=len(pixels))
    if setting == IN_MEMORY:
        return Images(pixels, origin, setting, content=source.pixels)
    return Images(pixels, origin, setting)


def _condensed_origin(source: Condensed) -> str:
    """Origin of a condensed set's images, in words."""
    about = source.about
    condensing_run, data = (dict(about[key]) if isinstance(about.get(key), dict) else {} for key in ("made", "data"))
    method, name = condensing_run.get("method"), data.get("name")
    if method not in condensing.methods():
        return "images of a condensed set, of unknown origin"
    has_known_name = isinstance(name, str) and is_known(name)
    source_data = f"{name} ({data.get('split')} split)" if has_known_name else "data of its publisher"
    return f"images of a condensed set, made of {source_data} by {method}"


def _from_dataset(network: Network, source: Dataset, count: int | None) -> Images:
    """Labels are ignored; images of another size are resized."""
    data = source if count is None or count >= len(source) else source.subset(count)
    pixels = data.scaled_to(network.spec).pixels(range(len(data)), network.spec.shape[1:])
    network.spec.check(pixels)
    if is_known(data.name):
        setting, description = data.name, f"images of {data.name} ({data.split} split)"
    elif data.public in PATHS.values():
        setting = data.name
        description = f"images of {shown(place(data.name))} ({data.split} split), of unknown origin"
    else:
        setting, description = IN_MEMORY, "images given in memory, of unknown origin"
    origin = Origin(f"{len(pixels):,} {description}", synthetic=False, images=len(pixels))
    return Images(pixels, origin, setting, content=data)
