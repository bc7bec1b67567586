"""Number format of forward passes: float32, or bfloat16 by autocast."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from .._core.errors import Notice

__all__ = ["autocast", "fastest_precision", "note_emulation"]


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Computes in `precision`, `float32` or `bfloat16`, inside the block. Weights keep their format."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def fastest_precision(device: torch.device) -> Literal["float32", "bfloat16"]:
    """`bfloat16`, or `float32` on a CPU that would emulate it."""
    return "float32" if device.type == "cpu" and _emulates_bfloat16() else "bfloat16"


def note_emulation(precision: str | None, device: torch.device) -> None:
    """Warns with a `Notice` if the device computes `precision` in software."""
    if precision == "bfloat16" and device.type == "cpu" and _emulates_bfloat16():
        warnings.warn(
            Notice(
                "precision: this CPU has no bfloat16 and emulates it, several times slower than float32 (measured "
                "on ResNet-20: 8 times); give `precision='float32'`"
            ),
            stacklevel=3,
        )


def _emulates_bfloat16() -> bool:
    """Whether this CPU lacks the instructions for it: oneDNN needs AVX-512 or their equal."""
    try:
        return not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    except (AttributeError, RuntimeError):  # built without oneDNN: nothing is known
        return False
