"""Methods of the user's own on the command line: `datafree synthesize file.py:Class TEACHER`, with flags of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from cyclopts import App

from .._core.code_names import code_name
from .settings_source import from_class

__all__ = ["add_custom", "custom_word"]

PLACES = {
    ("synthesize",): ("datafree.synthesis.methods", "datafree.cli.synthesize:method_command"),
    ("condense",): ("datafree.data.condensed.methods", "datafree.cli.condense:method_command"),
    ("expand",): ("datafree.synthesis.losses.alignment", "datafree.cli.expand:kind_command"),
    ("record",): ("datafree.records.statistics", "datafree.cli.record_command:kind_command"),
    ("distill", "fresh"): ("datafree.synthesis.methods", "datafree.cli.distill:fresh_command"),
}
"""Command -> the family that its methods are of, and what makes the command of one."""
GROUP = "datafree.methods"


def custom_word(words: Sequence[str]) -> tuple[tuple[str, ...], str] | None:
    """The command and the word after it, where that names a class of the user's own or an installed plug-in."""
    for chain in PLACES:
        if tuple(words[: len(chain)]) == chain and len(words) > len(chain):
            word = words[len(chain)]
            after = words[len(chain) + 1] if len(words) > len(chain) + 1 else "-"
            is_class = code_name(word) is not None and not Path(word).exists()
            if is_class and (chain == ("condense",) or not after.startswith("-") or after in ("--help", "-h")):
                return chain, word
            if _is_plugin(word):
                return chain, word
    return None


def add_custom(root: App, words: Sequence[str]) -> None:
    """Adds the command of the method that `words` name, which runs its code. Raises UserError where it is no method."""
    place = custom_word(words)
    if place is None:
        return
    chain, word = place
    package, maker = PLACES[chain]
    parent = root
    for name in chain:
        parent = parent[name]
    if word in list(parent):
        return
    text = from_class(import_module(package).FAMILY.class_of(word))
    module, _, function = maker.partition(":")
    command: Callable[[str, Any], Callable[..., None]] = getattr(import_module(module), function)
    parent.command(command(word, text), name=word, help=text.summary or text.doc)


def _is_plugin(word: str) -> bool:
    """Whether an installed package registers a method of that name; only plain words are looked up."""
    if not word.replace("-", "").isidentifier() or Path(word).exists():
        return False
    from importlib.metadata import entry_points

    return word in entry_points(group=GROUP).names
