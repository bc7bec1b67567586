"""The optional packages behind quantization: checks their versions and silences them."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from .errors import UserError

if TYPE_CHECKING:
    import torch

__all__ = ["any_number", "first_line", "installed_version", "quiet", "require", "require_onnx"]

SUPPORTED = {
    "torchao": ((0, 18), (0, 19)),
    "onnx": ((1, 17), (2,)),
    "onnxscript": ((0, 5), (1,)),
    "onnxruntime": ((1, 20), (2,)),
}
"""Package -> the first supported version and the first unsupported one. torchao changes its API between minor versions."""
SUPPORTED_EXTRA = {"executorch": ((1, 5), (1, 6))}
"""The same for the extra `executorch`."""


SUPPORTED_ONNX = {
    "onnx2torch": ((1, 5, 15), (2,)),
    "torchvision": ((0, 21), (1,)),
    **{name: SUPPORTED[name] for name in ("onnx", "onnxruntime")},
}
"""The same for the extra `onnx`, for networks in ONNX files. onnx2torch imports torchvision."""


def require(*packages: str) -> None:
    """Raises UserError for a package that is missing or has an unsupported version, with the command that installs it."""
    for name in packages or SUPPORTED:
        limits = {**SUPPORTED, **SUPPORTED_EXTRA}[name]
        _require(name, limits, "quantization", "executorch" if name in SUPPORTED_EXTRA else "quantize")


def require_onnx() -> None:
    """`require` for the packages that turn an ONNX file into a torch module."""
    for name, limits in SUPPORTED_ONNX.items():
        _require(name, limits, "a network in an ONNX file", "onnx")


def _require(name: str, limits: tuple[tuple[int, ...], tuple[int, ...]], subject: str, extra: str) -> None:
    low, high = limits
    pip = f'pip install "datafree[{extra}]"'
    expected = f">={'.'.join(map(str, low))},<{'.'.join(map(str, high))}"
    try:
        installed = version(name)
    except PackageNotFoundError:
        raise UserError(f"{subject} needs {name}{expected}, got none; install it: {pip}") from None
    if not low <= _numbers(installed) < high:
        raise UserError(f"{subject} needs {name}{expected}, got {installed}; install it: {pip}")


def installed_version(name: str) -> str | None:
    """The version of a package, which is not imported; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split("+")[0].split(".")[:3]
    return tuple(int(digits) for part in parts if (digits := "".join(c for c in part if c.isdigit())))


def any_number() -> tuple[dict[int, torch.export.Dim]]:
    """`dynamic_shapes` for torch.export: images (N, C, H, W) with any N."""
    import torch

    return ({0: torch.export.Dim("batch", min=1, max=1 << 20)},)


def first_line(error: BaseException) -> str:
    """The first line of the message that is not empty, without colours, and what follows its colon; the error's type if
    there is none.
    """
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line).strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])[:300]


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what packages log and warn of while they are imported and used, such as kernels that this machine lacks."""
    disabled_before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled_before)
