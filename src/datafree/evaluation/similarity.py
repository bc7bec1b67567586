"""How similar data sets are to a network's training data, by the divergence from its batch norms (Haroush et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._core.arguments import checked
from .._core.errors import UserError
from .._core.progress import Progress, silent
from .._core.seeds import stream
from .._core.unused import unused
from ..data.adapters import ImageData, as_dataset
from ..data.augmentation import mirrored, shifted
from ..models.input_spec import Border, InputSpec
from ..models.missing_layers import is_program, no_batch_norm
from ..models.network import Network, OpaqueModule
from ..models.pixel_bytes import pixels_for
from ..records.divergence import Form, StoredStatistics, divergence, statistics, stored_pixels, stored_statistics
from ..records.record import Record
from ..synthesis.sampling import Samples
from ..synthesis.synthetic_set import SyntheticSet
from .diversity import diversity

__all__ = ["LayerMatches", "Similarity", "check_shift", "layer_matches", "similarity"]


@dataclass(frozen=True)
class Similarity:
    """One data set's divergence from the training data, in nats (`l2`: in squared activations), summed over channels."""

    name: str
    images: int
    total: float
    by_layer: dict[str, float]
    """Tap -> sum over its channels. The values add up to `total`."""
    diversity: float | None = None
    """Effective number of directions in which images of one class differ; see `diversity`."""


@dataclass(frozen=True)
class LayerMatches:
    """Distance of images' statistics from the stored ones, by layer, in stored standard deviations; 0 is a match."""

    name: str
    mean: tuple[float, ...]
    """Root mean square over channels of (m - mu) / sigma."""
    spread: tuple[float, ...]
    """Root mean square over channels of s / sigma - 1."""
    reference: bool = False
    """Whether this is noise, for comparison."""


def layer_matches(
    network: Network,
    name: str,
    pixels: Tensor,
    layers: tuple[StoredStatistics, ...],
    *,
    shift: int = 0,
    flip: bool = False,
    spec: InputSpec | None = None,
    reference: bool = False,
) -> LayerMatches:
    """Compares the statistics of pixels (N, C, H, W), not clamped to the spec's range, with the stored ones.

    The pixels are shifted, on the border of `spec`, by default the network's, and mirrored as in `similarity`. Raises
    UserError for images that do not fit.
    """
    show = _augment(shift, spec or network.spec, stream(0, "shown", 0), flip=flip)
    measured, means, spreads = statistics(network, pixels, layers, show=show, in_range=False), [], []
    for layer in layers:
        mean, variance = measured[layer.tap]
        sigma = (layer.variance.to(mean) + layer.epsilon).sqrt()
        means.append(_rms((mean - layer.mean.to(mean)) / sigma))
        spreads.append(_rms((variance + layer.epsilon).sqrt() / sigma - 1))
    return LayerMatches(name, tuple(means), tuple(spreads), reference)


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


