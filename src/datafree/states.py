"""What every state file of a run that can go on shares: an optimiser's moments as named tensors, and whose run it is of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import UserError

__all__ = ["check_identity", "load_optimizer", "optimizer_state"]


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


def check_identity(path: Path, header: dict[str, Any], identity: dict[str, Any]) -> None:
    """Raises UserError where the state in `path` is of a run with other settings."""
    if header.get("identity") != json.loads(json.dumps(identity)):  # tuples are lists in the file
        raise UserError(f"{path} is of a run with other settings; name another --out, or repeat that run's command")
