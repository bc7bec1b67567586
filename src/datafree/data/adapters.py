"""Data as users of torch and numpy have it, as a `Dataset`: a torch Dataset or DataLoader, or arrays of images and labels.

What would give silently wrong numbers is refused: images that are normalised or augmented already, loaders that leave
images out or repeat them, and labels that are no class numbers.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    default_collate,
    default_convert,
)
from torch.utils.data import Dataset as TorchDataset

from .._core.arguments import checked
from .._core.errors import Notice, UserError, cut
from ..models.input_spec import NARROW, OVERSHOOT, InputSpec
from ..models.network import Network
from .dataset import READ_BYTES, Dataset, check_labels

__all__ = ["Array", "ImageData", "LabelledData", "as_dataset"]

Array: TypeAlias = Tensor | np.ndarray
LabelledData: TypeAlias = Dataset | TorchDataset[Any] | DataLoader[Any] | tuple[Array, Array]
"""Images with labels: what `load_data` returns, a torch Dataset or DataLoader, or a pair (images, labels)."""
ImageData: TypeAlias = LabelledData | Tensor | np.ndarray
"""As `LabelledData`, or images alone."""

RAW = (0.0, 1.0)
LEVELS = 255
AGAIN = 64
"""Number of items that are read a second time before the data is used. Whatever is read later is compared too."""
CENTRED, UNIT = 0.25, (0.8, 1.25)
"""Means and standard deviations of channels that look normalised."""
AFAR = 1.0
"""Distance of the data's mean from the spec's, in standard deviations, beyond which the spec is of other pixels."""


@checked
def as_dataset(data: ImageData, network: Network | InputSpec, *, labelled: bool = True, name: str = "data") -> Dataset:
    """`data` as a `Dataset` for `network`, checked in one pass; read again from its source whenever it is used.

    - What `load_data` returns is returned as it is.
    - A pair (images, labels), or with `labelled=False` images alone: tensors or numpy arrays. Images are (N, C, H, W) in the
      network's shape, uint8, or float32 or float64 in its range; labels are whole numbers (N,).
    - A torch `Dataset` with a length: items are (image, label), or with `labelled=False` images too. An image is a
      tensor or array like those above, without N, or a PIL image. PIL images have one size and are resized as image
      files are, with a `Notice`; grey ones are taken as colour where the network takes colour. Names in its `classes`
      are matched with the network's, as those of image files are.
    - A `DataLoader`: its dataset is read, item by item and in order, in this process. Shuffling changes nothing.

    Labels are positions among the network's classes, unless the data names its classes. Floats that are all multiples of
    1/255 of the range are taken as the bytes that they came from: a `Dataset` of the same images gives the same numbers.
    Memory is needed for the labels, a hash for each image and a few images at a time.

    Raises UserError, in which `name` is the parameter, for images of another shape, NaN, and pixels outside the range;
    images that are normalised already; items that are not the same when they are read again (random augmentation), also
    later; loaders that drop the last batch, repeat or leave out images, or collate by a function of their own; an
    `IterableDataset`; half of the images or more being copies of others; and labels that are not whole numbers (one-hot
    rows, say) or name no class.
    """
    if isinstance(data, Dataset):
        return data
    spec = network.spec if isinstance(network, Network) else network
    source = _dataset_of(data, name) if isinstance(data, DataLoader) else data
    if isinstance(source, TorchDataset):
        return _from_items(source, spec, labelled, name)
    return _from_arrays(source, spec, labelled, name)  # type: ignore[arg-type]


# -- arrays ------------------------------------------------------------


def _from_arrays(data: Any, spec: InputSpec, labelled: bool, name: str) -> Dataset:
    images, labels = data if isinstance(data, (tuple, list)) else (data, None)
    if labels is None and labelled:
        raise UserError(f"{name}: got images alone, expected (images, labels); give both")
    where = f"{name}[0]" if labels is not None else name
    images = _tensor(images, where).detach()
    try:
        spec.check_form(images, stored=True)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    numbers = None
    if labelled:
        numbers = _label_array(_tensor(labels, f"{name}[1]"), len(images), len(spec.classes), f"{name}[1]")
    step = max(1, READ_BYTES // (4 * spec.pixels))
    chunks = (images[start : start + step].cpu() for start in range(0, len(images), step))
    look = _looked_at(chunks, spec, where)
    read = partial(_rows, images, spec, look.as_bytes)
    return _dataset("arrays", spec, look, numbers, None, read, spec.shape, name)


def _rows(images: Tensor, spec: InputSpec, as_bytes: bool, indices: np.ndarray) -> np.ndarray:
    return _stored(images[torch.from_numpy(indices).to(images.device)].cpu(), spec, as_bytes)


def _tensor(value: Any, where: str) -> Tensor:
    """A tensor or array as a tensor that shares its memory where it can."""
    if isinstance(value, Tensor):
        return value
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
        raise UserError(f"{where}: got an array of {value.dtype}, expected numbers; give float32 or uint8 images")
    native = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of arrays that may not be written to, which nobody does here
        return torch.from_numpy(native)


def _label_array(labels: Tensor, images: int, classes: int, where: str) -> np.ndarray:
    """Labels (N,) as int64."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.shape[1] == classes:
        raise UserError(
            f"{where}: got labels of shape {tuple(labels.shape)}, one-hot or probabilities, expected class numbers "
            f"({len(labels)},); give .argmax(1)"
        )
    if labels.ndim != 1:
        raise UserError(
            f"{where}: got labels of shape {tuple(labels.shape)}, expected class numbers ({images},); give one for each image"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UserError(
            f"{where}: got labels of {labels.dtype}, expected whole numbers from 0 to {classes - 1}; give class numbers, as "
            "int64"
        )
    if len(labels) != images:
        raise UserError(
            f"{where}: got {len(labels):,} labels for {images:,} images, expected as many; give one for each"
        )
    return labels.detach().cpu().numpy().astype(np.int64)


# -- torch datasets ------------------------------------------------------------


def _from_items(source: TorchDataset[Any], spec: InputSpec, labelled: bool, name: str) -> Dataset:
    kind, count = type(source).__name__, _length(source, name)
    if count < 1:
        raise UserError(f"{name}: got a Dataset ({kind}) without images, expected at least one; check its files")
    items = _Items(source, spec, name)
    first = items.image(0)
    items.shape = (int(first.shape[0]), int(first.shape[1]), int(first.shape[2]))
    items.is_float = first.is_floating_point()
    labels = np.zeros(count, np.int64)
    look = _looked_at(items.chunks(labels if labelled else None), spec, name)
    items.as_bytes, items.digests = look.as_bytes, look.digests
    items(np.unique(np.linspace(0, count - 1, min(count, AGAIN)).astype(np.int64)))
    if items.shape != spec.shape:
        size, expected = (" x ".join(map(str, shape[1:])) for shape in (items.shape, spec.shape))
        warnings.warn(
            Notice(f"{name}: images of {size} are resized to the {expected} that the network takes"), stacklevel=4
        )
    classes = _names_of(source) if labelled else None
    return _dataset("torch Dataset", spec, look, labels if labelled else None, classes, items, items.shape, name)


def _length(source: Any, name: str) -> int:
    """Its number of items. Raises UserError for a Dataset that cannot be read by index."""
    kind = type(source).__name__
    if isinstance(source, IterableDataset):
        raise UserError(
            f"{name}: got an IterableDataset ({kind}), which is read in passing, expected one with a length and indices, "
            "since images are read more than once; give a map-style Dataset, or (images, labels)"
        )
    try:
        return len(source)
    except (TypeError, NotImplementedError):
        raise UserError(
            f"{name}: got a Dataset ({kind}) without a length, expected one; give it __len__, or give (images, labels)"
        ) from None


@dataclass(eq=False)
class _Items:
    """Reads images of a torch Dataset, and compares each with what it was before."""

    source: Any
    spec: InputSpec
    name: str
    shape: tuple[int, int, int] = (0, 0, 0)
    is_float: bool = False
    as_bytes: bool = True
    digests: np.ndarray | None = None

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        images = torch.stack([self.like_first(int(index)) for index in indices]) if len(indices) else None
        if images is None:
            return np.zeros((0, *self.shape), np.uint8 if self.as_bytes else np.float32)
        for index, digest in zip(indices, _digests(images)):
            if self.digests is not None and digest != self.digests[index]:
                raise UserError(
                    f"{self.name}: image {int(index):,} is another one each time it is read, expected the same pixels; "
                    "leave out random augmentation (flips, crops, noise), which would change what is measured"
                )
        return _stored(images, self.spec, self.as_bytes)

    def chunks(self, labels: np.ndarray | None) -> Iterator[Tensor]:
        """All images, a few at a time; their labels are put into `labels`."""
        count = len(self.source)
        step = max(1, READ_BYTES // (4 * math.prod(self.shape)))
        for start in range(0, count, step):
            images = []
            for index in range(start, min(start + step, count)):
                image, label = self.item(index, labels is not None)
                images.append(self._checked(image, index))
                if labels is not None:
                    labels[index] = label
            yield torch.stack(images)

    def item(self, index: int, labelled: bool) -> tuple[Tensor, int]:
        """An image (C, H, W), and its label where one is needed."""
        try:
            item = self.source[index]
        except IndexError:
            raise UserError(
                f"{self.name}: got a Dataset of {len(self.source):,} items without item {index:,}, expected as many as its "
                "length; correct its __len__"
            ) from None
        pair = isinstance(item, (tuple, list)) and len(item) == 2
        if labelled and not pair:
            got = f"a tuple of {len(item)}" if isinstance(item, (tuple, list)) else f"a {type(item).__name__}"
            raise UserError(
                f"{self.name}: item {index:,} is {got}, expected a pair (image, label); give a Dataset of such"
            )
        image = item[0] if isinstance(item, (tuple, list)) and len(item) else item
        return self._pixels(image, index), self._label(item[1], index) if labelled else 0

    def image(self, index: int) -> Tensor:
        return self.item(index, False)[0]

    def like_first(self, index: int) -> Tensor:
        return self._checked(self.image(index), index)

    def _checked(self, image: Tensor, index: int) -> Tensor:
        """An image whose shape and number format are those of the first one."""
        if tuple(image.shape) != self.shape:
            raise UserError(
                f"{self.name}: item {index:,} has the shape {tuple(image.shape)}, the first one {self.shape}; resize all to "
                f"{self.spec.shape[1:]} first"
            )
        if image.is_floating_point() != self.is_float:
            raise UserError(
                f"{self.name}: item {index:,} is {image.dtype}, the first one of another kind; give all as bytes or all as "
                "floats"
            )
        return image

    def _pixels(self, image: Any, index: int) -> Tensor:
        where = f"{self.name}: item {index:,}"
        if type(image).__module__.partition(".")[0] == "PIL":
            return _from_pil(image, self.spec.shape[0], where)
        if not isinstance(image, (Tensor, np.ndarray)):
            raise UserError(
                f"{where} has a {type(image).__name__} for an image, expected a tensor, an array or a PIL image; add a "
                "transform that makes one"
            )
        tensor = _tensor(image, where).detach().cpu()
        if tensor.ndim == 2 and (1, *tensor.shape) == self.spec.shape:
            raise UserError(
                f"{where} has the shape {tuple(tensor.shape)}, expected {self.spec.shape} (channels, height, width); add the "
                "dimension of the channel, with [None]"
            )
        try:
            self.spec.check_form(tensor[None], stored=True)
        except UserError as error:
            text = str(error).replace(".permute(0, 3, 1, 2)", ".permute(2, 0, 1)").replace("[:, None]", "[None]")
            raise UserError(f"{where}: {text}") from None
        return tensor if tensor.dtype == torch.uint8 else tensor.float()

    def _label(self, label: Any, index: int) -> int:
        where, classes = f"{self.name}: item {index:,}", len(self.spec.classes)
        value = label
        if isinstance(value, (Tensor, np.ndarray)):
            if math.prod(value.shape) == classes and classes > 1:
                raise UserError(
                    f"{where} has a label of shape {tuple(value.shape)}, one-hot or probabilities, expected a class number; "
                    "give .argmax()"
                )
            if math.prod(value.shape) == 1:
                value = value.reshape(-1)[0].item() if not isinstance(value, np.ndarray) else value.reshape(-1)[0]
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
            got = cut(repr(value)) if isinstance(value, (str, float, bool)) or value is None else type(value).__name__
            raise UserError(
                f"{where} has the label {got}, expected a whole number from 0 to {classes - 1}; give class numbers"
            )
        return int(value)


def _from_pil(image: Any, channels: int, where: str) -> Tensor:
    """A PIL image as bytes (C, H, W), where nothing is lost by it."""
    modes = {1: ("L", "1"), 3: ("RGB", "L", "1", "P")}.get(channels, ())
    if image.mode not in modes or "transparency" in image.info:
        kind = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
        got = f"{image.mode} with transparency" if "transparency" in image.info else image.mode
        raise UserError(
            f"{where} is a PIL image of mode {got}, expected {kind}, as the network takes it; convert it with "
            f".convert({'L' if channels == 1 else 'RGB'!r}) first"
        )
    array = np.array(image.convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(array if array.ndim == 3 else array[:, :, None]).permute(2, 0, 1).contiguous()


def _names_of(source: Any) -> tuple[str, ...] | None:
    """The names of its classes, as torchvision's data sets have them; of a Subset, those of what it is of."""
    while isinstance(source, Subset):
        source = source.dataset
    names = getattr(source, "classes", None)
    if isinstance(names, (list, tuple)) and len(names) > 1 and all(isinstance(entry, str) for entry in names):
        return tuple(names)
    return None


# -- loaders ------------------------------------------------------------


def _dataset_of(loader: DataLoader[Any], name: str) -> TorchDataset[Any]:
    """What a loader reads from. Raises UserError where the loader gives anything else than each image once."""
    source, sampler = loader.dataset, loader.sampler
    count, instead = _length(source, name), "give its dataset"
    if type(loader).__iter__ is not DataLoader.__iter__:
        raise UserError(
            f"{name}: got a DataLoader ({type(loader).__name__}) with an __iter__ of its own, which may change images; "
            f"{instead}, with images as they are in the files"
        )
    if loader.collate_fn not in (default_collate, default_convert):
        raise UserError(
            f"{name}: got a DataLoader with a collate_fn of its own, which may change images, expected torch's; {instead}, "
            "of (image, label)"
        )
    if loader.batch_sampler is not None and type(loader.batch_sampler) is not BatchSampler:
        raise UserError(
            f"{name}: got a DataLoader with the batch_sampler {type(loader.batch_sampler).__name__}, which may repeat or "
            f"leave out images, expected each one once; {instead}"
        )
    if isinstance(sampler, RandomSampler) and (sampler.replacement or sampler.num_samples != count):
        raise UserError(
            f"{name}: got a DataLoader that draws {sampler.num_samples:,} of {count:,} images"
            f"{' with replacement' if sampler.replacement else ''}, expected each one once; {instead}"
        )
    if type(sampler) is SubsetRandomSampler:
        indices = [int(index) for index in sampler.indices]
        if len(set(indices)) != len(indices):
            raise UserError(f"{name}: got a DataLoader that repeats images, expected each one once; {instead}")
        source, count = Subset(source, sorted(indices)), len(indices)
    elif type(sampler) not in (SequentialSampler, RandomSampler):
        raise UserError(
            f"{name}: got a DataLoader with the sampler {type(sampler).__name__}, which may repeat or leave out images, "
            f"expected each one once; {instead}, or a Subset of it"
        )
    if loader.drop_last and loader.batch_size and count % loader.batch_size:
        raise UserError(
            f"{name}: got a DataLoader that drops the last {count % loader.batch_size:,} of {count:,} images, expected each "
            f"one; {instead}, or drop_last=False"
        )
    return source


# -- all images ------------------------------------------------------------


@dataclass(frozen=True)
class _Look:
    """What one pass over all images says."""

    digests: np.ndarray  # (N,) uint64
    as_bytes: bool
    """Whether each pixel is a byte, or the float that a byte becomes."""


def _looked_at(chunks: Iterator[Tensor], spec: InputSpec, where: str) -> _Look:
    """Raises UserError for NaN, pixels outside the range, images that are normalised already, and repeated images."""
    digests, as_bytes, count = [], True, 0
    lowest, highest = math.inf, -math.inf
    sums = torch.zeros(2, spec.shape[0], dtype=torch.float64)
    for chunk in chunks:
        if not len(chunk):
            continue
        digests.append(_digests(chunk))
        if chunk.dtype == torch.uint8:
            width = (spec.high - spec.low) / LEVELS
            low, high = (float(value) * width + spec.low for value in chunk.aminmax())
        else:
            low, high = map(float, chunk.aminmax())
            if not (math.isfinite(low) and math.isfinite(high)):
                raise UserError(f"{where}: got images with NaN or infinity, expected finite pixels; clean the data")
            as_bytes = as_bytes and _are_bytes(chunk.float(), spec)
            wide = chunk.double()
            sums += torch.stack([wide.mean((2, 3)).sum(0), wide.square().mean((2, 3)).sum(0)])
            count += len(chunk)
        lowest, highest = min(lowest, low), max(highest, high)
    joined = np.concatenate(digests) if digests else np.zeros(0, np.uint64)
    if not len(joined):
        raise UserError(f"{where}: got no images, expected at least one; give some")
    _check_range(lowest, highest, spec, where)
    if count:
        _check_centred(sums / count, spec, where)
    _check_width(lowest, highest, spec, where)
    distinct = len(np.unique(joined))
    if len(joined) > 1 and distinct <= len(joined) // 2:
        raise UserError(
            f"{where}: got {len(joined):,} images of which {distinct:,} are different ones, expected each image once, since "
            "copies are counted as samples of their own; leave them out"
        )
    return _Look(joined, as_bytes)


def _check_range(lowest: float, highest: float, spec: InputSpec, where: str) -> None:
    slack = 1e-6 * max(1.0, abs(spec.low), abs(spec.high))
    if lowest >= spec.low - slack and highest <= spec.high + slack:
        return
    got = f"{where}: got pixels from {lowest:.4g} to {highest:.4g}, expected {spec.low:g} to {spec.high:g}"
    width = spec.high - spec.low
    if lowest >= 0 and LEVELS / 2 < highest <= LEVELS:
        raise UserError(f"{got}: these are bytes; give them as uint8, or divide them by 255")
    over = max(spec.low - lowest, highest - spec.high)
    if over <= OVERSHOOT * width and over <= (highest - lowest) / 8:
        raise UserError(
            f"{got}; clip them with .clip({spec.low:g}, {spec.high:g}) if a resize made them overshoot; if they are "
            "normalised, give them as they were before"
        )
    if lowest < spec.low:
        how = "by mean and std of its spec" if spec.normalises else "if it is given mean= and std="
        raise UserError(
            f"{got}: these look normalised; give the images before normalisation (leave out transforms.Normalize), since "
            f"the network normalises them itself, {how}"
        )
    raise UserError(f"{got}; scale the images to that range")


def _check_centred(moments: Tensor, spec: InputSpec, where: str) -> None:
    """Raises UserError for floats within a wide range whose channels have mean 0 and std 1, where those of the spec differ."""
    mean, std = moments[0], (moments[1] - moments[0].square()).clamp(min=0).sqrt()
    expected = [torch.tensor(values, dtype=torch.float64).expand(len(mean)) for values in (spec.mean, spec.std)]
    unit = bool((mean.abs() < CENTRED).all() and (std > UNIT[0]).all() and (std < UNIT[1]).all())
    afar = float(((mean - expected[0]) / expected[1]).abs().max()) > AFAR or float((std / expected[1]).max()) > 2
    if unit and spec.normalises and afar:
        raise UserError(
            f"{where}: got images of mean {float(mean.mean()):.2g} and std {float(std.mean()):.2g}, which look normalised, "
            f"expected pixels of about mean {spec.mean[0]:.3g} and std {spec.std[0]:.3g}; give the images before "
            "normalisation (leave out transforms.Normalize)"
        )


def _check_width(lowest: float, highest: float, spec: InputSpec, where: str) -> None:
    if highest - lowest < NARROW * (spec.high - spec.low):
        raise UserError(
            f"{where}: got pixels from {lowest:.4g} to {highest:.4g} alone, expected images in a range of {spec.low:g} to "
            f"{spec.high:g}, of which these are one colour; scale them to that range"
        )


def _digests(images: Tensor) -> np.ndarray:
    """A hash of each image, (N,) uint64."""
    rows = np.ascontiguousarray(images.numpy())
    hashes = [hashlib.blake2b(memoryview(row).cast("B"), digest_size=8).digest() for row in rows]
    return np.frombuffer(b"".join(hashes), np.uint64)


def _bytes_as_floats(spec: InputSpec) -> Tensor:
    """The 256 pixels that bytes become, as `Dataset.pixels` makes them."""
    unit = torch.arange(LEVELS + 1).float().div_(LEVELS)
    if (spec.low, spec.high) == RAW:
        return unit
    return torch.lerp(unit.new_tensor(spec.low), unit.new_tensor(spec.high), unit).clamp_(spec.low, spec.high)


def _to_bytes(pixels: Tensor, spec: InputSpec) -> Tensor:
    return ((pixels - spec.low) * (LEVELS / (spec.high - spec.low))).round().clamp(0, LEVELS).to(torch.uint8)


def _are_bytes(pixels: Tensor, spec: InputSpec) -> bool:
    """Whether every float is exactly what some byte becomes."""
    return torch.equal(_bytes_as_floats(spec)[_to_bytes(pixels, spec).long()], pixels)


def _stored(images: Tensor, spec: InputSpec, as_bytes: bool) -> np.ndarray:
    """Images as `Dataset.read` gives them: bytes, or float32."""
    if images.dtype == torch.uint8:
        return images.numpy()
    images = images.float()
    return (_to_bytes(images, spec) if as_bytes else images.clamp(spec.low, spec.high)).numpy()


def _dataset(
    public: str,
    spec: InputSpec,
    look: _Look,
    labels: np.ndarray | None,
    names: Sequence[str] | None,
    read: Any,
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
        read=read,
        low=spec.low,
        high=spec.high,
        floats=None if look.as_bytes else (spec.low, spec.high),
        public=public,
    )
