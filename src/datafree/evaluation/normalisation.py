"""Which normalisation of pixels a network's first batch norm was trained with, without its data.

A batch norm stores the mean and the variance of its inputs. The first one sees little but edges and colours, whose
statistics are alike in all photos. So a few photos, normalised as in training, match them far better than the same photos
normalised in another way. Networks of drawings on black, such as digits, are compared with digits too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._core.arguments import checked
from .._core.seeds import stream
from ..data.dataset import resized
from ..models import hooks
from ..models.input_spec import InputSpec
from ..models.network import Network, frozen
from ..records.divergence import StoredStatistics, by_channel, divergence, has_statistics, stored_statistics

__all__ = ["InputDoubt", "Normalisation", "input_doubt", "normalisations"]

PIXELS = 96 * 32 * 32
"""Number of pixels of the images of each kind, of at least 16 images: enough for the variance of edges."""
LARGE = 512 * 512
"""Pixels of an image above which fewer than 16 are enough; 16 of 2000 x 2000 took 42 s and some GB."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
COMMON: dict[str, tuple[float | tuple[float, ...], float | tuple[float, ...]]] = {
    "not normalised, from 0 to 1": (0.0, 1.0),
    "not normalised, from 0 to 255": (0.0, 1 / 255),
    "from -1 to 1": (0.5, 0.5),
    "with ImageNet's mean and deviation": IMAGENET,
    "with ImageNet's mean alone, from 0 to 255": (IMAGENET[0], 1 / 255),
    "with MNIST's mean and deviation": (0.1307, 0.3081),
}
"""Ways in which training scripts normalise pixels in [0, 1]: mean, and what they are divided by."""
SMALLEST = 8
"""Minimum height and width of images, in pixels: smaller ones have no edges."""
GIVEN = "normalised as given"
CLEAR = 5.0
"""Factor by which the divergence of another normalisation must be smaller for a warning.

Measured: 9 of 9 networks of photos have the smallest with their own, and 6 to 25 times as much with the nearest of another
scale; a network of MNIST's digits has 3.7 times the smallest with its own."""
REVERSED = 1.4
"""The same for channels in reverse order. Measured: 1.1 to 2 for 9 networks of photos, all in favour of their own order."""


@dataclass(frozen=True)
class Normalisation:
    """A way to normalise pixels, and how well a network's first batch norm matches it."""

    name: str
    mean: tuple[float, ...]
    """In the units of the network's spec, as is `std`."""
    std: tuple[float, ...]
    reverses: bool
    """Whether the channels are in reverse order, blue first."""
    divergence: float
    """KL of the stored from the measured Gaussian, in nats, mean over channels; that of the kind of images that fits
    better."""


@checked
def normalisations(network: Network) -> tuple[Normalisation, ...]:
    """The network's normalisation first, then others with the smallest divergence first.

    Compares the first batch norm's statistics with those of photos and of handwritten digits. Empty for a network without
    batch norm of images, for one that saw no images or is not reached, and for images of other than 1 or 3 channels or of
    under 8 pixels a side. Raises UserError for a network that does not take its images.
    """
    channels, *sides = network.spec.shape
    if channels not in (1, 3) or min(sides) < SMALLEST or not has_statistics(network):
        return ()
    first = stored_statistics(network)[0]
    if not first.mean.any() and bool((first.variance == 1).all()):  # as it was made: it saw no images
        return ()
    if not isinstance(network.module.get_submodule(first.tap), nn.BatchNorm2d):  # of features, not of edges and colours
        return ()
    kinds = [network.spec.low + (network.spec.high - network.spec.low) * images for images in _images(network.spec)]
    results = []
    for name, spec, reverses in _candidates(network.spec):
        candidate = replace(network, spec=spec)
        smallest = min(_divergence(candidate, first, pixels.flip(1) if reverses else pixels) for pixels in kinds)
        results.append(Normalisation(name, spec.mean, spec.std, reverses, smallest))
    if not any(math.isfinite(result.divergence) for result in results):  # these images do not reach it
        return ()
    return (results[0], *sorted(results[1:], key=lambda result: result.divergence))


class InputDoubt(NamedTuple):
    """Why a network's normalisation, or the order of its channels, looks wrong."""

    text: str
    better: Normalisation
    """The one that matches better."""


