"""Text from files and users in a card: shown as it is, never read as Markdown or HTML."""

from __future__ import annotations

import re
import unicodedata

pass

__all__ = ["escaped", "markdown"]

_PLAIN = re.compile(r"(?:[^\W_]|(?<=[^\W_])_(?=[^\W_])|[ .,:;'%()/+-])*")
"""Nothing in it is markup within a line: no underscore but inside a word."""
_LINK = re.compile(r"://|\bwww\.|\bmailto:", re.IGNORECASE)


def markdown(text: object, *, code: bool = False, cell: bool = False) -> str:
    """The text itself where nothing in it is markup, else as a code span, in which nothing is; controls are escaped.

    With `code` always as a code span. In a `cell` of a table a bar is escaped too.
    """
    shown = escaped(text)
    if not code and _PLAIN.fullmatch(shown) and not _LINK.search(shown) and shown == shown.strip():
        return shown
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    space = " " if shown[:1] in ("`", " ", "") or shown[-1:] in ("`", " ") else ""
    span = f"{fence}{space}{shown}{space}{fence}"
    return span.replace("|", "\\|") if cell else span


_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's controls (ESC, CR), formats (bidi controls, zero widths), surrogates, line and paragraph separators."""


def escaped(text: object) -> str:
    r"""The text with every character that is not shown as itself written as `\x1b` or `\u202e`; others stay."""
    text = str(text)
    return text if text.isascii() and text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN:
        return character
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
