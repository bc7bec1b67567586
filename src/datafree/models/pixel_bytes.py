"""Converts pixels to bytes and back; stored images take one byte per value."""

from __future__ import annotations

import torch
from torch import Tensor

from .input_spec import InputSpec

__all__ = ["pixels_for", "to_bytes", "to_pixels"]


def to_pixels(stored: Tensor, spec: InputSpec) -> Tensor:
    """Stored pixels as float32 in the spec's range."""
    if stored.dtype != torch.uint8:
        return stored
    return stored.float() * ((spec.high - spec.low) / 255) + spec.low


def pixels_for(network_spec: InputSpec, stored: Tensor, spec: InputSpec) -> Tensor:
    """Stored pixels of a set with `spec`, as float32 in the range of a network with `network_spec`."""
    if stored.dtype == torch.uint8:
        return to_pixels(stored, network_spec)  # bytes stand for any range
    return spec.rescaled(stored, network_spec)


def to_bytes(pixels: Tensor, spec: InputSpec) -> Tensor:
    """Pixels in the spec's range as uint8, rounded."""
    return ((pixels - spec.low) * (255 / (spec.high - spec.low))).round().clamp(0, 255).to(torch.uint8)
