"""Initialises a student with a subset of the channels of each teacher layer.

If a layer's channels are read by a single other layer, channels are selected greedily and the other layer's weights are
refitted to the selected channels, by least squares on activations (after Luo et al. 2017, He et al. 2017). Otherwise
the first channels are copied (after Samragh et al. 2023).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from .._core.errors import UserError
from .._core.seeds import stream
from ..models import hooks
from ..models.network import Network, copied, frozen
from ..synthesis.generator import untrained
from ..synthesis.scene import Scene

__all__ = ["copy_teacher_channels", "init_student_from_teacher", "same_architecture"]

PROBES = 16
SAME = 1e-3
"""Tolerance for rounding when channels are shuffled, relative to the logits' standard deviation."""
RIDGE = 1e-6
"""Ridge added to each channel's variance, relative to the mean variance."""
TINY = 1e-30
"""Minimum mean variance, for layers whose channels are all constant."""
ROUNDS = 256
"""Maximum number of rounds of the greedy selection in a layer."""
CHUNK = 1 << 20
"""Number of pixels per forward pass."""


def init_student_from_teacher(student: Network, teacher: Network, scene: Scene | None, *, seed: int) -> bool:
    """Calls `copy_teacher_channels` with images of untrained generators. Returns whether the student was initialised.

    Of a teacher with more blocks per stage the middle ones are left out. `scene` is the generators' image model, by default
    `Scene()`. A student of another architecture stays unchanged.
    """
    aligned = _aligned(student, teacher)
    if aligned is None:
        return False
    return copy_teacher_channels(student, aligned, untrained(teacher, scene or Scene(), seed=seed))


