"""Quantization without data: torchao's PT2E does the rewriting, onnxruntime the running; what no library has is here.

`bits` the settings, `steps` grids whose step is learnt, `annotate` what is rounded where, `prepared` calibration and the
simulated network, `finetune` distillation into it, `equalize` and `ranges` what needs no images, `export` ONNX,
`running` onnxruntime, `mobile` ExecuTorch, `folder` what is written.

Everything but `bits` needs the extra: ``pip install "datafree[quantize]"``, and `mobile` also ``datafree[executorch]``.
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
    from .post_training import Quantized, quantize

__all__ = [
    "Bits",
    "Check",
    "FineTuning",
    "Quantized",
    "Speed",
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
    "post_training": ("Quantized", "quantize"),
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