def input_doubt(network: Network) -> InputDoubt | None:
    """A doubt if another normalisation, or order of the channels, matches the first batch norm clearly better."""
    results = normalisations(network)
    if len(results) < 2:
        return None
    declared, best = results[0], results[1]
    factor = declared.divergence / max(best.divergence, 1e-6)
    in_reverse = next((result for result in results[1:] if result.reverses and result.name == GIVEN), None)
    if factor > CLEAR and best is not in_reverse:
        mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (best.mean, best.std))
        order = ", blue first," if best.reverses else ""
        text = (
            f"the mean and std look wrong: photos {best.name}{order} fit the first batch norm {factor:.0f} times better. "
            f"If the network was trained on photos, give mean {mean} and std {std}"
        )
        return InputDoubt(text, best)
    if in_reverse is not None and declared.divergence > REVERSED * in_reverse.divergence:
        text = (
            f"the order of the channels looks wrong: photos with blue first fit the first batch norm "
            f"{declared.divergence / in_reverse.divergence:.1f} times better. If the network was trained on such photos, "
            "reverse them in its forward pass; if mean and std are in the wrong order, reverse these"
        )
        return InputDoubt(text, in_reverse)
    return None


def _candidates(spec: InputSpec) -> list[tuple[str, InputSpec, bool]]:
    """The network's own normalisation, and others: name, spec, and whether the channels are reversed."""
    candidates = [(GIVEN, spec)]
    scale = spec.high - spec.low
    for name, (mean, std) in COMMON.items():
        means, stds = (_by_channel(value, spec.shape[0]) for value in (mean, std))
        update = {
            "mean": tuple(spec.low + scale * value for value in means),
            "std": tuple(scale * value for value in stds),
        }
        if not _same(update, spec):
            candidates.append((name, spec.model_copy(update=update)))
    orders = (False, True) if spec.shape[0] == 3 else (False,)
    return [(name, candidate, reverses) for reverses in orders for name, candidate in candidates]


def _same(update: dict[str, tuple[float, ...]], spec: InputSpec) -> bool:
    """Whether these values are the spec's, but for 2 % of the range."""
    tolerance = 0.02 * (spec.high - spec.low)
    return all(
        abs(value - other) < tolerance and abs(value / other - 1 if name == "std" else 0) < 0.02
        for name, values in update.items()
        for value, other in zip(values, _by_channel(getattr(spec, name), len(values)), strict=True)
    )


def _by_channel(value: float | tuple[float, ...], channels: int) -> tuple[float, ...]:
    """A number for each channel; the mean of three for a grey image."""
    values = value if isinstance(value, tuple) else (value,)
    return values if len(values) == channels else (sum(values) / len(values),) * channels


class _SeenError(Exception):
    """Ends a forward pass at the first batch norm."""


@torch.no_grad()
def _divergence(network: Network, first: StoredStatistics, pixels: Tensor) -> float:
    """That of the first batch norm's inputs, mean over channels; infinite if they are not finite."""
    inputs: list[Tensor] = []

    def see(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        inputs.append(hooks.first_argument(arguments, keywords))
        raise _SeenError

    handle = network.module.get_submodule(first.tap).register_forward_pre_hook(see, with_kwargs=True)
    try:
        with frozen(network.module):
            network.logits(pixels.to(network.device))
    except _SeenError:
        pass
    finally:
        handle.remove()
    if not inputs:  # the forward pass avoids it for these images
        return float("inf")
    shift, variance = by_channel(inputs[0].cpu(), first.mean)
    return float(divergence(shift, variance, first).mean().nan_to_num(float("inf")))


def _images(spec: InputSpec) -> list[Tensor]:
    """Photos and handwritten digits in [0, 1], (N, C, H, W) each."""
    area = spec.shape[1] * spec.shape[2]
    count = max(16, PIXELS // area) if area <= LARGE else max(2, 16 * LARGE // area)
    return [_photos(spec.shape, min(count, 96)), _digits(spec.shape, min(count, 96))]


def _photos(shape: tuple[int, int, int], count: int) -> Tensor:
    """Parts of scikit-learn's two sample photos, of random place and size."""
    from sklearn.datasets import load_sample_images

    rng, parts = stream(0, "photos"), []
    bunch: Any = load_sample_images()
    photos = [torch.tensor(photo).permute(2, 0, 1).float() / 255 for photo in bunch.images]
    for number in range(count):
        photo = photos[number % len(photos)]
        height, width = photo.shape[1:]
        side = int(torch.randint(height // 3, height + 1, (), generator=rng))
        top, left = (int(torch.randint(0, size - side + 1, (), generator=rng)) for size in (height, width))
        parts.append(_resized(photo[None, :, top : top + side, left : left + side], shape))
    return torch.cat(parts)


def _digits(shape: tuple[int, int, int], count: int) -> Tensor:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    digits = torch.tensor(bunch.images[:count]).float()[:, None] / 16
    return _resized(digits, shape)


def _resized(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Images (N, C, H, W) of that shape, with as many channels."""
    images, channels = resized(images, shape[1:]), shape[0]
    if images.shape[1] == channels:
        return images
    return images.mean(1, keepdim=True).expand(-1, channels, -1, -1).contiguous()
