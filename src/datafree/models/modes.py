"""Restores the training and eval mode of modules after a temporary change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["modes_kept"]


@contextmanager
def modes_kept(*modules: nn.Module) -> Iterator[None]:
    """Restores the `training` flag of every part when the block ends, so that it may call `train()` and `eval()`."""
    flags = [(part, part.training) for module in modules for part in module.modules()]
    try:
        yield
    finally:
        for part, training in flags:
            part.training = training
