"""How a field of a settings class is called on the command line, where its own name would mean something else there.

Everything else follows one rule: the field `learning_rate` is the flag of the name `learning-rate`.
"""

from __future__ import annotations

__all__ = ["FLAG_NAMES", "flag_name"]

FLAG_NAMES = {
    ("Coral", "covariance"): "covariance-weight",
    ("BatchNormInception", "classes"): "class-weight",
    ("Bits", "activations"): "activation-bits",
    ("Bits", "first"): "first-bits",
    ("Bits", "last"): "last-bits",
    ("Bits", "weights"): "weight-bits",
    ("Discriminator", "discriminator_rate"): "discriminator-learning-rate",
    ("Distribution", "shift"): "translate",
    ("DistributionMatching", "mirror"): "flip",
    ("DistributionMatching", "rate"): "learning-rate",
    ("Ema", "decay"): "memory-decay",
    ("Expansion", "classes"): "class-weight",
    ("MetaGenerator", "classes"): "class-weight",
    ("MomentMatching", "classes"): "classes-per-batch",
    ("MomentMatching", "smooth"): "total-variation",
    ("Moments", "scale"): "activation-scale",
    ("OnlineDistillation", "generator_rate"): "generator-learning-rate",
    ("OnlineDistillation", "keep"): "keep-student",
    ("OnlineDistillation", "kind"): "disagreement-kind",
    ("OnlineDistillation", "student_rate"): "student-learning-rate",
    ("Vae", "vae_rate"): "vae-learning-rate",
}
"""(Settings class, field) -> name of its flag, without dashes at the start."""


def flag_name(settings: str, field: str) -> str:
    """The name of the flag of a settings class's field, without dashes at the start."""
    return FLAG_NAMES.get((settings, field)) or field.replace("_", "-")
