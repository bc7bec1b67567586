"""Earlier spellings of a command line, rewritten before it is parsed; each is explained in one line on standard error.

The spellings of version 0.1 work for one release more, and in stored run.json files for as long as those can be rerun.
Synonyms of other tools (`--lr`) are rewritten without a word.
"""

from __future__ import annotations

from collections.abc import Iterable

from .._core.errors import UserError, unknown
from .settings_source import family

__all__ = ["CHOICES", "RENAMED", "SYNONYMS", "rewritten", "words_after"]

SYNONYMS = {
    "--lr": "--learning-rate",
    "--batch-size": "--batch",
    "--optim": "--optimizer",
    "-o": "--out",
    "-n": "--images",
}
"""Flags of other tools, in every command that has the flag they stand for."""

CHOICES = {
    "synthesize": ("--method", "datafree.synthesis.methods", "method", "synthesis method"),
    "condense": ("--method", "datafree.data.condensed.methods", "method", "condensing method"),
    "expand": ("--alignment", "datafree.synthesis.losses.alignment", "alignment", "kind of alignment"),
    "record": ("--kind", "datafree.records.statistics", "kind", "kind of statistic"),
}
"""Command -> the flag that named what is now the word after it, where its choices are, and what they are called."""

_CHUNK = {"--unit": "--chunk"}
_ONLINE = {
    "--one-hot": "--confidence",
    "--replayed": "--replay-fraction",
    "--sharpness": "--disagreement-temperature",
    "--steer": "--latent-step",
    "--keep": "--keep-student",
    "--kind": "--disagreement-kind",
    "--generator-rate": "--generator-learning-rate",
    "--student-rate": "--student-learning-rate",
    "--vae-rate": "--vae-learning-rate",
    "--decay": "--memory-decay",
    "--covariance": "--covariance-weight",
    "--discriminator-rate": "--discriminator-learning-rate",
}
_FRESH = {
    "--learning-rate": "--method-learning-rate",
    "--precision": "--method-precision",
}
_BY_METHOD = {
    "distribution": {"--caution": "--warp-acceptance", "--shift": "--translate"},
    "matched": {"--classes": "--classes-per-batch", "--smooth": "--total-variation"},
    "bns-inception": {"--classes": "--class-weight"},
}
RENAMED: dict[tuple[str, ...], dict[str, str]] = {
    ("synthesize",): _CHUNK,
    **{("synthesize", method): {**_CHUNK, **flags} for method, flags in _BY_METHOD.items()},
    ("expand",): {
        "--unit": "--chunk",
        "--classes": "--class-weight",
        "--covariance": "--covariance-weight",
        "--discriminator-rate": "--discriminator-learning-rate",
    },
    ("distill",): {"--images": "--set"},
    ("distill", "fresh"): _FRESH,
    **{("distill", "fresh", method): {**_FRESH, **flags} for method, flags in _BY_METHOD.items()},
    ("distill", "fresh", "distribution"): _BY_METHOD["distribution"],  # it has no learning rate of its own
    ("distill", "fresh", "gaussian"): {},
    ("distill", "online"): _ONLINE,
    ("condense",): {"--rate": "--learning-rate", "--mirror": "--flip"},
    ("record", "moments"): {"--scale": "--activation-scale"},
    ("quantize",): {
        "--activations": "--activation-bits",
        "--checkpoint": "--weights",
        "--first": "--first-bits",
        "--last": "--last-bits",
    },
}
"""Command -> earlier flag -> flag. Where several begin a command line, the longest holds."""
WITHDRAWN = {
    (
        "record",
        "batch-norm",
    ): "is no longer recorded: its numbers are in the network itself, where bns and quantize read them; "
    "leave the option out",
}
"""Earlier choices that no command has any more, and why."""
_NUMBERS = {("quantize", "--weights"): "--weight-bits", ("distill", "--decay"): "--memory-decay"}
"""Earlier flags of a number; with another value they are today's flag of that name."""
_NEW_MEANING = {("distill", "fresh"): ("--learning-rate", "--precision")}
"""Flags whose earlier meaning is another's now: rewritten only where the command line has the earlier spelling anyway."""


def rewritten(argv: list[str]) -> tuple[list[str], list[str]]:
    """The command line in today's spelling, and a line for each earlier spelling in it.

    Raises UserError where an earlier spelling names a method or kind that does not exist.
    """
    if not argv:
        return argv, []
    words, after = _split(argv)
    notes: list[str] = []
    words, is_earlier = _with_choice(words, notes)
    words = _with_flags(words, notes, is_earlier)
    return [*words, *after], notes


