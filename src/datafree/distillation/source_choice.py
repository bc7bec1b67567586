"""Chooses what a student learns from: fresh images, stored images, real data or condensed images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from .._core.arguments import check_argument, check_count
from .._core.errors import UserError
from .._core.folder_kinds import CONDENSED
from .._core.progress import Progress, silent
from .._core.settings import with_paths
from .._core.unused import unused
from ..data import Dataset, load
from ..data.adapters import LabelledData, as_dataset
from ..data.augmentation import Augmentation
from ..data.condensed.condensed_set import Condensed
from ..data.torch_items import as_tensor
from ..models.network import Network
from ..models.pixel_bytes import to_pixels
from ..records.record import Record
from ..synthesis import methods
from ..synthesis.methods import Synthesizer
from ..synthesis.methods.distribution import Distribution
from ..synthesis.sampling import Samples
from ..synthesis.synthetic_set import SyntheticSet, judged
from .sources import (
    EPOCH_IMAGES,
    FreshImages,
    MixedImages,
    Source,
    StoredImages,
    labelled_samples,
    soft_labelled,
    stored_images,
)

__all__ = ["ALONE", "SHARE", "ChosenSource", "ImagesLike", "MethodLike", "choose_source"]

ALONE = 10_000
"""Default number of augmented condensed images per epoch, if there are no other images."""
SHARE = 0.5
"""Default share of condensed images, if there are other images."""
CHUNK = 4096

ImagesLike: TypeAlias = SyntheticSet | Samples | LabelledData | Source | Tensor | np.ndarray | str | Path
"""Images to learn from: a synthetic set or its folder, what `sample` returned, real data (as `as_dataset` takes it) or
its name or path,
pixels, or a source with logits."""
MethodLike: TypeAlias = str | Mapping[str, Any] | Synthesizer
"""A method of synthesis: a name, a mapping with `method`, or settings."""


@dataclass(frozen=True)
class ChosenSource:
    """Images with the teacher's logits, and where they come from."""

    source: Source
    description: str
    """In words, for a card: `a synthetic set of bns`. Without a path."""
    settings: dict[str, Any]
    """Settings that the images were made with, as plain values."""
    synthetic: SyntheticSet | None = None
    method: Any = None
    """Settings of the method that makes fresh images."""
    judge: Callable[[], str | None] | None = field(default=None, repr=False)
    """Finds what is wrong with the images, which may take a chunk of them; None where nothing is known."""

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Problems of the images, to report before training; looked for once, when first asked for."""
        warning = None if self.judge is None else self.judge()
        return () if warning is None else (warning,)

    def digest(self) -> str:
        """sha256 of everything that determines the images."""
        digest = hashlib.sha256(repr(sorted(self.settings.items(), key=str)).encode())
        _add(digest, self.source)
        return digest.hexdigest()


def choose_source(
    teacher: Network,
    *,
    record: Record | None = None,
    images: ImagesLike | None = None,
    condensed: Condensed | str | Path | None = None,
    method: MethodLike | None = None,
    epoch_images: int | None = None,
    share: float = SHARE,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> ChosenSource:
    """The source that the arguments name; see `distill`. Raises UserError for none, for several, and for a source that does
    not fit the teacher.
    """
    _check_arguments(record, images, condensed, method, epoch_images, share, augmentation)
    if condensed is not None:
        return _mixed(teacher, condensed, images, epoch_images, share, augmentation or Augmentation())
    if images is None:
        return _fresh(teacher, methods.DEFAULT if method is None else method, record, epoch_images, seed, progress)
    return _from_images(teacher, images)


def _check_arguments(
    record: Record | None, images: ImagesLike | None, condensed: Any, method: MethodLike | None, epoch_images: int | None,
    share: float, augmentation: Augmentation | None,
) -> None:  # fmt: skip
    fresh = "method" if method is not None else "record" if record is not None else None
    if fresh is None and images is None and condensed is None:
        raise UserError(
            "nothing to learn from, expected record, method, images or condensed; give one of them, or use distill_online, "
            "which needs none"
        )
    other = "images" if images is not None else "condensed" if condensed is not None else None
    if fresh is not None and other is not None:
        raise UserError(f"{fresh}: got it beside {other}, expected one of them to learn from; leave one out")
    if epoch_images is not None:
        check_count("epoch_images", epoch_images)
        if fresh is None and condensed is None:
            unused("epoch_images", epoch_images, "without `condensed`, where every epoch has all images", "`condensed`")
    if not 0 < share <= 1:
        raise UserError(f"share: got {share:g}, expected above 0 and at most 1; give such a share")
    if share != SHARE and (condensed is None or images is None):
        missing = " and ".join(
            f"`{name}`" for name, value in (("condensed", condensed), ("images", images)) if value is None
        )
        unused("share", share, f"without {missing}", missing)
    if augmentation is not None and condensed is None:
        raise UserError("augmentation: got it without condensed, expected condensed images with it; leave it out")


def _fresh(
    teacher: Network, method: MethodLike, record: Record | None, epoch_images: int | None, seed: int, progress: Progress
) -> ChosenSource:
    settings = methods.resolve(method)
    if record is not None:
        record.check_teacher(teacher)
    bound = methods.bind(settings, teacher, record, progress=progress)
    count = EPOCH_IMAGES if epoch_images is None else epoch_images
    bound_settings: Any = getattr(bound, "settings", settings)
    description = f"fresh images of {settings.method}"
    if isinstance(settings, Distribution) and bound_settings != settings:
        description += ", warps cut to a quarter, which the teacher does not follow"
    about = {"method": with_paths(bound_settings), "epoch_images": count}
    return ChosenSource(
        FreshImages(bound.teacher.spec, bound, count),
        description,
        about,
        method=settings,
        judge=partial(judged, settings, bound, teacher, seed=seed),
    )


def _mixed(
    teacher: Network, condensed: Condensed | str | Path, images: ImagesLike | None, epoch_images: int | None, share: float,
    augmentation: Augmentation,
) -> ChosenSource:  # fmt: skip
    anchors = condensed.fitted(teacher) if isinstance(condensed, Condensed) else Condensed.open(condensed, teacher)
    others = None if images is None else _from_images(teacher, images)
    count = epoch_images or (ALONE if others is None else len(others.source))
    source = MixedImages(
        teacher,
        anchors.clamped(),
        None if others is None else others.source,
        count,
        share=share,
        augmentation=augmentation,
    )
    beside = "" if others is None else f" and {others.description}"
    about = {
        "share": 1.0 if others is None else share, "epoch_images": count, **augmentation.model_dump(mode="json"),
    }  # fmt: skip
    return ChosenSource(
        source, f"{len(anchors)} condensed images{beside}", about, None if others is None else others.synthetic,
        judge=None if others is None else others.judge,
    )  # fmt: skip


def _from_images(teacher: Network, images: ImagesLike) -> ChosenSource:
    if isinstance(images, (str, Path)) and (Path(images) / "set.json").is_file():
        images = SyntheticSet.open(images, teacher)
    elif isinstance(images, SyntheticSet):
        images = SyntheticSet.open(images.folder, teacher)
    if isinstance(images, SyntheticSet):
        return ChosenSource(
            stored_images(images), f"a synthetic set of {images.about['method']['method']}", {}, images,
            judge=images.warning,
        )  # fmt: skip
    if isinstance(images, Samples):
        return ChosenSource(labelled_samples(teacher, images, "images"), f"{len(images):,} images", {})
    if isinstance(images, np.ndarray):
        images = as_tensor(images, "images")
    if isinstance(images, Tensor):
        return ChosenSource(_labelled_by_teacher(teacher, images), f"{len(images):,} images", {})
    if isinstance(images, (str, Path)):
        if (Path(images) / CONDENSED).is_file():
            raise UserError(f"images: got {str(images)!r}, a condensed set; give condensed={str(images)!r}")
        images = load(str(images), "train")
    if isinstance(images, (Dataset, TorchDataset, DataLoader, tuple)):
        data = as_dataset(images, teacher, name="images")
        return ChosenSource(soft_labelled(teacher, data), f"real data, {data.public}", {})
    check_argument("images", images, Source)
    if images.spec.shape != teacher.spec.shape:
        raise UserError(
            f"images: got images of shape {images.spec.shape}, expected {teacher.spec.shape}; give images for this teacher"
        )
    return ChosenSource(images, "images with the teacher's logits", {})


def _labelled_by_teacher(teacher: Network, pixels: Tensor) -> StoredImages:
    """Pixels (N, C, H, W), uint8 or floats in the spec's range, with the teacher's logits."""
    spec = teacher.spec
    spec.check_form(pixels, stored=True)
    if not len(pixels):
        raise UserError("images: got no image, expected at least one; give some images")
    if pixels.dtype != torch.uint8:
        spec.check_set(pixels)
        pixels = pixels.float()
    pixels = pixels.detach().cpu().clone()
    logits = torch.cat([teacher.predict(to_pixels(part, spec)) for part in pixels.split(CHUNK)])
    return StoredImages(spec, pixels, logits)


def _add(digest: Any, source: Any) -> None:
    """Adds everything that determines a source's images; for custom sources, their type and length."""
    if isinstance(source, StoredImages):
        for tensor in (source.pixels, source.targets):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    elif isinstance(source, MixedImages):
        digest.update(f"{source.share} {source.images} {source.augmentation.model_dump_json()}".encode())
        digest.update(source.pixels.detach().cpu().contiguous().numpy().tobytes())
        _add(digest, source.others)
    elif isinstance(source, FreshImages):
        digest.update(f"{source.images} {source.chunk} {getattr(source.bound_method, 'settings', '')!r}".encode())
    else:
        digest.update(f"{type(source).__qualname__} {0 if source is None else len(source)}".encode())
