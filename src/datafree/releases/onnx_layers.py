"""Operators of ONNX whose arguments are known before a run, as modules that torch.export can follow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Expand", "Pad", "Reshape", "Scatter", "Select", "Slice", "Split"]


class Reshape(nn.Module):
    """A tensor in another shape, of which one size may be -1."""

    def __init__(self, sizes: Sequence[int]):
        super().__init__()
        self.sizes = tuple(sizes)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(self.sizes)


class Expand(nn.Module):
    """A tensor that is repeated up to these sizes, of which one may be -1: the number of `images`."""

    def __init__(self, sizes: Sequence[int]):
        super().__init__()
        self.sizes = tuple(sizes)

    def forward(self, x: Tensor, images: Tensor) -> Tensor:
        return x.expand([images.shape[0] if size == -1 else size for size in self.sizes])


class Slice(nn.Module):
    """Ranges of some axes: (axis, start, stop, step) with step above 0; `flipped` axes are reversed before."""

    def __init__(self, ranges: Sequence[tuple[int, int, int, int]], flipped: Sequence[int]):
        super().__init__()
        self.ranges, self.flipped = tuple(ranges), tuple(flipped)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flip(self.flipped) if self.flipped else x
        for axis, start, stop, step in self.ranges:
            x = x[(slice(None),) * axis + (slice(start, stop, step),)]
        return x


class Split(nn.Module):
    """Parts of an axis, with these sizes."""

    def __init__(self, sizes: Sequence[int], axis: int):
        super().__init__()
        self.sizes, self.axis = list(sizes), axis

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.split(x, self.sizes, self.axis)


class Pad(nn.Module):
    """A tensor with a border: sizes before and after, from the last axis on, as `torch.nn.functional.pad` takes them."""

    def __init__(self, sizes: Sequence[int], mode: str, value: float):
        super().__init__()
        self.sizes, self.mode, self.value = list(sizes), mode, value

    def forward(self, x: Tensor) -> Tensor:
        return (
            F.pad(x, self.sizes, self.mode, self.value) if self.mode == "constant" else F.pad(x, self.sizes, self.mode)
        )


class Select(nn.Module):
    """One entry of an axis."""

    def __init__(self, index: int, axis: int):
        super().__init__()
        self.index, self.axis = index, axis

    def forward(self, x: Tensor) -> Tensor:
        return x.select(self.axis, self.index)


class Scatter(nn.Module):
    """A tensor with other numbers at some places, which are listed along the last axis of `indices`."""

    def forward(self, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        return x.index_put(tuple(indices.unbind(-1)), updates)
