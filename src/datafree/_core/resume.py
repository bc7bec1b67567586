"""The state file of a run that can go on: one way to write and to read it for every kind of run.

A state is read in two steps. `open_state` takes the header: typed, in range, of this very run (`identity`), and begun on as
many threads and processes. From it the run derives what each tensor must be (`slots`), and `load_state` reads no byte of a
file whose names, number formats or shapes are others. Random numbers are not stored: every stream is derived from the seed
and the epoch.
"""

from __future__ import annotations

import json
import platform
import warnings
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from .distributed import world
from .errors import Notice, UserError
from .files import check_room, read_header, read_tensors, write_tensors
from .settings import first_problem, modern
from .slots import Slots, expected, fault, moments_of

__all__ = [
    "Environment",
    "StateHeader",
    "check_room_for",
    "check_state",
    "load_optimizer",
    "load_state",
    "open_state",
    "optimizer_state",
    "processor",
    "save_state",
    "threads_of",
]

ADVICE = "a stopped run left it: remove it to begin anew, or name another --out"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Environment(_Strict):
    """What a run was begun on and with. The first two decide its bytes; the others may change their last bits."""

    threads: int = Field(ge=1, le=1 << 16)
    processes: int = Field(ge=1, le=1 << 16)
    processor: str = Field(max_length=400)
    torch: str = Field(max_length=100)

    @classmethod
    def here(cls) -> Environment:
        """Of the present process."""
        size = world().size
        return cls(threads=torch.get_num_threads(), processes=size, processor=processor(), torch=torch.__version__)


class StateHeader(_Strict):
    """What the header of every state holds."""

    identity: dict[str, Any]
    environment: Environment


class _AnyHeader(StateHeader):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


H = TypeVar("H", bound=StateHeader)


def processor() -> str:
    """The model of the processor, as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))[:400]
    except (OSError, StopIteration):
        return (platform.processor() or platform.machine())[:400]


def optimizer_state(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """Moments and counts of every parameter as `prefix/index/key`, copied to the CPU.

    A parameter that had no gradient yet has zeros, as an optimizer gives it at its first step.
    """
    state = optimizer.state_dict()["state"]
    found = {}
    for index, moments in enumerate(moments_of(optimizer)):
        for key, like in moments.items():
            value = state[index][key] if index in state else torch.zeros(like.shape, dtype=like.dtype)
            found[f"{prefix}/{index}/{key}"] = torch.as_tensor(value).detach().cpu().clone()
    return found


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str) -> None:
    """Puts back what `optimizer_state` returned; names of another prefix are left alone."""
    state = {
        index: {key: tensors[f"{prefix}/{index}/{key}"].clone() for key in moments}
        for index, moments in enumerate(moments_of(optimizer))
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def save_state(path: Path, kind: str, header: StateHeader, tensors: dict[str, Tensor]) -> None:
    """Writes the file, whole or not at all."""
    write_tensors(path, tensors, header.model_dump(mode="json"), kind=kind)


def check_room_for(path: Path, kind: str, header: StateHeader, layout: Slots) -> None:
    """Raises UserError where such a state could not be written, or not be read again; before any work is done."""
    table = {name: (slot.dtype, slot.shape) for name, slot in layout.items()}
    check_room(path, table, header.model_dump(mode="json"), kind=kind)


def open_state(path: Path, kind: str, model: type[H], identity: dict[str, Any], *, partly: bool = False) -> H:
    """The checked header. Raises UserError where it is damaged, of a run of other settings, data, threads or processes.

    Another processor or torch is a `Notice`: results may differ in their last bits.
    """
    _, content = _header(path, kind)
    wanted = json.loads(json.dumps(identity))  # tuples are lists in the file
    got = modern(content.get("identity"))
    if partly and isinstance(got, dict):
        got = {key: got.get(key) for key in wanted}
    if got != wanted:
        raise UserError(
            f"{path} is of a run with {_difference(got, wanted)}; name another --out, or repeat that run's command"
        )
    try:
        header = model.model_validate_json(json.dumps(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing" and where == "environment":
            raise UserError(
                f"{path} was written by an earlier version, which did not store its number of threads; {ADVICE}"
            ) from None
        raise UserError(f"{path} is no state of this version: {first_problem(error)}; {ADVICE}") from None
    _check_environment(path, header.environment)
    return header


def check_state(path: Path, kind: str, identity: dict[str, Any]) -> None:
    """`open_state` of what every kind has in common, and of the parts of the identity that are known before the work."""
    open_state(path, kind, _AnyHeader, identity, partly=True)


def load_state(path: Path, kind: str, header: StateHeader, layout: Slots) -> dict[str, Tensor]:
    """The tensors, which are as `layout` says. Raises UserError where any is missing, too much or otherwise."""
    table, _ = _header(path, kind)
    try:
        tensors, again = read_tensors(path, kind=kind, expect=expected(layout, table))
    except UserError as error:
        raise UserError(f"{str(error).rpartition(';')[0]}; {ADVICE}") from None
    if again != header.model_dump(mode="json"):
        raise UserError(f"{path} has changed while it was read; {ADVICE}")
    if reason := fault(layout, tensors):
        raise UserError(f"{path} is no state of this run: {reason}; {ADVICE}")
    return tensors


def threads_of(path: Path) -> int | None:
    """The threads that the run which left this state was begun on; None where there is none, or it does not say."""
    if not path.is_file():
        return None
    try:
        content = read_header(path, kind=None)[1]
        return Environment.model_validate(content.get("environment")).threads
    except (UserError, ValidationError):
        return None  # whoever reads the state says what is wrong with it


def _header(path: Path, kind: str) -> tuple[Any, dict[str, Any]]:
    try:
        return read_header(path, kind=kind)
    except UserError as error:
        raise UserError(f"{str(error).rpartition(';')[0]}; {ADVICE}") from None


READ = {"content", "sets", "record", "teacher", "original", "model", "inputs"}
"""What an identity has of files that were read."""


def _difference(got: Any, wanted: dict[str, Any]) -> str:
    """In words: whether other settings were given, or files have changed since."""
    old = got if isinstance(got, dict) else {}
    keys = {key for key in (*old, *wanted) if old.get(key) != wanted.get(key)}
    return "other data or input files" if keys <= READ else "other settings"


def _check_environment(path: Path, begun: Environment) -> None:
    here = Environment.here()
    if begun.processes != here.processes:
        raise UserError(
            f"{path} is of a run of {begun.processes} processes, this one has {here.processes}, which would end in other "
            f"numbers; go on with as many (torchrun --nproc-per-node {begun.processes})"
        )
    if begun.threads != here.threads:
        raise UserError(
            f"{path} is of a run on {begun.threads} threads, this one has {here.threads}, which would end in other numbers; "
            f"go on with --threads {begun.threads}, or name another --out"
        )
    changed = [
        f"{what} {old!r} then, {new!r} now"
        for what, old, new in (("processor", begun.processor, here.processor), ("torch", begun.torch, here.torch))
        if old != new
    ]
    if changed:
        warnings.warn(
            Notice(f"{path} was begun elsewhere ({'; '.join(changed)}): results may differ in their last bits"),
            stacklevel=4,
        )
