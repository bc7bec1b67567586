"""One pass over the user's images: their range, copies, and whether they are bytes or normalised already."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .._core.errors import UserError
from ..models.input_spec import NARROW, OVERSHOOT, InputSpec

__all__ = ["Look", "as_stored", "digests_of", "images_at_once", "look_at"]

RAW = (0.0, 1.0)
LEVELS = 255
CHUNK_BYTES = 1 << 22
"""Number of bytes of images, as float32, that are inspected at once."""
CENTRED, UNIT = 0.25, (0.8, 1.25)
"""Ranges of the mean (+-) and of the standard deviation of channels that look normalised."""
AFAR = 1.0
"""Distance of the data's mean from the spec's, in standard deviations, from which the spec is for other pixels."""


@dataclass(frozen=True)
class Look:
    """The result of one pass over all images."""

    digests: np.ndarray  # (N,) uint64
    as_bytes: bool
    """Whether each pixel is a byte, or the float that a byte becomes."""


def look_at(chunks: Iterator[Tensor], spec: InputSpec, subject: str) -> Look:
    """Raises UserError for NaN, pixels outside the range, images that are normalised already, and repeated images."""
    digests, as_bytes, count = [], True, 0
    lowest, highest = math.inf, -math.inf
    sums = torch.zeros(2, spec.shape[0], dtype=torch.float64)
    for chunk in chunks:
        if not len(chunk):
            continue
        digests.append(digests_of(chunk))
        if chunk.dtype == torch.uint8:
            width = (spec.high - spec.low) / LEVELS
            low, high = (float(value) * width + spec.low for value in chunk.aminmax())
        else:
            low, high = map(float, chunk.aminmax())
            if not (math.isfinite(low) and math.isfinite(high)):
                raise UserError(f"{subject}: got images with NaN or infinity, expected finite pixels; clean the data")
            as_bytes = as_bytes and _are_bytes(chunk.float(), spec)
            wide = chunk.double()
            sums += torch.stack([wide.mean((2, 3)).sum(0), wide.square().mean((2, 3)).sum(0)])
            count += len(chunk)
        lowest, highest = min(lowest, low), max(highest, high)
    joined = np.concatenate(digests) if digests else np.zeros(0, np.uint64)
    if not len(joined):
        raise UserError(f"{subject}: got no images, expected at least one; give some")
    _check_range(lowest, highest, spec, subject)
    if count:
        _check_centred(sums / count, spec, subject)
    _check_width(lowest, highest, spec, subject)
    distinct = len(np.unique(joined))
    if len(joined) > 1 and distinct <= len(joined) // 2:
        raise UserError(
            f"{subject}: got {len(joined):,} images of which {distinct:,} are different ones, expected each image "
            "once, since copies count as samples; leave them out"
        )
    return Look(joined, as_bytes)


def _check_range(lowest: float, highest: float, spec: InputSpec, subject: str) -> None:
    slack = 1e-6 * max(1.0, abs(spec.low), abs(spec.high))
    if lowest >= spec.low - slack and highest <= spec.high + slack:
        return
    got = f"{subject}: got pixels from {lowest:.4g} to {highest:.4g}, expected {spec.low:g} to {spec.high:g}"
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
        source = "by mean and std of its spec" if spec.normalises else "if it is given mean= and std="
        raise UserError(
            f"{got}: these look normalised; give the images before normalisation (leave out transforms.Normalize), since "
            f"the network normalises them itself, {source}"
        )
    raise UserError(f"{got}; scale the images to that range")


def _check_centred(moments: Tensor, spec: InputSpec, subject: str) -> None:
    """Raises UserError for floats within a wide range whose channels have mean 0 and std 1, unlike those of the spec."""
    mean, std = moments[0], (moments[1] - moments[0].square()).clamp(min=0).sqrt()
    expected = [torch.tensor(values, dtype=torch.float64).expand(len(mean)) for values in (spec.mean, spec.std)]
    unit = bool((mean.abs() < CENTRED).all() and (std > UNIT[0]).all() and (std < UNIT[1]).all())
    afar = float(((mean - expected[0]) / expected[1]).abs().max()) > AFAR or float((std / expected[1]).max()) > 2
    if unit and spec.normalises and afar:
        raise UserError(
            f"{subject}: got images of mean {float(mean.mean()):.2g} and std {float(std.mean()):.2g}, which look "
            "normalised, "
            f"expected pixels of about mean {spec.mean[0]:.3g} and std {spec.std[0]:.3g}; give the images before "
            "normalisation (leave out transforms.Normalize)"
        )


def _check_width(lowest: float, highest: float, spec: InputSpec, subject: str) -> None:
    if highest - lowest < NARROW * (spec.high - spec.low):
        raise UserError(
            f"{subject}: got pixels from {lowest:.4g} to {highest:.4g} only, expected images that cover {spec.low:g} to "
            f"{spec.high:g}; in that range these are one colour; scale them to it"
        )


def images_at_once(shape: Sequence[int]) -> int:
    return max(1, CHUNK_BYTES // (4 * math.prod(shape)))


def digests_of(images: Tensor) -> np.ndarray:
    """A hash of each image, (N,) uint64."""
    rows = np.ascontiguousarray(images.numpy())
    hashes = [hashlib.blake2b(memoryview(row).cast("B"), digest_size=8).digest() for row in rows]
    return np.frombuffer(b"".join(hashes), np.uint64)


def _bytes_as_floats(spec: InputSpec) -> Tensor:
    """The 256 pixels of bytes, as `Dataset.pixels` computes them."""
    unit = torch.arange(LEVELS + 1).float().div_(LEVELS)
    if (spec.low, spec.high) == RAW:
        return unit
    return torch.lerp(unit.new_tensor(spec.low), unit.new_tensor(spec.high), unit).clamp_(spec.low, spec.high)


def _to_bytes(pixels: Tensor, spec: InputSpec) -> Tensor:
    return ((pixels - spec.low) * (LEVELS / (spec.high - spec.low))).round().clamp(0, LEVELS).to(torch.uint8)


def _are_bytes(pixels: Tensor, spec: InputSpec) -> bool:
    """Whether every float is exactly the value of a byte."""
    return torch.equal(_bytes_as_floats(spec)[_to_bytes(pixels, spec).long()], pixels)


def as_stored(images: Tensor, spec: InputSpec, as_bytes: bool) -> np.ndarray:
    """Images as `Dataset.read` returns them: bytes, or float32."""
    if images.dtype == torch.uint8:
        return images.numpy()
    images = images.float()
    return (_to_bytes(images, spec) if as_bytes else images.clamp(spec.low, spec.high)).numpy()
