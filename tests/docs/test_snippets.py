"""The snippets of the pages run: Python ones are executed, page by page; of commands every word and flag exists."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import shlex
import sys
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from tests.forked import forked

import datafree as df
from datafree.cli import VERBS
from datafree.cli.main import run
from datafree.synthesis import methods

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def accepts(function: Callable[..., object], parameter: str) -> bool:
    return parameter in inspect.signature(function).parameters


NOT_YET = {
    "input_shape=": accepts(df.Network, "input_shape"),
    ", preset=": accepts(df.record, "preset"),
    "df.distill(teacher, record=": accepts(df.distill, "record"),
    "df.distill_online(": hasattr(df, "distill_online"),
    "df.sample(": hasattr(df, "sample"),
    "df.Settings": hasattr(df, "Settings"),
    "df.quantize(teacher, calibrate=": accepts(df.quantize, "fine_tune"),
    "datafree distill ": "list" in VERBS,
    "datafree synthesize ": "list" in VERBS,
    "datafree record moments ": "list" in VERBS,
    "datafree condense ": "list" in VERBS,
    "datafree expand ": "list" in VERBS,
    "datafree quantize ": "list" in VERBS,
    "datafree list ": "list" in VERBS,
}
"""What pages use that is being added -> whether it is there. A snippet is skipped only while one that it uses is missing."""


def skip_while_missing(text: str) -> None:
    missing = [call for call, there in NOT_YET.items() if call in text and not there]
    if missing:
        pytest.skip(f"not there yet: {', '.join(missing)}")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def files(page: Path) -> dict[str, str]:
    """{name: content} of the blocks that are complete files: they begin with a comment that is the file's name."""
    return {match[1]: text for text in blocks(page, "python") if (match := re.match(r"# (\w+\.py)\n", text))}


def commands() -> list[tuple[str, str]]:
    """(page, command line) for every command of a shell snippet: fenced on the pages, indented in the README."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = "\n".join([*blocks(page, "sh"), *re.findall(r"^ {4}(datafree (?:.*\\\n)*.*)", text, flags=re.M)])
        for line in lines.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["datafree"]:
                found.append((str(page.relative_to(ROOT)), shlex.join(words)))
    return found


PYTHON = [page for page in PAGES[1:] if blocks(page, "python")]  # the README's is test_readme.py's
COMMANDS = commands()


def test_there_are_snippets():
    assert {page.name for page in PYTHON} >= {
        "quick-start.md",
        "publisher.md",
        "deployer.md",
        "researcher.md",
        "write-your-own.md",
    }
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    code = "\n".join(blocks(page, "python"))
    skip_while_missing(code)
    if "quantize" in code:
        pytest.importorskip("torchao")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for file, text in files(page).items():
        Path(file).write_text(text, encoding="utf-8")
        imported = file.removesuffix(".py")
        monkeypatch.setitem(sys.modules, imported, types.ModuleType(imported))  # so that it is removed after the test
        del sys.modules[imported]
    torch.manual_seed(0)
    module = types.ModuleType(f"snippets_of_{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where dataclasses look up their annotations
    names = vars(module)
    exec(compile(code, page.name, "exec"), names)
    if "student" in names:  # a student of a page has learned something: 10 classes, so chance is 10 %
        assert df.evaluate(names["student"], df.load_data("digits", "test")).accuracy > 25


FILES = [(page, name) for page in PYTHON for name in files(page)]


IMPORTS = """
import os, sys
sys.path.insert(0, "")
for place in sys.argv[1:]:
    sys.stderr.flush()
    if os.fork() == 0:
        folder, name = os.path.split(place)
        os.chdir(folder)
        __import__(name)
        os._exit(0)
    if os.wait()[1]:
        print(place, flush=True)
"""
"""A process for each file, which has of datafree what every file imports."""


@pytest.fixture(scope="module")
def not_imported(tmp_path_factory) -> tuple[dict[str, list[str]], str]:
    """Page -> its files that cannot be imported, each by a process of its own beside the page's others; and why."""
    folder, places = tmp_path_factory.mktemp("pages"), []
    for page in PYTHON:
        (folder / page.stem).mkdir()
        for file, text in files(page).items():
            (folder / page.stem / file).write_text(text, encoding="utf-8")
            places.append(str(folder / page.stem / file.removesuffix(".py")))
    ended, out, err = forked(IMPORTS, places)
    assert ended == 0, err
    wrong = list(map(Path, out.splitlines()))
    return {page.stem: [place.name for place in wrong if place.parent.name == page.stem] for page in PYTHON}, err


@pytest.mark.parametrize("page", [page for page in PYTHON if files(page)], ids=lambda page: page.stem)
def test_a_block_with_a_file_name_is_a_complete_file(page, not_imported):
    wrong, error = not_imported
    assert wrong[page.stem] == [], error


def test_the_page_has_a_file_for_every_file_that_its_commands_name():
    page = ROOT / "docs" / "write-your-own.md"
    named = set(re.findall(r"\b(\w+\.py):[A-Z]", page.read_text(encoding="utf-8"))) - {"file.py"}
    assert named == {"contrast.py", "blobs.py", "half.py"}
    assert named <= files(page).keys()


@cache
def help_of(words: tuple[str, ...]) -> tuple[int, str]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = run([*words, "--help"])
    return code, printed.getvalue()


def command_words(words: list[str]) -> tuple[str, ...]:
    """The command and the method words behind it: (distill, fresh, distribution)."""
    groups = {"fresh", "online", "moments", "dm", "mmd", *methods.methods()}
    count = 1
    while count < len(words) and words[count] in groups:
        count += 1
    return tuple(words[:count])


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}: {line[9:60]}" for page, line in COMMANDS])
def test_a_command_of_a_page_exists_with_its_flags(page, line, monkeypatch):
    skip_while_missing(line + " ")
    monkeypatch.setenv("COLUMNS", "300")
    words = shlex.split(line)[1:]
    assert words[0] in VERBS, page
    code, text = help_of(command_words(words))
    assert code == 0, text
    for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert re.search(rf"{re.escape(flag)}(?![\w-])", text), (
            f"{page}: {flag} is not in the help of {command_words(words)}"
        )
