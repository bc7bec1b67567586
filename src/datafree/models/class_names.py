"""Which class of a network each class of a data set is: by name, or by position where one side has only bare numbers."""

from __future__ import annotations

import json
import re
import unicodedata
import warnings
from collections.abc import Sequence
from fractions import Fraction

from .._core.errors import Notice, UserError, cut

__all__ = ["are_bare", "are_numbers", "check_names", "check_order", "class_positions", "moved", "number_of", "ordered"]

MOST_CLASSES = 1 << 16
LONGEST_NAME = 255
"""Characters, as of a file's name."""
MOST_BYTES = 768 << 10
"""Bytes of all names as a record's header holds them, which may have 1 MiB."""

NUMBER = re.compile(r"-?\d{1,18}(\.\d{1,18})?")
"""Digits of any script, as int() reads them."""
DIGITS = re.compile(r"([0-9]+)")


def number_of(name: str) -> Fraction | None:
    """The value of a name that is a number, such as 7, 007, -1 or 0.5; None for other names."""
    return Fraction(name) if NUMBER.fullmatch(name) else None


def are_numbers(names: Sequence[str]) -> bool:
    """Whether every name is a number, and no two are the same one."""
    return len({number_of(name) for name in names} - {None}) == len(names) > 0


def are_bare(names: Sequence[str]) -> bool:
    """Whether the names are "0" to "n - 1" in order: what classes without names are called."""
    return all(name == str(place) for place, name in enumerate(names))


def ordered(names: Sequence[str], order: str | None = None) -> list[str]:
    """Names in class order: numbers by value and other names as text (None), `text`, or `number`: digits inside by value."""
    if order == "text" or (order is None and not are_numbers(names)):
        return sorted(names)
    if are_numbers(names):
        return sorted(names, key=lambda name: (number_of(name), name))
    return sorted(names, key=lambda name: ([_part(part) for part in DIGITS.split(name)], name))


def check_names(names: Sequence[str], source: str, *, stored: bool = False) -> None:
    """Raises UserError unless there are at most 65,536 names, different ones of 1 to 255 characters, which fit a file.

    `stored`: of data, or of a file that an earlier version may have written. A name that is empty, or there twice, is a
    `Notice` then: such classes have their order, and are compared by it.
    """
    if len(names) > MOST_CLASSES:
        raise UserError(f"{source} has {len(names):,} classes, expected at most {MOST_CLASSES:,}; give fewer")
    for place, name in enumerate(names):
        if len(name) > LONGEST_NAME:
            raise UserError(
                f"class {place} of {source} has a name of {len(name):,} characters, expected 1 to {LONGEST_NAME}; shorten it"
            )
        if not _is_text(name):
            raise UserError(f"class {place} of {source} has the name {name!r}, expected Unicode text; rename it")
    if 14 * sum(map(len, names)) + 6 * len(names) > MOST_BYTES:  # else they fit, whatever is in them
        size = len(json.dumps(json.dumps(list(names))))
        if size > MOST_BYTES:
            raise UserError(
                f"the {len(names):,} class names of {source} take {size:,} bytes in a file's header, expected at most "
                f"{MOST_BYTES:,}; shorten them"
            )
    if problem := _not_told_apart(names):
        if not stored:
            raise UserError(f"{source} has {problem}, expected a different name for each; rename it")
        warnings.warn(
            Notice(f"{source} has {problem}: such classes are told apart by their order alone; rename it"), stacklevel=3
        )


def _not_told_apart(names: Sequence[str]) -> str | None:
    """The first name that is empty, or that an earlier class has too."""
    seen: dict[str, int] = {}
    for place, name in enumerate(names):
        if not name:
            return f"no name for class {place}"
        if name in seen:
            return f"the name {cut(name)!r} for class {seen[name]} and for class {place}"
        seen[name] = place
    return None


