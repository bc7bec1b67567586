"""On which processors an exported file gives the same answers, in words for its card.

onnxruntime multiplies uint8 activations by int8 weights. On x86 without VNNI it adds each pair of products in 16 bits
(`vpmaddubsw`), which cuts sums beyond 32,767; 2 x 255 x 63 = 32,130 fits, 2 x 255 x 127 does not.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

__all__ = ["cut_sums", "instruction_sets", "processor_lines"]

SETS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
"""Instruction sets that decide which of onnxruntime's integer kernels run, by their names in Linux."""


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """This processor's architecture and those of its `SETS`.

    Only the architecture if the system does not list instruction sets.
    """
    flags: set[str] = set()
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.partition(":")[0].strip() in ("flags", "Features"):
                flags = set(line.partition(":")[2].split())
                break
    return [platform.machine() or "unknown", *(name for name in SETS if name in flags)]


def cut_sums(fits: bool | None) -> str | None:
    """A sentence if an int8 file may give other answers on this processor (x86 without VNNI); otherwise None.

    `fits` is whether no sum of two products exceeds 16 bits; None if the file does not say.
    """
    machine, *sets = instruction_sets()
    if fits or machine.lower() not in ("x86_64", "amd64") or {"avx_vnni", "avx512_vnni"}.intersection(sets):
        return None
    reason = "is for processors with VNNI" if fits is False else "does not say for which processors it is"
    return (
        f"{reason}, which this one lacks: sums of products may be cut to 16 bits and answers differ; quantize again with "
        "`target_cpu='any'`"
    )


def processor_lines(result: dict[str, Any]) -> list[str]:
    """Sentences on where the file was checked and what is known of other processors. `result` is that of `quantize`."""
    target = result["target_cpu"]
    name = result["bits"].upper()
    checked = f"model.onnx was checked in onnxruntime on {', '.join(target['checked_on'])}"
    if not target["integer"]:
        return [f"{checked}; other processors were not tried."]
    if target["fits_16_bits"]:
        reduced = (
            f"{name}, reduced range: int8 weights are within -63..63, 7 bits of 8, so that" if target["reduced"] else ""
        )
        sums = "sums of two products fit the 16 bits that x86 processors without VNNI (AVX2, AVX-512) have for them"
        lines = [f"{reduced} {sums}." if reduced else f"{sums[0].upper()}{sums[1:]}."]
    else:
        lines = [
            f"{name}, full range, for x86 processors with VNNI: on x86 without VNNI (AVX2, AVX-512) onnxruntime cuts "
            "sums of two products to 16 bits and this file gives other answers; datafree quantize TEACHER --target-cpu any "
            "--out FOLDER avoids it."
        ]
    return [*lines, f"{checked}; ARM and other processors were not tried."]
