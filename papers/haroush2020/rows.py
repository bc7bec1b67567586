"""What is run: which networks, sets and rows, and how much of them in each budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from datafree.quantization import FineTuning

__all__ = ["BUDGETS", "FIELD", "Budget", "Pair"]

# the field's W4A4 / W3A3 by fine-tuning without data, ResNet-20 of 93.89 % on CIFAR-10 (SynQ, ICLR 2025, Table 1)
FIELD = {
    "GDFQ": (90.11, 75.11), "IntraQ": (91.49, 77.07), "HAST": (92.36, 86.34), "TexQ": (92.68, 86.47), "SynQ": (92.76, 88.11),
}  # fmt: skip

SOURCES = ("none", "gaussian", "inception", "bns", "bns-inception", "real")
"""What ranges are chosen on; `none` is DFQ: the batch norms alone, equalised, biases corrected."""


@dataclass(frozen=True)
class Pair:
    """One trained network, its synthetic sets and what is made of them."""

    data: str
    name: str
    rows: tuple[str, ...]
    units: int
    """Units of 128 images in the set of a row that is fine-tuned."""
    steps: int
    """Adam steps on the pixels of each unit."""
    tuning: dict[str, Any] = field(default_factory=dict)
    calibration: int = 512
    limit: int | None = None
    """Test images; None: all."""
    measured: int = 5000
    """Images of every data set that is compared under `similarity`."""

    @property
    def id(self) -> str:
        return f"{self.data}/{self.name}"

    def fine(self, images: int) -> FineTuning:
        """The same number of steps whatever the number of images."""
        own = dict(self.tuning)
        total = own.pop("total")
        batch = min(own.get("batch", 64), images)
        return FineTuning(epochs=max(1, round(total / (images // batch))), **{**own, "batch": batch})


@dataclass(frozen=True)
class Budget:
    pairs: tuple[Pair, ...]
    seeds: tuple[int, ...]


W8A8 = tuple(f"w8a8/{source}" for source in SOURCES)
W4A4_CALIBRATED = tuple(f"w4a4-calibrated/{source}" for source in SOURCES)
CORRECTED = tuple(f"w4a4-corrected/{source}" for source in ("gaussian", "bns", "bns-inception", "real"))
ROWS = (
    "fp32", *W8A8, "w8a8-corrected/bns", *W4A4_CALIBRATED, *CORRECTED, "w4a4/bns-inception", "w4a4/real", "int8",
    "similarity",
)  # fmt: skip
MORE = ("w4a4/bns", "w4a4/gaussian", "w3a3/bns-inception", "w3a3/real")
"""Four more runs of fine-tuning, which the budget `cpu` has no time for."""

SHORT, LONG = ({"total": total, "learning_rate": 2e-4} for total in (800, 12_000))
BUDGETS = {
    "smoke": Budget(
        (
            Pair(
                "digits", "small",
                ("fp32", *W8A8, "w4a4-corrected/bns", "w4a4/bns-inception", "w4a4/real", "int8", "similarity"),
                units=1, steps=3, tuning={"total": 8}, calibration=64, measured=100,
            ),
        ),
        (0,),
    ),
    "cpu": Budget(
        (
            Pair("cifar10", "resnet20", ROWS, units=16, steps=80, tuning=SHORT),
            Pair("cifar10", "resnet44", ROWS, units=10, steps=80, tuning=SHORT),
            Pair("mnist", "lenet5-bn", ("fp32", "w8a8/bns", "similarity"), units=2, steps=100),
        ),
        (0, 1, 2),
    ),
    "more": Budget(
        (
            Pair("cifar10", "resnet20", (*ROWS, *MORE), units=16, steps=80, tuning=SHORT),
            Pair("cifar10", "resnet44", ROWS, units=10, steps=80, tuning=SHORT),
            Pair("mnist", "lenet5-bn", ("fp32", "w8a8/bns", "similarity"), units=2, steps=100),
        ),
        (0, 1, 2),
    ),
    "gpu": Budget(
        (
            Pair("cifar10", "resnet20", (*ROWS, *MORE), units=80, steps=500, tuning=LONG),
            Pair("cifar10", "resnet44", ROWS, units=80, steps=500, tuning=LONG),
            Pair("mnist", "lenet5-bn", ("fp32", "w8a8/bns", "similarity"), units=2, steps=100),
        ),
        (0, 1, 2),
    ),
}  # fmt: skip
