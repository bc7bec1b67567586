"""Leaves out the blocks of a network whose removal changes its logits least."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .._core.errors import UserError
from ..models.network import Network, copied
from ..models.reducing import CONTAINERS, named_blocks, pass_block, passed_blocks
from .divergence import divergence

__all__ = ["shallower"]

PROBES, IMAGES, PIXELS = 16, 64, 64 * 3 * 64 * 64
"""Images on which the removal of blocks is measured: at least, at most, and their pixels together."""


@torch.no_grad()
def shallower(network: Network, pixels: Tensor, share: float = 1 / 3) -> Network:
    """A copy of the network without about `share` of its blocks: those whose removal changes its logits least.

    A block is a module beside others of its class in a Sequential or ModuleList, each of which keeps at least one. The
    change is that of the classes' probabilities for `pixels` (N, C, H, W), in the spec's range, when the block alone is left
    out: their Kullback-Leibler divergence. Only blocks that return one tensor of the shape of their input can be left out.
    Raises UserError if there are too few.
    """
    blocks, removable = _blocks(network)
    pixels = pixels[: max(PROBES, min(IMAGES, PIXELS // network.spec.pixels))]
    expected = network.predict(pixels).log_softmax(1)
    shallow = replace(network.with_module(copied(network.module)), reduced=True)
    changes: dict[str, float] = {}
    for name in removable:
        block = pass_block(shallow.module, name)
        with suppress(Exception):  # anybody's code, which may not work without it
            changes[name] = divergence(shallow, pixels, expected)
        shallow.module.set_submodule(name, block)
    left = Counter(name.rpartition(".")[0] for name in blocks)
    for name in sorted(changes, key=lambda name: changes[name]):
        container = name.rpartition(".")[0]
        if len(passed_blocks(shallow.module)) < max(1, int(share * len(blocks))) and left[container] > 1:
            pass_block(shallow.module, name)
            left[container] -= 1
    if not passed_blocks(shallow.module):
        raise UserError(
            f"student 'shallow': {network.name} has {len(blocks)} blocks, {len(changes)} of which can be left out, "
            "expected at least 2 of one class in a Sequential or ModuleList, one of them with outputs like its inputs; "
            "name a student of the same input and classes"
        )
    shallow.check()
    return shallow


def _blocks(network: Network) -> tuple[list[str], list[str]]:
    """The names of all blocks, and of those that return a tensor of their input's shape, in the order of the modules.

    Where blocks are nested, as in stages, those of the outermost class of which at least half can be left out.
    """
    module = copied(network.module)
    names = named_blocks(module)
    kinds = {name: type(module.get_submodule(name)) for name in names}
    same: dict[str, list[bool]] = defaultdict(list)

    def note(name: str, _: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        same[name].append(
            bool(inputs)
            and isinstance(output, Tensor)
            and isinstance(inputs[0], Tensor)
            and inputs[0].shape == output.shape
        )

    for name in names:
        module.get_submodule(name).register_forward_hook(partial(note, name))
    copy = network.with_module(module)
    copy.predict(copy.probes()[:2])
    removable = [name for name in names if same[name] == [True]]
    blocks: list[str] = []
    for name in names:
        alike = [other for other in names if kinds[other] is kinds[name]]
        has_inner = any(other.startswith(f"{name}.") for other in names)
        is_stage = has_inner and 2 * len(set(alike) & set(removable)) < len(alike)
        if not is_stage and not any(name.startswith(f"{outer}.") for outer in blocks):
            blocks.append(name)
    classes = {kinds[name] for name in blocks} - set(CONTAINERS)
    blocks = [name for name in blocks if not _has_outer(module, name, classes)]
    return blocks, [name for name in blocks if name in removable]


def _has_outer(module: nn.Module, name: str, classes: set[type[nn.Module]]) -> bool:
    """Whether it lies in a module of one of these classes, such as the only block of its stage."""
    parts = name.split(".")
    outer = (".".join(parts[:depth]) for depth in range(1, len(parts)))
    return any(type(module.get_submodule(path)) in classes for path in outer)
