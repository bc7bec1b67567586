"""A student that begins with part of its teacher: of every layer, the channels that stand best for all of them.

Where a layer's channels go into one other layer and nowhere else, they are chosen one after the other, and that layer's
weights take over what the dropped ones said, as far as the kept ones tell it: least squares on the activations of images
(after Luo et al. 2017, He et al. 2017). Elsewhere the first channels are taken (after Samragh et al. 2023).
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
from .online.generator import untrained
from .online.scene import Scene

__all__ = ["inherited", "init_student_from_teacher", "same_architecture"]

PROBES = 16
SAME = 1e-3
"""Of the logits' standard deviation: what a shuffle may change by rounding."""
RIDGE = 1e-6
"""Of the mean variance; added to every channel's."""
TINY = 1e-30
"""Variance of channels that are all dead."""
ROUNDS = 256
"""In which the channels of a layer are chosen, at most."""
CHUNK = 1 << 20
"""Pixels at a time."""


def init_student_from_teacher(student: Network, teacher: Network, scene: Scene | None, *, seed: int) -> bool:
    """`inherited`, on images of generators that nobody trained, of `scene`; made only for a student that can take part."""
    if not same_architecture(student, teacher):
        return False
    return inherited(student, teacher, untrained(teacher, scene or Scene(), seed=seed))


