"""Methods of the user's own on the command line: `datafree synthesize file.py:Class TEACHER`, with flags of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from cyclopts import App

from .._core.code_names import code_name
from .._core.errors import UserError
from .method_options import check_names
from .settings_source import SettingsText, from_class

__all__ = ["custom_commands", "custom_word"]

PLACES = {
    ("synthesize",): ("datafree.synthesis.methods", "datafree.cli.synthesize:method_command"),
    ("condense",): ("datafree.data.condensed.methods", "datafree.cli.condense:method_command"),
    ("expand",): ("datafree.synthesis.losses.alignment", "datafree.cli.expand:kind_command"),
    ("record",): ("datafree.records.statistics", "datafree.cli.record_command:kind_command"),
    ("distill", "fresh"): ("datafree.synthesis.methods", "datafree.cli.distill:fresh_command"),
}
"""Command -> the family that its methods are of, and what makes the command of one."""
OPTIONS = {
    ("synthesize",): "settings", ("condense",): "settings", ("expand",): "guide", ("record",): "settings",
    ("distill", "fresh"): "method_settings",
}  # fmt: skip
"""Command -> its parameter that holds the settings of the class."""
ONLINE = {"--replay": "datafree.distillation.replay", "--alignment": "datafree.synthesis.losses.alignment"}
"""Flags of `distill online` that name a class, and the family that it is of."""
GROUP = "datafree.methods"


def _check_class(word: str) -> None:
    """Raises UserError for a Python file without the name of a class in it."""
    if word.endswith(".py") and Path(word).is_file():
        raise UserError(f"{word} names no class, expected {word}:Class; add the name of the class")


def custom_word(words: Sequence[str]) -> tuple[tuple[str, ...], str] | None:
    """The command and the word after it, where that names a class of the user's own or an installed plug-in."""
    for chain in PLACES:
        if tuple(words[: len(chain)]) == chain and len(words) > len(chain):
            word = words[len(chain)]
            after = words[len(chain) + 1] if len(words) > len(chain) + 1 else "-"
            is_class = code_name(word) is not None and not Path(word).exists()
            is_network = after.startswith("-") and any(word.partition("=")[0] == "--weights" for word in words)
            if is_class and (chain == ("condense",) or not is_network):
                return chain, word
            if _is_plugin(word):
                return chain, word
    return None


@contextmanager
def custom_commands(root: App, words: Sequence[str]) -> Iterator[None]:
    """Inside, the commands include those of the classes that `words` name, whose code runs.

    Raises UserError for a name that is no class of the family.
    """
    for chain in PLACES:
        if tuple(words[: len(chain)]) == chain and len(words) > len(chain):
            _check_class(words[len(chain)])
    with ExitStack() as stack:
        if tuple(words[:2]) == ("distill", "online"):
            stack.enter_context(_custom_online(root, words))
        place = custom_word(words)
        if place is not None:
            stack.enter_context(_custom_method(root, *place))
        yield


@contextmanager
def _custom_method(root: App, chain: tuple[str, ...], word: str) -> Iterator[None]:
    """Inside, the command of this name has the sub-command `word`."""
    package, maker = PLACES[chain]
    parent = root
    for name in chain:
        parent = parent[name]
    if word in list(parent):
        yield
        return
    text = from_class(import_module(package).FAMILY.class_of(word))
    module, _, maker = maker.partition(":")
    command: Callable[[str, Any], Callable[..., None]] = getattr(import_module(module), maker)
    function = command(word, text)
    check_names(word, text, function, f"datafree {' '.join(chain)}", OPTIONS[chain])
    parent.command(function, name=word, help=text.summary or text.doc)
    try:
        yield
    finally:
        del parent[word]


@contextmanager
def _custom_online(root: App, words: Sequence[str]) -> Iterator[None]:
    """Inside, `distill online` knows the memory and the alignment that --replay and --alignment name."""
    memories, alignments = (_custom_kind(words, flag, package) for flag, package in ONLINE.items())
    if not memories and not alignments:
        yield
        return
    from .online import ALIGNMENTS, MEMORIES, online, online_command

    function = online_command({**MEMORIES, **memories}, {**ALIGNMENTS, **alignments})
    for options, kinds in (("memory", memories), ("guide", alignments)):
        for word, kind in kinds.items():
            check_names(word, kind, function, "datafree distill online", options)
    parent = root["distill"]
    text = parent["online"].help
    del parent["online"]
    parent.command(function, name="online", help=text)
    try:
        yield
    finally:
        del parent["online"]
        parent.command(online, name="online", help=text)


def _custom_kind(words: Sequence[str], flag: str, package: str) -> dict[str, SettingsText]:
    """The class that the flag names, by that name; nothing for a built-in one."""
    pairs = [(word.partition("=")[0], word.partition("=")[2], after) for word, after in zip(words, [*words[1:], ""])]
    name = next((value or after for start, value, after in pairs if start == flag), "")
    _check_class(name)
    if code_name(name) is None and not _is_plugin(name):
        return {}
    return {name: from_class(import_module(package).FAMILY.class_of(name))}


def _is_plugin(word: str) -> bool:
    """Whether an installed package registers a method of that name; only plain words are looked up."""
    if not word.replace("-", "").isidentifier() or Path(word).exists():
        return False
    from importlib.metadata import entry_points

    return word in entry_points(group=GROUP).names