@torch.no_grad()
def copy_teacher_channels(student: Network, teacher: Network, pixels: Tensor) -> bool:
    """Copies the subset of teacher channels that best reconstructs the rest; the student needs the same layers, none
    wider.

    `pixels` (N, C, H, W) in the spec's range only need to activate the teacher's channels; they need not be real data.
    Returns False, and leaves the student unchanged, for another architecture. Raises UserError if the teacher's logits
    are not finite.

    No graph is needed: two layers form a pair if shuffling the channels in both leaves all logits unchanged. For other
    layers the first channels are copied: a weight (M, N, ...) becomes Q / N times the first M x N entries of the
    teacher's (P, Q, ...), which keeps the scale of a sum over fewer inputs. Biases and the weights and running
    statistics of norms follow their channels. The effect of fewer channels on layer and group norms is not compensated.
    """
    if not _same_layers(student, teacher):
        return False
    teacher.check()
    student_state = student.module.state_dict()
    state = {name: tensor.detach().cpu() for name, tensor in teacher.module.state_dict().items()}
    pairs = _pairs(student_state, teacher, pixels[:PROBES])
    moments = _moments(teacher, pairs, pixels)
    for pair in pairs:
        weight, bias = f"{pair.next_layer}.weight", f"{pair.next_layer}.bias"
        next_weight = _by_channel(state[weight], pair.channels).double()
        selected, reconstruction, offset = _select_channels(
            moments[pair.next_layer], next_weight, len(student_state[f"{pair.layer}.weight"]), bias in state
        )
        for name in pair.tensors:
            state[name] = state[name][selected]
        inputs = [state[weight].shape[1] // pair.channels * len(selected), *state[weight].shape[2:]]
        state[weight] = (
            torch.einsum("ocp,ck->okp", next_weight, reconstruction)
            .to(state[weight])
            .reshape(len(next_weight), *inputs)
        )
        if bias in state:
            state[bias] = state[bias] + torch.einsum("ocp,c->o", next_weight, offset).to(state[bias])
    for name, tensor in student_state.items():
        tensor.copy_(_first_channels(state[name], tensor))
    return True


def same_architecture(student: Network, teacher: Network) -> bool:
    """Whether the student has the teacher's layers, none wider, or those of some of its blocks."""
    return _aligned(student, teacher) is not None


def _aligned(student: Network, teacher: Network) -> Network | None:
    """The teacher, or a copy of it without blocks that the student does not have; None for another architecture."""
    if _same_layers(student, teacher):
        return teacher
    shallower = without_blocks(teacher, student)
    return shallower if shallower is not None and _same_layers(student, shallower) else None


def without_blocks(teacher: Network, student: Network) -> Network | None:
    """A copy of the teacher with as many blocks in each container as the student has; None if it has no more.

    A container is a Sequential or ModuleList whose children after the first have the same weights' names and shapes, as
    the residual blocks of a stage have. The first and the last blocks are kept.
    """
    module, changed = copied(teacher.module), False
    containers = dict(student.module.named_modules())
    for name, container in list(module.named_modules()):
        other = containers.get(name)
        kinds = (nn.Sequential, nn.ModuleList)
        if not isinstance(container, kinds) or not isinstance(other, kinds) or not 0 < len(other) < len(container):
            continue
        shapes = [{key: tensor.shape for key, tensor in block.state_dict().items()} for block in container]
        if not all("." in key for key in shapes[-1]) or any(block != shapes[-1] for block in shapes[1:]):
            return None
        for _ in range(len(container) - len(other)):
            del container[1]
        changed = True
    if not changed:
        return None
    network = Network(module, teacher.spec, teacher.name)
    try:
        network.check()
    except UserError:
        return None
    return network


def _same_layers(student: Network, teacher: Network) -> bool:
    student_state, teacher_state = student.module.state_dict(), teacher.module.state_dict()
    return student_state.keys() == teacher_state.keys() and all(
        _is_no_wider(tensor, teacher_state[name]) for name, tensor in student_state.items()
    )


def _is_no_wider(student: Tensor, teacher: Tensor) -> bool:
    return student.ndim == teacher.ndim and all(a <= b for a, b in zip(student.shape, teacher.shape, strict=True))


def _first_channels(teacher: Tensor, student: Tensor) -> Tensor:
    part = teacher[tuple(slice(side) for side in student.shape)]
    return part * (teacher.shape[1] / student.shape[1]) if student.ndim > 1 else part


def _by_channel(weight: Tensor, channels: int) -> Tensor:
    """A weight or activation (M, N, ...) as (M, channels, positions); a flattened map has several per channel."""
    return weight.reshape(len(weight), channels, -1)


# -- which layers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pair:
    """A layer, the single layer that reads its channels, and all tensors with an entry per channel, also norms'."""

    layer: str
    next_layer: str
    channels: int
    tensors: tuple[str, ...]


def _pairs(student_state: dict[str, Tensor], teacher: Network, pixels: Tensor) -> list[_Pair]:
    """Pairs whose first layer is narrower in the student."""
    try:
        layers = hooks.layers(teacher)
    except UserError:
        return []
    order = hooks.order(teacher)
    copy = Network(copied(teacher.module), teacher.spec, teacher.name)
    expected, pairs = teacher.predict(pixels), []
    state = {name: tensor.clone() for name, tensor in copy.module.state_dict().items()}
    for layer, next_layer in pairwise(layers):
        if not {f"{layer}.weight", f"{next_layer}.weight"} <= state.keys():  # parametrized: computed from other tensors
            continue
        channels, module = len(state[f"{layer}.weight"]), copy.module.get_submodule(next_layer)
        between = order[order.index(layer) : order.index(next_layer)]
        tensors = [
            f"{name}.{key}"
            for name in between
            for key, tensor in copy.module.get_submodule(name).state_dict().items()
            if f"{name}.{key}" in state and (name == layer or tensor.shape == (channels,))
        ]
        narrower = len(student_state[f"{layer}.weight"]) < channels
        if not narrower or getattr(module, "groups", 1) > 1 or state[f"{next_layer}.weight"].shape[1] % channels:
            continue
        pair = _Pair(layer, next_layer, channels, tuple(tensors))
        if _is_pair(pair, copy, state, pixels, expected):
            pairs.append(pair)
    return pairs


def _is_pair(pair: _Pair, copy: Network, state: dict[str, Tensor], pixels: Tensor, expected: Tensor) -> bool:
    """Whether shuffling the channels between the two layers leaves all logits unchanged. Restores the copy."""
    cycle = torch.randperm(pair.channels, generator=stream(0, "shuffle"))
    order = cycle.roll(1)[cycle.argsort()]  # a cyclic permutation: every channel moves
    weight = f"{pair.next_layer}.weight"
    shuffled = {name: state[name][order] for name in pair.tensors}
    shuffled[weight] = _by_channel(state[weight], pair.channels)[:, order].view_as(state[weight])
    copy.module.load_state_dict({**state, **shuffled})
    difference = (copy.predict(pixels) - expected).abs().max()
    copy.module.load_state_dict(state)
    return bool(difference <= SAME * expected.std())


# -- which channels -----------------------------------------------------------------------------------------------


@dataclass
class _Moments:
    """Sums over a layer's inputs, per channel, over images and positions, in float64."""

    total: Tensor
    squares: Tensor
    count: int = 0

    @classmethod
    def empty(cls, channels: int) -> _Moments:
        return cls(torch.zeros(channels, dtype=torch.double), torch.zeros(channels, channels, dtype=torch.double))

    def add(self, rows: Tensor) -> None:
        self.count += len(rows)
        self.total += rows.sum(0)
        self.squares += rows.T @ rows


def _moments(teacher: Network, pairs: list[_Pair], pixels: Tensor) -> dict[str, _Moments]:
    moments = {pair.next_layer: _Moments.empty(pair.channels) for pair in pairs}
    with frozen(teacher.module), _watch_inputs(teacher.module, moments):
        for chunk in pixels.split(max(1, CHUNK // teacher.spec.pixels)) if moments else ():
            teacher.logits(chunk.to(teacher.device))
    return moments


@contextmanager
def _watch_inputs(module: nn.Module, layers: dict[str, _Moments]) -> Iterator[None]:
    """Inside, every forward pass adds the inputs of the layers to their moments."""

    def hook(moments: _Moments, layer: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Tensor]) -> None:
        rows, channels = (inputs[0] if inputs else keywords["input"]).detach().cpu().double(), len(moments.total)
        rows = rows.reshape(-1, rows.shape[-1]) if isinstance(layer, nn.Linear) else rows
        moments.add(_by_channel(rows, channels).transpose(1, 2).reshape(-1, channels))

    handles = []
    try:
        for name, moments in layers.items():
            handles.append(
                module.get_submodule(name).register_forward_pre_hook(partial(hook, moments), with_kwargs=True)
            )
        yield
    finally:
        for handle in handles:
            handle.remove()


def _select_channels(moments: _Moments, weight: Tensor, count: int, biased: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Selected channels (count,), ascending; coefficients B (channels, count) and constant c (channels,) of the rest.

    `weight` W (M, channels, positions) reads the channels x. Greedy column selection: let S be the covariance of x, or
    the second moment without a bias. Each round adds the channels that minimise E |W (x - B x_selected - c)|^2, with
    B = S[:, selected] S[selected, selected]^-1. Wide layers add several channels per round.
    """
    mean = moments.total / moments.count if biased else torch.zeros_like(moments.total)
    covariance = moments.squares / moments.count - torch.outer(mean, mean)
    residual, gram = covariance.clone(), torch.einsum("oip,ojp->ij", weight, weight)
    weighted = gram @ residual
    smallest, selected = 1e-9 * float(covariance.diagonal().mean()), []
    while len(selected) < count:
        variances, gains = residual.diagonal(), (residual * weighted).sum(0)  # of channel j: (S G S)[j, j]
        scores = torch.where(variances > smallest, gains / variances.clamp(min=smallest), 0.0)
        scores[selected] = -1.0
        best = scores.topk(min(-(-count // ROUNDS), count - len(selected))).indices
        selected += best.tolist()
        columns = residual[:, best].clone()
        coefficients = columns @ torch.linalg.pinv(columns[best], atol=smallest, hermitian=True)
        weighted.addmm_(weighted[:, best], coefficients.T, alpha=-1)
        residual.addmm_(columns, coefficients.T, alpha=-1)
    channels = torch.tensor(sorted(selected))
    ridge = RIDGE * covariance.diagonal().mean().clamp(min=TINY) * torch.eye(count, dtype=torch.double)
    selected_covariance = covariance[channels][:, channels] + ridge
    coefficients = torch.linalg.solve(selected_covariance, covariance[:, channels].T).T
    return channels, coefficients, mean - coefficients @ mean[channels]
