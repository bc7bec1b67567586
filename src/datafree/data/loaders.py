"""The Dataset of a DataLoader, if the loader returns each image once and unchanged."""

from __future__ import annotations

from typing import Any

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

from .._core.errors import UserError

__all__ = ["dataset_of", "length_of"]


def dataset_of(loader: DataLoader[Any], name: str) -> TorchDataset[Any]:
    """The loader's dataset. Raises UserError if the loader does not return each image exactly once."""
    source, sampler = loader.dataset, loader.sampler
    count, instead = length_of(source, name), "give its dataset"
    if type(loader).__iter__ is not DataLoader.__iter__:
        raise UserError(
            f"{name}: got a DataLoader ({type(loader).__name__}) with its own __iter__, which may change images; "
            f"{instead}, with images as they are in the files"
        )
    if loader.collate_fn not in (default_collate, default_convert):
        raise UserError(
            f"{name}: got a DataLoader with its own collate_fn, which may change images, expected torch's; {instead}, "
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


def length_of(source: Any, name: str) -> int:
    """Its number of items. Raises UserError for a Dataset that cannot be read by index."""
    kind = type(source).__name__
    if isinstance(source, IterableDataset):
        raise UserError(
            f"{name}: got an IterableDataset ({kind}), which can only be read in order, expected one with a length and "
            "indices, since images are read more than once; give a map-style Dataset, or (images, labels)"
        )
    try:
        return len(source)
    except (TypeError, NotImplementedError):
        raise UserError(
            f"{name}: got a Dataset ({kind}) without a length, expected one; give it __len__, or give (images, labels)"
        ) from None
