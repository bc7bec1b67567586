"""The metadata entry of our safetensors files: kind, header and sha256, in canonical spelling."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import torch

from ..errors import UserError
from .header import DTYPES, Layout, Table
from .strict_json import canonical, is_format, parse

__all__ = ["NAMES", "Seal", "damaged", "is_ours", "open_seal"]

NAMES = {dtype: name for name, dtype in DTYPES.items()}
_KEY = "datafree"
_FORMAT = 1
_OURS = re.compile(r'\{"format":1,"header":\{.*"sha256":"[0-9a-f]{64}"\}', re.DOTALL)


class Seal:
    """The identity of a file: kind, header and table of tensors, with their digest, to which the data is added later."""

    def __init__(self, kind: str, header: dict[str, Any], table: Table):
        self.kind, self.header = kind, header
        self.table: Table = dict(sorted(table.items(), key=lambda item: (-item[1][0].itemsize, item[0])))
        names = {name: [NAMES[dtype], list(shape)] for name, (dtype, shape) in self.table.items()}
        if not isinstance(header, dict):
            raise UserError(f"the header is {type(header).__name__}; expected a JSON object; give a dict")
        identity = {"format": _FORMAT, "kind": kind, "header": header, "tensors": names}
        self.digest = hashlib.sha256(canonical(identity, "the header"))

    def start(self, sha256: str) -> bytes:
        """The file up to its data: length, header, and spaces up to a multiple of 8. This is the only valid spelling."""
        content = {"format": _FORMAT, "kind": self.kind, "header": self.header, "sha256": sha256}
        entries: dict[str, Any] = {"__metadata__": {_KEY: canonical(content, "the header").decode("ascii")}}
        position = 0
        for name, (dtype, shape) in self.table.items():
            end = position + dtype.itemsize * torch.Size(shape).numel()
            entries[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [position, end]}
            position = end
        text = json.dumps(entries, separators=(",", ":")).encode("ascii")
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text


def open_seal(layout: Layout, kind: str | None, subject: str) -> tuple[Seal, str]:
    """The seal of one of our files, and the sha256 that its digest must have once the data is added.

    A kind of None accepts every kind.
    """
    if layout.metadata.keys() != {_KEY}:
        raise UserError(f"{subject} was not written by datafree; expected a file of kind {kind!r}; give another file")
    content = parse(layout.metadata[_KEY].encode("utf-8", "surrogatepass"), f"the metadata of {subject}")
    if not isinstance(content, dict) or content.keys() != {"format", "kind", "header", "sha256"}:
        raise damaged(subject, "its metadata is not format, kind, header and sha256")
    if not is_format(content["format"], _FORMAT):
        raise UserError(f"{subject} has format {str(content['format'])[:40]}; expected {_FORMAT}; update datafree")
    if kind is None and isinstance(content["kind"], str):
        kind = content["kind"]
    if content["kind"] != kind or kind is None:
        raise UserError(f"{subject} is of kind {str(content['kind'])[:80]!r}; expected {kind!r}; give another file")
    seal = Seal(kind, content["header"], layout.table)
    if not isinstance(content["sha256"], str) or seal.start(content["sha256"])[8:] != layout.raw:
        raise damaged(subject, "its header is not in our spelling")
    return seal, content["sha256"]


def is_ours(layout: Layout) -> bool:
    """Whether the metadata is that of our files, possibly damaged."""
    return _KEY in layout.metadata or any(map(_OURS.match, layout.metadata.values()))


def damaged(subject: str, reason: str) -> UserError:
    """The error for one of our files whose content has changed."""
    return UserError(f"{subject} is damaged: {reason}; get or write it again")
