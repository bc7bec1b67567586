"""Training and eval mode of modules, put back after somebody changed it for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["modes_kept"]


@contextmanager
def modes_kept(*modules: nn.Module) -> Iterator[None]:
    """Inside, `train()` and `eval()` may be called; afterwards the `training` flag of every part is as it was."""
    flags = [(part, part.training) for module in modules for part in module.modules()]
    try:
        yield
    finally:
        for part, training in flags:
            part.training = training
