"""Means, variances and ranges of activations that a network's batch norms imply, without images (Nagel et al. 2019).

The output of a batch norm has mean beta and standard deviation gamma in each channel (sec. 4.2.1). These are propagated
through the following layers, assuming that channels and branches are independent and normal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .._core.errors import UserError
from ..models.missing_layers import no_batch_norm
from ..models.network import Network
from .annotate import ADDS, AVERAGES, BATCH_NORM, SELECTIONS, WEIGHTED, arguments, behind, groups, parameter_of
from .constants import Constants

__all__ = ["WIDTH", "ActivationMoments", "moments", "rectified", "weighed"]

WIDTH = 6.0
"""Number of standard deviations on each side of the mean that a grid covers (sec. 5)."""
_aten = torch.ops.aten
RELU = (_aten.relu.default, _aten.relu_.default)
HARD = (
    _aten.hardtanh.default, _aten.hardtanh_.default, _aten.clamp.default, _aten.clamp_.default, _aten.clamp_min.default,
)  # fmt: skip
SIX = (_aten.relu6.default, _aten.relu6_.default)
ARITHMETIC = (*ADDS, _aten.sub.Tensor, _aten.mul.Tensor, _aten.div.Tensor)
SAME = (*AVERAGES, *SELECTIONS, _aten.dropout.default, _aten.dropout_.default, _aten.clone.default, _aten.squeeze.dims)


@dataclass(frozen=True)
class ActivationMoments:
    """Mean and variance of an activation per channel (C,), and the range that its grid should cover."""

    mean: Tensor
    variance: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def normal(cls, mean: Tensor, variance: Tensor) -> ActivationMoments:
        margin = WIDTH * variance.sqrt()
        return cls(mean, variance, mean - margin, mean + margin)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean, variance, low and high."""
        return self.mean, self.variance, self.low, self.high

    def scaled(self, scale: Tensor | None) -> ActivationMoments:
        """The moments after dividing each channel by `scale` (C,) above 0; None means 1."""
        if scale is None:
            return self
        return ActivationMoments(self.mean / scale, self.variance / scale.square(), self.low / scale, self.high / scale)


def rectified(source: ActivationMoments, top: float = math.inf) -> ActivationMoments:
    """Moments of min(max(x, 0), top) for a normal x, in closed form (Nagel et al. 2019, appendix C)."""
    std = source.variance.clamp(min=1e-12).sqrt()
    unit = torch.distributions.Normal(torch.zeros_like(std), torch.ones_like(std))

    def density(z: Tensor) -> Tensor:
        return unit.log_prob(z).exp()

    a = -source.mean / std
    if math.isinf(top):
        above, mass = density(a), 1 - unit.cdf(a)
        mean = source.mean * mass + std * above
        square = (source.mean.square() + source.variance) * mass + source.mean * std * above
    else:
        b = (top - source.mean) / std
        mass, over = unit.cdf(b) - unit.cdf(a), 1 - unit.cdf(b)
        mean = source.mean * mass + std * (density(a) - density(b)) + top * over
        square = (source.mean.square() + source.variance) * mass + top * top * over
        square = square + std * (source.mean * density(a) - (source.mean + top) * density(b))
    cut: Callable[[Tensor], Tensor] = lambda x: x.clamp(0, None if math.isinf(top) else top)  # noqa: E731
    return ActivationMoments(mean, (square - mean.square()).clamp(min=0), cut(source.low), cut(source.high))


def moments(network: Network, graph: GraphModule, *, partly: bool = False) -> dict[str, ActivationMoments]:
    """Moments by node name, in a captured graph whose batch norms are not folded yet.

    A layer that a batch norm follows gets the batch norm's moments, as after folding. `partly` omits unknown moments:
    all in a network without batch norm, and those after an unsupported operator, up to the next batch norm. Otherwise
    both raise UserError.
    """
    spec, by_node = network.spec, {}
    if not any(node.target in BATCH_NORM for node in graph.graph.nodes):
        if partly:
            return {}
        raise UserError(f"{no_batch_norm(network)}, and no images were given; give some with `calibrate`")
    ends = [(spec.low, spec.high)] * spec.shape[0]
    low, high = (torch.tensor(limits) for limits in zip(*ends))
    image = ActivationMoments((low + high) / 2, (high - low).square() / 12, low, high)
    constants, unknown = Constants(graph), set()
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            by_node[node.name] = image
        elif node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            if node.target not in BATCH_NORM and not unknown.isdisjoint(node.all_input_nodes):
                unknown.add(node)
                continue
            try:
                result = _propagate(graph, node, by_node, constants)
            except UserError:
                if not partly:
                    raise
                unknown.add(node)
                continue
            if result is not None and _fits(result, node):
                by_node[node.name] = result
            elif result is not None and not partly:
                raise _unsupported(node)
            elif result is not None:
                unknown.add(node)
    return by_node


