"""Initialises a student with a subset of the channels of each teacher layer.

Channels that belong together, along residual connections too, are selected greedily, and the weights of the layers that read
them are refitted to the selected ones, by least squares on activations (after Luo et al. 2017, He et al. 2017). Where it is
not known what belongs together, the first channels are copied (after Samragh et al. 2023).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from .._core.errors import UserError
from .._core.seeds import stream
from ..models.channel_groups import ChannelGroup, Place, channel_groups
from ..models.network import Network, copied, frozen
from ..models.reducing import pass_block, passed_blocks
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
"""Maximum number of rounds of a greedy selection."""
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

    What belongs together is found by `channel_groups`, and checked: if the channels of a group are shuffled at all its
    places, no logit changes. For other layers the first channels are copied: a weight (M, N, ...) becomes Q / N times the
    first M x N entries of the teacher's (P, Q, ...), which keeps the scale of a sum over fewer inputs. Biases and the
    weights and running statistics of norms follow their channels. The effect of fewer channels on layer and group norms
    is not compensated.
    """
    if not _same_layers(student, teacher):
        return False
    teacher.check()
    student_state = student.module.state_dict()
    state = {name: tensor.detach().cpu() for name, tensor in teacher.module.state_dict().items()}
    parts = _parts(student, teacher, state, pixels[:PROBES])
    readers = [reader for part in parts for reader in part.readers]
    _measure(teacher, readers, pixels)
    parts = [part for part in parts if all(reader.moments.count for reader in part.readers)]  # others were not reached
    changed, selections = dict(state), [part.select() for part in parts]
    for part, selected in zip(parts, selections, strict=True):
        for reader in part.readers:
            _refit(changed, reader, part, selected)
    for part, selected in zip(parts, selections, strict=True):
        for place, channels in _channels_by_place(part, selected).items():
            for name in _tensors(place, state):
                changed[name] = changed[name][channels]
    for name, tensor in student_state.items():
        tensor.copy_(_first_channels(changed[name], tensor))
    return True


def same_architecture(student: Network, teacher: Network) -> bool:
    """Whether the student has the teacher's layers, none wider, or those of some of its blocks."""
    return _aligned(student, teacher) is not None


def _aligned(student: Network, teacher: Network) -> Network | None:
    """The teacher, or a copy of it without blocks that the student does not have; None for another architecture."""
    if _same_layers(student, teacher):
        return teacher
    if passed := passed_blocks(student.module):
        module = copied(teacher.module)
        with suppress(AttributeError):  # of a teacher without such blocks
            for name in passed:
                pass_block(module, name)
        teacher = teacher.with_module(module)
        return teacher if _same_layers(student, teacher) else None
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
    network = teacher.with_module(module)
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


# -- which channels belong together -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pair:
    """A group of the teacher's channels, and the student's group at the same places, of as many or fewer channels."""

    teacher: ChannelGroup
    student: ChannelGroup


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


@dataclass
class _Reader:
    """A layer that reads channels of one or more groups."""

    layer: str
    groups: list[int]
    """Numbers of the groups, whose channels are numbered one group after the other."""
    positions: Tensor
    """Where the layer reads each channel (channels, n)."""
    weight: Tensor
    """The layer's weight for each channel (outputs, channels, entries), in float64."""
    biased: bool
    moments: _Moments

    @classmethod
    def of(cls, layer: str, groups: list[int], positions: Tensor, state: dict[str, Tensor]) -> _Reader:
        weight = state[f"{layer}.weight"]
        by_channel = weight[:, positions].reshape(len(weight), len(positions), -1).double()
        moments = _Moments.empty(len(positions))
        return cls(layer, groups, positions, by_channel, f"{layer}.bias" in state, moments)


@dataclass(frozen=True)
class _Part:
    """Groups that are chosen together, since some layer reads channels of all of them."""

    pairs: list[_Pair]
    readers: list[_Reader]

    def select(self) -> list[Tensor]:
        """The channels of each group that the student gets, ascending."""
        counts = [(pair.teacher.count, pair.student.count) for pair in self.pairs]
        return _choose(self.readers, [teacher for teacher, _ in counts], [student for _, student in counts])


def _parts(student: Network, teacher: Network, state: dict[str, Tensor], pixels: Tensor) -> list[_Part]:
    """The parts in which the student has fewer channels."""
    groups, narrow = channel_groups(teacher), {group.key: group for group in channel_groups(student)}
    pairs = [_Pair(group, narrow[group.key]) for group in groups if group.key in narrow]
    if any(pair.student.count > pair.teacher.count for pair in pairs):
        return []
    expected, parts = teacher.predict(pixels), []
    copy = teacher.with_module(copied(teacher.module))
    for connected in _connected(pairs):
        part = _part(connected, state)
        if part is not None and _is_symmetric(part, copy, state, pixels, expected):
            parts.append(part)
    return parts


