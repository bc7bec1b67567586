"""How one run differs from an earlier one, in words."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["CLASS_NAMES", "CONTENT", "IGNORED", "LATER", "difference", "lasting"]

IGNORED = ("quiet", "threads", "data_dir", "device", "workers")
"""Settings that change no result."""
CLASS_NAMES, CONTENT = "class names of ", "content of "
IN_MEMORY = ("teacher_fingerprint", "record_digest")
"""Inputs of a set by which a run from Python, which names no files, and one of a command are compared."""
LATER = (CLASS_NAMES, CONTENT, *IN_MEMORY)
"""Prefixes of inputs that logs of earlier versions lack; they are compared where both logs have them."""
NAMES = ("model", "teacher", "student", "source", "runs")
"""Settings that are positional arguments, and what messages call them."""
CHOOSING = ("method", "kind", "replay", "alignment")
"""Settings that decide which other settings there are."""
STATISTICS = "what"
DESCRIBING = ("preset", "leak")
"""Settings that say how a record's `STATISTICS` were chosen. They are not compared: older logs have none."""
LATER_DEFAULTS = {"optimizer": "adam", "split": "test", "start": "random"}
"""Settings that earlier versions lacked, and their defaults, at which logs do not hold them."""
LONG = 60
"""Maximum number of characters of a value in a message."""
SHOWN = 3
"""Maximum number of layers, or entries, that a message names."""


def difference(new: dict[str, Any], old: dict[str, Any], *, ignored: str | None = None) -> str | None:
    """The first difference between a run and an earlier one, the setting `ignored` aside: ``with `epochs=3`, not 4``.

    Each is a log's verb, settings and inputs; inputs are compared if both have them. The earlier run comes first in
    the text, since it made what is on disk. None for the same run.
    """
    if old.get("verb") != new["verb"]:
        return f"by datafree {old.get('verb')}, not datafree {new['verb']}"
    old_settings, new_settings = lasting(old.get("settings")), lasting(new["settings"])
    old_inputs, new_inputs = old.get("inputs"), new.get("inputs")
    if _is_of_python(old_settings, old_inputs) != _is_of_python(new_settings, new_inputs):
        common = old_settings.keys() & new_settings.keys()
        old_settings, new_settings = (
            {key: log[key] for key in log if key in common} for log in (old_settings, new_settings)
        )
        old_inputs, new_inputs = (
            {key: log.get(key) for key in IN_MEMORY} for log in (old_inputs or {}, new_inputs or {})
        )
    first = [key for key in CHOOSING if all(isinstance(log.get(key), str) for log in (new_settings, old_settings))]
    last = [key for key in (STATISTICS,) if key in new_settings or key in old_settings]  # chosen by the data, too
    for key in (*first, *(key for key in (*new_settings, *old_settings) if key not in last), *last):
        if key not in (ignored, *DESCRIBING) and old_settings.get(key) != new_settings.get(key):
            return (
                _statistics(old_settings, new_settings)
                if key == STATISTICS
                else _setting(key, old_settings.get(key), new_settings.get(key))
            )
    return _inputs(old_inputs, new_inputs)


def _is_of_python(settings: dict[str, Any], inputs: Any) -> bool:
    """Whether a log is of a set that was made from Python: it has the teacher's fingerprint, and no name of it."""
    return isinstance(inputs, dict) and IN_MEMORY[0] in inputs and not {"model", "teacher"} & settings.keys()


def _inputs(old: Any, new: Any) -> str | None:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return None
    for key in (*new, *old):
        if key.startswith(LATER) and not (key in old and key in new):
            continue
        if key.startswith(CLASS_NAMES) and old[key] != new[key]:
            return f"with other class names of {key.removeprefix(CLASS_NAMES)}"
        if old.get(key) != new.get(key):
            name = key.removeprefix(CONTENT)
            return f"with other content of {name}: {_hash(old.get(key))}, not {_hash(new.get(key))}"
    return None


def lasting(settings: Any) -> dict[str, Any]:
    """The settings that decide a result, as JSON."""
    table = settings if isinstance(settings, dict) else {}
    return json.loads(json.dumps({key: value for key, value in table.items() if key not in IGNORED}))


