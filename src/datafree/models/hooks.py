"""Taps: where a network is watched. A tap is torch's dotted module name, or `input` for the pixels themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .._core.errors import UserError, unknown
from .missing_layers import LAYERS, no_batch_norm, no_layer
from .modes import modes_kept
from .network import Network, frozen

__all__ = [
    "FEATURES",
    "INPUT",
    "batch_norm_calls",
    "batch_norms",
    "layers",
    "no_batch_norm",
    "no_layer",
    "order",
    "shapes",
    "watch",
]

INPUT = "input"
FEATURES = "features"
"""What the last conv or linear layer is given: the penultimate features."""

Edit = Callable[[Tensor], Tensor]


def layers(network: Network) -> tuple[str, ...]:
    """Every conv and linear layer that an image passes exactly once, in the order in which it does.

    Raises UserError where there is none.
    """
    found = _layers(network)
    if not found:
        raise UserError(
            f"{no_layer(network)}, wanted one at least that an image passes exactly once; give a network of such layers"
        )
    return found


def _layers(network: Network) -> tuple[str, ...]:
    calls: list[tuple[str, bool]] = []
    with _hooks(network.module, LAYERS, lambda name, _, output: calls.append((name, isinstance(output, Tensor)))):
        _probe(network)
    order = [name for name, _ in calls]
    return tuple(name for name, usable in calls if usable and order.count(name) == 1)


def order(network: Network) -> tuple[str, ...]:
    """Every module with weights or buffers of its own, in the order in which an image passes them, some several times."""
    found: list[str] = []

    def note(name: str, *_: Any) -> None:
        part = network.module.get_submodule(name)
        if (
            next(part.parameters(recurse=False), None) is not None
            or next(part.buffers(recurse=False), None) is not None
        ):
            found.append(name)

    with _hooks(network.module, (nn.Module,), note):
        _probe(network)
    return tuple(found)


def batch_norms(network: Network) -> tuple[str, ...]:
    """Every batch-norm layer with running statistics, in order; as taps they give their *input*."""
    return tuple(batch_norm_calls(network))


def batch_norm_calls(network: Network) -> dict[str, int]:
    """How often an image passes each of the `batch_norms`; one that it passes in several sizes is left out."""
    sizes: dict[str, list[torch.Size]] = {}

    def note(name: str, given: Tensor, _: Any) -> None:
        sizes.setdefault(name, []).append(given.shape)

    with _hooks(network.module, (nn.modules.batchnorm._BatchNorm,), note):
        _probe(network)
    found = dict(network.module.named_modules())
    return {
        name: len(own)
        for name, own in sizes.items()
        if len(set(own)) == 1 and getattr(found[name], "running_mean", None) is not None
    }


def check_batch(network: Network, images: int) -> None:
    """Raises UserError where a training step of so many images gives some norm one value a channel: it has no variance."""
    norms = nn.modules.batchnorm._NormBase
    trained = {name for name, part in _in_training(network.module) if isinstance(part, norms)}
    single: list[str] = []

    def note(name: str, given: Tensor, _: Any) -> None:
        alone = isinstance(network.module.get_submodule(name), nn.modules.instancenorm._InstanceNorm)
        if name in trained and given[0, 0].numel() * (1 if alone else images) == 1:
            single.append(name)

    if not trained:
        return
    with _hooks(network.module, (norms,), note):
        _probe(network)
    if single:
        kind = type(network.module.get_submodule(single[0])).__name__
        advice = "take --batch 2 or more" if "Batch" in kind else "leave that norm out, or take larger images"
        raise UserError(
            f"--batch: got {images}, which gives {kind} {single[0]!r} of {network.name} one value a channel in training, "
            f"wanted several; {advice}"
        )


def _in_training(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts that `train()` puts into training mode: a network may keep some of its norms as they are."""
    with modes_kept(module):
        module.train()
        return [(name, part) for name, part in module.named_modules() if part.training]


def check(network: Network, taps: Iterable[str]) -> tuple[str, ...]:
    """The taps as given; raises UserError for one that is no layer, or none that runs just once."""
    allowed = (INPUT, *_layers(network), *batch_norms(network))
    for tap in taps:
        if tap not in allowed:
            raise unknown("layer", tap, allowed, network.name)
    return tuple(taps)


