"""Messages of the library name parameters; only the command line, which translates them, knows flags."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from datafree.cli import VERBS
from datafree.cli.flags import translated

SOURCE = Path(__file__).resolve().parents[2] / "src" / "datafree"
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
COMMAND = re.compile(rf"\b(?:datafree (?:{'|'.join(map(re.escape, VERBS))})\b|torchrun ).*", re.S)
PARAMETER = re.compile(r"`([a-z]\w*)(?:=[^`]*)?`")
RAISED = {"UserError", "Notice", "check_cost"}
ALLOWED = {
    ("models/network.py", "--local-dir"): "hf",
    ("evaluation/report/networks.py", "--code"): "the end of a command that a page shows",
    ("releases/release.py", "--code"): "the end of commands in a card",
    ("releases/release.py", "--trust"): "the end of commands in a card",
    ("runs/difference.py", "--weights"): "a file that only commands take; the bits of weights have that name too",
    ("runs/run_log.py", "--error-unmatch"): "git",
    ("runs/run_log.py", "--short"): "git",
    ("runs/run_log.py", "--show-toplevel"): "git",
}
"""(file, flag) -> why it may be in a string outside a command."""


def texts(tree: ast.AST) -> Iterator[str]:
    """Every string but docstrings; an f-string is one text, with {} for its values."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    excluded = docstrings | inside
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in excluded:
            yield node.value


def loose_flags(text: str) -> list[str]:
    """The flags in a text that are not part of a command."""
    return FLAG.findall(COMMAND.sub("", text))


def library() -> Iterator[tuple[str, ast.Module]]:
    """(file, its syntax tree) of every module but the command line's."""
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if not name.startswith("cli/"):
            yield name, ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("lower --batch", ["--batch"]),
        ("lower `batch`", []),
        ("its publisher can add it: datafree record {} TEACHER --add", []),
        ("write it with --out; datafree records are read", ["--out"]),
        ("rows a--b", []),
    ],
)
def test_a_flag_outside_a_command_is_noticed(text, flags):
    assert loose_flags(text) == flags


def test_no_string_of_the_library_names_a_flag_outside_a_command():
    found = [(name, flag) for name, tree in library() for text in texts(tree) for flag in loose_flags(text)]
    unexpected = [(name, flag) for name, flag in found if (name, flag) not in ALLOWED]
    assert unexpected == []
    assert ALLOWED.keys() - set(found) == set(), "no longer there: take it out of ALLOWED"


def test_a_parameter_that_a_message_names_exists():
    names, parameters = set(), set()
    for _, tree in library():
        for node in ast.walk(tree):
            if isinstance(node, ast.arg):
                parameters.add(node.arg)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                parameters.add(node.target.id)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in RAISED:
                names |= {name for text in texts(node) for name in PARAMETER.findall(text)}
    assert len(names) > 10
    assert names - parameters == set()


def test_the_command_line_shows_flags_with_values_where_a_message_names_parameters():
    flags = {"conv": "--conv", "pooled": "--pooled", "rate": "--learning-rate", "zca": "--zca"}
    assert translated("give `conv='channels'`, or `pooled=True`", flags) == "give --conv channels, or --pooled"
    assert translated("the loss is not finite; lower `rate`", flags) == "the loss is not finite; lower --learning-rate"
    assert translated("zca: got True for x.pt", flags) == "--zca: got True for x.pt"
    assert translated("give `module`", flags) == "give `module`"
