"""datafree list"""

from __future__ import annotations

from typing import Literal, get_args

from .settings_source import family

__all__ = ["listing", "table"]

Kind = Literal["methods", "condensing", "alignments", "statistics", "memories", "presets", "models", "data"]
_FAMILIES = {
    "methods": ("datafree.synthesis.methods", "method"),
    "condensing": ("datafree.data.condensed.methods", "method"),
    "alignments": ("datafree.synthesis.losses.alignment", "alignment"),
    "statistics": ("datafree.records.statistics", "kind"),
    "memories": ("datafree.distillation.replay", "replay"),
}
PRESETS = {
    "record: small": "the top layer only",
    "record: safe": "coarse class means and shared directions, within --leak; the default",
    "record: sharp": "fine class means and directions for each class",
    "record: best": "all of each class's covariance",
    "record: paper": "all that the paper's methods need",
    "record: full": "everything",
    "distill online: dafl": "confidence, balance and feature terms, no memory (Chen et al. 2019)",
    "distill online: dfad": "L1 disagreement alone, no memory (Fang et al. 2019)",
    "distill online: mb-dfkd": "DAFL's terms with disagreement and a bank (Binici et al. 2021)",
    "distill online: pre-dfkd": "DAFL's terms with disagreement and a VAE (Binici et al. 2022)",
}
MODELS = {
    "hintonN": "two hidden layers of N units: hinton1200, hinton800, ...",
    "lenet5": "LeNet-5 for images of 32 x 32",
    "lenet5-half": "LeNet-5 with half the channels",
    "alexnet": "AlexNet for small images",
    "alexnet/N": "AlexNet with an Nth of the channels; alexnet-half",
    "resnetN": "residual network of N = 6k + 2 layers: resnet20, resnet44, ...",
    "resnetN/K": "residual network with a Kth of the channels: resnet20/2, ...",
}


def table(kind: str) -> dict[str, str]:
    """Name -> what it is, in one line."""
    if kind in _FAMILIES:
        return {name: text.summary or text.doc for name, text in family(*_FAMILIES[kind]).items()}
    if kind == "presets":
        return PRESETS
    if kind == "models":
        return MODELS
    from ..data.registry import names

    return {name: f"data set {name}, read from --data-dir or DATAFREE_DATA" for name in names()}


def listing(kind: Kind | None = None, /) -> None:
    """List methods, kinds, presets, models and data sets.

    Example: datafree list methods

    Example: datafree list presets --json

    Parameters
    ----------
    what
        What to list; without it, what can be listed.
    """
    from .json_output import result

    if kind is None:
        kinds = list(get_args(Kind))
        result({"lists": kinds})
        for kind in kinds:
            print(f"datafree list {kind}")
        return
    rows = table(kind)
    result({kind: rows})
    width = max(map(len, rows))
    for name, text in rows.items():
        print(f"{name:{width}}  {text}")
