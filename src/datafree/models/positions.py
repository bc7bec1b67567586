"""Whether positions that were loaded from a state file can be used by their network."""

from __future__ import annotations

from pathlib import Path

import torch

from .._core.errors import UserError
from .._core.resume import ADVICE
from .network import Network

__all__ = ["check_positions"]


def check_positions(path: Path, network: Network) -> None:
    """Raises UserError where a network that was loaded from the state `path` fails by whole numbers in it: positions, say.

    Torch finds them as it uses them, those of sparse tensors only where it is told to.
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
    except Exception as error:  # a network of the user's own raises what it likes
        reason = (str(error).splitlines() or [""])[0][:200]
        raise UserError(
            f"{path} is no state of this run: with its whole numbers ({', '.join(integers)[:80]}) {network.name} fails: "
            f"{type(error).__name__}: {reason}; {ADVICE}"
        ) from None


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == "num_batches_tracked"
