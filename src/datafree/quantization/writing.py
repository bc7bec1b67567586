"""Writes a quantized network's files, compares each with the simulation, and times them beside the original."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from .._core.files import claim_folder, write_bytes
from ..models.agreement import Evaluation, agreement
from ..models.network import Network
from ..releases.processors import instruction_sets
from ..runs.output_folder import STAGED
from ..synthesis.methods import from_name
from .export import convert, onnx_content, to_onnx
from .folder import card, put_in_place, write_program, write_quantized
from .image_sources import Origin
from .onnxruntime import check, integer_operators, run, session, speed
from .post_training import Quantized

__all__ = ["write_files"]

COMPARED = 1024
"""Maximum number of images on which the forms are compared."""
NOISE_IMAGES = 256
"""Number of images of noise to compare on where the network was made without images."""
BATCH = 64


def write_files(
    folder: Path,
    network: Network,
    quantized: Quantized,
    sources: dict[str, Origin],
    pixels: Tensor | None,
    *,
    original_onnx: bytes | None = None,
    mobile: bool = False,
    evaluation: Evaluation | None = None,
    original_evaluation: Evaluation | None = None,
    curve: dict[str, Any] | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> dict[str, Any]:
    """Writes model.onnx, model.pt2, with `mobile` model.pte, config.json and the card into the run's output folder; returns
    the results for the run log.

    The files are made in a subfolder and moved into place when all are complete. The network's forms are compared on
    `pixels` (N, C, H, W), the images that it was made with, or on noise without them. `original_onnx` is `network` as ONNX,
    for the comparison of speed.
    """
    original_onnx = onnx_content(network, network.spec.shape) if original_onnx is None else original_onnx
    threads = torch.get_num_threads() if threads is None else threads
    result: dict[str, Any] = {} if curve is None else {"curve": curve}
    result["sources"] = {role: _as_json(origin) for role, origin in sources.items()}
    if pixels is not None:
        result["images"] = len(pixels)
    staged = claim_folder(folder / STAGED, kind="quantized")
    result |= _write_and_compare(staged, network, quantized, original_onnx, pixels, mobile, seed, threads)
    if evaluation is not None:
        result["evaluation"] = asdict(evaluation)
    if original_evaluation is not None:
        result["original"] = asdict(original_evaluation)
    text, fits = card(network, quantized.bits, result), result["target_cpu"]["fits_16_bits"]
    write_quantized(staged, network, quantized.bits, text, fits_16_bits=fits)
    put_in_place(staged, folder)
    return result


def _as_json(origin: Origin) -> dict[str, Any]:
    return {key: value for key, value in asdict(origin).items() if value is not None}


def _write_and_compare(
    folder: Path, network: Network, quantized: Quantized, original_onnx: bytes, pixels: Tensor | None, mobile: bool,
    seed: int, threads: int,
) -> dict[str, Any]:  # fmt: skip
    """Writes the files and compares them with the simulation and the original."""
    shape, bits = network.spec.shape, quantized.bits
    graph = convert(quantized)
    write_program(graph, folder / "model.pt2", shape)
    path = to_onnx(graph, folder / "model.onnx", shape)
    compared_on = "images it was made with" if pixels is not None else "images of noise"
    if pixels is None:
        pixels = network.spec.clamp(from_name("gaussian").bind(network, None).chunk(0, seed, NOISE_IMAGES).pixels)
    pixels = pixels[:COMPARED]
    simulated = quantized.network.predict(pixels)
    with torch.no_grad():
        converted = torch.cat([graph(part) for part in pixels.split(BATCH)])
    result: dict[str, Any] = {
        "converted": asdict(check(simulated, converted)),
        "exported": asdict(check(simulated, run(session(path, threads=threads), pixels))),
        "integer_operators": integer_operators(path),
        "left_in_float": quantized.left_in_float(),
        "bits": bits.name,
        "target_cpu": {
            "asked": quantized.target_cpu,
            "reduced": quantized.reduced(),
            "integer": bits.integer,
            "fits_16_bits": quantized.fits_16_bits(),
            "checked_on": instruction_sets(),
        },
        "simulated": bits.simulated,
        "rounding": quantized.rounding,
        "asked": compared_on,
        "parameters": network.parameters,
        "packed_bytes": quantized.nbytes(),
        "agreement_on_its_own_images": asdict(agreement(network.predict(pixels), simulated, network.spec.classes)),
    }
    original = folder / "original.onnx"
    write_bytes(original, original_onnx)
    times = speed(original, path, shape, threads=threads)
    original.unlink()
    result["speed"] = {**asdict(times), "faster": round(times.faster, 3), "smaller": round(times.smaller, 4)}
    if mobile:
        result["mobile"] = _write_mobile(folder, network, graph, pixels, simulated, quantized)
    return result


def _write_mobile(
    folder: Path, network: Network, graph: GraphModule, pixels: Tensor, simulated: Tensor, quantized: Quantized
) -> dict[str, Any]:
    """Writes model.pte; compares its logits with the simulation and its speed with the original in the same format."""
    from .executorch import mobile_speed, run_mobile, to_mobile

    shape = network.spec.shape
    path = to_mobile(graph, folder / "model.pte", shape, quantized.bits)
    original = to_mobile(network, folder / "original.pte", shape)
    times = mobile_speed(original, path, shape)
    original.unlink()
    comparison = asdict(check(simulated, run_mobile(path, pixels)))
    return {**comparison, **asdict(times), "faster": round(times.faster, 3), "smaller": round(times.smaller, 4)}
