"""A layer as a sparse matrix from the units (or channels) of the layer before it to its own, in float64."""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn.functional import pad, unfold

from ..._core.errors import UserError

__all__ = ["between", "channel_matrix", "conv_matrix", "unit_matrix"]

Shape = tuple[int, ...]


def unit_matrix(layer: nn.Module, source: Shape, given: Shape) -> sp.csr_matrix | None:
    """(units of the layer, units of its source), or None where the source's units cannot be told in the layer's input.

    `source` is the shape of the source layer's output, `given` that of this layer's input. Nonlinearities and batch norm
    between them are left out: the graph's weights are those of conv and linear layers alone.
    """
    link = between(source, given)
    if link is None:
        return None
    own = conv_matrix(layer, given) if isinstance(layer, nn.Conv2d) else sp.csr_matrix(_numbers(_linear(layer).weight))
    return sp.csr_matrix(own @ link)


def conv_matrix(conv: nn.Conv2d, given: Shape) -> sp.csr_matrix:
    """The matrix (O x H' x W', C x H x W) of a convolution of images `given` = (C, H, W), without its bias."""
    channels, height, width = given
    pixels, weight = height * width, _numbers(conv.weight)  # (O, C / groups, kh, kw)
    taken = _patches(conv, height, width)  # (kh kw, H' W')
    outputs, inner, taps = weight.shape[0], weight.shape[1], len(taken)
    o, c, k, p = np.ogrid[:outputs, :inner, :taps, : taken.shape[1]]
    group = o // (outputs // conv.groups)
    source = taken[k, p]
    rows = np.broadcast_to(o * taken.shape[1] + p, (outputs, inner, *taken.shape))
    columns = (group * inner + c) * pixels + source
    values = np.broadcast_to(weight.reshape(outputs, inner, taps, 1), columns.shape)
    inside = np.broadcast_to(source >= 0, columns.shape)
    size = (outputs * taken.shape[1], channels * pixels)
    return sp.csr_matrix((values[inside], (rows[inside], columns[inside])), shape=size)


def _patches(conv: nn.Conv2d, height: int, width: int) -> np.ndarray:
    """(kh kw, H' W'): the pixel under every kernel position at every output position, -1 for padding by zeros."""
    ids = torch.arange(1, height * width + 1, dtype=torch.float64).reshape(1, 1, height, width)
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    padded = pad(ids, conv._reversed_padding_repeated_twice, mode=mode)
    kernel, dilation, stride = ((int(a), int(b)) for a, b in (conv.kernel_size, conv.dilation, conv.stride))
    return unfold(padded, kernel, dilation=dilation, stride=stride)[0].round().long().numpy() - 1


def between(source: Shape, given: Shape) -> sp.csr_matrix | None:
    """The linear map (units of `given`, units of `source`) that stands for what lies between two layers.

    The same units, flattened or not: identity. Fewer positions of the same channels: their average over adaptive bins,
    which also stands in for max pooling, as its routing depends on the image. More positions, or none that can be
    told: each gets its channel's mean. Other channels (a padded shortcut, a concatenation): None.
    """
    if source == given or (math.prod(source) == math.prod(given) and 1 in (len(source), len(given))):
        return sp.csr_matrix(sp.identity(math.prod(given)))
    if (
        len(source) != 3
        or len(given) not in (1, 3)
        or given[0] % source[0]
        or (len(given) == 3 and given[0] != source[0])
    ):
        return None
    grid = given[1:] if len(given) == 3 else _grid(given[0] // source[0], source[1], source[2])
    if grid is None or grid[0] > source[1] or grid[1] > source[2]:
        positions = math.prod(grid) if grid else given[0] // source[0]
        pooled = sp.csr_matrix(np.full((positions, source[1] * source[2]), 1 / (source[1] * source[2])))
    else:
        pooled = sp.kron(_bins(source[1], grid[0]), _bins(source[2], grid[1]))
    return sp.csr_matrix(sp.kron(sp.identity(source[0]), pooled))


def _grid(positions: int, height: int, width: int) -> Shape | None:
    """(h, w) of h w = positions with the proportions of height and width, None where there is no such grid."""
    h = max(1, round(math.sqrt(positions * height / width)))
    return (h, positions // h) if positions % h == 0 else None


def _bins(size: int, bins: int) -> sp.csr_matrix:
    """(bins, size): the average over each adaptive bin, as adaptive_avg_pool draws them."""
    matrix = np.zeros((bins, size))
    for b in range(bins):
        start, stop = b * size // bins, -(-(b + 1) * size // bins)
        matrix[b, start:stop] = 1 / (stop - start)
    return sp.csr_matrix(matrix)


def channel_matrix(layer: nn.Module, source: Shape, given: Shape) -> sp.csr_matrix | None:
    """(channels of the layer, channels of its source): the response to channels that are constant over positions.

    So a kernel is summed over its positions, and a linear layer over the positions of each channel that was flattened:
    the map of spatial means, borders aside. None where the channels do not agree.
    """
    weight = _numbers(layer.weight if isinstance(layer, nn.Conv2d) else _linear(layer).weight)
    if isinstance(layer, nn.Conv2d):
        if len(given) != 3 or given[0] != source[0]:
            return None
        full = np.zeros((weight.shape[0], given[0]))
        outputs, inner = weight.shape[0] // layer.groups, weight.shape[1]
        for g in range(layer.groups):
            rows = slice(g * outputs, (g + 1) * outputs)
            full[rows, g * inner : (g + 1) * inner] = weight[rows].sum((2, 3))
        return sp.csr_matrix(full)
    positions = given[0] // source[0]
    if given[0] % source[0] or (len(source) == 1 and positions != 1) or positions > math.prod(source[1:]):
        return None
    return sp.csr_matrix(weight.reshape(len(weight), source[0], positions).sum(2))


def _linear(layer: nn.Module) -> nn.Linear:
    if not isinstance(layer, nn.Linear):
        raise UserError(
            f"the graph of a {type(layer).__name__} layer, wanted Conv2d and Linear ones; name the other layers with "
            "--layers, or take --kind moments"
        )
    return layer


def _numbers(weight: Tensor) -> np.ndarray:
    return weight.detach().cpu().double().numpy()
