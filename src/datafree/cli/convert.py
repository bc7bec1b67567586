"""datafree convert"""

from __future__ import annotations

from pathlib import Path

from .._core.files import sweep
from .json_output import result

__all__ = ["convert"]


def convert(weights: Path, /, *, out: Path, key: str | None = None) -> None:
    """Turn a .pt / .pth state dict into safetensors; no code in it is run.

    Example: datafree convert model.pt --out model.safetensors

    Parameters
    ----------
    weights
        The state dict that torch.save wrote.
    out
        The safetensors file to write.
    key
        Which weights of a file of several networks, with / between nested keys, such as `ema/module`.
    """
    if out.parent.is_dir():
        sweep(out.parent, name=out.name)
    from .._core.files import convert_weights

    names = convert_weights(weights, out, key=key)
    result({"tensors": names})
    if names is None:
        print(f"already complete: {out} holds the tensors of {weights}; nothing was changed")
    else:
        print(f"{out}: {len(names)} tensors")