def shapes(network: Network, taps: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The shape of one image's activation at each tap."""
    with watch(network, taps) as seen:
        _probe(network)
        seen[INPUT] = torch.empty(1, *network.spec.shape)
        return {tap: tuple(seen[tap].shape[1:]) for tap in taps}


@contextmanager
def watch(
    network: Network, taps: Iterable[str], edits: Mapping[str, Edit] | None = None
) -> Iterator[dict[str, Tensor]]:
    """A dict that each forward pass fills: tap -> its activation (N, ...), pre-activation for conv and linear layers.

    A batch-norm tap gives the layer's input; where an image passes it several times all of them, (calls x N, ...), call
    by call. `features` is the last layer's input; to ask for it where an image passes none is a UserError. `edits` change a
    tap's output for what follows it (dropout masks); the dict holds the edited output. Hooks are gone afterwards, whatever
    happens inside. `input` is the caller's to fill.

    Values are those at the moment: the first pass copies all, later ones those that an operation in place then overwrote.
    """
    parts = dict(network.module.named_modules())
    seen = _Seen(network)
    taps, handles = tuple(taps), []
    watched = [parts.get(tap) for tap in taps if tap != INPUT]
    if watched and any(isinstance(part, torch.jit.ScriptModule) for part in (network.module, *watched)):
        raise UserError(f"{no_layer(network)}; give the Python code that it was made from")
    if not watched:
        yield seen
        return
    try:
        handles.append(network.module.register_forward_pre_hook(lambda *_: seen.begin()))
        for tap in taps:
            if tap == INPUT:
                continue
            if tap == FEATURES:  # whichever comes last overwrites those before it
                own = [part for part in parts.values() if isinstance(part, LAYERS)]
                handles.extend(part.register_forward_pre_hook(_given(seen, tap), with_kwargs=True) for part in own)
                continue
            if tap not in parts:
                raise unknown("layer", tap, _layers(network), network.name)
            if isinstance(parts[tap], nn.modules.batchnorm._BatchNorm):
                handles.append(parts[tap].register_forward_pre_hook(_given(seen, tap), with_kwargs=True))
            else:
                handles.append(parts[tap].register_forward_hook(_returned(seen, tap, (edits or {}).get(tap))))
        handles.append(network.module.register_forward_hook(lambda *_: seen.end()))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


class _Seen(dict[str, Tensor]):
    """Activations by tap, and which of them a later operation of the same pass overwrites."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network
        self.first = True
        self.overwritten: set[str] = set()
        self.marks: dict[str, list[tuple[Tensor, int | None, Tensor]]] = {}
        """By tap, for each call: the live tensor, its version when it was recorded, what was recorded."""

    def __missing__(self, tap: str) -> Tensor:
        if tap == FEATURES:
            raise UserError(f"{no_layer(self.network)}, so no features to match; leave out what matches them")
        if tap != INPUT and tap in dict(self.network.module.named_modules()):
            raise UserError(f"no image passes layer {tap!r} of {self.network.name}; name another layer")
        raise KeyError(tap)

    def begin(self) -> None:
        """A pass begins: what was recorded in the one before is forgotten, except for the images, which are the caller's."""
        for tap in [tap for tap in self if tap != INPUT]:
            del self[tap]
        self.marks.clear()

    def note(self, tap: str, live: Tensor, *, repeated: bool) -> None:
        """Records `live` as it is now; `repeated` calls are put together, of others the last one counts."""
        if not isinstance(live, Tensor):
            raise UserError(
                f"layer {tap!r} of {self.network.name} gives a {type(live).__name__}, wanted a tensor; name another"
            )
        version = None if live.is_inference() else live._version
        value = live.clone() if self.first or version is None or tap in self.overwritten else live
        before = self.marks.get(tap, []) if repeated else []
        self.marks[tap] = [*before, (live, version, value)]
        self[tap] = value if not before else torch.cat([own for *_, own in self.marks[tap]])

    def end(self) -> None:
        """A pass ends: what was overwritten since is copied from now on."""
        for tap, marks in self.marks.items():
            for live, version, value in marks:
                if version is None or (live._version == version and (not self.first or _same(live, value))):
                    continue
                if value is live:
                    raise UserError(
                        f"layer {tap!r} of {self.network.name} is overwritten in place in some passes and not in others, so "
                        "its activations cannot be watched; write that operation out of place"
                    )
                self.overwritten.add(tap)
        self.marks.clear()
        self.first = False


def _same(live: Tensor, value: Tensor) -> bool:
    """Whether what was recorded is still there; `x.data` hides a change from the version."""
    with torch.no_grad():
        return torch.equal(live, value)


def _given(seen: _Seen, tap: str):
    """Before a layer runs, since one may write into what it is given."""

    def hook(_: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        seen.note(tap, _first(inputs, keywords), repeated=tap != FEATURES)

    return hook


def _returned(seen: _Seen, tap: str, edit: Edit | None):
    def hook(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:  # noqa: ARG001
        edited = output if edit is None else edit(output)
        seen.note(tap, edited, repeated=False)
        return None if edit is None else edited

    return hook


def _first(inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """What a module is called with, by position or by name."""
    return inputs[0] if inputs else next(iter(keywords.values()), None)


@contextmanager
def _hooks(
    module: nn.Module, kinds: tuple[type[nn.Module], ...], note: Callable[[str, Any, Any], None]
) -> Iterator[None]:
    """Inside, `note(name, input, output)` after each call of a module of these kinds."""
    handles = []

    def hook(name: str):
        return lambda _, inputs, keywords, output: note(name, _first(inputs, keywords), output)

    try:
        for name, part in module.named_modules():
            if isinstance(part, kinds) and not isinstance(part, torch.jit.ScriptModule):
                handles.append(part.register_forward_hook(hook(name), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _probe(network: Network) -> None:
    """One forward pass of one mid-grey image, in eval mode."""
    middle = (network.spec.low + network.spec.high) / 2
    image = torch.full((1, *network.spec.shape), middle, device=network.device)
    with torch.no_grad(), frozen(network.module):
        try:
            network.logits(image)
        except RuntimeError as error:
            raise UserError(
                f"{network.name} does not take images of shape {network.spec.shape}: {str(error).splitlines()[0]}; "
                "give the shape it was built for"
            ) from None
