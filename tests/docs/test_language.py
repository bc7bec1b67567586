"""The phrases of banned.txt are absent from pages, help texts and messages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "datafree"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SHOWN = {"UserError", "Notice", "print", "_note", "_say", "write"}
"""Functions and classes whose text a user sees."""


@cache
def banned() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """(the line, its pattern) for every line of banned.txt."""
    patterns = []
    for line in (Path(__file__).with_name("banned.txt")).read_text(encoding="utf-8").splitlines():
        phrase = line.partition("=>")[0].strip()
        if phrase and not phrase.startswith("#"):
            text = phrase[3:] if phrase.startswith("re:") else rf"\b{re.escape(phrase)}\b"
            patterns.append((line, re.compile(text, re.I)))
    return tuple(patterns)


def problems(text: str) -> list[str]:
    """Each banned phrase in the text, with the words around it and the line of banned.txt."""
    text = " ".join(text.split())
    return [
        f"...{text[max(0, hit.start() - 30) : hit.end() + 30]}...  [{line}]"
        for line, pattern in banned()
        for hit in pattern.finditer(text)
    ]


def prose(page: Path) -> str:
    """A page without code and without tables that scripts write: those are names, not language."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"<!-- (\w+):begin -->.*?<!-- \1:end -->", "", text, flags=re.S)
    text = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.S | re.M)
    return re.sub(r"`[^`\n]+`", "", text)


def messages(tree: ast.AST) -> Iterator[str]:
    """The constant parts of every string in a call of `SHOWN`, joined."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in SHOWN:
            parts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            yield " ".join(part for part in parts if isinstance(part, str))


def help_texts(tree: ast.AST, *, commands: bool) -> Iterator[str]:
    """The docstrings of settings' fields, `summary` and other class constants; of functions too where they are commands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for before, after in zip(node.body, node.body[1:]):
                if (
                    isinstance(before, ast.AnnAssign)
                    and isinstance(after, ast.Expr)
                    and isinstance(after.value, ast.Constant)
                ):
                    yield str(after.value.value)
            for statement in node.body:
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.value, ast.Constant):
                    yield str(statement.value.value)
        if commands and isinstance(node, ast.FunctionDef):
            yield ast.get_docstring(node) or ""


def test_the_list_has_phrases_and_a_replacement_for_each():
    assert len(banned()) > 30
    assert all("=>" in line and line.partition("=>")[2].strip() for line, _ in banned())


@pytest.mark.parametrize(
    "text", ["They are begun anew.", "5 images a class", "got 3, wanted 4", "The few are augmented."]
)
def test_a_banned_phrase_is_noticed(text):
    assert problems(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_has_no_banned_phrase(page):
    assert problems(prose(page)) == []


def found_in_code() -> dict[str, list[str]]:
    """File of src/datafree -> what its messages and help texts contain of the list."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = str(path.relative_to(SOURCE))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = [*messages(tree), *help_texts(tree, commands=name.startswith("cli/"))]
        if hits := [hit for text in texts for hit in problems(text)]:
            found[name] = hits
    return found


def test_messages_and_help_have_no_banned_phrase():
    assert found_in_code() == {}