def _is_text(name: str) -> bool:
    """Whether it can be written; a folder's name that is not in UTF-8 can, as its own bytes."""
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def class_positions(
    names: Sequence[str], expected: Sequence[str], source: str, network: str, *, part: bool = False
) -> tuple[int, ...]:
    """For each class of the data, in `names`, its position among the network's, `expected`.

    The same names match in any order, numbers by value (`007` is 7) and text in any Unicode form. Bare numbers 0 to n - 1
    match other names by position. With `part`, data may have some of the network's classes, by name. Raises UserError for
    everything else: `source` and `network` are named in it.
    """
    if part and len(names) < len(expected):
        return _part_positions(names, expected, source, network)
    if len(names) != len(expected):
        raise UserError(
            f"{source} has {len(names)} classes, {network} {len(expected)}; "
            "use the data that the network was trained for"
        )
    if tuple(names) == tuple(expected):
        return tuple(range(len(names)))
    if (places := _by_name(names, expected)) is not None:
        return places
    if (are_bare(names) or are_bare(expected)) and not (are_numbers(names) and are_numbers(expected)):
        named = expected if are_bare(names) else names
        if len({DIGITS.sub("#", name) for name in named}) == 1 and list(named) != ordered(named, "number"):
            raise UserError(
                f"classes of {source} or {network} are bare numbers, and the others, {', '.join(map(repr, named[:3]))}, "
                "..., are not in the order of their numbers; wanted the same names; rename the classes"
            )
        return tuple(range(len(names)))
    if are_numbers(names) and are_numbers(expected):
        values = {number_of(name) for name in expected}
        missing = next(name for name in names if number_of(name) not in values)
        raise UserError(
            f"class {missing!r} of {source} is none of {network}, which has {expected[0]!r} to {expected[-1]!r}; wanted the "
            "same numbers; rename the classes, since counting from 1 and from 0 cannot be told apart"
        )
    held = {_composed(name) for name in expected}
    wrong = next((place for place, name in enumerate(names) if _composed(name) not in held), None)
    if wrong is None:
        raise UserError(
            f"classes of {source} or {network} have one name twice, and are not in the same order; rename them"
        )
    raise UserError(
        f"class {wrong} of {source} is {names[wrong]!r}, wanted {expected[wrong]!r} as in {network}; use the data that the "
        "network was trained for, with the same class names, or bare numbers from 0 in the network's order"
    )


def moved(names: Sequence[str], expected: Sequence[str]) -> int | None:
    """The first place whose name is one of those expected, at another place; numbers by value, text in any Unicode form."""
    key = str if {*names} == {*expected} else _key  # "1" and "01" may be two classes
    keys, expected_keys = ([key(name) for name in both] for both in (names, expected))
    known = set(expected_keys)
    pairs = enumerate(zip(keys, expected_keys))
    return next((place for place, (name, there) in pairs if name != there and name in known), None)


def check_order(
    names: Sequence[str],
    expected: Sequence[str],
    source: str,
    network: str,
    *,
    renamed: bool = False,
    advice: str = "use the release it came with",
) -> None:
    """Raises UserError unless `source`, which was made from the network, has as many classes, with no name at another place.

    Other names are no fault; nor, where `source` is known to be of the network's own weights so that it may have been
    `renamed`, are numbers in their order that begin with another one.
    """
    if len(names) != len(expected):
        raise UserError(f"{source} has {len(names)} classes, {network} {len(expected)}; {advice}")
    if renamed and all(are_numbers(both) and list(both) == ordered(both) for both in (names, expected)):
        return
    if (place := moved(names, expected)) is not None:
        raise UserError(
            f"class {place} of {source} is {cut(names[place])!r}, {network} has {cut(expected[place])!r} there and that "
            f"name at another place; {advice}"
        )


def _key(name: str) -> Fraction | str:
    value = number_of(name)
    return _composed(name) if value is None else value


def _by_name(names: Sequence[str], expected: Sequence[str]) -> tuple[int, ...] | None:
    """The position of each name among those expected: as text, in another Unicode form, or by value; None without."""
    for key in (str, _composed, number_of):
        keys, places = [key(name) for name in names], {key(name): place for place, name in enumerate(expected)}
        distinct = None not in places and len(places) == len(expected)
        if distinct and len(set(keys)) == len(keys) and set(keys) <= places.keys():
            return tuple(places[own] for own in keys)
    return None


def _part_positions(names: Sequence[str], expected: Sequence[str], source: str, network: str) -> tuple[int, ...]:
    """`class_positions` of data with fewer classes than the network: by name alone, since a position says nothing then."""
    places = _by_name(names, expected)
    if places is None:
        other = next((name for name in names if _by_name([name], expected) is None), names[0])
        raise UserError(
            f"{source} has {len(names)} classes, {network} {len(expected)}, and {other!r} is none of those "
            f"({', '.join(map(repr, expected[:3]))}, ...); use the data that the network was trained for, or give classes "
            "the network's names"
        )
    return places


def _composed(name: str) -> str:
    """macOS writes names with accents apart; they are the same names."""
    return unicodedata.normalize("NFC", name)


def _part(part: str) -> tuple[bool, int, str]:
    """Numbers before text, by value."""
    number = DIGITS.fullmatch(part) is not None
    return (not number, int(part) if number else 0, part)