def _propagate(
    graph: GraphModule, node: Node, by_node: dict[str, ActivationMoments], constants: Constants
) -> ActivationMoments | None:
    """The moments of one node; None for arithmetic on constants, and for a layer followed by a batch norm."""
    sources = [by_node[source.name] for source in node.all_input_nodes if source.name in by_node]
    if not isinstance(node.meta.get("val"), Tensor):  # the number of images
        return None
    if node.target in BATCH_NORM:
        channels = len(parameter_of(graph, node.args[3]))
        gamma, beta = (
            torch.full((channels,), default) if argument is None else parameter_of(graph, argument).detach()
            for argument, default in zip(node.args[1:3], (1.0, 0.0), strict=True)
        )
        normalised = ActivationMoments.normal(beta, gamma.square())
        source = node.args[0]
        assert isinstance(source, Node)
        if source.target in WEIGHTED:
            by_node[source.name] = normalised
        return normalised
    if node.target in WEIGHTED and any(user.target in BATCH_NORM for user in node.users):
        return None
    if node.target in WEIGHTED:
        return _linear(node, sources[0], constants) if sources else None
    if not sources:
        return None
    if node.target in ARITHMETIC and len(sources) == 1:
        return _affine(node, sources[0], constants)
    if node.target == _aten.sub.Tensor and len(sources) == 2 and node.args[0] is not node.args[1]:
        return _sum(node, sources, -_alpha(node))
    if node.target in RELU:
        return rectified(sources[0])
    if node.target in SIX:
        return rectified(sources[0], 6.0)
    if node.target in HARD:
        _, low, high = (*arguments(node).values(), None)[:3]
        if low != 0 or isinstance(high, Node):
            raise _unsupported(node)
        return rectified(sources[0], math.inf if high is None else float(high))
    if node.target in ADDS and len(sources) == 2:
        return _sum(node, sources, _alpha(node))
    if node.target == _aten.pad.default:
        return _padded(node, sources[0])
    if node.target == _aten.cat.default:
        return _concatenated(node, by_node)
    if node.target in SAME:
        return _rearranged(node, sources[0])
    raise _unsupported(node)


def _fits(result: ActivationMoments, node: Node) -> bool:
    """Whether the number of channels equals the node's size on axis 1."""
    shape = node.meta["val"].shape
    return len(shape) < 2 or shape[1] == len(result.mean)


def _concatenated(node: Node, by_node: dict[str, ActivationMoments]) -> ActivationMoments:
    """Moments of a concatenation along the channels."""
    parts, axis = (*node.args, 0)[:2]
    assert isinstance(parts, (list, tuple)) and isinstance(axis, int)
    sources = [by_node.get(part.name) if isinstance(part, Node) else None for part in parts]
    if axis % node.meta["val"].ndim != 1 or None in sources:
        raise _unsupported(node)
    tensors = zip(*(source.tensors() for source in sources if source is not None), strict=True)
    return ActivationMoments(*map(torch.cat, tensors))


def _rearranged(node: Node, source: ActivationMoments) -> ActivationMoments:
    """Moments after an average, a selection or a reshape; flattening repeats each channel for its positions."""
    input_shape, output_shape = node.args[0].meta["val"].shape, node.meta["val"].shape  # type: ignore[union-attr]
    if node.target == _aten.mean.dim:
        axes = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
        if not axes or any(axis % len(input_shape) < 2 for axis in axes):  # type: ignore[operator]
            raise _unsupported(node)
    if len(input_shape) > len(output_shape) == 2 and isinstance(output_shape[1], int):
        positions, remainder = divmod(output_shape[1], len(source.mean))
        if remainder or output_shape[0] != input_shape[0]:
            raise _unsupported(node)
        return ActivationMoments(*(tensor.repeat_interleave(positions) for tensor in source.tensors()))
    return source


def _alpha(node: Node) -> float:
    """The factor of the second operand of an addition or subtraction."""
    return float(node.kwargs.get("alpha", 1))  # type: ignore[arg-type]


