"""Decides how many channels each group of a network keeps, so that its logits change least at a given number of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from .._core.errors import UserError
from .._core.progress import Progress, silent
from ..models.channel_groups import ChannelGroup
from ..models.network import Network, copied
from .channels import WeightCount, kept_channels, removable_groups, with_channels
from .divergence import WORST, divergence
from .selection import Part, copy_measured, measured_parts

__all__ = ["pruned"]

LEVELS = 8
"""Number of steps in which a group is narrowed; the last one is not taken."""


@torch.no_grad()
def pruned(
    network: Network, keep: float, pixels: Tensor, *, original: int | None = None, progress: Progress = silent
) -> Network:
    """A copy of the network with at most the share `keep` of its weights, or of `original` weights, without training.

    `pixels` (N, C, H, W) in the spec's range: half of them choose channels and refit the layers that read them, the other
    half measure what each group of channels is worth, as the Kullback-Leibler divergence of the classes' probabilities if
    only that group is narrowed. Channels are then left out where that costs least per weight. Raises UserError if so few
    weights cannot be kept.
    """
    network.check()
    whole = network.parameters if original is None else original
    target = int(keep * whole)
    if network.parameters <= target:
        return network.with_module(copied(network.module))
    groups = removable_groups(network, 1 / LEVELS)
    if not groups:
        raise UserError(f"keep: got {keep:g}, and no channels of {network.name} can be left out; use another student")
    fewest = [kept_channels(network, group, 1 / LEVELS) for group in groups]
    count = WeightCount(network, groups)
    least = count(fewest)
    if least > target:
        raise UserError(
            f"keep: got {keep:g}, expected at least {math.ceil(10_000 * least / whole) / 10_000:g}: the other weights of "
            f"{network.name} are in channels that cannot be left out; keep more"
        )
    fitted, measured = pixels[::2], pixels[1::2] if len(pixels) > 1 else pixels
    narrowest = with_channels(network, groups, fewest, quick=True)
    parts = [] if narrowest is None else measured_parts(narrowest, network, fitted)
    curves = _curves(network, groups, parts, measured, progress)
    student = with_channels(network, groups, _allocated(count, curves, target))
    if student is None:
        raise UserError(
            f"keep: got {keep:g}, and {network.name} does not work with the channels that this leaves; keep another share"
        )
    copy_measured(student, network, parts)
    return student


@dataclass(frozen=True)
class _Curve:
    """What a group is worth."""

    counts: list[int]
    """Numbers of channels, descending from all of them."""
    costs: list[float]
    """Divergence for each."""


def _curves(
    network: Network, groups: list[ChannelGroup], parts: list[Part], measured: Tensor, progress: Progress
) -> list[_Curve]:
    """The curve of each group."""
    expected = network.predict(measured).log_softmax(1)
    state = {name: tensor.detach().cpu() for name, tensor in network.module.state_dict().items()}
    copy = network.with_module(copied(network.module))
    curves = []
    for done, group in enumerate(groups):
        counts = sorted({kept_channels(network, group, level / LEVELS) for level in range(1, LEVELS + 1)}, reverse=True)
        part, number = _part_of(group, parts)
        ranked = None if part is None else part.ranked(number)
        costs = [0.0]
        for count in counts[1:]:
            if part is None or ranked is None:
                narrow = with_channels(network, [group], [count], quick=True)
                costs.append(WORST if narrow is None else divergence(narrow, measured, expected))
                continue
            selected = [torch.arange(channels) for channels in part.counts]
            selected[number] = ranked[:count].sort().values
            copy.module.load_state_dict({**state, **part.without_others(state, selected)})
            costs.append(divergence(copy, measured, expected))
        curves.append(_Curve(counts, list(accumulate(costs, max))))  # fewer channels never count as better
        progress(done + 1, len(groups))
    return curves


def _part_of(group: ChannelGroup, parts: list[Part]) -> tuple[Part | None, int]:
    for part in parts:
        for number, pair in enumerate(part.pairs):
            if pair.teacher.key == group.key:
                return part, number
    return None, 0


def _allocated(count: WeightCount, curves: list[_Curve], target: int) -> list[int]:
    """The number of channels of each group, with at most `target` weights in all.

    Takes, again and again, the step that costs least per weight that it saves, however many levels it is long. What the last
    steps saved too much goes back to the groups to which it is worth most.
    """
    levels = [0] * len(curves)

    def weights() -> int:
        return count([curve.counts[level] for curve, level in zip(curves, levels, strict=True)])

    def best(choices: Callable[[int], Iterable[int]], limit: int | None) -> tuple[int, int] | None:
        """The group and its new level with the lowest price, within a limit of weights."""
        before, lowest = weights(), None
        for number, curve in enumerate(curves):
            now = levels[number]
            for level in choices(number):
                levels[number] = level
                after = weights()
                if limit is None or after <= limit:
                    price = (curve.costs[level] - curve.costs[now]) / max(abs(before - after), 0.5)
                    if lowest is None or price < lowest[0]:
                        lowest = price, number, level
            levels[number] = now
        return None if lowest is None else lowest[1:]

    while weights() > target:
        step = best(lambda number: range(levels[number] + 1, len(curves[number].counts)), None)
        assert step is not None  # `target` can be reached
        levels[step[0]] = step[1]
    while step := best(lambda number: range(levels[number]), target):
        levels[step[0]] = step[1]
    return [curve.counts[level] for curve, level in zip(curves, levels, strict=True)]