def _kept(words: list[str]) -> tuple[str, ...]:
    return next((flags for key, flags in _NEW_MEANING.items() if tuple(words[: len(key)]) == key), ())


def words_after(verb: str) -> list[str]:
    """The words that name a method or kind after a verb."""
    if verb == "distill":
        return ["fresh", "online"]
    return list(family(*CHOICES[verb][1:3])) if verb in CHOICES else []


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """What comes before `--`, and the rest."""
    end = argv.index("--") if "--" in argv else len(argv)
    return argv[:end], argv[end:]


def _with_choice(words: list[str], notes: list[str]) -> tuple[list[str], bool]:
    """`synthesize TEACHER --method bns` as `synthesize bns TEACHER`."""
    verb = words[0]
    if verb == "distill":
        return _with_online(words, notes)
    if verb not in CHOICES:
        return words, False
    flag, package, field, description = CHOICES[verb]
    names = family(package, field)
    value, others = _taken(words, flag)
    if value is None:
        return words, False
    if (verb, value) in WITHDRAWN:
        raise UserError(f"{flag}: got {value}, which {WITHDRAWN[verb, value]}")
    if value not in names:
        raise unknown(description, value, names)
    if verb == "record" and any(word == "--preset" or word.startswith("--preset=") for word in words):
        raise UserError("--kind and --preset: got both, expected one of them; leave one out")
    notes.append(f"{flag} {value} is now written: datafree {verb} {value} ...")
    return [verb, value, *_not_a_word(others[1:], names)], True


def _with_online(words: list[str], notes: list[str]) -> tuple[list[str], bool]:
    """`distill TEACHER --online generator` as `distill online TEACHER`, any other --online as `distill fresh`."""
    value, others = _taken(words, "--online")
    if value is None:
        return words, False
    methods = family("datafree.synthesis.methods", "method")
    if value not in (*methods, "generator"):
        raise unknown("synthesis method", value, [*methods, "generator"])
    for flag in ("--images", "--set"):
        if _taken(words, flag)[0] is not None:
            raise UserError(f"{flag} and --online: got both, expected one of them to learn from; leave one out")
    if value != "generator" and _taken(words, "--condensed")[0] is not None:
        raise UserError(
            f"--condensed and --online {value}: got both, expected --set SET or distill online; leave one out"
        )
    chosen = ["online"] if value == "generator" else ["fresh", value]
    notes.append(f"--online {value} is now written: datafree distill {' '.join(chosen)} ...")
    return ["distill", *chosen, *_not_a_word(others[1:], methods)], True


def _not_a_word(words: list[str], names: Iterable[str]) -> list[str]:
    """The words after a method: a folder of a method's name stays a folder."""
    return words if not words or words[0] not in names else [f"./{words[0]}", *words[1:]]


def _taken(words: list[str], flag: str) -> tuple[str | None, list[str]]:
    """The value of `--flag VALUE` or `--flag=VALUE`, and the words without it."""
    for place, word in enumerate(words):
        if word == flag and place + 1 < len(words):
            return words[place + 1], [*words[:place], *words[place + 2 :]]
        if word.startswith(f"{flag}="):
            return word.split("=", 1)[1], [*words[:place], *words[place + 1 :]]
    return None, words


def _renames(words: list[str]) -> dict[str, str]:
    best = max((key for key in RENAMED if tuple(words[: len(key)]) == key), key=len, default=None)
    renames = {} if best is None else RENAMED[best]
    if (
        words[:1] == ["synthesize"]
        and len(words) > 1
        and words[1] not in family("datafree.synthesis.methods", "method")
    ):
        return {**renames, **_BY_METHOD["distribution"]}  # the default
    return renames


def _with_flags(words: list[str], notes: list[str], is_earlier: bool) -> list[str]:
    renames = _renames(words)
    unchanged = () if is_earlier else _kept(words)
    result: list[str] = []
    for place, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag in SYNONYMS and word not in ("-",):
            result.append(SYNONYMS[flag] + equals + value)
            continue
        new = None if flag in unchanged else renames.get(flag)
        if new is None and flag.startswith("--no-") and (switch := renames.get(f"--{flag[5:]}")) is not None:
            new = f"--no-{switch[2:]}"
        if (*words[:1], flag) in _NUMBERS and (new is not None or words[0] == "quantize"):
            value = value if equals else next(iter(words[place + 1 :]), "")
            new = _NUMBERS[words[0], flag] if _is_number(value) else None
        if new is not None:
            notes.append(f"{flag} is now called {new}")
            word = new + word[len(flag) :]
        result.append(word)
    return result


def _is_number(text: str) -> bool:
    return text.lstrip("+-").replace(".", "", 1).isdecimal()