def _sum(node: Node, sources: list[ActivationMoments], alpha: float) -> ActivationMoments:
    """Moments of x + alpha y."""
    x, y = sources
    if len(x.mean) != len(y.mean):
        raise _unsupported(node)
    return ActivationMoments.normal(x.mean + alpha * y.mean, x.variance + alpha**2 * y.variance)


def _affine(node: Node, source: ActivationMoments, constants: Constants) -> ActivationMoments:
    """Moments of x + c, x - c, x c or x / c, where c is a number or one number per channel."""
    operand = node.args[1]
    if isinstance(operand, Node):
        value = constants.tensor(operand)
    else:
        value = torch.tensor(float(operand))  # type: ignore[arg-type]
    axis = node.meta["val"].ndim - 1  # of the channels, from the end
    by_channel = value is not None and value.ndim >= axis and value.shape[-axis] == value.numel() == len(source.mean)
    if value is None or (value.numel() != 1 and not by_channel):
        raise _unsupported(node)
    value = value.flatten().float().expand(len(source.mean))
    if node.target in (*ADDS, _aten.sub.Tensor):
        value = _alpha(node) * (-value if node.target == _aten.sub.Tensor else value)
        return ActivationMoments(source.mean + value, source.variance, source.low + value, source.high + value)
    value = 1 / value if node.target == _aten.div.Tensor else value
    ends = torch.stack([source.low * value, source.high * value])
    return ActivationMoments(source.mean * value, source.variance * value.square(), ends.amin(0), ends.amax(0))


def _linear(node: Node, source: ActivationMoments, constants: Constants) -> ActivationMoments:
    """Moments of a layer without a batch norm after it, as a sum of independent inputs."""
    weight, bias = (constants.tensor(argument) for argument in (*node.args, None)[1:3])
    if weight is None:
        raise _unsupported(node)
    mean, variance = weighed(node, weight, source.mean), weighed(node, weight.square(), source.variance)
    if mean is None or variance is None:
        raise _unsupported(node)
    return ActivationMoments.normal(mean if bias is None else mean + bias, variance)


def weighed(layer: Node, weight: Tensor, values: Tensor) -> Tensor | None:
    """Sums (out,) of a layer with `weight` (out, in / groups, ...) if each input channel is constant at `values` (C,).

    None for a linear layer over another axis than the channels.
    """
    flat, parts = weight.flatten(2).sum(2) if weight.ndim > 2 else weight, groups(layer)
    value = behind(layer.args[0]).meta.get("val")
    if layer.target == _aten.linear.default and (not isinstance(value, Tensor) or value.ndim != 2):
        return None
    if parts * flat.shape[1] != len(values):
        return None
    return (flat.view(parts, -1, flat.shape[1]) @ values.view(parts, -1, 1)).flatten()


def _padded(node: Node, source: ActivationMoments) -> ActivationMoments:
    """Moments of a padded image. Zero padding is ignored; other values count, and so do new channels."""
    options = arguments(node)
    amounts, value = options["pad"], float(options["value"] or 0)
    split = 2 * (node.meta["val"].ndim - 2)
    spatial, channels = amounts[:split], (*amounts[split : split + 2], 0, 0)[:2]
    if any(amounts[split + 2 :]) or (options["mode"] != "constant" and any(channels)):
        raise _unsupported(node)
    if options["mode"] != "constant":
        return source
    mean, variance, low, high = source.mean, source.variance, source.low, source.high
    if any(spatial):  # the grid covers the number too
        low, high = low.clamp(max=value), high.clamp(min=value)
    if value and any(spatial):
        source_shape = node.args[0].meta["val"].shape  # type: ignore[union-attr]
        share = math.prod(source_shape[2:]) / math.prod(node.meta["val"].shape[2:])
        square = share * (variance + mean.square()) + (1 - share) * value**2
        mean = share * mean + (1 - share) * value
        variance = (square - mean.square()).clamp(min=0)

    def pad_channels(tensor: Tensor, number: float) -> Tensor:
        return torch.nn.functional.pad(tensor, channels, value=number)

    return ActivationMoments(
        pad_channels(mean, value), pad_channels(variance, 0.0), pad_channels(low, value), pad_channels(high, value)
    )


def _unsupported(node: Node) -> UserError:
    return UserError(
        f"ranges after operator {node.target} cannot be computed without images; give images with `calibrate`, such as "
        "a synthetic set"
    )
