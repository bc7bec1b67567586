"""Taps: the places where a network's activations are read. A tap is torch's dotted module name, or `input` for the
pixels.
"""

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
    "first_argument",
    "layers",
    "no_batch_norm",
    "no_layer",
    "order",
    "shapes",
    "watch",
]

INPUT = "input"
FEATURES = "features"
"""The input of the last conv or linear layer: the penultimate features."""

Edit = Callable[[Tensor], Tensor]
Reduction = Callable[[Tensor], Any]
"""A function of an activation whose result is kept instead of it."""


def layers(network: Network) -> tuple[str, ...]:
    """Every conv and linear layer that an image passes exactly once, in the order of the forward pass.

    Raises UserError if there is none.
    """
    names = _layers(network)
    if not names:
        raise UserError(
            f"{no_layer(network)}, expected one at least that an image passes exactly once; give a network of such layers"
        )
    return names


def _layers(network: Network) -> tuple[str, ...]:
    calls: list[tuple[str, bool]] = []
    with _hooks(network.module, LAYERS, lambda name, _, output: calls.append((name, isinstance(output, Tensor)))):
        _probe(network)
    order = [name for name, _ in calls]
    return tuple(name for name, usable in calls if usable and order.count(name) == 1)


def order(network: Network) -> tuple[str, ...]:
    """Every module with its own weights or buffers, in the order of the forward pass; some may occur several times."""
    names: list[str] = []

    def note(name: str, *_: Any) -> None:
        part = network.module.get_submodule(name)
        if (
            next(part.parameters(recurse=False), None) is not None
            or next(part.buffers(recurse=False), None) is not None
        ):
            names.append(name)

    with _hooks(network.module, (nn.Module,), note):
        _probe(network)
    return tuple(names)


def batch_norms(network: Network) -> tuple[str, ...]:
    """Every batch-norm layer with running statistics, in order. As taps they return their *input*."""
    return tuple(batch_norm_calls(network))


def batch_norm_calls(network: Network) -> dict[str, int]:
    """How often an image passes each of the `batch_norms`; one that sees several sizes, or no tensor, is left out."""
    sizes: dict[str, list[torch.Size | None]] = {}

    def note(name: str, batch: Any, _: Any) -> None:
        sizes.setdefault(name, []).append(batch.shape if isinstance(batch, Tensor) else None)

    with _hooks(network.module, (nn.modules.batchnorm._BatchNorm,), note):
        _probe(network)
    modules = dict(network.module.named_modules())
    return {
        name: len(calls)
        for name, calls in sizes.items()
        if len(set(calls)) == 1 and calls[0] is not None and getattr(modules[name], "running_mean", None) is not None
    }


def check_batch(network: Network, images: int) -> None:
    """Raises UserError if a training step with this many images gives a norm one value per channel, without a variance."""
    norms = nn.modules.batchnorm._NormBase
    trained = {name for name, part in _in_training(network.module) if isinstance(part, norms)}
    single: list[str] = []

    def note(name: str, batch: Tensor, _: Any) -> None:
        per_image = isinstance(network.module.get_submodule(name), nn.modules.instancenorm._InstanceNorm)
        if name in trained and isinstance(batch, Tensor) and batch[0, 0].numel() * (1 if per_image else images) == 1:
            single.append(name)

    if not trained:
        return
    with _hooks(network.module, (norms,), note):
        _probe(network)
    if single:
        kind = type(network.module.get_submodule(single[0])).__name__
        advice = "give `batch=2` or more" if "Batch" in kind else "remove that norm, or use larger images"
        raise UserError(
            f"batch: got {images}, which gives {kind} {single[0]!r} of {network.name} one value per channel in training, "
            f"expected several; {advice}"
        )


