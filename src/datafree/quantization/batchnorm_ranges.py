"""What activations are without an image: means, variances and ranges that a network's batch norms imply (Nagel et al. 2019).

A batch norm's output has mean beta and standard deviation gamma in every channel (sec. 4.2.1); from there they are carried
through the layers behind it, as if channels and branches were independent and normal.
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
"""Standard deviations on each side of the mean that a grid covers (sec. 5)."""
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
    """One activation by channel (C,): mean, variance, and the range that its grid should cover."""

    mean: Tensor
    variance: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def normal(cls, mean: Tensor, variance: Tensor) -> ActivationMoments:
        spread = WIDTH * variance.sqrt()
        return cls(mean, variance, mean - spread, mean + spread)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four, in the order in which they are given."""
        return self.mean, self.variance, self.low, self.high

    def scaled(self, scale: Tensor | None) -> ActivationMoments:
        """After every channel was divided by `scale` (C,), which is above 0; None is 1."""
        if scale is None:
            return self
        return ActivationMoments(self.mean / scale, self.variance / scale.square(), self.low / scale, self.high / scale)


def rectified(own: ActivationMoments, top: float = math.inf) -> ActivationMoments:
    """Of min(max(x, 0), top) for a normal x, by its closed form (Nagel et al. 2019, appendix C)."""
    spread = own.variance.clamp(min=1e-12).sqrt()
    unit = torch.distributions.Normal(torch.zeros_like(spread), torch.ones_like(spread))

    def density(z: Tensor) -> Tensor:
        return unit.log_prob(z).exp()

    a = -own.mean / spread
    if math.isinf(top):
        above, mass = density(a), 1 - unit.cdf(a)
        mean = own.mean * mass + spread * above
        square = (own.mean.square() + own.variance) * mass + own.mean * spread * above
    else:
        b = (top - own.mean) / spread
        mass, over = unit.cdf(b) - unit.cdf(a), 1 - unit.cdf(b)
        mean = own.mean * mass + spread * (density(a) - density(b)) + top * over
        square = (own.mean.square() + own.variance) * mass + top * top * over
        square = square + spread * (own.mean * density(a) - (own.mean + top) * density(b))
    cut: Callable[[Tensor], Tensor] = lambda x: x.clamp(0, None if math.isinf(top) else top)  # noqa: E731
    return ActivationMoments(mean, (square - mean.square()).clamp(min=0), cut(own.low), cut(own.high))


def moments(network: Network, graph: GraphModule, *, partly: bool = False) -> dict[str, ActivationMoments]:
    """Node name -> its moments, in a captured graph whose batch norms are not yet folded.

    A layer that a batch norm follows goes by the batch norm's, as after folding. `partly` leaves out what is not known:
    everything in a network without batch norm, and what comes of an operator through which moments are not carried, up to
    the next batch norm. Without it, both raise UserError.
    """
    spec, found = network.spec, {}
    if not any(node.target in BATCH_NORM for node in graph.graph.nodes):
        if partly:
            return {}
        raise UserError(f"{no_batch_norm(network)}, and no images were given; name some with --calibrate")
    ends = [(spec.low, spec.high)] * spec.shape[0]
    low, high = (torch.tensor(own) for own in zip(*ends))
    image = ActivationMoments((low + high) / 2, (high - low).square() / 12, low, high)
    constants, lost = Constants(graph), set()
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            found[node.name] = image
        elif node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            if node.target not in BATCH_NORM and not lost.isdisjoint(node.all_input_nodes):
                lost.add(node)
                continue
            try:
                own = _through(graph, node, found, constants)
            except UserError:
                if not partly:
                    raise
                lost.add(node)
                continue
            if own is not None and _fits(own, node):
                found[node.name] = own
            elif own is not None and not partly:
                raise _stuck(node)
            elif own is not None:
                lost.add(node)
    return found


def _through(
    graph: GraphModule, node: Node, found: dict[str, ActivationMoments], constants: Constants
) -> ActivationMoments | None:
    """The moments of one node; None for arithmetic on constants and for a layer whose batch norm comes next."""
    sources = [found[own.name] for own in node.all_input_nodes if own.name in found]
    if not isinstance(node.meta.get("val"), Tensor):  # the number of images
        return None
    if node.target in BATCH_NORM:
        channels = len(parameter_of(graph, node.args[3]))
        gamma, beta = (
            torch.full((channels,), default) if own is None else parameter_of(graph, own).detach()
            for own, default in zip(node.args[1:3], (1.0, 0.0), strict=True)
        )
        own = ActivationMoments.normal(beta, gamma.square())
        source = node.args[0]
        assert isinstance(source, Node)
        if source.target in WEIGHTED:
            found[source.name] = own
        return own
    if node.target in WEIGHTED and any(own.target in BATCH_NORM for own in node.users):
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
            raise _stuck(node)
        return rectified(sources[0], math.inf if high is None else float(high))
    if node.target in ADDS and len(sources) == 2:
        return _sum(node, sources, _alpha(node))
    if node.target == _aten.pad.default:
        return _padded(node, sources[0])
    if node.target == _aten.cat.default:
        return _joined(node, found)
    if node.target in SAME:
        return _rearranged(node, sources[0])
    raise _stuck(node)


