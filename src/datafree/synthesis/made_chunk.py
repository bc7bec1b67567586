"""One chunk of a method, checked: what a class of the user's own returns is refused before anything is written."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._core.errors import UserError
from ..models.input_spec import InputSpec
from .methods import Batch, BoundMethod

__all__ = ["made_chunk"]

SLACK = 1e-4
"""Share of the width of the range of pixels by which rounding may exceed it."""


def made_chunk(bound: BoundMethod, index: int, seed: int, size: int, *, in_range: bool | None = None) -> Batch:
    """Chunk `index` of a method: `size` images, floating-point, and their int64 target classes.

    `in_range` says whether the method promises the spec's range, by default according to its settings. Raises UserError,
    naming the method, for anything else.
    """
    batch: Any = bound.chunk(index, seed, size)
    spec, settings = bound.teacher.spec, getattr(bound, "settings", bound)
    subject = f"the method {getattr(settings, 'method', type(bound).__name__)!r}"
    pixels, labels = getattr(batch, "pixels", None), getattr(batch, "labels", None)
    if not isinstance(pixels, Tensor) or not isinstance(labels, Tensor):
        got = "None" if batch is None else f"a {type(batch).__name__}"
        if isinstance(batch, Batch):
            got += f" of {type(pixels).__name__} and {type(labels).__name__}"
        raise UserError(
            f"{subject} returns {got} for a chunk, expected Batch(pixels, labels) of two tensors; correct what it returns"
        )
    expected = (size, *spec.shape)
    if tuple(pixels.shape) != expected or tuple(labels.shape) != (size,):
        raise UserError(
            f"{subject} returns pixels {tuple(pixels.shape)} and labels {tuple(labels.shape)} for a chunk of {size}, "
            f"expected {expected} and ({size},); correct what it returns"
        )
    if not pixels.is_floating_point() or labels.dtype != torch.int64:
        kinds = " and labels ".join(str(tensor.dtype).removeprefix("torch.") for tensor in (pixels, labels))
        raise UserError(
            f"{subject} returns pixels {kinds}, expected float32 from {spec.low:g} to {spec.high:g} and int64; convert them"
        )
    low, high = map(int, labels.aminmax())
    if not 0 <= low <= high < len(spec.classes):
        raise UserError(
            f"{subject} returns labels from {low} to {high}, expected 0 to {len(spec.classes) - 1}, the classes of "
            f"{bound.teacher.name}; correct what it returns"
        )
    if not bool(pixels.isfinite().all()):
        if hasattr(getattr(bound, "inversion", None), "learning_rate"):
            raise UserError(f"chunk {index} has images that are not finite; lower the method's `learning_rate`")
        raise UserError(
            f"{subject} returns pixels with NaN or infinity in chunk {index}, expected finite ones; correct what it returns"
        )
    if getattr(settings, "in_range", False) if in_range is None else in_range:
        _check_range(subject, pixels, spec)
    return batch


def _check_range(subject: str, pixels: Tensor, spec: InputSpec) -> None:
    low, high = map(float, pixels.aminmax())
    slack = SLACK * (spec.high - spec.low)
    if low < spec.low - slack or high > spec.high + slack:
        raise UserError(
            f"{subject} says in_range, and its pixels go from {low:.4g} to {high:.4g}, expected {spec.low:g} to "
            f"{spec.high:g}; clamp them, or set in_range = False"
        )