def _in_training(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts that `train()` puts into training mode; a network may exclude some of its norms."""
    with modes_kept(module):
        module.train()
        return [(name, part) for name, part in module.named_modules() if part.training]


def check(network: Network, taps: Iterable[str]) -> tuple[str, ...]:
    """The taps as a tuple. Raises UserError for a tap that is no layer, or a layer that does not run exactly once."""
    allowed = (INPUT, *_layers(network), *batch_norms(network))
    for tap in taps:
        if tap not in allowed:
            raise unknown("layer", tap, allowed, network.name)
    return tuple(taps)


def shapes(network: Network, taps: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The shape of one image's activation at each tap."""
    with watch(network, taps) as activations:
        _probe(network)
        activations[INPUT] = torch.empty(1, *network.spec.shape)
        return {tap: tuple(activations[tap].shape[1:]) for tap in taps}


@contextmanager
def watch(
    network: Network,
    taps: Iterable[str],
    edits: Mapping[str, Edit] | None = None,
    reductions: Mapping[str, Reduction] | None = None,
) -> Iterator[Activations]:
    """A dict that each forward pass fills: tap -> activation (N, ...), the pre-activation of conv and linear layers.

    A batch-norm tap has the layer's input; if an image passes it several times, the inputs of all calls, (calls x N, ...).
    `features` is the last layer's input; reading it raises UserError if no image passes a layer. `edits` change a
    tap's output for the layers that follow (dropout masks), and the dict holds the edited output. `input` is set by
    the caller. All hooks are removed when the block ends.

    `reductions` are functions of a tap's activation, called as soon as it is there. Their results, one for each call of the
    layer, are in `reduced`, and the activation is not kept: then the backward pass frees it after its layer.

    Values are as they were at that moment: the first pass copies all of them, later passes only those that an in-place
    operation overwrote before. What a checkpoint computes again in the backward pass is not recorded.
    """
    parts = dict(network.module.named_modules())
    activations = Activations(network, reductions or {})
    taps, handles = tuple(taps), []
    watched = [parts.get(tap) for tap in taps if tap != INPUT]
    if watched and any(isinstance(part, torch.jit.ScriptModule) for part in (network.module, *watched)):
        raise UserError(f"{no_layer(network)}; give the Python code that it was made from")
    if not watched:
        yield activations
        return
    try:
        handles.append(network.module.register_forward_pre_hook(lambda *_: activations.begin(), prepend=True))
        for tap in taps:
            if tap == INPUT:
                continue
            if tap == FEATURES:  # the last layer overwrites the ones before it
                layer_parts = [part for part in parts.values() if isinstance(part, LAYERS)]
                handles.extend(
                    part.register_forward_pre_hook(_record_input(activations, tap), with_kwargs=True)
                    for part in layer_parts
                )
                continue
            if tap not in parts:
                raise unknown("layer", tap, _layers(network), network.name)
            if isinstance(parts[tap], nn.modules.batchnorm._BatchNorm):
                handles.append(parts[tap].register_forward_pre_hook(_record_input(activations, tap), with_kwargs=True))
            else:
                handles.append(
                    parts[tap].register_forward_hook(_record_output(activations, tap, (edits or {}).get(tap)))
                )
        handles.append(
            network.module.register_forward_hook(
                lambda _, __, output: activations.end(failed=output is None), always_call=True
            )
        )
        yield activations
    finally:
        for handle in handles:
            handle.remove()


class Activations(dict[str, Tensor]):
    """Activations by tap, and the taps that a later operation of the same pass overwrites."""

    def __init__(self, network: Network, reductions: Mapping[str, Reduction]):
        super().__init__()
        self.network = network
        self.reductions = reductions
        self.reduced: dict[str, list[Any]] = {}
        """Tap -> what its reduction returned, once per call of the layer."""
        self.first = True
        self.depth = 0
        """Number of calls of the network that have not returned: a module may call itself, on mirrored images say."""
        self.overwritten: set[str] = set()
        self.marks: dict[str, list[tuple[Tensor, int | None, Tensor]]] = {}
        """Tap -> for each call: the network's tensor, its version when recorded, and the recorded value."""

    def __missing__(self, tap: str) -> Tensor:
        if tap == FEATURES:
            raise UserError(
                f"{no_layer(self.network)}, so it has no features to match; remove the loss that matches them"
            )
        if tap != INPUT and tap in dict(self.network.module.named_modules()):
            raise UserError(f"no image passes layer {tap!r} of {self.network.name}; name another layer")
        raise KeyError(tap)

    def begin(self) -> None:
        """Starts a pass: forgets the previous activations, except the images, which the caller sets."""
        self.depth += 1
        if self.depth > 1:
            return
        for tap in [tap for tap in self if tap != INPUT]:
            del self[tap]
        self.reduced.clear()
        self.marks.clear()

    def note(self, tap: str, live: Tensor, *, repeated: bool) -> None:
        """Records the current value of `live`. `repeated` calls are concatenated; otherwise the last call counts."""
        if not isinstance(live, Tensor):
            raise UserError(
                f"layer {tap!r} of {self.network.name} returns a {type(live).__name__}, expected a tensor; name another"
            )
        version = None if live.is_inference() else live._version
        value = live.clone() if self.first or version is None or tap in self.overwritten else live
        if not self.depth:  # a checkpoint computes it again in the backward pass, and needs the same operations
            if tap in self.reductions:
                self.reductions[tap](value)
            return
        before = self.marks.get(tap, []) if repeated else []
        self.marks[tap] = [*before, (live, version, value)]
        if tap in self.reductions:
            self.reduced[tap] = [*(self.reduced.get(tap, []) if repeated else []), self.reductions[tap](value)]
            return
        self[tap] = value if not before else torch.cat([recorded for *_, recorded in self.marks[tap]])

    def end(self, *, failed: bool) -> None:
        """Ends a pass: taps that were overwritten in it are copied from now on."""
        self.depth -= 1
        if self.depth:
            return
        if failed:
            self.marks.clear()
            return
        for tap, marks in self.marks.items():
            for live, version, value in marks:
                if version is None or (live._version == version and (not self.first or _is_unchanged(live, value))):
                    continue
                if value is live:
                    raise UserError(
                        f"layer {tap!r} of {self.network.name} is overwritten in place in some passes and not in others, so "
                        "its activations cannot be watched; write that operation out of place"
                    )
                self.overwritten.add(tap)
        self.marks.clear()
        self.first = False


def _is_unchanged(live: Tensor, value: Tensor) -> bool:
    """Whether the recorded value is unchanged; a change through `x.data` does not change the version."""
    with torch.no_grad():
        return torch.equal(live, value)


def _record_input(activations: Activations, tap: str):
    """A hook that records a layer's input before the layer runs, since it may write into its input."""

    def hook(_: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        activations.note(tap, first_argument(inputs, keywords), repeated=tap != FEATURES)

    return hook


def _record_output(activations: Activations, tap: str, edit: Edit | None):
    def hook(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:  # noqa: ARG001
        edited = output if edit is None else edit(output)
        activations.note(tap, edited, repeated=False)
        return None if edit is None else edited

    return hook


def first_argument(inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """The first argument of a module's call, positional or by name."""
    return inputs[0] if inputs else next(iter(keywords.values()), None)


@contextmanager
def _hooks(
    module: nn.Module, kinds: tuple[type[nn.Module], ...], note: Callable[[str, Any, Any], None]
) -> Iterator[None]:
    """Calls `note(name, input, output)` after each call of a module of these kinds, inside the block."""
    handles = []

    def hook(name: str):
        return lambda _, inputs, keywords, output: note(name, first_argument(inputs, keywords), output)

    try:
        for name, part in module.named_modules():
            if isinstance(part, kinds) and not isinstance(part, torch.jit.ScriptModule):
                handles.append(part.register_forward_hook(hook(name), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _probe(network: Network) -> None:
    """A forward pass of one mid-grey image in eval mode."""
    middle = (network.spec.low + network.spec.high) / 2
    image = torch.full((1, *network.spec.shape), middle, device=network.device)
    with torch.no_grad(), frozen(network.module):
        try:
            network.logits(image)
        except (RuntimeError, ValueError, IndexError) as error:  # as `Network.check` does
            raise UserError(
                f"{network.name} does not take images of shape {network.spec.shape}: {str(error).splitlines()[0]}; "
                "give the shape that it was built for"
            ) from None
