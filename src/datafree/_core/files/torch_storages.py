"""What both formats of torch files share: the number formats of their storages, and the limit of their pickles."""

from __future__ import annotations

import torch

__all__ = ["PICKLE_CAP", "STORAGES", "storage_class", "storage_dtype"]

PICKLE_CAP = 16 << 20
"""Maximum bytes of a pickle."""
STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
"""Storage class -> dtype, of those that weight files here may have."""


def storage_dtype(name: str) -> torch.dtype | None:
    """The dtype of a storage class, such as `torch FloatStorage` or `torch.cuda FloatStorage`; None for others."""
    return STORAGES.get(storage_class(name))


def storage_class(storage: str) -> str:
    """`Float` of `torch FloatStorage`."""
    return storage.rpartition(" ")[2].removesuffix("Storage")
