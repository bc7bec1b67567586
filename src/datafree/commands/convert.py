"""datafree convert"""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from ..files import convert_weights, sweep

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
    if out.exists():
        raise UserError(f"{out} is there already, and would be lost; name another file, or remove it first")
    if out.parent.is_dir():
        sweep(out.parent, name=out.name)
    names = convert_weights(weights, out)
    print(f"{out}: {len(names)} tensors")