def _setting(key: str, old: Any, new: Any) -> str:
    old, new = (LATER_DEFAULTS.get(key) if value is None else value for value in (old, new))
    if isinstance(old, dict) and isinstance(new, dict):  # a group of settings, each with its own flag
        names = (*(name for name in CHOOSING if name in new), *new, *old)
        inner = next(name for name in names if new.get(name) != old.get(name))
        return _setting(inner, old.get(inner), new.get(inner))
    if key == "learns_from" and old and new:
        return f"from {_short(old)}, not from {_short(new)}"
    if key == "weights" and all(isinstance(value, str | None) for value in (old, new)):
        # a file, which only commands take; bits have that name too
        name, with_value = "--weights", "--weights {}".format
    elif key == "decay" and all(isinstance(value, str | None) for value in (old, new)):
        # the schedule's, a word; a memory has a number of that name, with another flag
        name, with_value = "the decay", "the decay {}".format
    elif key in ("method", "kind", "alignment"):  # the word after the verb on the command line
        name, with_value = f"the {key}", f"the {key} {{}}".format
    elif key in NAMES or (key == "data" and isinstance(new or old, list)):  # several data sets are positional arguments
        name, with_value = key, f"{key} {{}}".format
    else:
        name, with_value = f"`{key}`", f"`{key}={{}}`".format
    if old is None or old is False or old == []:
        return f"without {name}, not with " + ("it" if new is True or new is False else with_value(_short(new)))
    if new is None or new is False or new == []:
        return "with " + (name if old is True else with_value(_short(old))) + ", not without"
    old_part, new_part = _first_difference(old, new)
    return f"with {with_value(_short(old_part))}, not {_short(new_part)}"


def _statistics(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The difference of two records: in their preset, or else in their entries."""
    if old.get("preset") and new.get("preset"):
        for key in DESCRIBING:
            if old.get(key) != new.get(key):
                return _setting(key, old.get(key), new.get(key))
    old_text, new_text = _entries(old.get(STATISTICS)), _entries(new.get(STATISTICS))
    if old_text != new_text:
        return f"with the entries {old_text}, not {new_text}"
    old_text, new_text = _first_difference(old.get(STATISTICS), new.get(STATISTICS))
    return f"with entries of other settings: {_short(old_text)}, not {_short(new_text)}"


def _entries(statistics: Any) -> str:
    """`moments of fc1, fc2; input of 1 layer`."""
    words = []
    for entry in statistics if isinstance(statistics, list) else ():
        if not isinstance(entry, dict) or not isinstance(entry.get("statistic"), dict):
            continue
        taps = entry.get("taps")
        layers = "all layers" if not isinstance(taps, list) else f"{len(taps)} layers" if len(taps) > SHOWN else None
        words.append(f"{entry['statistic'].get('kind')} of {layers or ', '.join(map(str, taps))}")  # type: ignore[arg-type]
    remainder = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return _short("; ".join(words[:SHOWN])) + remainder if words else "of an earlier version"


def _first_difference(old: Any, new: Any) -> tuple[Any, Any]:
    """The first entries in which two tables or lists differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in (*new, *old) if old.get(key) != new.get(key))
        old_part, new_part = _first_difference(old.get(key), new.get(key))
        return f"{key} {old_part}", f"{key} {new_part}"
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return _first_difference(*next(pair for pair in zip(old, new) if pair[0] != pair[1]))
    if isinstance(old, list) and isinstance(new, list) and max(len(str(old)), len(str(new))) > LONG:
        missing, added = [entry for entry in old if entry not in new], [entry for entry in new if entry not in old]
        if missing:
            return f"{missing[0]} as well", "without it"
        if added:
            return f"other than {added[0]}", f"{added[0]} as well"
    return old, new


def _hash(value: Any) -> str:
    return "nothing" if value is None else f"sha256 {str(value)[:12]}"


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        value = " ".join(map(str, value))
    text = str(value)
    return text if len(text) <= LONG else text[: LONG - 3] + "..."
