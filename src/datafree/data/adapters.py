"""Makes a `Dataset` of a torch Dataset or DataLoader, or of arrays of images and labels.

Refuses what would silently give wrong numbers: images that are normalised or augmented already, loaders that leave
images out or repeat them, and labels that are not class numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from .._core.arguments import checked
from .._core.errors import Notice, UserError
from ..models.input_spec import InputSpec
from ..models.network import Network
from .dataset import Dataset, check_labels
from .image_checks import Look, as_stored, images_at_once, look_at
from .loaders import dataset_of, length_of
from .torch_items import Items, as_tensor, class_names_of

__all__ = ["Array", "ImageData", "LabelledData", "as_dataset"]

Array: TypeAlias = Tensor | np.ndarray
LabelledData: TypeAlias = Dataset | TorchDataset[Any] | DataLoader[Any] | tuple[Array, Array]
"""Images with labels: what `load_data` returns, a torch Dataset or DataLoader, or a pair (images, labels)."""
ImageData: TypeAlias = LabelledData | Tensor | np.ndarray
"""Like `LabelledData`, or images without labels."""

KEPT_BYTES = 1 << 28
"""Size of a torch Dataset's images up to which they are read once and kept in memory."""
AGAIN = 64
"""Number of items that are read twice before the data is used. All later reads are compared too."""


@checked
def as_dataset(data: ImageData, network: Network | InputSpec, *, labelled: bool = True, name: str = "data") -> Dataset:
    """`data` as a `Dataset` for `network`, checked in one pass.

    - What `load_data` returns is returned unchanged.
    - A pair (images, labels), or with `labelled=False` only images: tensors or numpy arrays. Images are (N, C, H, W) in the
      network's shape, uint8, or float32 or float64 in its range; labels are whole numbers (N,).
    - A torch `Dataset` with a length: items are (image, label), or with `labelled=False` also images. An image is a
      tensor or array like those above, without N, or a PIL image. PIL images have one size and are resized like image
      files, with a `Notice`; grey ones are converted if the network takes colour. Names in its `classes` are matched with
      the network's, like those of image files.
    - A `DataLoader`: its dataset is read, item by item and in order, in this process. Shuffling changes nothing.

    Labels are positions among the network's classes, unless the data names its classes. Floats that are all multiples of
    1/255 of the range are taken as bytes, so that a `Dataset` of the same images gives the same numbers. Images of a torch
    Dataset are kept in memory up to 256 MB. A larger one is read again from its source at each use, a few images at a time,
    and compared with a hash of the first read.

    Raises UserError, with `name` as the parameter's name, for images of another shape, NaN, and pixels outside the
    range; for images that are normalised already; for items that change when they are read again (random
    augmentation), also later; for loaders that drop the last batch, repeat or leave out images, or have a custom
    collate function; for an
    `IterableDataset`; if at least half of the images are copies of others; and for labels that are not whole numbers
    (one-hot rows, for example) or that name no class.
    """
    if isinstance(data, Dataset):
        return data
    spec = network.spec if isinstance(network, Network) else network
    source = dataset_of(data, name) if isinstance(data, DataLoader) else data
    if isinstance(source, TorchDataset):
        return _from_items(source, spec, labelled, name)
    return _from_arrays(source, spec, labelled, name)  # type: ignore[arg-type]


def _from_arrays(data: Any, spec: InputSpec, labelled: bool, name: str) -> Dataset:
    images, labels = data if isinstance(data, (tuple, list)) else (data, None)
    if labels is None and labelled:
        raise UserError(f"{name}: got images alone, expected (images, labels); give both")
    subject = f"{name}[0]" if labels is not None else name
    images = as_tensor(images, subject).detach()
    try:
        spec.check_form(images, stored=True)
    except UserError as error:
        raise UserError(f"{subject}: {error}") from None
    numbers = None
    if labelled:
        numbers = _label_array(as_tensor(labels, f"{name}[1]"), len(images), len(spec.classes), f"{name}[1]")
    step = images_at_once(spec.shape)
    chunks = (images[start : start + step].cpu() for start in range(0, len(images), step))
    look = look_at(chunks, spec, subject)
    reader = partial(_rows, images, spec, look.as_bytes)
    return _dataset("arrays", spec, look, numbers, None, reader, spec.shape, name)


