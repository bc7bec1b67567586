"""What the peers' code needs to run on a CPU with today's torch, replaced at run time. Their files are never edited.

Every function changes the process that calls it for good, so a run has a process of its own (child.py).
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import random
import runpy
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "import_from",
    "keep_seed",
    "library_hidden",
    "no_files",
    "on_cpu",
    "real_torchvision",
    "run_script",
    "stand_in",
]

FACTORIES = ("randn", "rand", "zeros", "ones", "empty", "full", "randint", "arange", "tensor")


class _Anything:
    """Stands for whatever a peer imports and a run never uses: calls and attributes return another one."""

    def __init__(self, *_: Any, **__: Any):
        pass

    def __call__(self, *_: Any, **__: Any) -> _Anything:
        return _Anything()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()


class _StandIn(types.ModuleType):
    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, names: tuple[str, ...]):
        self.names = names

    def find_spec(self, fullname: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if not any(fullname == name or fullname.startswith(f"{name}.") for name in self.names):
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def stand_in(*names: str) -> None:
    """Imports of these modules, and of all below them, return an empty stand-in, installed or not."""
    sys.meta_path.insert(0, _Finder(names))


def on_cpu() -> None:
    """Ignores every request for a GPU, for worker processes, whose CPU time would not count, and for pinned memory."""
    nn.Module.cuda = Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign,assignment]
    for name in FACTORIES:
        setattr(torch, name, _on_cpu(getattr(torch, name)))

    class InProcess(torch.utils.data.DataLoader):
        def __init__(self, *args: Any, **options: Any):
            super().__init__(*args, **{**options, "num_workers": 0, "pin_memory": False})

        def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
            return super().__iter__()

    torch.utils.data.DataLoader = InProcess  # type: ignore[misc]


def _on_cpu(factory: Any) -> Any:
    def create(*args: Any, **options: Any) -> Any:
        if "cuda" in str(options.get("device", "")):
            options["device"] = "cpu"
        return factory(*args, **options)

    return create


def keep_seed(seed: int) -> None:
    """Seeds all random numbers, and ignores the seeds that the peer sets itself."""
    for set_seed in (torch.manual_seed, np.random.seed, random.seed):
        set_seed(seed)
    torch.manual_seed = lambda *_: torch.default_generator  # type: ignore[assignment]
    np.random.seed = random.seed = lambda *_: None  # type: ignore[assignment]


def no_files(loaded: Any) -> None:
    """`torch.load` returns `loaded` whatever the file, and `torch.save` writes nothing."""
    torch.load = lambda *_, **__: loaded  # type: ignore[assignment]
    torch.save = lambda *_, **__: None  # type: ignore[assignment]


def import_from(folder: Path) -> None:
    """Makes the modules in `folder` the first that an import looks for."""
    sys.path.insert(0, str(folder))


def run_script(path: Path, options: dict[str, Any]) -> None:
    """Runs the peer's script as `python PATH --key value ...` would."""
    sys.argv = [str(path), *(word for key, value in options.items() for word in (f"--{key}", str(value)))]
    runpy.run_path(str(path), run_name="__main__")


def real_torchvision() -> None:
    """Imports torchvision next to a torch without CUDA: its wheel declares two operators that such a torch lacks."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)
    importlib.import_module("torchvision")


_KEPT: list[Any] = []
"""A library's definitions end with the object."""


@contextmanager
def library_hidden() -> Iterator[None]:
    """Inside the block, `import datafree` finds a peer's package of that name. Afterwards it is ours again."""
    ours = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "datafree"}
    for name in ours:
        del sys.modules[name]
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "datafree"]:
            del sys.modules[name]
        sys.modules.update(ours)
