"""A quantized network on disk: `model.onnx`, torch's `model.pt2`, optionally ExecuTorch's `model.pte`, `config.json` with
their checksums, and a card.

`open_quantized` checks the ONNX file's checksum and operators, and runs it in a process with limits on memory and time.
The programs for torch and ExecuTorch are never opened by datafree.
"""

from __future__ import annotations

import io
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._core.files import (
    atomic,
    claim_folder,
    sha256_file,
    sweep,
    write_bytes,
    write_sealed_json,
)
from .._core.files.paths import MARKER
from .._core.folder_kinds import is_quantized
from .._core.text import markdown
from .._core.version import VERSION
from ..models.agreement import NO_ACCURACY, interval_in_words
from ..models.network import Network
from ..releases.bits import Bits
from ..releases.processors import processor_lines
from ..releases.quantized import FILES, KIND
from ..releases.release import CUSTOM, architecture_of

__all__ = [
    "card",
    "exported_difference",
    "is_quantized",
    "of_range",
    "put_in_place",
    "write_program",
    "write_quantized",
]

EQUAL = 99.9
"""Share of images, in %, with the same prediction of file and simulation, below which the card warns."""


def write_program(graph: nn.Module, path: Path, shape: tuple[int, int, int]) -> Path:
    """Torch's quantized program: ``torch.export.load(path)`` after ``import torchao``."""
    from .._core.optional_packages import any_number, quiet

    content = io.BytesIO()
    with torch.no_grad(), quiet():
        program = torch.export.export(graph, (torch.zeros(2, *shape),), dynamic_shapes=any_number())
        _forget_sources(program.graph_module)
        torch.export.save(program, content)
    write_bytes(path, content.getvalue())
    return path


def _forget_sources(graph: nn.Module) -> None:
    """Removes the source lines, with local paths, that torch stores with every operation."""
    for module in graph.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn"):
                node.meta.pop(key, None)


def write_quantized(folder: Path, network: Network, bits: Bits, card: str, *, fits_16_bits: bool | None = None) -> Path:
    """Writes the card and, last, config.json, with checksums of the files that are already in the folder.

    `fits_16_bits`: whether no sum of two products in model.onnx exceeds 16 bits, as x86 processors without VNNI need; None
    if unknown.
    """
    place = claim_folder(folder, kind=KIND)
    sweep(place)
    write_bytes(place / "README.md", card.encode())
    config = {
        "format": 1,
        "kind": KIND,
        "architecture": architecture_of(network).removeprefix("" if ":" in network.name else CUSTOM),
        "spec": network.spec.model_dump(mode="json"),
        "bits": bits.model_dump(mode="json"),
        "original": network.fingerprint(),
        "sha256": {name: sha256_file(place / name) for name in FILES if (place / name).is_file()},
        "datafree": VERSION,
        **({} if fits_16_bits is None else {"fits_16_bits": fits_16_bits}),
    }
    write_sealed_json(place / "config.json", config)
    return place


def put_in_place(staged: Path, folder: Path) -> None:
    """Copies the finished files of `staged` into `folder`, config.json last, so that it never lists other files.

    All files are written before the first old one is replaced. If that fails, on a full disk for example, the folder stays
    as it was.
    """
    names = sorted(path.name for path in staged.iterdir() if path.name not in (MARKER, "config.json"))
    sweep(folder)
    with ExitStack() as stack:
        for name in ("config.json", *names):  # what is opened first is renamed last
            file = stack.enter_context(atomic(folder / name, size=(staged / name).stat().st_size))
            with (staged / name).open("rb") as source:
                shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        for name in ("config.json", *(file for file in FILES if file not in names)):
            (folder / name).unlink(missing_ok=True)


ROUNDINGS = {
    "squant": "weights rounded by SQuant (Guo et al. 2022), so that their errors cancel",
    "nearest": "weights rounded to the nearest level",
}
"""How weights were rounded -> the words of the card."""


