"""State files of interrupted runs, written and read in the same way for every kind of run.

A state is read in two steps. `open_state` checks the header: types, ranges, that it belongs to this run (`identity`),
and that the numbers of threads and processes are the same. The run then derives what each tensor must be (`slots`),
and `load_state` reads no data of a file with other names, number formats or shapes. Random numbers are not stored:
every stream is derived from the seed and the epoch.
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
    "ADVICE",
    "Environment",
    "StateHeader",
    "check_room_for",
    "check_state",
    "has_identity",
    "load_optimizer",
    "load_state",
    "open_state",
    "optimizer_state",
    "processor",
    "save_state",
    "threads_of",
]

ADVICE = "a stopped run left it: remove it to start over, or name another `state`"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Environment(_Strict):
    """The environment in which a run started. The first two fields decide its results, the others their last bits."""

    threads: int = Field(ge=1, le=1 << 16)
    processes: int = Field(ge=1, le=1 << 16)
    processor: str = Field(max_length=400)
    torch: str = Field(max_length=100)

    @classmethod
    def here(cls) -> Environment:
        """The environment of this process."""
        size = world().size
        return cls(threads=torch.get_num_threads(), processes=size, processor=processor(), torch=torch.__version__)


class StateHeader(_Strict):
    """Fields of the header of every state."""

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
    """Moments and step counts of every parameter as `prefix/index/key`, copied to the CPU.

    They are zeros for a parameter that had no gradient yet, as in an optimizer's first step.
    """
    state = optimizer.state_dict()["state"]
    tensors = {}
    for index, moments in enumerate(moments_of(optimizer)):
        for key, like in moments.items():
            value = state[index][key] if index in state else torch.zeros(like.shape, dtype=like.dtype)
            tensors[f"{prefix}/{index}/{key}"] = torch.as_tensor(value).detach().cpu().clone()
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str) -> None:
    """Restores what `optimizer_state` returned, from the tensors with this prefix.

    Moments get the memory format of their parameters: with another one, torch's fused Adam takes wrong steps without an
    error.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        index: {key: _laid_out(tensors[f"{prefix}/{index}/{key}"], parameters[index]) for key in moments}
        for index, moments in enumerate(moments_of(optimizer))
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _laid_out(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A copy of an optimizer's tensor, in the memory format of the parameter if it has its shape."""
    if tensor.shape != parameter.shape:
        return tensor.clone()
    return torch.empty_like(parameter, dtype=tensor.dtype, device=tensor.device).copy_(tensor).detach()


def save_state(path: Path, kind: str, header: StateHeader, tensors: dict[str, Tensor]) -> None:
    """Writes the file atomically."""
    write_tensors(path, tensors, header.model_dump(mode="json"), kind=kind)


def check_room_for(path: Path, kind: str, header: StateHeader, layout: Slots) -> None:
    """Raises UserError if such a state could not be written or read back. Called before any work is done."""
    table = {name: (slot.dtype, slot.shape) for name, slot in layout.items()}
    check_room(path, table, header.model_dump(mode="json"), kind=kind)


def open_state(path: Path, kind: str, model: type[H], identity: dict[str, Any], *, partly: bool = False) -> H:
    """The checked header. Raises UserError if it is damaged or belongs to a run with other settings, data, threads or
    processes.

    Another processor or torch version causes a `Notice`: results may differ in their last bits.
    """
    _, content = _header(path, kind)
    expected = json.loads(json.dumps(identity))  # tuples become lists in the file
    stored_identity = modern(content.get("identity"))
    if partly and isinstance(stored_identity, dict):
        stored_identity = {key: stored_identity.get(key) for key in expected}
    if stored_identity != expected and not _differs_by_rounding(stored_identity, expected, content.get("environment")):
        raise UserError(
            f"{path} is of a run with {_difference(stored_identity, expected)}; name another `state`, or repeat that "
            "run's command"
        )
    try:
        header = model.model_validate_json(json.dumps(content))
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "missing" and place == "environment":
            raise UserError(
                f"{path} was written by an earlier version, which did not store its number of threads; {ADVICE}"
            ) from None
        raise UserError(f"{path} is no state of this version: {first_problem(error)}; {ADVICE}") from None
    _check_environment(path, header.environment)
    return header


def check_state(path: Path, kind: str, identity: dict[str, Any]) -> None:
    """Like `open_state`, for the fields that all kinds share and the parts of the identity known before the work."""
    open_state(path, kind, _AnyHeader, identity, partly=True)


def has_identity(path: Path, kind: str, identity: dict[str, Any]) -> bool:
    """Whether the state has exactly this identity. Raises UserError if it is damaged."""
    _, content = _header(path, kind)
    return content.get("identity") == json.loads(json.dumps(identity))


def load_state(path: Path, kind: str, header: StateHeader, layout: Slots) -> dict[str, Tensor]:
    """The tensors of `layout`. Raises UserError for a tensor that is missing, not in the layout, or different from it."""
    table, _ = _header(path, kind)
    try:
        tensors, stored_header = read_tensors(path, kind=kind, expect=expected(layout, table))
    except UserError as error:
        raise UserError(f"{str(error).rpartition(';')[0]}; {ADVICE}") from None
    if stored_header != header.model_dump(mode="json"):
        raise UserError(f"{path} has changed while it was read; {ADVICE}")
    if reason := fault(layout, tensors):
        raise UserError(f"{path} is no state of this run: {reason}; {ADVICE}")
    return tensors


def threads_of(path: Path) -> int | None:
    """The number of threads of the run that left this state; None if there is no state or it has no such number."""
    if not path.is_file():
        return None
    try:
        content = read_header(path, kind=None)[1]
        return Environment.model_validate(content.get("environment")).threads
    except (UserError, ValidationError):
        return None  # the error is reported when the state is read


def _header(path: Path, kind: str) -> tuple[Any, dict[str, Any]]:
    try:
        return read_header(path, kind=kind)
    except UserError as error:
        raise UserError(f"{str(error).rpartition(';')[0]}; {ADVICE}") from None


FROM_FILES = {"content", "sets", "record", "teacher", "original", "model", "inputs"}
"""Keys of an identity that come from files."""


COMPUTED = {"sha256_of_start"}
"""Keys of an identity for what the command computed before the run; another processor may round it differently."""


def _differs_by_rounding(stored_identity: Any, expected: dict[str, Any], environment: Any) -> bool:
    """Whether only computed numbers differ, and the state comes from another processor or torch version."""
    if not isinstance(stored_identity, dict) or not isinstance(environment, dict):
        return False
    current = Environment.here()
    is_elsewhere = (environment.get("processor"), environment.get("torch")) != (current.processor, current.torch)
    keys = {key for key in (*stored_identity, *expected) if stored_identity.get(key) != expected.get(key)}
    return is_elsewhere and keys <= COMPUTED


def _difference(stored_identity: Any, expected: dict[str, Any]) -> str:
    """The difference in words: other settings, or other files."""
    stored = stored_identity if isinstance(stored_identity, dict) else {}
    keys = {key for key in (*stored, *expected) if stored.get(key) != expected.get(key)}
    return "other data or input files" if keys <= FROM_FILES else "other settings"


def _check_environment(path: Path, stored: Environment) -> None:
    current = Environment.here()
    if stored.processes != current.processes:
        raise UserError(
            f"{path} is of a run of {stored.processes} processes, this one has {current.processes}, which would give other "
            f"numbers; start as many (torchrun --nproc-per-node {stored.processes})"
        )
    if stored.threads != current.threads:
        raise UserError(
            f"{path} is of a run on {stored.threads} threads, this one has {current.threads}, which would give other "
            f"numbers; use {stored.threads} threads, or name another `state`"
        )
    changed = [
        f"{part} {old!r} then, {new!r} now"
        for part, old, new in (
            ("processor", stored.processor, current.processor),
            ("torch", stored.torch, current.torch),
        )
        if old != new
    ]
    if changed:
        warnings.warn(
            Notice(f"{path} was started elsewhere ({'; '.join(changed)}): results may differ in their last bits"),
            stacklevel=4,
        )
