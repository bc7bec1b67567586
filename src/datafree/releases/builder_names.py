"""Suggests `FILE.py:FUNCTION` for a model that was named by its Python file alone. The file is read, never run."""

from __future__ import annotations

import ast
import os
from pathlib import Path

from .._core.errors import UserError
from .._core.folder_kinds import is_onnx, is_zoo

__all__ = ["builders", "check_name", "pack_command"]

MOST = 4
BYTES_AT_MOST = 1 << 20
TORCH_SUFFIXES = (".pt", ".pth", ".torchscript")


def check_name(name: str) -> None:
    """Raises UserError for a model's name that is a Python file without a function, and for a TorchScript or ONNX
    file, which holds trained weights.
    """
    path = Path(name)
    if is_onnx(name):
        raise UserError(
            f"{name} is a trained network, expected an architecture for new weights; name one of the zoo or "
            "file.py:function"
        )
    if ":" in name or is_zoo(name) or not (path.suffix or os.path.isfile(f"{name}.py")):
        return
    if path.suffix == ".py" and not os.path.isfile(path):
        raise UserError(
            f"no file {name}, expected the Python file that builds the model, as {name}:FUNCTION; check the path"
        )
    if path.suffix in (*TORCH_SUFFIXES, ".safetensors") and os.path.isfile(path):
        raise UserError(
            f"{name} is a file of weights or a program, expected the Python code that builds the network; "
            f"{pack_command('file.py:function', name)}"
        )
    source = path if path.suffix == ".py" else path.with_suffix(".py")
    if not os.path.isfile(source):
        return
    if (broken := _broken(source)) is not None:
        raise UserError(f"{source} is not readable Python: {broken}; fix it, and give {source}:FUNCTION")
    names = builders(source)
    choices = " or ".join(f"{source}:{name_in_file}" for name_in_file in names[:MOST])
    if not names:
        raise UserError(
            f"{source} has no function or network class at its top level, expected one that builds the model; write "
            f"one, and give {source}:FUNCTION"
        )
    raise UserError(f"{name} names no function or class that builds the model; give {choices}")


def pack_command(model: str, weights: str | Path, output: str | int | None = None) -> str:
    """The command that makes a release of a custom network."""
    if output is None:
        return f"datafree pack {model} --weights {weights} --shape CHANNELS HEIGHT WIDTH --classes COUNT --out release"
    return (
        f"datafree pack {model} --weights {weights} --output {output} --shape CHANNELS HEIGHT WIDTH --classes COUNT --out "
        "release"
    )


def _broken(source: Path) -> str | None:
    """Why a file cannot be parsed, with the line; None if it can be parsed."""
    try:
        with source.open("rb") as file:
            ast.parse(file.read(BYTES_AT_MOST))
    except SyntaxError as error:
        return f"{error.msg} (line {error.lineno})"
    except (ValueError, OSError, MemoryError, RecursionError) as error:
        return str(error) or type(error).__name__
    return None


def builders(source: Path) -> list[str]:
    """Names of a file's top-level functions and network classes: those with a builder's name first, then in file order.

    Empty for a file that is not Python.
    """
    if not os.path.isfile(source):  # opening a pipe would block
        return []
    try:
        with source.open("rb") as file:
            body = ast.parse(file.read(BYTES_AT_MOST)).body
    except (SyntaxError, ValueError, OSError, MemoryError, RecursionError):
        return []
    kinds = (ast.FunctionDef, ast.ClassDef)
    names = [
        statement.name
        for statement in body
        if isinstance(statement, kinds) and (isinstance(statement, ast.FunctionDef) or _is_network(statement))
    ]
    names = [name for name in names if not name.startswith("_")]
    likely = [
        name for name in names if any(word in name.lower() for word in ("build", "net", "model", "make", "create"))
    ]
    return likely + [name for name in names if name not in likely]


def _is_network(statement: ast.ClassDef) -> bool:
    """Whether its bases have the names of torch's modules or of a network."""
    words = ("Module", "Sequential", "Net", "Model", "Classifier")
    return any(any(word in ast.unparse(base) for word in words) for base in statement.bases)
