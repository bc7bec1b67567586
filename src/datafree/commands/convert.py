"""datafree convert"""

from __future__ import annotations

from pathlib import Path

from ..files import convert_weights

__all__ = ["convert"]


def convert(weights: Path, /, *, out: Path) -> None:
    """Turn a .pt / .pth state dict into safetensors; no code in it is run.

    Example: datafree convert model.pt --out model.safetensors

    Parameters
    ----------
    weights
        The state dict that torch.save wrote.
    out
        The safetensors file to write.
    """
    names = convert_weights(weights, out)
    print(f"{out}: {len(names)} tensors")
