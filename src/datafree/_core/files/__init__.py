"""Files: checked names and folders, atomic writes, and checksummed safetensors. Bad content always raises `UserError`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .atomic import atomic, sweep, write_bytes, write_text
from .lock import locked
from .open_file import sha256_file
from .paths import check_claim, claim_folder, safe_name
from .strict_json import canonical, is_format, read_json, read_sealed_json, write_json, write_sealed_json

if TYPE_CHECKING:
    from .header import HEADER_CAP_MODEL, HEADER_CAP_RECORD, Expected
    from .tensors import cap_of, check_room, read_header, read_tensors, read_weights, write_tensors
    from .torch_checkpoint import convert_weights, is_torch, read_torch, read_torch_weights

__all__ = [
    "HEADER_CAP_MODEL",
    "HEADER_CAP_RECORD",
    "Expected",
    "atomic",
    "canonical",
    "cap_of",
    "check_claim",
    "check_room",
    "claim_folder",
    "convert_weights",
    "is_format",
    "is_torch",
    "locked",
    "read_header",
    "read_json",
    "read_sealed_json",
    "read_tensors",
    "read_torch",
    "read_torch_weights",
    "read_weights",
    "safe_name",
    "sha256_file",
    "sweep",
    "write_bytes",
    "write_json",
    "write_sealed_json",
    "write_tensors",
    "write_text",
]

LATE = {
    "torch_checkpoint": ("convert_weights", "is_torch", "read_torch", "read_torch_weights"),
    "header": ("HEADER_CAP_MODEL", "HEADER_CAP_RECORD", "Expected"),
    "tensors": ("cap_of", "check_room", "read_header", "read_tensors", "read_weights", "write_tensors"),
}
"""Module -> names that need torch. They are imported on first use, so that errors in arguments need no torch."""


def __getattr__(name: str) -> Any:
    for file, names in LATE.items():
        if name in names:
            return getattr(importlib.import_module(f"datafree._core.files.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
