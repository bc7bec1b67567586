"""What every state file of a run that can go on shares: an optimiser's moments as named tensors, and whose run it is of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from .errors import UserError
from .files import read_header, read_tensors

__all__ = ["check_state", "load_optimizer", "optimizer_state", "read_state"]

T = TypeVar("T")


def optimizer_state(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """Its moments and counts as `prefix/index/key`, copied to the CPU."""
    return {
        f"{prefix}/{index}/{key}": torch.as_tensor(value).detach().cpu().clone()
        for index, own in optimizer.state_dict()["state"].items()
        for key, value in own.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str) -> None:
    """Puts back what `optimizer_state` gave; names of another prefix are left alone."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(f"{prefix}/"):
            _, index, key = name.split("/")
            state.setdefault(int(index), {})[key] = tensor.clone()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def read_state(path: Path, kind: str, identity: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of what a stopped run left. Raises UserError where it is damaged, or of a run of other settings."""
    return _checked(path, identity, lambda: read_tensors(path, kind=kind))


def check_state(path: Path, kind: str, identity: dict[str, Any]) -> None:
    """`read_state` of the header alone."""
    _checked(path, identity, lambda: read_header(path, kind=kind))


def _checked(
    path: Path, identity: dict[str, Any], read: Callable[[], tuple[T, dict[str, Any]]]
) -> tuple[T, dict[str, Any]]:
    try:
        found = read()
    except UserError as error:
        what = str(error).rpartition(";")[0]
        raise UserError(f"{what}; a stopped run left it: remove it to begin anew, or name another --out") from None
    if found[1].get("identity") != json.loads(json.dumps(identity)):  # tuples are lists in the file
        raise UserError(f"{path} is of a run with other settings; name another --out, or repeat that run's command")
    return found
