"""Compress a trained neural network without its training data.

    from datafree import load_model, record, synthesize, distill

Verbs are plain functions; the command line calls the same ones. Names load on first use, so that `import datafree`
does not wait for torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from ._core.version import VERSION as __version__

# onnxruntime 1.31 reads this when it is imported: unset, empty, "0" or "false" let it write a device id and a database
# into the user's home and send events. A value that somebody set is left alone.
if not os.environ.get("ORT_DISABLE_TELEMETRY"):
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"

if TYPE_CHECKING:  # the same names for type checkers and editors, which do not run `__getattr__`
    from ._core.errors import UserError
    from ._core.settings import Settings
    from .data import Dataset
    from .data import load as load_data
    from .data.adapters import as_dataset
    from .data.condensed.condensed_set import Condensed
    from .data.condensed.importers.judging import import_condensed
    from .data.condensed.methods import condense
    from .distillation.distill import DistilledNetwork, distill
    from .distillation.distill_online import OnlineNetwork, distill_online
    from .distillation.kl import kl
    from .distillation.online.history import History
    from .distillation.online.settings import OnlineDistillation
    from .distillation.prune import prune
    from .distillation.schedule import Distillation
    from .distillation.sources import FreshImages, MixedImages, StoredImages, fresh_images, soft_labelled, stored_images
    from .distillation.train import train
    from .distillation.train_student import train_student
    from .distillation.training_loop import Curve, Schedule
    from .evaluation.accuracy import Evaluation, evaluate
    from .evaluation.comparison.comparing import compare
    from .evaluation.comparison.result import Comparison
    from .evaluation.normalisation import Normalisation, normalisations
    from .evaluation.report.collect import WrittenReport, report
    from .evaluation.similarity import Similarity, similarity
    from .evaluation.student_release import save_student
    from .models.input_spec import InputSpec
    from .models.network import Network
    from .quantization import Bits, FineTuning
    from .quantization import QuantizedNetwork as QuantizedNetwork
    from .quantization import finetune as finetune
    from .quantization import quantize as quantize
    from .records.forecast import forecast_auc
    from .records.presets import preset
    from .records.record import Record, record
    from .releases.load import load_model, new_model
    from .releases.release import Release, write_release
    from .synthesis.expansion import Expansion, expand
    from .synthesis.losses import Objective
    from .synthesis.methods import from_name as method
    from .synthesis.sampling import Samples, sample
    from .synthesis.synthetic_set import SyntheticSet, synthesize

_HOMES = {
    "Bits": "quantization",
    "Comparison": "evaluation.comparison.result",
    "Condensed": "data.condensed.condensed_set",
    "Dataset": "data",
    "Curve": "distillation.training_loop",
    "Distillation": "distillation.schedule",
    "DistilledNetwork": "distillation.distill",
    "Evaluation": "evaluation.accuracy",
    "Expansion": "synthesis.expansion",
    "FineTuning": "quantization",
    "FreshImages": "distillation.sources",
    "StoredImages": "distillation.sources",
    "History": "distillation.online.history",
    "InputSpec": "models.input_spec",
    "MixedImages": "distillation.sources",
    "Network": "models.network",
    "Normalisation": "evaluation.normalisation",
    "OnlineDistillation": "distillation.online.settings",
    "OnlineNetwork": "distillation.distill_online",
    "Objective": "synthesis.losses",
    "QuantizedNetwork": "quantization",
    "Record": "records.record",
    "Release": "releases.release",
    "Samples": "synthesis.sampling",
    "Settings": "_core.settings",
    "Schedule": "distillation.training_loop",
    "Similarity": "evaluation.similarity",
    "SyntheticSet": "synthesis.synthetic_set",
    "WrittenReport": "evaluation.report.collect",
    "UserError": "_core.errors",
    "as_dataset": "data.adapters",
    "compare": "evaluation.comparison.comparing",
    "condense": "data.condensed.methods",
    "distill": "distillation.distill",
    "distill_online": "distillation.distill_online",
    "evaluate": "evaluation.accuracy",
    "expand": "synthesis.expansion",
    "finetune": "quantization",
    "forecast_auc": "records.forecast",
    "fresh_images": "distillation.sources",
    "import_condensed": "data.condensed.importers.judging",
    "kl": "distillation.kl",
    "load_data": "data",
    "load_model": "releases.load",
    "new_model": "releases.load",
    "normalisations": "evaluation.normalisation",
    "method": "synthesis.methods",
    "preset": "records.presets",
    "prune": "distillation.prune",
    "quantize": "quantization",
    "record": "records.record",
    "report": "evaluation.report.collect",
    "sample": "synthesis.sampling",
    "save_student": "evaluation.student_release",
    "similarity": "evaluation.similarity",
    "soft_labelled": "distillation.sources",
    "stored_images": "distillation.sources",
    "synthesize": "synthesis.synthetic_set",
    "train": "distillation.train",
    "train_student": "distillation.train_student",
    "write_release": "releases.release",
}

__all__ = [
    "Bits",
    "Comparison",
    "Condensed",
    "Curve",
    "Dataset",
    "Distillation",
    "DistilledNetwork",
    "Evaluation",
    "Expansion",
    "FineTuning",
    "FreshImages",
    "History",
    "InputSpec",
    "MixedImages",
    "Network",
    "Normalisation",
    "Objective",
    "OnlineDistillation",
    "OnlineNetwork",
    "Record",
    "Release",
    "Samples",
    "Schedule",
    "Settings",
    "Similarity",
    "StoredImages",
    "SyntheticSet",
    "UserError",
    "WrittenReport",
    "__version__",
    "as_dataset",
    "compare",
    "condense",
    "distill",
    "distill_online",
    "evaluate",
    "expand",
    "forecast_auc",
    "fresh_images",
    "import_condensed",
    "kl",
    "load_data",
    "load_model",
    "method",
    "new_model",
    "normalisations",
    "preset",
    "prune",
    "record",
    "report",
    "sample",
    "save_student",
    "similarity",
    "soft_labelled",
    "stored_images",
    "synthesize",
    "train",
    "train_student",
    "write_release",
]
"""Without names that need packages of an extra, such as `quantize`: `from datafree import *` does without."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'datafree' has no attribute {name!r}")
    home = importlib.import_module(f"datafree.{_HOMES[name]}")
    value = getattr(home, {"load_data": "load", "method": "from_name"}.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