def card(network: Network, bits: Bits, result: dict[str, Any]) -> str:
    """Markdown: what was quantized and how, how to run it, and how it compares with the original."""
    spec, speed = network.spec, result["speed"]
    operators = dict(result["integer_operators"])
    other = operators.pop("other")
    lines = [
        f"# {markdown(network.name.rpartition(':')[2])} at {bits.words}",
        "",
        f"Weights of {bits.weights} bits, activations of {bits.activations}"
        + (f"; first layer's weights of {bits.first}" if bits.first is not None else "")
        + (f"; last layer of {bits.last}" if bits.last is not None else "")
        + ", made by datafree.",
        *([] if "sources" not in result else [markdown(images_used(result["sources"]))]),
        "",
        f"- input `pixels`: (images, {spec.shape[0]}, {spec.shape[1]}, {spec.shape[2]}) float32 in "
        f"[{spec.low:g}, {spec.high:g}]; normalisation is within the files",
        f"- output `logits`: (images, {len(spec.classes)})",
        f"- `model.onnx`: {speed['quantized_bytes']:,} bytes, {100 * speed['smaller']:.1f} % of the original as ONNX",
        f"- {speed['faster']:.2f} times as fast as the original, {speed['batch']} images at a time on "
        f"{speed['threads']} thread{'s' * (speed['threads'] != 1)} of onnxruntime, both in one run",
        f"- operators: {sum(operators.values())} in integers, {other} others",
    ]
    if "rounding" in result:
        lines.append(f"- {ROUNDINGS[result['rounding']]}")
    if "target_cpu" in result:
        lines += [f"- {line}" for line in processor_lines(result)]
    if result["left_in_float"]:
        lines.append(f"- left in floating point: {markdown(', '.join(result['left_in_float']))}")
    if "mobile" in result:
        mobile = result["mobile"]
        lines.append(
            f"- `model.pte`: {mobile['quantized_bytes']:,} bytes, for ExecuTorch, {mobile['batch']} images at a time; "
            f"{mobile['faster']:.2f} times as fast as the original there"
        )
    if bits.simulated:
        lines.append(f"- {simulation(result)}")
    if exported_difference(result) is not None:
        lines.append(f"- {exported_difference(result)}")
    if "evaluation" in result:
        scores, original = result["evaluation"], result.get("original")
        beside = "" if original is None else f" (original {original['accuracy']:.2f} %)"
        agreeing = scores.get("agreement")
        agreed = "" if agreeing is None else f"; agreement with the original {agreeing:.2f} %"
        lines.append(
            f"- accuracy {scores['accuracy']:.2f} %{beside} on {scores['images']:,} test images, "
            f"{interval_in_words(scores['accuracy'], scores['images'])}{agreed}"
        )
    else:
        agreement = result["agreement_on_its_own_images"]
        lines.append(
            f"- agreement with the original on {agreement['images']:,} {result['asked']}: {agreement['equal']:.2f} %"
        )
        lines += [f"  ({markdown(agreement.get('warning'))})"] * bool(agreement.get("warning")) + [f"- {NO_ACCURACY}"]
    lines += [
        "",
        "```python",
        "import os",
        'os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import: onnxruntime sends telemetry otherwise',
        "import onnxruntime",
        'session = onnxruntime.InferenceSession("model.onnx")',
        'logits = session.run(None, {"pixels": pixels})[0]',
        "```",
        "",
        "```python",
        "import torch, torchao  # torchao first: it brings the operators",
        'logits = torch.export.load("model.pt2").module()(pixels)',
        "```",
        "",
        "datafree checks and runs only `model.onnx`. `model.pt2` and `model.pte` are programs that it never opens: load "
        "them only if you trust the person who made them.",
    ]
    return "\n".join(lines) + "\n"


def images_used(sources: dict[str, Any]) -> str:
    """A sentence on the images that a network was quantized with."""
    ranges, fine_tuning = sources["ranges"], sources.get("fine_tuning")
    sentence = f"Ranges chosen on {ranges['description']}"
    sentence += f"; fine-tuned on {fine_tuning['description']}" if fine_tuning else ""
    all_synthetic = all(origin["synthetic"] for origin in sources.values())
    return sentence + ("; no training image was used." if all_synthetic else ".")


def of_range(comparison: dict[str, Any]) -> str:
    """` of logits up to 12`, for the largest difference in a comparison; empty for one of earlier versions."""
    return f" of logits up to {comparison['largest_logit']:.2g}" if "largest_logit" in comparison else ""


def exported_difference(result: dict[str, Any]) -> str | None:
    """A warning if the file answers differently from the simulation on more than one image in a thousand."""
    exported = result["exported"]
    if exported["equal"] >= EQUAL:
        return None
    return (
        f"model.onnx answers differently from the simulation, whose accuracy and agreement are given here, on "
        f"{100 - exported['equal']:.2f} % of {exported['images']:,} images; measure the file itself with datafree evaluate"
    )


def simulation(result: dict[str, Any]) -> str:
    """A note on bits without kernels, and their effect on the measured size and speed."""
    count = sum(count for kind, count in result["integer_operators"].items() if kind != "other")
    operators = f"with {count} operators in integers of 8 bits and the others" if count else "entirely"
    return (
        f"bits other than 8 are simulated: no kernels for them exist; this file runs {operators} in floating point, at "
        f"{result['speed']['faster']:.2f} times the original's speed; packed, the weights would take "
        f"{result['packed_bytes']:,} bytes"
    )