def _rows(images: Tensor, spec: InputSpec, as_bytes: bool, indices: np.ndarray) -> np.ndarray:
    return as_stored(images[torch.from_numpy(indices).to(images.device)].cpu(), spec, as_bytes)


def _label_array(labels: Tensor, images: int, classes: int, subject: str) -> np.ndarray:
    """Labels (N,) as int64."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.shape[1] == classes:
        raise UserError(
            f"{subject}: got labels of shape {tuple(labels.shape)}, one-hot or probabilities, expected class numbers "
            f"({len(labels)},); give .argmax(1)"
        )
    if labels.ndim != 1:
        raise UserError(
            f"{subject}: got labels of shape {tuple(labels.shape)}, expected class numbers ({images},); give one for "
            "each image"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UserError(
            f"{subject}: got labels of {labels.dtype}, expected whole numbers from 0 to {classes - 1}; give class "
            "numbers, as int64"
        )
    if len(labels) != images:
        raise UserError(
            f"{subject}: got {len(labels):,} labels for {images:,} images, expected as many; give one for each"
        )
    return labels.detach().cpu().numpy().astype(np.int64)


def _from_items(source: TorchDataset[Any], spec: InputSpec, labelled: bool, name: str) -> Dataset:
    kind, count = type(source).__name__, length_of(source, name)
    if count < 1:
        raise UserError(f"{name}: got a Dataset ({kind}) without images, expected at least one; check its files")
    items = Items(source, spec, name)
    first_image = items.image(0)
    items.shape = (int(first_image.shape[0]), int(first_image.shape[1]), int(first_image.shape[2]))
    items.is_float = first_image.is_floating_point()
    labels = np.zeros(count, np.int64)
    parts: list[Tensor] = []
    fits = count * first_image.nbytes <= KEPT_BYTES
    chunks = items.chunks(labels if labelled else None)
    look = look_at(_kept(chunks, parts) if fits else chunks, spec, name)
    items.as_bytes, items.digests = look.as_bytes, look.digests
    items.read_again(np.unique(np.linspace(0, count - 1, min(count, AGAIN)).astype(np.int64)))
    if fits:
        items.stored = np.concatenate([as_stored(part, spec, look.as_bytes) for part in parts])
    if items.shape != spec.shape:
        size, expected = (" x ".join(map(str, shape[1:])) for shape in (items.shape, spec.shape))
        warnings.warn(
            Notice(f"{name}: images of {size} are resized to the {expected} that the network takes"), stacklevel=4
        )
    classes = class_names_of(source) if labelled else None
    return _dataset("torch Dataset", spec, look, labels if labelled else None, classes, items, items.shape, name)


def _kept(chunks: Iterator[Tensor], parts: list[Tensor]) -> Iterator[Tensor]:
    """The chunks, each of which is put into `parts` too."""
    for chunk in chunks:
        parts.append(chunk)
        yield chunk


def _dataset(
    public: str,
    spec: InputSpec,
    look: Look,
    labels: np.ndarray | None,
    names: Sequence[str] | None,
    reader: Any,
    shape: tuple[int, int, int],
    name: str,
) -> Dataset:
    count = len(look.digests)
    classes = tuple(names or spec.classes) if labels is not None else ("images",)
    if labels is None:
        labels = np.zeros(count, np.int64)
    check_labels(labels, len(classes), name)
    return Dataset(
        name=name,
        split="as passed",
        classes=classes,
        labels=torch.from_numpy(labels),
        shape=shape,
        read=reader,
        low=spec.low,
        high=spec.high,
        floats=None if look.as_bytes else (spec.low, spec.high),
        public=public,
    )
