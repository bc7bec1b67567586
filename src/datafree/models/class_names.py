"""Matches the classes of a data set to those of a network: by name, or by position if one side has only bare numbers."""

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
"""Characters, as in a file's name."""
MOST_BYTES = 768 << 10
"""Bytes of all names in a record's header, which may have 1 MiB."""

NUMBER = re.compile(r"-?\d{1,18}(\.\d{1,18})?")
"""Digits of any script, as int() accepts them."""
DIGITS = re.compile(r"([0-9]+)")


def number_of(name: str) -> Fraction | None:
    """The value of a name that is a number, such as 7, 007, -1 or 0.5; None for any other name."""
    return Fraction(name) if NUMBER.fullmatch(name) else None


def are_numbers(names: Sequence[str]) -> bool:
    """Whether all names are different numbers."""
    return len({number_of(name) for name in names} - {None}) == len(names) > 0


def are_bare(names: Sequence[str]) -> bool:
    """Whether the names are "0" to "n - 1" in order, as for classes without names."""
    return all(name == str(position) for position, name in enumerate(names))


def ordered(names: Sequence[str], order: str | None = None) -> list[str]:
    """Names in class order. By default numbers by value and other names as text; `number` also sorts digits inside by
    value.
    """
    if order == "text" or (order is None and not are_numbers(names)):
        return sorted(names)
    if are_numbers(names):
        return sorted(names, key=lambda name: (number_of(name), name))
    return sorted(names, key=lambda name: ([_part(part) for part in DIGITS.split(name)], name))


def check_names(names: Sequence[str], source: str, *, stored: bool = False) -> None:
    """Raises UserError unless there are at most 65,536 different names of 1 to 255 characters that fit into a file.

    With `stored`, for data and for files of earlier versions, an empty or repeated name causes only a `Notice`: such classes
    are compared by their order.
    """
    if len(names) > MOST_CLASSES:
        raise UserError(f"{source} has {len(names):,} classes, expected at most {MOST_CLASSES:,}; give fewer")
    for position, name in enumerate(names):
        if len(name) > LONGEST_NAME:
            raise UserError(
                f"class {position} of {source} has a name of {len(name):,} characters, expected 1 to {LONGEST_NAME}; "
                "shorten it"
            )
        if not _is_text(name):
            raise UserError(f"class {position} of {source} has the name {name!r}, expected Unicode text; rename it")
    if 14 * sum(map(len, names)) + 6 * len(names) > MOST_BYTES:  # otherwise they fit, whatever their characters
        size = len(json.dumps(json.dumps(list(names))))
        if size > MOST_BYTES:
            raise UserError(
                f"the {len(names):,} class names of {source} take {size:,} bytes in a file's header, expected at most "
                f"{MOST_BYTES:,}; shorten them"
            )
    if problem := _ambiguous_name(names):
        if not stored:
            raise UserError(f"{source} has {problem}, expected a different name for each; rename it")
        warnings.warn(
            Notice(f"{source} has {problem}: such classes differ only by their order; rename it"), stacklevel=3
        )


def _ambiguous_name(names: Sequence[str]) -> str | None:
    """The first name that is empty or repeated, in words; None if there is none."""
    first_positions: dict[str, int] = {}
    for position, name in enumerate(names):
        if not name:
            return f"no name for class {position}"
        if name in first_positions:
            return f"the name {cut(name)!r} for class {first_positions[name]} and for class {position}"
        first_positions[name] = position
    return None


