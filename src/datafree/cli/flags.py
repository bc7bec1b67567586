"""How a parameter of the library is called on the command line, where its own name would mean something else there.

Everything else follows one rule: the field `learning_rate` is the flag `--learning-rate`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .._core.errors import UserError

__all__ = ["FLAGS", "PARAMETERS", "flag_of", "translated"]

FLAGS = {
    ("Coral", "covariance"): "--covariance-weight",
    ("BatchNormInception", "classes"): "--class-weight",
    ("Bits", "activations"): "--activation-bits",
    ("Bits", "first"): "--first-bits",
    ("Bits", "last"): "--last-bits",
    ("Bits", "weights"): "--weight-bits",
    ("Discriminator", "discriminator_rate"): "--discriminator-learning-rate",
    ("Distribution", "shift"): "--translate",
    ("DistributionMatching", "mirror"): "--flip",
    ("DistributionMatching", "rate"): "--learning-rate",
    ("Ema", "decay"): "--memory-decay",
    ("Expansion", "classes"): "--class-weight",
    ("MomentMatching", "classes"): "--classes-per-batch",
    ("MomentMatching", "smooth"): "--total-variation",
    ("Moments", "scale"): "--activation-scale",
    ("OnlineDistillation", "generator_rate"): "--generator-learning-rate",
    ("OnlineDistillation", "kind"): "--disagreement-kind",
    ("OnlineDistillation", "student_rate"): "--student-learning-rate",
    ("Vae", "vae_rate"): "--vae-learning-rate",
}
"""(Settings class, field) -> flag."""

PARAMETERS = {"add_to": "--add", "fine_tune": "--finetune"}
"""Parameters of library functions that a command's parameter stands for under another name."""

_NAMED = re.compile(r"^(\w+(?:\.\w+)*)((?:\[[^\]]*\])?: (?:got|expected) )")
"""How an error of the library begins that is about one of its parameters: `images: got 0, expected at least 1`."""


def flag_of(settings: str, field: str) -> str:
    """The flag of a settings class's field."""
    return FLAGS.get((settings, field)) or "--" + field.replace("_", "-")


def translated(error: UserError, flags: Mapping[str, str]) -> str:
    """The error's line with flags in place of the library's parameters, and today's flags in place of earlier ones.

    `flags` has the flag of each parameter of the command, and of each flag that was called otherwise.
    """
    line = str(error)
    match = _NAMED.match(line)
    flag = flags.get(match[1].rpartition(".")[2]) if match is not None else None
    if match is not None and flag is not None:
        line = f"{flag}{match[2]}{line[match.end() :]}"
    for earlier, now in flags.items():
        if earlier.startswith("--"):
            line = re.sub(rf"(?<![\w-]){earlier}(?![\w-])", now, line)
    return line
