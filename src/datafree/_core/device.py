"""Checks that a device of torch can be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .arguments import check_argument
from .errors import UserError

if TYPE_CHECKING:
    import torch

__all__ = ["check_device", "reason_of"]

LONGEST = 80
"""Number of characters of torch's reason that are shown."""
SHORTER = {"Could not run": "this torch cannot use it", "Expected one of": "torch has no device of that name"}
"""How torch's reason begins, and what is shown instead."""


def check_device(device: str | torch.device) -> torch.device:
    """The device as torch's. Raises UserError if torch does not know it or it is not here."""
    import torch

    check_argument("device", device, str | torch.device)
    try:
        target = torch.device(device)
        if target.type == "meta":
            raise RuntimeError("tensors there have no values")
        torch.empty(0, device=target)
    except (
        Exception
    ) as error:  # RuntimeError, AssertionError, NotImplementedError or ImportError, by the kind of device
        raise UserError(
            f"device: got {str(device)!r}, expected one that is here ({reason_of(error)}); give 'cpu'"
        ) from None
    return target


def reason_of(error: Exception) -> str:
    """Why torch refuses a device, in a few words: its own text may list all devices or operators."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    for start, words in SHORTER.items():
        if line.startswith(start):
            return words
    sentence = line.split(". ")[0].removesuffix(".")
    return sentence if len(sentence) <= LONGEST else f"{sentence[:LONGEST].rpartition(' ')[0]} ..."
