"""Chooses the channels of a network that stand best for all of them, and refits the layers that read them.

Channels that belong together, along residual connections too, are selected greedily, and the weights of the layers that read
them are refitted to the selected ones, by least squares on activations (after Luo et al. 2017, He et al. 2017). Where it is
not known what belongs together, the first channels are copied (after Samragh et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from .._core.seeds import stream
from ..models.channel_groups import ChannelGroup, Place, channel_groups
from ..models.network import Network, copied, frozen

__all__ = ["Part", "copy_measured", "copy_teacher_channels", "measured_parts", "same_layers"]

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
    if not same_layers(student, teacher):
        return False
    teacher.check()
    _copy(student, teacher, measured_parts(student, teacher, pixels))
    return True


@torch.no_grad()
def copy_measured(student: Network, teacher: Network, parts: list[Part]) -> None:
    """Does the same with parts that were measured for a narrower student of the teacher."""
    groups = {group.key: group for group in channel_groups(student)}
    _copy(student, teacher, [fitted for part in parts if (fitted := part.fitted(groups)) is not None])


def _copy(student: Network, teacher: Network, parts: list[Part]) -> None:
    student_state = student.module.state_dict()
    state = {name: tensor.detach().cpu() for name, tensor in teacher.module.state_dict().items()}
    changed, selections = dict(state), [part.select() for part in parts]
    for part, selected in zip(parts, selections, strict=True):
        changed |= part.for_student(state, selected)
    for part, selected in zip(parts, selections, strict=True):
        for place, channels in _channels_by_place(part, selected).items():
            for name in _tensors(place, state):
                changed[name] = changed[name][channels]
    for name, tensor in student_state.items():
        tensor.copy_(_first_channels(changed[name], tensor))


def same_layers(student: Network, teacher: Network) -> bool:
    """Whether the student has the teacher's layers, none wider."""
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

    def numbers(self, counts: list[int], selected: list[Tensor]) -> Tensor:
        """The numbers of the selected channels among those that it reads; `counts` are those of all groups of its part."""
        starts = [sum(counts[group] for group in self.groups[:place]) for place in range(len(self.groups))]
        return torch.cat([selected[group] + start for group, start in zip(self.groups, starts, strict=True)])


@dataclass(frozen=True)
class Part:
    """Groups that are chosen together, since some layer reads channels of all of them."""

    pairs: list[_Pair]
    readers: list[_Reader]

    def select(self) -> list[Tensor]:
        """The channels of each group that the student gets, ascending."""
        return _choose(self.readers, self.counts, [pair.student.count for pair in self.pairs])

    def fitted(self, groups: dict[frozenset[tuple[Place, int]], ChannelGroup]) -> Part | None:
        """The part for a student with these groups; None if they leave no channel out, or one of them is not known."""
        if any(pair.teacher.key not in groups for pair in self.pairs):
            return None
        pairs = [_Pair(pair.teacher, groups[pair.teacher.key]) for pair in self.pairs]
        return Part(pairs, self.readers) if any(pair.student.count < pair.teacher.count for pair in pairs) else None

    @property
    def counts(self) -> list[int]:
        """Number of channels of each of the teacher's groups."""
        return [pair.teacher.count for pair in self.pairs]

    def ranked(self, number: int) -> Tensor:
        """All channels of one group, most informative first, beside those of all other groups."""
        counts, start = self.counts, sum(self.counts[:number])
        complete = [group != number for group in range(len(counts))]
        order = _in_order(self.readers, counts, counts, complete)
        return torch.tensor(order[len(order) - counts[number] :]) - start

    def without_others(self, state: dict[str, Tensor], selected: list[Tensor]) -> dict[str, Tensor]:
        """The tensors of the layers that read these channels, refitted to the selected ones; weights of others are 0."""
        changed: dict[str, Tensor] = {}
        for reader in self.readers:
            numbers = reader.numbers(self.counts, selected)
            positions = reader.positions[numbers]
            changed |= _refitted(state, reader, numbers, positions, state[f"{reader.layer}.weight"].shape[1])
        return changed

    def for_student(self, state: dict[str, Tensor], selected: list[Tensor]) -> dict[str, Tensor]:
        """The tensors of the layers that read these channels, refitted to the selected ones, as the student has them."""
        changed: dict[str, Tensor] = {}
        for reader in self.readers:
            place = Place(reader.layer, "in")
            positions = torch.cat([self.pairs[group].student.indices[place] for group in reader.groups])
            numbers = reader.numbers(self.counts, selected)
            changed |= _refitted(state, reader, numbers, positions, positions.numel())
        return changed


