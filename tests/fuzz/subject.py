"""What one kind of file is to the fuzzer; and the tiny network and data that samples are made of."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # once, not in every child

from datafree.data.dataset import in_memory
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.releases.load import new_model

__all__ = ["SPEC", "Stopped", "Subject", "left", "meaning", "teacher", "toy"]

SPEC = InputSpec(shape=(1, 4, 4), classes=tuple("abc"))

Mutation = Callable[[Path, str, random.Random], tuple[str, bool]]
"""Changes a file, by its name, in a folder; returns what was done, and whether the checksums fit what there is now."""


@dataclass(frozen=True)
class Subject:
    """One kind of file."""

    make: Callable[[Path], Any]
    """Writes a sample into an empty folder."""
    files: tuple[str, ...]
    """Which of its files are changed."""
    open: Callable[[Path], Any]
    """Reads the folder as a command does; what it returns is the meaning."""
    sealed: bool = True
    """Whether a change must be refused or be without effect."""
    refused: bool = False
    """Whether the sample itself is refused: a program, say."""
    mutate: Mutation | None = None
    """Changes the structure of this kind, beside what is done to every file."""
    prepare: Callable[[], Any] | None = None
    """What every opening needs and takes long (imports, a network): called once, before the processes that open."""
    seconds: float = 20.0
    """For one file."""
    slow: bool = False
    """Whether an opening takes a second: it has its turn in every fifth round of the kinds."""


class Stopped(BaseException):
    """As Ctrl-C."""


def left(run: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Makes the state that a run leaves which is stopped."""

    def make(folder: Path) -> None:
        with suppress(Stopped):
            run(folder)

    return make


@cache
def teacher() -> Network:
    return new_model("hinton8", SPEC, seed=0)


@cache
def toy(count: int = 30) -> Any:
    rng = np.random.default_rng(0)
    return in_memory(
        "toy", "train", "abc", np.arange(count) % 3, rng.integers(0, 256, (count, 1, 4, 4)).astype(np.uint8)
    )


def meaning(value: Any) -> str:
    """A digest of tensors, arrays, settings and plain values."""
    digest = hashlib.sha256()

    def add(own: Any) -> None:
        if isinstance(own, torch.Tensor):
            own = own.detach().cpu().contiguous()
            digest.update(f"{own.dtype}{tuple(own.shape)}".encode() + own.flatten().view(torch.uint8).numpy().tobytes())
        elif isinstance(own, np.ndarray):
            digest.update(f"{own.dtype}{own.shape}".encode() + own.tobytes())
        elif isinstance(own, dict):
            for key in sorted(own, key=str):
                add(key)
                add(own[key])
        elif isinstance(own, (list, tuple)):
            for part in own:
                add(part)
        else:
            digest.update(repr(own).encode())

    add(value)
    return digest.hexdigest()
