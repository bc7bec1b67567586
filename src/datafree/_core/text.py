"""Escapes text from files and users for model cards, so that it is never read as Markdown or HTML."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["escaped", "markdown"]

_PLAIN = re.compile(r"(?:[^\W_]|(?<=[^\W_])_(?=[^\W_])|[ .,:;'%()/+-])*")
"""Text without markup inside a line; underscores only inside words."""
_LINK = re.compile(r"://|\bwww\.|\bmailto:", re.IGNORECASE)


def markdown(text: object, *, code: bool = False, cell: bool = False) -> str:
    """The text itself if it has no markup, otherwise as a code span. Control characters are escaped.

    With `code` it is always a code span. In a `cell` of a table, bars are escaped too.
    """
    escaped_text = escaped(text)
    if (
        not code
        and _PLAIN.fullmatch(escaped_text)
        and not _LINK.search(escaped_text)
        and escaped_text == escaped_text.strip()
    ):
        return escaped_text
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", escaped_text)), default=0))
    space = " " if escaped_text[:1] in ("`", " ", "") or escaped_text[-1:] in ("`", " ") else ""
    span = f"{fence}{space}{escaped_text}{space}{fence}"
    return span.replace("|", "\\|") if cell else span


_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's controls (ESC, CR), formats (bidi controls, zero widths), surrogates, line and paragraph separators."""


def escaped(text: object) -> str:
    r"""The text with invisible and control characters written as `\x1b` or `\u202e`."""
    text = str(text)
    return text if text.isascii() and text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN:
        return character
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
