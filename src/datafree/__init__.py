"""Compress a trained neural network without its training data.

    from datafree import load_model, record, synthesize, distill

Verbs are plain functions; the command line calls the same ones. Names load on first use, so that `import datafree`
does not wait for torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# onnxruntime 1.31 reads this when it is imported: unset, empty, "0" or "false" let it write a device id and a database
# into the user's home and send events. A value that somebody set is left alone.
if not os.environ.get("ORT_DISABLE_TELEMETRY"):
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"

if TYPE_CHECKING:  # the same names for type checkers and editors, which do not run `__getattr__`
    from .condensed import Condensed
    from .condensing import condense
    from .data import Dataset
    from .data import load as load_data
    from .distillation import Distillation, distill
    from .errors import UserError
    from .evaluation import Evaluation, evaluate
    from .expansion import Expansion, expand
    from .fit import Schedule
    from .images import Fresh, Images, Mixed, fresh, soft_labelled, stored
    from .likeness import Similarity, similarity
    from .losses import kl
    from .models import load_model, new_model
    from .network import Network
    from .presets import preset
    from .quantization import Bits, FineTuning
    from .quantization import finetune as finetune
    from .quantization import quantize as quantize
    from .records import Record, forecast_auc, record
    from .release import Release, write_release
    from .spec import InputSpec
    from .synthesis import named as method
    from .syntheticset import SyntheticSet, synthesize
    from .terms import Objective
    from .training import train

_HOMES = {
    "Bits": "quantization",
    "Condensed": "condensed",
    "Dataset": "data",
    "Distillation": "distillation",
    "Evaluation": "evaluation",
    "Expansion": "expansion",
    "FineTuning": "quantization",
    "Fresh": "images",
    "Images": "images",
    "InputSpec": "spec",
    "Mixed": "images",
    "Network": "network",
    "Objective": "terms",
    "Record": "records",
    "Release": "release",
    "Schedule": "fit",
    "Similarity": "likeness",
    "SyntheticSet": "syntheticset",
    "UserError": "errors",
    "condense": "condensing",
    "distill": "distillation",
    "evaluate": "evaluation",
    "expand": "expansion",
    "finetune": "quantization",
    "forecast_auc": "records",
    "fresh": "images",
    "kl": "losses",
    "load_data": "data",
    "load_model": "models",
    "new_model": "models",
    "method": "synthesis",
    "preset": "presets",
    "quantize": "quantization",
    "record": "records",
    "similarity": "likeness",
    "soft_labelled": "images",
    "stored": "images",
    "synthesize": "syntheticset",
    "train": "training",
    "write_release": "release",
}

__all__ = [
    "Bits",
    "Condensed",
    "Dataset",
    "Distillation",
    "Evaluation",
    "Expansion",
    "FineTuning",
    "Fresh",
    "Images",
    "InputSpec",
    "Mixed",
    "Network",
    "Objective",
    "Record",
    "Release",
    "Schedule",
    "Similarity",
    "SyntheticSet",
    "UserError",
    "__version__",
    "condense",
    "distill",
    "evaluate",
    "expand",
    "forecast_auc",
    "fresh",
    "kl",
    "load_data",
    "load_model",
    "method",
    "new_model",
    "preset",
    "record",
    "similarity",
    "soft_labelled",
    "stored",
    "synthesize",
    "train",
    "write_release",
]
"""Without names that need packages of an extra, `finetune` and `quantize`: `from datafree import *` does without."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'datafree' has no attribute {name!r}")
    home = importlib.import_module(f"datafree.{_HOMES[name]}")
    value = getattr(home, {"load_data": "load", "method": "named"}.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