def _fits(own: ActivationMoments, node: Node) -> bool:
    """Whether there are as many channels as the node has on its axis 1."""
    shape = node.meta["val"].shape
    return len(shape) < 2 or shape[1] == len(own.mean)


def _joined(node: Node, found: dict[str, ActivationMoments]) -> ActivationMoments:
    """Moments of a concatenation along the channels."""
    parts, axis = (*node.args, 0)[:2]
    assert isinstance(parts, (list, tuple)) and isinstance(axis, int)
    known = [found.get(part.name) if isinstance(part, Node) else None for part in parts]
    if axis % node.meta["val"].ndim != 1 or None in known:
        raise _stuck(node)
    return ActivationMoments(*map(torch.cat, zip(*(part.tensors() for part in known if part is not None), strict=True)))


def _rearranged(node: Node, source: ActivationMoments) -> ActivationMoments:
    """Moments after an average, a selection or a reshape; flattened, each channel has one feature per place, in a row."""
    before, after = node.args[0].meta["val"].shape, node.meta["val"].shape  # type: ignore[union-attr]
    if node.target == _aten.mean.dim:
        axes = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
        if not axes or any(axis % len(before) < 2 for axis in axes):  # type: ignore[operator]
            raise _stuck(node)
    if len(before) > len(after) == 2 and isinstance(after[1], int):
        places, over = divmod(after[1], len(source.mean))
        if over or after[0] != before[0]:
            raise _stuck(node)
        return ActivationMoments(*(tensor.repeat_interleave(places) for tensor in source.tensors()))
    return source


def _alpha(node: Node) -> float:
    """What an addition or subtraction multiplies its second operand by."""
    return float(node.kwargs.get("alpha", 1))  # type: ignore[arg-type]


def _sum(node: Node, sources: list[ActivationMoments], alpha: float) -> ActivationMoments:
    """Of x + alpha y."""
    one, other = sources
    if len(one.mean) != len(other.mean):
        raise _stuck(node)
    return ActivationMoments.normal(one.mean + alpha * other.mean, one.variance + alpha**2 * other.variance)


def _affine(node: Node, source: ActivationMoments, constants: Constants) -> ActivationMoments:
    """Of x + c, x - c, x c or x / c, where c is a number or one a channel."""
    other = node.args[1]
    value = constants.tensor(other) if isinstance(other, Node) else torch.tensor(float(other))  # type: ignore[arg-type]
    axis = node.meta["val"].ndim - 1  # of the channels, from the end
    by_channel = value is not None and value.ndim >= axis and value.shape[-axis] == value.numel() == len(source.mean)
    if value is None or (value.numel() != 1 and not by_channel):
        raise _stuck(node)
    value = value.flatten().float().expand(len(source.mean))
    if node.target in (*ADDS, _aten.sub.Tensor):
        value = _alpha(node) * (-value if node.target == _aten.sub.Tensor else value)
        return ActivationMoments(source.mean + value, source.variance, source.low + value, source.high + value)
    value = 1 / value if node.target == _aten.div.Tensor else value
    ends = torch.stack([source.low * value, source.high * value])
    return ActivationMoments(source.mean * value, source.variance * value.square(), ends.amin(0), ends.amax(0))


def _linear(node: Node, source: ActivationMoments, constants: Constants) -> ActivationMoments:
    """Of a layer that no batch norm follows: means and variances of a sum of independent inputs."""
    weight, bias = (constants.tensor(own) for own in (*node.args, None)[1:3])
    if weight is None:
        raise _stuck(node)
    mean, variance = weighed(node, weight, source.mean), weighed(node, weight.square(), source.variance)
    if mean is None or variance is None:
        raise _stuck(node)
    return ActivationMoments.normal(mean if bias is None else mean + bias, variance)


def weighed(layer: Node, weight: Tensor, values: Tensor) -> Tensor | None:
    """What a layer with `weight` (out, in / groups, ...) sums up to (out,) where each input channel is one of `values` (C,).

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
    """Moments of a padded image: zeros around it are ignored, another number around it counts, and so do new channels."""
    given = arguments(node)
    amounts, value = given["pad"], float(given["value"] or 0)
    place = 2 * (node.meta["val"].ndim - 2)
    around, channels = amounts[:place], (*amounts[place : place + 2], 0, 0)[:2]
    if any(amounts[place + 2 :]) or (given["mode"] != "constant" and any(channels)):
        raise _stuck(node)
    if given["mode"] != "constant":
        return source
    mean, variance, low, high = source.mean, source.variance, source.low, source.high
    if any(around):  # the grid covers the number too
        low, high = low.clamp(max=value), high.clamp(min=value)
    if value and any(around):
        before, after = (math.prod(own.meta["val"].shape[2:]) for own in (node.args[0], node))  # type: ignore[union-attr]
        share = before / after
        square = share * (variance + mean.square()) + (1 - share) * value**2
        mean = share * mean + (1 - share) * value
        variance = (square - mean.square()).clamp(min=0)

    def wide(own: Tensor, number: float) -> Tensor:
        return torch.nn.functional.pad(own, channels, value=number)

    return ActivationMoments(wide(mean, value), wide(variance, 0.0), wide(low, value), wide(high, value))


def _stuck(node: Node) -> UserError:
    return UserError(
        f"ranges cannot be told without images behind operator {node.target}; give images with --calibrate, such as a "
        "synthetic set"
    )