def _is_text(name: str) -> bool:
    """Whether the name can be written; a folder name that is not UTF-8 can, as its bytes."""
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def class_positions(
    names: Sequence[str], expected: Sequence[str], source: str, network: str, *, part: bool = False
) -> tuple[int, ...]:
    """The position of each of the data's classes, `names`, among the network's, `expected`.

    Equal names match in any order: numbers by value (`007` is 7), text in any Unicode form. Bare numbers 0 to n - 1 match
    other names by position. With `part`, data may have only some of the network's classes, by name. Raises UserError for
    everything else, with the names `source` and `network`.
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
    if (positions := _by_name(names, expected)) is not None:
        return positions
    if (are_bare(names) or are_bare(expected)) and not (are_numbers(names) and are_numbers(expected)):
        named_classes = expected if are_bare(names) else names
        if len({DIGITS.sub("#", name) for name in named_classes}) == 1 and list(named_classes) != ordered(
            named_classes, "number"
        ):
            raise UserError(
                f"classes of {source} or {network} are bare numbers, and the others, "
                f"{', '.join(map(repr, named_classes[:3]))}, "
                "..., are not in the order of their numbers; expected the same names; rename the classes"
            )
        return tuple(range(len(names)))
    if are_numbers(names) and are_numbers(expected):
        values = {number_of(name) for name in expected}
        missing = next(name for name in names if number_of(name) not in values)
        raise UserError(
            f"class {missing!r} of {source} is none of {network}, which has {expected[0]!r} to {expected[-1]!r}; "
            "expected the "
            "same numbers; rename the classes, since counting from 1 cannot be distinguished from counting from 0"
        )
    composed = {_composed(name) for name in expected}
    position = next((position for position, name in enumerate(names) if _composed(name) not in composed), None)
    if position is None:
        raise UserError(
            f"classes of {source} or {network} have one name twice, and are not in the same order; rename them"
        )
    raise UserError(
        f"class {position} of {source} is {names[position]!r}, expected {expected[position]!r} as in {network}; use "
        "the data that the "
        "network was trained for, with the same class names, or bare numbers from 0 in the network's order"
    )


def moved(names: Sequence[str], expected: Sequence[str]) -> int | None:
    """The first position whose name is expected at another position; numbers by value, text in any Unicode form."""
    key = str if {*names} == {*expected} else _key  # "1" and "01" may be two classes
    keys, expected_keys = ([key(name) for name in sequence] for sequence in (names, expected))
    expected_set = set(expected_keys)
    pairs = enumerate(zip(keys, expected_keys))
    return next(
        (position for position, (name, expected_name) in pairs if name != expected_name and name in expected_set), None
    )


def check_order(
    names: Sequence[str],
    expected: Sequence[str],
    source: str,
    network: str,
    *,
    renamed: bool = False,
    advice: str = "use the release it came with",
) -> None:
    """Raises UserError unless `source`, made from the network, has as many classes and no name at another position.

    Other names are accepted. With `renamed`, for a source that is known to belong to the network's weights, so are
    numbers in order that start at another number.
    """
    if len(names) != len(expected):
        raise UserError(f"{source} has {len(names)} classes, {network} {len(expected)}; {advice}")
    if renamed and all(are_numbers(sequence) and list(sequence) == ordered(sequence) for sequence in (names, expected)):
        return
    if (position := moved(names, expected)) is not None:
        raise UserError(
            f"class {position} of {source} is {cut(names[position])!r}, {network} has {cut(expected[position])!r} "
            f"there and that name at another place; {advice}"
        )


def _key(name: str) -> Fraction | str:
    value = number_of(name)
    return _composed(name) if value is None else value


def _by_name(names: Sequence[str], expected: Sequence[str]) -> tuple[int, ...] | None:
    """The position of each name among those expected: as text, in another Unicode form, or by value; None if one is
    missing.
    """
    for key in (str, _composed, number_of):
        keys, positions = [key(name) for name in names], {key(name): position for position, name in enumerate(expected)}
        distinct = None not in positions and len(positions) == len(expected)
        if distinct and len(set(keys)) == len(keys) and set(keys) <= positions.keys():
            return tuple(positions[value] for value in keys)
    return None


def _part_positions(names: Sequence[str], expected: Sequence[str], source: str, network: str) -> tuple[int, ...]:
    """`class_positions` for data with fewer classes than the network: only by name, since positions have no meaning then."""
    positions = _by_name(names, expected)
    if positions is None:
        unmatched = next((name for name in names if _by_name([name], expected) is None), names[0])
        raise UserError(
            f"{source} has {len(names)} classes, {network} {len(expected)}, and {unmatched!r} is none of those "
            f"({', '.join(map(repr, expected[:3]))}, ...); use the data that the network was trained for, or give classes "
            "the network's names"
        )
    return positions


def _composed(name: str) -> str:
    """The name in Unicode form NFC. macOS stores accents as separate characters."""
    return unicodedata.normalize("NFC", name)


def _part(part: str) -> tuple[bool, int, str]:
    """Sort key: numbers before text, by value."""
    number = DIGITS.fullmatch(part) is not None
    return (not number, int(part) if number else 0, part)
