"""The rows: which networks, synthetic sets and bit widths, and the size of each budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from datafree.quantization import FineTuning

__all__ = ["BUDGETS", "FIELD", "Budget", "Pair"]

# published W4A4 / W3A3 accuracies, fine-tuned without data, ResNet-20 of 93.89 % on CIFAR-10 (SynQ, ICLR 2025, Table 1)
FIELD = {
    "GDFQ": (90.11, 75.11), "IntraQ": (91.49, 77.07), "HAST": (92.36, 86.34), "TexQ": (92.68, 86.47), "SynQ": (92.76, 88.11),
}  # fmt: skip

SOURCES = ("none", "gaussian", "inception", "bns", "bns-inception", "real")
"""Images that ranges are calibrated on; `none` is DFQ: batch norms alone, with equalisation and bias correction."""


@dataclass(frozen=True)
class Pair:
    """One trained network, with the rows to run and their settings."""

    data: str
    name: str
    rows: tuple[str, ...]
    units: int
    """Size of the synthetic set of a fine-tuned row, in units of 128 images."""
    steps: int
    """Adam steps on the pixels of each unit of images."""
    tuning: dict[str, Any] = field(default_factory=dict)
    calibration: int = 512
    limit: int | None = None
    """Number of test images; None: all."""
    measured: int = 5000
    """Images per data set in the row `similarity`."""

    @property
    def id(self) -> str:
        return f"{self.data}/{self.name}"

    def fine_tuning(self, images: int) -> FineTuning:
        """Settings with the same number of steps for any number of images."""
        settings = dict(self.tuning)
        steps = settings.pop("total")
        batch = min(settings.get("batch", 64), images)
        return FineTuning(epochs=max(1, round(steps / (images // batch))), **{**settings, "batch": batch})


@dataclass(frozen=True)
class Budget:
    pairs: tuple[Pair, ...]
    seeds: tuple[int, ...]


W8A8 = tuple(f"w8a8/{source}" for source in SOURCES)
W4A4_CALIBRATED = tuple(f"w4a4-calibrated/{source}" for source in SOURCES)
CORRECTED = tuple(f"w4a4-corrected/{source}" for source in ("gaussian", "bns", "bns-inception", "real"))
SQUANT = (
    *(f"{bits}-squant/none" for bits in ("w8a8", "w4a4", "w3a3")),
    *(f"{bits}-default/{source}" for bits in ("w8a8", "w4a4", "w3a3") for source in ("none", "real")),
)  # fmt: skip
"""SQuant alone (Guo et al. 2022), without an image; and what `datafree quantize` does by default, which includes it."""
ROWS = (
    "fp32", *W8A8, "w8a8-corrected/bns", *W4A4_CALIBRATED, *CORRECTED, *SQUANT, "w4a4/bns-inception", "w4a4/real", "int8",
    "similarity",
)  # fmt: skip
MORE = ("w4a4/bns", "w4a4/gaussian", "w3a3/bns-inception", "w3a3/real")
"""Four more fine-tuned rows, too slow for the budget `cpu`."""

SHORT, LONG = ({"total": total, "learning_rate": 2e-4} for total in (800, 12_000))
IMAGENET_ROWS = (
    "similarity", *(f"{bits}/{source}" for bits in ("w8a8", "w4a8") for source in SOURCES if source != "inception"),
    "w8a8-squant/none", "w8a8-nearest/real", "w8a8-vnni/bns", "w8a8-vnni/real", "int8",
)  # fmt: skip
BUDGETS = {
    "smoke": Budget(
        (
            Pair(
                "digits", "small",
                ("fp32", *W8A8, "w4a4-corrected/bns", "w4a4-squant/none", "w4a4-default/real",
                    "w4a4/bns-inception", "w4a4/real", "int8", "similarity"),
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
    "imagenet": Budget(
        (Pair("imagenet", "efficientnet-lite0", IMAGENET_ROWS, units=1, steps=40, calibration=64, measured=1000),), (0, 1, 2)
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