def measured_parts(student: Network, teacher: Network, pixels: Tensor) -> list[Part]:
    """The parts in which the student has fewer channels, with the moments of the teacher's activations on `pixels`."""
    state = {name: tensor.detach().cpu() for name, tensor in teacher.module.state_dict().items()}
    parts = _parts(student, teacher, state, pixels[:PROBES])
    _measure(teacher, [reader for part in parts for reader in part.readers], pixels)
    return [part for part in parts if all(reader.moments.count for reader in part.readers)]  # others were not reached


def _parts(student: Network, teacher: Network, state: dict[str, Tensor], pixels: Tensor) -> list[Part]:
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


def _part(pairs: list[_Pair], state: dict[str, Tensor]) -> Part | None:
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
    return Part(pairs, readers)


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


def _is_symmetric(part: Part, copy: Network, state: dict[str, Tensor], pixels: Tensor, expected: Tensor) -> bool:
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
    """The selected channels of each group, ascending: `student_counts` of its `counts` channels."""
    complete = [student_count == count for student_count, count in zip(student_counts, counts, strict=True)]
    is_selected = torch.zeros(sum(counts), dtype=torch.bool)
    is_selected[_in_order(readers, counts, student_counts, complete)] = True
    return [part.nonzero()[:, 0] for part in is_selected.split(counts)]


def _in_order(readers: list[_Reader], counts: list[int], student_counts: list[int], complete: list[bool]) -> list[int]:
    """The numbers of the selected channels of all groups, in the order of their selection, after those of complete groups.

    Greedy column selection for all readers together; each counts by the share of its inputs' effect that is explained. Wide
    layers add several channels per round.
    """
    starts = torch.tensor([0, *counts]).cumsum(0).tolist()
    group_of = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    residuals = [_Residual(reader, starts, counts) for reader in readers]
    missing = list(student_counts)  # number of channels that each group still needs
    added = [
        number
        for start, count, is_complete in zip(starts, counts, complete, strict=False)
        if is_complete
        for number in range(start, start + count)
    ]
    order: list[int] = []
    per_round = -(-(sum(student_counts) - len(added)) // ROUNDS)
    while True:
        for number in added:
            missing[int(group_of[number])] -= 1
        order += added
        if not any(missing):
            return order
        for residual in residuals:
            residual.add(torch.tensor(added, dtype=torch.long))
        scores = torch.zeros(starts[-1], dtype=torch.double)
        for residual in residuals:
            scores[residual.numbers] += residual.gains()
        scores[order] = -1.0
        scores[(torch.tensor(missing) == 0)[group_of]] = -1.0
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


def _refitted(
    state: dict[str, Tensor], reader: _Reader, numbers: Tensor, positions: Tensor, inputs: int
) -> dict[str, Tensor]:
    """The reader's weight for `inputs` channels, of which those at `positions` are the selected `numbers`, and the bias for
    what these leave out.
    """
    coefficients, offset = _reconstruction(reader, numbers)
    weight, bias = f"{reader.layer}.weight", f"{reader.layer}.bias"
    old = state[weight]
    refitted = torch.einsum("ocp,ck->okp", reader.weight, coefficients).to(old)
    new = old.new_zeros(len(old), inputs, *old.shape[2:])
    new[:, positions] = refitted.view(len(old), *positions.shape, *old.shape[2:])
    if bias not in state:
        return {weight: new}
    return {weight: new, bias: state[bias] + torch.einsum("ocp,c->o", reader.weight, offset).to(state[bias])}


def _channels_by_place(part: Part, chosen: list[Tensor]) -> dict[Place, Tensor]:
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
