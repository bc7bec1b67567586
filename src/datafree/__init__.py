"""Compress a trained neural network without its training data.

    from datafree import load_model, record, synthesize, distill

Verbs are plain functions; the command line calls the same ones. Names load on first use, so that `import datafree`
does not wait for torch.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

__version__ = "0.1.0"

# onnxruntime 1.31 reads this when it is imported: unset, empty, "0" or "false" let it write a device id and a database
# into the user's home and send events. A value that somebody set is left alone.
if not os.environ.get("ORT_DISABLE_TELEMETRY"):
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"

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

_EXTRA = ("finetune", "quantize")
"""Names that need packages of an extra: `from datafree import *` does without."""

__all__ = sorted([*(name for name in _HOMES if name not in _EXTRA), "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'datafree' has no attribute {name!r}")
    home = importlib.import_module(f"datafree.{_HOMES[name]}")
    value = getattr(home, {"load_data": "load", "method": "named"}.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