def _connected(pairs: list[_Pair]) -> list[list[_Pair]]:
    """Pairs that share a place."""
    parts: list[list[_Pair]] = []
    for pair in pairs:
        places = pair.teacher.indices.keys()
        shared = [part for part in parts if any(places & other.teacher.indices.keys() for other in part)]
        parts = [part for part in parts if part not in shared] + [[*chain(*shared), pair]]
    return parts


def _part(pairs: list[_Pair], state: dict[str, Tensor]) -> _Part | None:
    """None if no channel is left out, or if what belongs to a channel of some layer is not known."""
    if all(pair.student.count == pair.teacher.count for pair in pairs):
        return None
    readers = []
    for place in dict.fromkeys(chain(*(pair.teacher.indices for pair in pairs))):
        groups = [number for number, pair in enumerate(pairs) if place in pair.teacher.indices]
        indices = [pairs[number].teacher.indices[place] for number in groups]
        if sum(map(torch.numel, indices)) != _channels(place, state):
            return None
        if place.side != "in":
            continue
        if len({index.shape[1] for index in indices}) > 1:
            return None
        readers.append(_Reader.of(place.layer, groups, torch.cat(indices), state))
    return _Part(pairs, readers)


def _channels(place: Place, state: dict[str, Tensor]) -> int | None:
    """Number of channels of the layer's tensors at this place; None if it has none of that kind."""
    if place.side == "norm":
        return next((len(state[name]) for name in _tensors(place, state)), None)
    weight = state.get(f"{place.layer}.weight")
    return None if weight is None else weight.shape[int(place.side == "in")]


def _tensors(place: Place, state: dict[str, Tensor]) -> list[str]:
    """The tensors with an entry per channel in their first dimension; of a reading layer none."""
    if place.side == "in":
        return []
    names = [name for name in state if name.rpartition(".")[0] == place.layer and state[name].ndim]
    return [name for name in names if len(state[name]) == len(state[names[0]])]


def _is_symmetric(part: _Part, copy: Network, state: dict[str, Tensor], pixels: Tensor, expected: Tensor) -> bool:
    """Whether shuffling the channels of the narrower groups leaves all logits unchanged. Restores the copy."""
    shuffled = dict(state)
    for pair in part.pairs:
        if pair.student.count == pair.teacher.count:
            continue
        cycle = torch.randperm(pair.teacher.count, generator=stream(0, "shuffle"))
        order = cycle.roll(1)[cycle.argsort()]  # a cyclic permutation: every channel moves
        for place, index in pair.teacher.indices.items():
            for name in _tensors(place, state):
                shuffled[name] = shuffled[name].index_copy(0, index.flatten(), shuffled[name][index[order].flatten()])
            if place.side == "in":
                name = f"{place.layer}.weight"
                values = shuffled[name][:, index[order].flatten()]
                shuffled[name] = shuffled[name].index_copy(1, index.flatten(), values)
    copy.module.load_state_dict(shuffled)
    difference = (copy.predict(pixels) - expected).abs().max()
    copy.module.load_state_dict(state)
    return bool(difference <= SAME * expected.std())


# -- which channels -----------------------------------------------------------------------------------------------