@torch.no_grad()
def inherited(student: Network, teacher: Network, pixels: Tensor) -> bool:
    """Copies part of the teacher into a student of the same layers, none wider; says whether it did.

    `pixels` (N, C, H, W), in the spec's range, are any images that make the teacher's channels speak, nobody's data. No
    graph is asked for: that a layer's channels go into the next one alone shows where a shuffle of them, in both,
    changes no logit. Of other layers the first channels are taken, and a weight (M, N, ...) of a teacher's (P, Q, ...)
    becomes Q / N times its first M x N: with fewer inputs, a sum as large. Everything else (biases, a norm's weights and
    running statistics) goes along with its channel. What a norm over several channels (layer, group) between the two does to
    fewer of them is not made up for. A student of other layers stays as it is. Raises UserError for a teacher whose logits
    are not finite.
    """
    if not same_architecture(student, teacher):
        return False
    teacher.check()
    own = student.module.state_dict()
    found = {name: tensor.detach().cpu() for name, tensor in teacher.module.state_dict().items()}
    pairs = _pairs(own, teacher, pixels[:PROBES])
    moments = _moments(teacher, pairs, pixels)
    for pair in pairs:
        weight, bias = f"{pair.into}.weight", f"{pair.into}.bias"
        mixed = _by_channel(found[weight], pair.channels).double()
        kept, share, offset = _chosen(moments[pair.into], mixed, len(own[f"{pair.layer}.weight"]), bias in found)
        for name in pair.tensors:
            found[name] = found[name][kept]
        inputs = [found[weight].shape[1] // pair.channels * len(kept), *found[weight].shape[2:]]
        found[weight] = torch.einsum("ocp,ck->okp", mixed, share).to(found[weight]).reshape(len(mixed), *inputs)
        if bias in found:
            found[bias] = found[bias] + torch.einsum("ocp,c->o", mixed, offset).to(found[bias])
    for name, tensor in own.items():
        tensor.copy_(_first(found[name], tensor))
    return True


def same_architecture(student: Network, teacher: Network) -> bool:
    """Whether the student has the teacher's layers, none wider."""
    own, found = student.module.state_dict(), teacher.module.state_dict()
    return own.keys() == found.keys() and all(_fits(tensor, found[name]) for name, tensor in own.items())


def _fits(own: Tensor, found: Tensor) -> bool:
    return own.ndim == found.ndim and all(a <= b for a, b in zip(own.shape, found.shape, strict=True))


def _first(found: Tensor, own: Tensor) -> Tensor:
    part = found[tuple(slice(side) for side in own.shape)]
    return part * (found.shape[1] / own.shape[1]) if own.ndim > 1 else part


def _by_channel(weight: Tensor, channels: int) -> Tensor:
    """A weight or activation (M, N, ...) as (M, channels, places): a flattened map has several inputs a channel."""
    return weight.reshape(len(weight), channels, -1)


# -- which layers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pair:
    """A layer and the one that all its channels go into, and what has an entry for each channel: its own, and norms'."""

    layer: str
    into: str
    channels: int
    tensors: tuple[str, ...]


def _pairs(own: dict[str, Tensor], teacher: Network, pixels: Tensor) -> list[_Pair]:
    """Of the layers that are narrower in the student."""
    try:
        layers = hooks.layers(teacher)
    except UserError:
        return []
    passed = hooks.order(teacher)
    twin = Network(copied(teacher.module), teacher.spec, teacher.name)
    wanted, found = teacher.predict(pixels), []
    state = {name: tensor.clone() for name, tensor in twin.module.state_dict().items()}
    for layer, into in pairwise(layers):
        if not {f"{layer}.weight", f"{into}.weight"} <= state.keys():  # made of other tensors, by a parametrization
            continue
        channels, module = len(state[f"{layer}.weight"]), twin.module.get_submodule(into)
        between = passed[passed.index(layer) : passed.index(into)]
        tensors = [
            f"{name}.{key}"
            for name in between
            for key, tensor in twin.module.get_submodule(name).state_dict().items()
            if f"{name}.{key}" in state and (name == layer or tensor.shape == (channels,))
        ]
        narrower = len(own[f"{layer}.weight"]) < channels
        if not narrower or getattr(module, "groups", 1) > 1 or state[f"{into}.weight"].shape[1] % channels:
            continue
        pair = _Pair(layer, into, channels, tuple(tensors))
        if _alone(pair, twin, state, pixels, wanted):
            found.append(pair)
    return found


def _alone(pair: _Pair, copied: Network, state: dict[str, Tensor], pixels: Tensor, wanted: Tensor) -> bool:
    """Whether a shuffle of the channels between the two layers changes no logit; the copy is left as it was."""
    ring = torch.randperm(pair.channels, generator=stream(0, "shuffle"))
    order = ring.roll(1)[ring.argsort()]  # each takes the place of the one before it in the ring: none stays
    weight = f"{pair.into}.weight"
    shuffled = {name: state[name][order] for name in pair.tensors}
    shuffled[weight] = _by_channel(state[weight], pair.channels)[:, order].view_as(state[weight])
    copied.module.load_state_dict({**state, **shuffled})
    apart = (copied.predict(pixels) - wanted).abs().max()
    copied.module.load_state_dict(state)
    return bool(apart <= SAME * wanted.std())


# -- which channels -----------------------------------------------------------------------------------------------


@dataclass
class _Moments:
    """Of what a layer is given, by channel, over images and places, in float64."""

    total: Tensor
    squares: Tensor
    count: int = 0

    @classmethod
    def of(cls, channels: int) -> _Moments:
        """Of nothing yet."""
        return cls(torch.zeros(channels, dtype=torch.double), torch.zeros(channels, channels, dtype=torch.double))

    def add(self, rows: Tensor) -> None:
        self.count += len(rows)
        self.total += rows.sum(0)
        self.squares += rows.T @ rows


def _moments(teacher: Network, pairs: list[_Pair], pixels: Tensor) -> dict[str, _Moments]:
    found = {pair.into: _Moments.of(pair.channels) for pair in pairs}
    with frozen(teacher.module), _given(teacher.module, found):
        for part in pixels.split(max(1, CHUNK // teacher.spec.pixels)) if found else ():
            teacher.logits(part.to(teacher.device))
    return found


@contextmanager
def _given(module: nn.Module, found: dict[str, _Moments]) -> Iterator[None]:
    """Inside, every forward pass adds what the layers are given."""

    def hook(moments: _Moments, part: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Tensor]) -> None:
        given, channels = (inputs[0] if inputs else keywords["input"]).detach().cpu().double(), len(moments.total)
        given = given.reshape(-1, given.shape[-1]) if isinstance(part, nn.Linear) else given
        moments.add(_by_channel(given, channels).transpose(1, 2).reshape(-1, channels))

    handles = []
    try:
        for name, moments in found.items():
            handles.append(
                module.get_submodule(name).register_forward_pre_hook(partial(hook, moments), with_kwargs=True)
            )
        yield
    finally:
        for handle in handles:
            handle.remove()


def _chosen(moments: _Moments, weight: Tensor, count: int, biased: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The channels (count,) to keep, in order, their shares (channels, count) in all of them, and a constant (channels,).

    `weight` (M, channels, places) is what the channels x go into. Greedy column selection: with S the covariance of x (its
    second moment where there is no bias to take a constant), each channel is the one that leaves the least of
    E |W (x - B x_kept - c)|^2, and B = S[:, kept] S[kept, kept]^-1. Of many, several are taken at a time.
    """
    mean = moments.total / moments.count if biased else torch.zeros_like(moments.total)
    spread = moments.squares / moments.count - torch.outer(mean, mean)
    left, into = spread.clone(), torch.einsum("oip,ojp->ij", weight, weight)
    through = into @ left
    least, kept = 1e-9 * float(spread.diagonal().mean()), []
    while len(kept) < count:
        own, gains = left.diagonal(), (left * through).sum(0)  # of channel j: (S G S)[j, j]
        worth = torch.where(own > least, gains / own.clamp(min=least), 0.0)
        worth[kept] = -1.0
        best = worth.topk(min(-(-count // ROUNDS), count - len(kept))).indices
        kept += best.tolist()
        columns = left[:, best].clone()
        share = columns @ torch.linalg.pinv(columns[best], atol=least, hermitian=True)
        through.addmm_(through[:, best], share.T, alpha=-1)
        left.addmm_(columns, share.T, alpha=-1)
    chosen = torch.tensor(sorted(kept))
    ridge = RIDGE * spread.diagonal().mean().clamp(min=TINY) * torch.eye(count, dtype=torch.double)
    inner = spread[chosen][:, chosen] + ridge
    share = torch.linalg.solve(inner, spread[:, chosen].T).T
    return chosen, share, mean - share @ mean[chosen]
