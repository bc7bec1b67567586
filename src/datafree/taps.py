"""Taps: where a network is watched. A tap is torch's dotted module name, or `input` for the pixels themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .errors import UserError, unknown
from .network import Network, frozen

__all__ = ["FEATURES", "INPUT", "batch_norm_calls", "batch_norms", "layers", "order", "shapes", "watch"]

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
            f"{network.name} has no conv or linear layer that an image passes exactly once, wanted one at least; "
            "give a network of such layers"
        )
    return found


def _layers(network: Network) -> tuple[str, ...]:
    order: list[str] = []
    with _hooks(network.module, (nn.Linear, nn.modules.conv._ConvNd), lambda name, _: order.append(name)):
        _probe(network)
    return tuple(name for name in order if order.count(name) == 1)


def order(network: Network) -> tuple[str, ...]:
    """Every module with weights or buffers of its own, in the order in which an image passes them, some several times."""
    found: list[str] = []

    def note(name: str, _: tuple[Tensor, ...]) -> None:
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

    def note(name: str, inputs: tuple[Tensor, ...]) -> None:
        sizes.setdefault(name, []).append(inputs[0].shape)

    with _hooks(network.module, (nn.modules.batchnorm._BatchNorm,), note):
        _probe(network)
    found = dict(network.module.named_modules())
    return {
        name: len(own)
        for name, own in sizes.items()
        if len(set(own)) == 1 and getattr(found[name], "running_mean", None) is not None
    }


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
    """
    found = dict(network.module.named_modules())
    seen = _Seen(network.name)
    handles = []

    def forget(*_: object) -> None:
        for tap in [own for own in seen if isinstance(found.get(own), nn.modules.batchnorm._BatchNorm)]:
            del seen[tap]

    try:
        handles.append(network.module.register_forward_pre_hook(forget))
        for tap in taps:
            if tap == INPUT:
                continue
            if tap == FEATURES:
                kinds = (nn.Linear, nn.modules.conv._ConvNd)  # whichever comes last overwrites those before it
                own = [part for part in found.values() if isinstance(part, kinds)]
                handles.extend(part.register_forward_pre_hook(_keep_given(seen)) for part in own)
                continue
            if tap not in found:
                raise unknown("layer", tap, _layers(network), network.name)
            edit = (edits or {}).get(tap)
            handles.append(found[tap].register_forward_hook(_keep(seen, tap, edit)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


class _Seen(dict[str, Tensor]):
    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def __missing__(self, tap: str) -> Tensor:
        if tap != FEATURES:
            raise KeyError(tap)
        raise UserError(
            f"{self.name} has no conv or linear layer, so no features to match; leave out what matches them"
        )


def _keep(seen: dict[str, Tensor], tap: str, edit: Edit | None):
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            seen[tap] = torch.cat([seen[tap], inputs[0]]) if tap in seen else inputs[0]
            return None
        seen[tap] = output if edit is None else edit(output)
        return None if edit is None else seen[tap]

    return hook


def _keep_given(seen: dict[str, Tensor]):
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:  # noqa: ARG001
        seen[FEATURES] = inputs[0]

    return hook


@contextmanager
def _hooks(
    module: nn.Module, kinds: tuple[type[nn.Module], ...], note: Callable[[str, tuple[Tensor, ...]], None]
) -> Iterator[None]:
    handles = []
    try:
        for name, part in module.named_modules():
            if isinstance(part, kinds):
                handles.append(part.register_forward_hook(lambda _, inputs, __, name=name: note(name, inputs)))
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
