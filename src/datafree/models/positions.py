"""Checks that a network can use the integer tensors (positions, for example) loaded from a state file."""

from __future__ import annotations

from pathlib import Path

import torch

from .._core.errors import UserError
from .._core.resume import ADVICE
from .network import Network

__all__ = ["check_positions"]


def check_positions(path: Path, network: Network) -> None:
    """Raises UserError if a network with integers from the state `path` (positions, for example) fails in a forward pass.

    Torch checks such positions when it uses them, and those of sparse tensors only if asked to.
    """
    weights = network.module.state_dict()
    integers = [
        name for name, tensor in weights.items() if tensor.dtype in (torch.int64, torch.int32) and not _is_counter(name)
    ]
    if not integers:
        return
    try:
        with torch.sparse.check_sparse_tensor_invariants():
            network.answers()
    except Exception as error:  # a user's network may raise anything
        reason = (str(error).splitlines() or [""])[0][:200]
        raise UserError(
            f"{path} is no state of this run: with its whole numbers ({', '.join(integers)[:80]}) {network.name} fails: "
            f"{type(error).__name__}: {reason}; {ADVICE}"
        ) from None


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == "num_batches_tracked"
