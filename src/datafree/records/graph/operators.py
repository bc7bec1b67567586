"""A layer as a sparse matrix from the units (or channels) of the previous layer to its own, in float64."""

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


def unit_matrix(layer: nn.Module, source: Shape, input_shape: Shape) -> sp.csr_matrix | None:
    """(units of the layer, units of its source); None if the source's units cannot be identified in the layer's input.

    `source` is the shape of the source layer's output, `input_shape` that of this layer's input. Nonlinearities and
    batch norms between them are ignored: the graph has only the weights of conv and linear layers.
    """
    link = between(source, input_shape)
    if link is None:
        return None
    weights = (
        conv_matrix(layer, input_shape)
        if isinstance(layer, nn.Conv2d)
        else sp.csr_matrix(_numbers(_linear(layer).weight))
    )
    return sp.csr_matrix(weights @ link)


def conv_matrix(conv: nn.Conv2d, input_shape: Shape) -> sp.csr_matrix:
    """The matrix (O x H' x W', C x H x W) of a convolution of images `input_shape` = (C, H, W), without its bias."""
    channels, height, width = input_shape
    pixels, weight = height * width, _numbers(conv.weight)  # (O, C / groups, kh, kw)
    patches = _patches(conv, height, width)  # (kh kw, H' W')
    outputs, inner, taps = weight.shape[0], weight.shape[1], len(patches)
    o, c, k, p = np.ogrid[:outputs, :inner, :taps, : patches.shape[1]]
    group = o // (outputs // conv.groups)
    source = patches[k, p]
    rows = np.broadcast_to(o * patches.shape[1] + p, (outputs, inner, *patches.shape))
    columns = (group * inner + c) * pixels + source
    values = np.broadcast_to(weight.reshape(outputs, inner, taps, 1), columns.shape)
    in_image = np.broadcast_to(source >= 0, columns.shape)
    size = (outputs * patches.shape[1], channels * pixels)
    return sp.csr_matrix((values[in_image], (rows[in_image], columns[in_image])), shape=size)


def _patches(conv: nn.Conv2d, height: int, width: int) -> np.ndarray:
    """(kh kw, H' W'): the pixel under each kernel position at each output position; -1 for zero padding."""
    ids = torch.arange(1, height * width + 1, dtype=torch.float64).reshape(1, 1, height, width)
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    padded = pad(ids, conv._reversed_padding_repeated_twice, mode=mode)
    kernel, dilation, stride = ((int(a), int(b)) for a, b in (conv.kernel_size, conv.dilation, conv.stride))
    return unfold(padded, kernel, dilation=dilation, stride=stride)[0].round().long().numpy() - 1


def between(source: Shape, input_shape: Shape) -> sp.csr_matrix | None:
    """The linear map (units of `input_shape`, units of `source`) that represents the operations between two layers.

    The same units, flattened or not: identity. Fewer positions of the same channels: averages over adaptive bins, also
    for max pooling, whose routing depends on the image. More positions, or an unknown grid: each position gets its
    channel's mean. Other channels (a padded shortcut, a concatenation): None.
    """
    if source == input_shape or (math.prod(source) == math.prod(input_shape) and 1 in (len(source), len(input_shape))):
        return sp.csr_matrix(sp.identity(math.prod(input_shape)))
    if (
        len(source) != 3
        or len(input_shape) not in (1, 3)
        or input_shape[0] % source[0]
        or (len(input_shape) == 3 and input_shape[0] != source[0])
    ):
        return None
    grid = input_shape[1:] if len(input_shape) == 3 else _grid(input_shape[0] // source[0], source[1], source[2])
    if grid is None or grid[0] > source[1] or grid[1] > source[2]:
        positions = math.prod(grid) if grid else input_shape[0] // source[0]
        pooled = sp.csr_matrix(np.full((positions, source[1] * source[2]), 1 / (source[1] * source[2])))
    else:
        pooled = sp.kron(_bins(source[1], grid[0]), _bins(source[2], grid[1]))
    return sp.csr_matrix(sp.kron(sp.identity(source[0]), pooled))


def _grid(positions: int, height: int, width: int) -> Shape | None:
    """(h, w) with h w = positions in the proportions of height and width; None if there is none."""
    h = max(1, round(math.sqrt(positions * height / width)))
    return (h, positions // h) if positions % h == 0 else None


def _bins(size: int, bins: int) -> sp.csr_matrix:
    """(bins, size): the averages over the bins of adaptive_avg_pool."""
    matrix = np.zeros((bins, size))
    for b in range(bins):
        start, stop = b * size // bins, -(-(b + 1) * size // bins)
        matrix[b, start:stop] = 1 / (stop - start)
    return sp.csr_matrix(matrix)


def channel_matrix(layer: nn.Module, source: Shape, input_shape: Shape) -> sp.csr_matrix | None:
    """(channels of the layer, channels of its source): the response to channels that are constant over positions.

    A kernel is summed over its positions, and a linear layer over the positions of each flattened channel. Except at the
    borders this maps spatial means. None if the channels do not match.
    """
    weight = _numbers(layer.weight if isinstance(layer, nn.Conv2d) else _linear(layer).weight)
    if isinstance(layer, nn.Conv2d):
        if len(input_shape) != 3 or input_shape[0] != source[0]:
            return None
        full = np.zeros((weight.shape[0], input_shape[0]))
        outputs, inner = weight.shape[0] // layer.groups, weight.shape[1]
        for g in range(layer.groups):
            rows = slice(g * outputs, (g + 1) * outputs)
            full[rows, g * inner : (g + 1) * inner] = weight[rows].sum((2, 3))
        return sp.csr_matrix(full)
    positions = input_shape[0] // source[0]
    if input_shape[0] % source[0] or (len(source) == 1 and positions != 1) or positions > math.prod(source[1:]):
        return None
    return sp.csr_matrix(weight.reshape(len(weight), source[0], positions).sum(2))


def _linear(layer: nn.Module) -> nn.Linear:
    if not isinstance(layer, nn.Linear):
        raise UserError(
            f"the graph of a {type(layer).__name__} layer, expected Conv2d and Linear ones; leave it out, or use the "
            "statistic 'moments'"
        )
    return layer


def _numbers(weight: Tensor) -> np.ndarray:
    return weight.detach().cpu().double().numpy()