@checked
def similarity(
    network: Network,
    sources: Mapping[str, ImageData | SyntheticSet | Samples],
    record: Record | None = None,
    *,
    form: Form = "forward",
    shift: int = 0,
    flip: bool = False,
    border: Border | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Similarity]:
    """Divergence of each source from the statistics in the network's batch norms (or its record), most similar first.

    With a record of the pixels only, such as the default one, pixels are compared, and `by_layer` only has `input`. A
    source is a data set, a torch Dataset or DataLoader, a synthetic set, what `sample` returned, or pixels (N, C, H, W)
    as a tensor or array, in the spec's range or as bytes; see `as_dataset`. Labels are ignored. Compare sources with
    about the same number of images, because the divergence of few images includes their sampling error. A small
    divergence does not show that the images of a class differ: `diversity` does. `shift` and `flip` augment every source
    as in training: moved by up to `shift` pixels, and mirrored with probability 1/2. `border` is what they are moved on,
    `black` or `mean`, the mean colour, where images were normalised before; by default the network's. Batch norms store
    statistics of augmented images, and omitting the augmentation can cause most of the divergence. All sources get the
    same random moves.

    Forms: `forward`, KL of the stored from the measured Gaussian, and `reverse`, in nats; `l2`, squared distances (Haroush
    et al. 2020). Raises UserError, with the source's name, for images that do not fit or have no finite divergence.
    """
    check_shift(network, shift, border)
    if not sources:
        raise UserError('sources: got none, expected at least one data set or images by name; give {"mine": images}')
    if record is not None:
        record.check_teacher(network)
    network.check()
    layers = _layers(network, record)
    spec = network.spec if border is None else network.spec.with_border(border)

    results = []
    for index, (name, source_images) in enumerate(sources.items()):
        images = _pixels(network, source_images)
        if isinstance(images, Tensor) and images.dtype != torch.uint8:
            _check_form(network, name, images)
            source = images
        else:
            source = as_dataset(images, network, labelled=False, name=name)
        if len(source) < 2:
            raise UserError(f"{name} has {len(source)} images, expected at least 2; give more")

        def step(done: int, total: int, index: int = index) -> None:
            progress(index * 1000 + 1000 * done // total, 1000 * len(sources))

        show = _augment(shift, spec, stream(seed, "shown", 0), flip=flip)
        try:
            measured = statistics(network, source, layers, show=show, progress=step)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        result = _similarity(name, len(source), measured, layers, form)
        results.append(replace(result, diversity=diversity(network, source)))
    return sorted(results, key=lambda result: result.total)


def _augment(shift: int, spec: InputSpec, rng: torch.Generator, *, flip: bool) -> Callable[[Tensor], Tensor]:
    """A function that shifts pixels (N, C, H, W) on the border of `spec`, and mirrors half of them if `flip`."""

    def augmented(pixels: Tensor) -> Tensor:
        pixels = shifted(pixels, shift, rng, spec.border_colour(pixels))
        return mirrored(pixels, rng) if flip else pixels

    return augmented


def _pixels(network: Network, source: ImageData | SyntheticSet | Samples) -> ImageData:
    """The pixels of synthetic images, as floats in the network's range; anything else unchanged."""
    if isinstance(source, SyntheticSet):
        return pixels_for(network.spec, source.load()[0], source.spec)
    return source.pixels if isinstance(source, Samples) else source


def _check_form(network: Network, name: str, pixels: Tensor) -> None:
    try:
        network.spec.check_form(pixels)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def _layers(network: Network, record: Record | None) -> tuple[StoredStatistics, ...]:
    try:
        return stored_statistics(network, record)
    except UserError:
        if pixels := stored_pixels(network, record):
            return pixels
        if isinstance(network.module, OpaqueModule) or is_program(network):
            raise
        got = "no record" if record is None else "a record without variances"
        raise UserError(
            f"record: got {got}, expected statistics of the training data, since {no_batch_norm(network)}; give a record, "
            "which the network's publisher makes with datafree record"
        ) from None


def check_shift(network: Network, shift: int, border: Border | None = None) -> None:
    """Raises UserError for a shift in pixels that is negative or as large as the images, and a border without a shift."""
    if border is not None and not shift:
        unused("border", border, "with `shift=0`", "`shift` of at least 1")
    side = min(network.spec.shape[1:])
    if not 0 <= shift < side:
        raise UserError(
            f"shift: got {shift}, expected at least 0 and less than the {side} pixels of an image's side; "
            "give a number of pixels"
        )


def _similarity(
    name: str,
    images: int,
    measured: Mapping[str, tuple[Tensor, Tensor]],
    layers: tuple[StoredStatistics, ...],
    form: Form,
) -> Similarity:
    parts = {}
    for layer in layers:
        mean, variance = measured[layer.tap]
        parts[layer.tap] = float(divergence(mean - layer.mean.to(mean), variance, layer, form).sum())
    if not all(map(math.isfinite, parts.values())):
        tap = next(tap for tap, value in parts.items() if not math.isfinite(value))
        raise UserError(
            f"{name}: its divergence at layer {tap!r} is {parts[tap]}, expected a number; leave it out, or use weights and "
            "images with activations that float64 can square"
        )
    return Similarity(name, images, sum(parts.values()), parts)
