"""Random streams by name. A stream depends only on its seed and name, so results are the same for any number of workers."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["seed_of", "stream"]


def seed_of(seed: int, *name: str | int) -> int:
    """A 63-bit seed from a run's seed and the purpose's name: ``seed_of(0, "unit", 12)``."""
    text = "/".join(str(part) for part in (seed, *name))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1


def stream(seed: int, *name: str | int) -> torch.Generator:
    """A CPU generator for that name."""
    import torch

    return torch.Generator().manual_seed(seed_of(seed, *name))
