"""Naming a model: a zoo name, `file.py:function` or `package.module:function` of the user's own, or a release folder."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import zoo
from .errors import UserError, nearest, unknown
from .files import read_weights
from .network import Network
from .release import Release, is_release
from .seeds import seed_of
from .spec import InputSpec

__all__ = ["load_model", "load_weights", "new_model"]


def load_model(
    name: str, *, code: str | None = None, weights: str | Path | None = None, spec: InputSpec | None = None
) -> Network:
    """A trained network. Import paths come from `name` or `code`, which the user typed, never from inside a file.

    A release folder brings spec and weights; `code` names the function that builds it where it is not of the zoo. Any
    other name needs `spec` and `weights`. Raises UserError in one line.
    """
    if is_release(name):
        release = Release.open(name)
        network = new_model(code or release.architecture(), release.spec, seed=0)
        load_weights(network, weights or release.weights)
    else:
        if weights is None:
            raise UserError(
                f"model {name!r} has no weights; give a release folder, or --weights FILE.safetensors beside the model"
            )
        if spec is None:
            raise UserError(f"model {name!r} has no input spec; give --shape and --classes, or a release folder")
        network = new_model(name, spec, seed=0)
        load_weights(network, weights)
    network.module.eval()
    network.check()
    return network


def new_model(name: str, spec: InputSpec, *, seed: int) -> Network:
    """A fresh network for `spec`, the same weights for the same seed."""
    if is_release(name):
        raise UserError(
            f"{name} is a trained release, wanted a fresh network; name an architecture of the zoo or your own"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "weights", name))
        module = _function(name)(spec) if ":" in name else zoo.build(name, spec)
    if not isinstance(module, nn.Module):
        raise UserError(f"{name!r} returned {type(module).__name__}, wanted a torch.nn.Module; return the network")
    network = Network(module, spec, name)
    network.check()
    return network


def load_weights(network: Network, path: str | Path) -> None:
    """Loads a safetensors file into the network; names, dtypes and shapes must be its own."""
    own = network.module.state_dict()
    found = read_weights(path)
    counters = {name for name in own if name.endswith("num_batches_tracked")}  # absent in older files; not used in eval
    for name in sorted(own.keys() - found.keys() - counters):
        raise UserError(f"{path} has no weight {name!r} of {network.name}; nearest: {nearest(name, found)}")
    for name in sorted(found.keys() - own.keys()):
        raise unknown("weight", name, own, network.name)
    for name, tensor in found.items():
        if tensor.shape != own[name].shape:
            raise UserError(
                f"weight {name!r} in {path} is {tuple(tensor.shape)}, wanted {tuple(own[name].shape)} for {network.name}; "
                "use the weights of this architecture and input size"
            )
        if tensor.dtype != own[name].dtype:
            raise UserError(
                f"weight {name!r} in {path} is {tensor.dtype}, wanted {own[name].dtype}; use weights in that number format"
            )
    network.module.load_state_dict({**own, **found})


def _function(name: str) -> Callable[..., Any]:
    """The user's own function, called with the InputSpec if it takes an argument."""
    place, _, attribute = name.rpartition(":")
    module = _module(place)
    function = getattr(module, attribute, None)
    if not callable(function):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise unknown("function", attribute, names, place)
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    takes = inspect.Parameter.POSITIONAL_ONLY in kinds or inspect.Parameter.POSITIONAL_OR_KEYWORD in kinds
    return function if takes else lambda _: function()


def _module(place: str) -> Any:
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise UserError(f"no file {place}, wanted the Python file that builds the model; check the path")
        made = importlib.util.spec_from_file_location(f"datafree_code_{path.stem}", path)
        assert made is not None
        assert made.loader is not None
        module = importlib.util.module_from_spec(made)
        sys.modules[made.name] = module  # dataclasses look their module up there
        made.loader.exec_module(module)
        return module
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        raise UserError(
            f"no module {error.name!r} for model {place!r}; install it, or name a file as path/file.py:name"
        ) from None
