"""Quantization without data: torchao's PT2E rewrites the graph, onnxruntime runs it; everything else is here.

`quantized_network` does everything in one call and has the result. Its parts: `image_sources` (images), `post_training`
(calibration and the simulated network), `fake_quantize` (grids with a learnable step), `annotate` (what is rounded),
`equalize` and `batchnorm_ranges` (need no images), `fine_tuning` (distillation into the rounded network), `export` (ONNX),
`onnxruntime` and `executorch` (run it), `writing` (writes, compares and times the files), `folder` (card and config.json).

Everything but `Bits` and `FineTuning` needs the extra: ``pip install "datafree[quantize]"``, and model.pte also
``datafree[executorch]``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .._core.optional_packages import quiet, require
from ..releases.bits import Bits
from .settings import FineTuning

if TYPE_CHECKING:
    from .executorch import check_mobile, mobile_speed, run_mobile, to_mobile
    from .export import convert, onnx_content, to_onnx
    from .fine_tuning import finetune
    from .folder import card, write_program, write_quantized
    from .onnxruntime import Check, Speed, check, integer_operators, run, session, speed
    from .post_training import Quantized, calibrate
    from .quantized_network import QuantizedNetwork, quantize

__all__ = [
    "Bits",
    "Check",
    "FineTuning",
    "Quantized",
    "QuantizedNetwork",
    "Speed",
    "calibrate",
    "card",
    "check",
    "check_mobile",
    "convert",
    "finetune",
    "integer_operators",
    "mobile_speed",
    "onnx_content",
    "quantize",
    "require",
    "run",
    "run_mobile",
    "session",
    "speed",
    "to_mobile",
    "to_onnx",
    "write_program",
    "write_quantized",
]  # fmt: skip

_IN = {
    "export": ("convert", "onnx_content", "to_onnx"),
    "fine_tuning": ("finetune",),
    "folder": ("card", "write_program", "write_quantized"),
    "executorch": ("check_mobile", "mobile_speed", "run_mobile", "to_mobile"),
    "post_training": ("Quantized", "calibrate"),
    "quantized_network": ("QuantizedNetwork", "quantize"),
    "onnxruntime": ("Check", "Speed", "check", "integer_operators", "run", "session", "speed"),
}
_HOMES = {name: module for module, names in _IN.items() for name in names}
_WITHOUT_TORCHAO = ("folder", "onnxruntime")


def __getattr__(name: str) -> Any:
    """Imports on first use; raises UserError where torchao is missing or of another version."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _HOMES[name] not in _WITHOUT_TORCHAO:
        require("torchao")
    with quiet():
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
