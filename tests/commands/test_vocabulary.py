"""A flag has one name, one type and one meaning in all commands; docs/cli.md lists them all."""

from __future__ import annotations

import inspect
import re
import typing
from collections import defaultdict
from pathlib import Path

import pytest

from datafree.cli import APPS, VERBS, app
from datafree.cli.settings_source import plain_type

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"
ALL = {int: "whole number", float: "number", bool: "switch", str: "text", Path: "path"}
FORMER = (
    "--unit", "--caution", "--steer", "--sharpness", "--replayed", "--checkpoint", "--online", "--method", "--activations",
    "--rate", "--generator-rate", "--student-rate", "--vae-rate",
)  # fmt: skip


def commands():
    """(words, application) of every command."""
    root = app()
    for verb in VERBS:
        yield (verb,), root[verb]
        if verb in APPS:
            yield from below((verb,), root[verb])


def below(words, parent):
    for name in parent:
        if not name.startswith("-") and ":" not in name:  # file.py:Class is a method that a test before has used
            yield (*words, name), parent[name]
            yield from below((*words, name), parent[name])


def options():
    """(words, flag, type, help) of every option of every command."""
    for words, command in commands():
        for argument in command.assemble_argument_collection(parse_docstring=True):
            for flag in argument.names:
                if flag.startswith("--") and argument.parameter.show is not False and argument.show:
                    yield words, flag, argument, argument.parameter.help or ""


def kind_of(argument) -> str:
    hint = plain_type(argument.hint)
    if typing.get_origin(hint) is tuple:
        hint = typing.get_args(hint)[0]  # a flag that is repeated, or takes several values
    if typing.get_origin(hint) is typing.Literal:
        return "text"
    return ALL[hint]


def test_every_command_is_walked():
    words = [" ".join(words) for words, _ in commands()]
    assert {"synthesize bns", "expand mmd", "condense dm", "record moments", "distill online", "distill fresh bns"} <= {
        *words
    }
    assert len(words) == len(set(words)) > 50


def test_a_flag_has_one_type_everywhere():
    kinds = defaultdict(set)
    for _, flag, argument, _ in options():
        kinds[flag].add(kind_of(argument))
    assert {flag: types for flag, types in kinds.items() if len(types) > 1} == {}
    assert len(kinds) > 120


def test_no_former_name_is_a_flag():
    flags = {flag for _, flag, _, _ in options()}
    assert flags & set(FORMER) == set()


def test_every_option_has_a_help_text():
    bare = {(words, flag) for words, flag, _, text in options() if not text.strip() and not flag.startswith("--no-")}
    assert bare == set()


def rows() -> dict[str, tuple[str, str]]:
    """Flag -> (type, meaning), as docs/cli.md has them."""
    table = {}
    for line in DOCS.read_text().splitlines():
        match = re.match(r"\| `(--[a-z-]+)` \| ([a-z ]+) \| (.+?) \| .+ \|$", line)
        if match:
            assert match[1] not in table, f"{match[1]} has two rows"
            table[match[1]] = match[2], match[3]
    return table


def test_the_documents_table_has_every_flag_with_its_type():
    documented = {flag: row[0] for flag, row in rows().items()}
    kinds = {flag: kind_of(own) for _, flag, own, _ in options() if not flag.startswith("--no-")}
    assert documented == kinds


def test_the_documents_name_the_commands_of_each_flag():
    verbs = defaultdict(set)
    for words, flag, _, _ in options():
        verbs[flag].add(words[0])
    for line in DOCS.read_text().splitlines():
        match = re.match(r"\| `(--[a-z-]+)` \| .+ \| ([a-z, -]+) \|$", line)
        if match:
            assert set(match[2].split(", ")) == verbs[match[1]], match[1]


@pytest.mark.parametrize(
    "flag", ["--data", "--seed", "--device", "--threads", "--quiet", "--weights", "--code", "--record"]
)
def test_a_shared_flag_has_one_help_text(flag):
    texts = {
        inspect.cleandoc(text) for words, own, _, text in options() if own == flag and words[0] not in DIFFERENT[flag]
    }
    assert len(texts) == 1, texts


DIFFERENT = defaultdict(tuple, {"--code": ("inspect", "quantize", "report"), "--weights": ("pack", "quantize", "record"),
                                "--record": ("quantize",), "--seed": ("demo",), "--quiet": ("demo",)})  # fmt: skip
"""Commands whose text says more about the same thing."""
