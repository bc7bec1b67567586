"""Checks that a device of torch can be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .arguments import check_argument
from .errors import UserError

if TYPE_CHECKING:
    import torch

__all__ = ["check_device"]


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
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"device: got {str(device)!r}, expected one that is here ({reason}); give 'cpu'") from None
    return target