def _measure(teacher: Network, readers: list[_Reader], pixels: Tensor) -> None:
    """Adds the readers' inputs on these pixels to their moments."""

    def hook(reader: _Reader, layer: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Tensor]) -> None:
        values = (inputs[0] if inputs else keywords["input"]).detach().cpu()
        values = values.reshape(-1, values.shape[-1]) if isinstance(layer, nn.Linear) else values
        rows = values[:, reader.positions].double().flatten(2)
        reader.moments.add(rows.transpose(1, 2).reshape(-1, len(reader.positions)))

    handles = [
        teacher.module.get_submodule(reader.layer).register_forward_pre_hook(partial(hook, reader), with_kwargs=True)
        for reader in readers
    ]
    try:
        with frozen(teacher.module):
            for chunk in pixels.split(max(1, CHUNK // teacher.spec.pixels)) if readers else ():
                teacher.logits(chunk.to(teacher.device))
    finally:
        for handle in handles:
            handle.remove()


def _covariance(reader: _Reader) -> tuple[Tensor, Tensor]:
    """Mean (channels,) and covariance (channels, channels) of the inputs; without a bias 0 and the second moment."""
    moments = reader.moments
    mean = moments.total / moments.count if reader.biased else torch.zeros_like(moments.total)
    return mean, moments.squares / moments.count - torch.outer(mean, mean)


class _Residual:
    """What the selected channels leave unexplained of a reader's inputs x (channels,): their covariance S.

    Each round adds the channels that reduce E |W (x - B x_selected - c)|^2 most, with the reader's weight W (outputs,
    channels, entries) and B = S[:, selected] S[selected, selected]^-1.
    """

    def __init__(self, reader: _Reader, starts: list[int], counts: list[int]):
        _, self.covariance = _covariance(reader)
        gram = torch.einsum("oip,ojp->ij", reader.weight, reader.weight)
        self.weighted = gram @ self.covariance
        self.smallest = 1e-9 * float(self.covariance.diagonal().mean())
        self.scale = float((self.covariance * gram).sum()) or 1.0
        numbers = [torch.arange(starts[group], starts[group] + counts[group]) for group in reader.groups]
        self.numbers = torch.cat(numbers)
        """Each channel's number among those of all groups."""

    def gains(self) -> Tensor:
        """Share of the error that each channel would explain (channels,)."""
        variances, gains = (
            self.covariance.diagonal(),
            (self.covariance * self.weighted).sum(0),
        )  # channel j: (S G S)[j, j]
        return torch.where(variances > self.smallest, gains / variances.clamp(min=self.smallest), 0.0) / self.scale

    def add(self, selected: Tensor) -> None:
        """Explains what these channels, by their numbers, can."""
        channels = torch.isin(self.numbers, selected).nonzero()[:, 0]
        if not len(channels):
            return
        columns = self.covariance[:, channels].clone()
        coefficients = columns @ torch.linalg.pinv(columns[channels], atol=self.smallest, hermitian=True)
        self.weighted.addmm_(self.weighted[:, channels], coefficients.T, alpha=-1)
        self.covariance.addmm_(columns, coefficients.T, alpha=-1)


def _choose(readers: list[_Reader], counts: list[int], student_counts: list[int]) -> list[Tensor]:
    """The selected channels of each group, ascending: `student_counts` of its `counts` channels.

    Greedy column selection for all readers together; each counts by the share of its inputs' effect that is explained. Wide
    layers add several channels per round.
    """
    starts = torch.tensor([0, *counts]).cumsum(0).tolist()
    group_of = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    residuals = [_Residual(reader, starts, counts) for reader in readers]
    missing = list(student_counts)  # number of channels that each group still needs
    is_selected = torch.zeros(starts[-1], dtype=torch.bool)
    added = [
        number
        for start, count, student_count in zip(starts, counts, student_counts, strict=False)
        if student_count == count
        for number in range(start, start + count)
    ]
    per_round = -(-(sum(student_counts) - len(added)) // ROUNDS)
    while True:
        for number in added:
            is_selected[number] = True
            missing[int(group_of[number])] -= 1
        for residual in residuals:
            residual.add(torch.tensor(added, dtype=torch.long))
        if not any(missing):
            return [part.nonzero()[:, 0] for part in is_selected.split(counts)]
        scores = torch.zeros(starts[-1], dtype=torch.double)
        for residual in residuals:
            scores[residual.numbers] += residual.gains()
        scores[is_selected | (torch.tensor(missing) == 0)[group_of]] = -1.0
        added, room = [], list(missing)
        for number in scores.topk(min(per_round, int((scores >= 0).sum()))).indices.tolist():
            group = int(group_of[number])
            if room[group]:
                room[group] -= 1
                added.append(number)


def _reconstruction(reader: _Reader, selected: Tensor) -> tuple[Tensor, Tensor]:
    """B (channels, selected) and c (channels,) with which x is about B x_selected + c, by least squares."""
    mean, covariance = _covariance(reader)
    ridge = RIDGE * covariance.diagonal().mean().clamp(min=TINY) * torch.eye(len(selected), dtype=torch.double)
    selected_covariance = covariance[selected][:, selected] + ridge
    coefficients = torch.linalg.solve(selected_covariance, covariance[:, selected].T).T
    return coefficients, mean - coefficients @ mean[selected]


def _refit(state: dict[str, Tensor], reader: _Reader, part: _Part, chosen: list[Tensor]) -> None:
    """Gives the reading layer the weights for the student's inputs, and the bias for what these leave out."""
    counts = [part.pairs[group].teacher.count for group in reader.groups]
    starts = torch.tensor([0, *counts]).cumsum(0)
    selected = torch.cat([chosen[group] + start for group, start in zip(reader.groups, starts, strict=False)])
    coefficients, offset = _reconstruction(reader, selected)
    place, weight, bias = Place(reader.layer, "in"), f"{reader.layer}.weight", f"{reader.layer}.bias"
    positions = torch.cat([part.pairs[group].student.indices[place] for group in reader.groups])
    old = state[weight]
    refitted = torch.einsum("ocp,ck->okp", reader.weight, coefficients).to(old)
    new = old.new_zeros(len(old), positions.numel(), *old.shape[2:])
    new[:, positions] = refitted.view(len(old), *positions.shape, *old.shape[2:])
    state[weight] = new
    if bias in state:
        state[bias] = state[bias] + torch.einsum("ocp,c->o", reader.weight, offset).to(state[bias])


def _channels_by_place(part: _Part, chosen: list[Tensor]) -> dict[Place, Tensor]:
    """Place that writes or scales -> the teacher's channels that the student has there, in the student's order."""
    pieces: dict[Place, list[tuple[Tensor, Tensor]]] = {}
    for pair, selected in zip(part.pairs, chosen, strict=True):
        for place, index in pair.student.indices.items():
            pieces.setdefault(place, []).append((index.flatten(), pair.teacher.indices[place][selected].flatten()))
    by_place = {}
    for place, parts in pieces.items():
        positions, channels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        by_place[place] = channels[positions.argsort()]
    return by_place
