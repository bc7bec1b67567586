"""A quantized network on disk: `model.onnx`, torch's `model.pt2`, ExecuTorch's `model.pte` where it was asked for,
`config.json` with their checksums, a card.

`open_quantized` runs the ONNX file, after its checksum and a check of what it does, in a process with limits on memory and
time; the program is for torch, and is not opened here.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__
from ..agreement import NO_ACCURACY
from ..errors import Notice, UserError
from ..files import (
    atomic,
    claim_folder,
    is_format,
    read_sealed_json,
    sha256_file,
    sweep,
    write_bytes,
    write_sealed_json,
)
from ..files.place import MARKER
from ..files.regular import open_regular
from ..folders import NO_COPY, QUANTIZED, is_quantized
from ..markdown import markdown
from ..network import Network
from ..onnxfile import MAX_BYTES, Program, check
from ..release import CUSTOM, LONGEST, OLDER, architecture_of
from ..settings import parse
from ..spec import InputSpec
from .bits import Bits
from .processors import cut_sums, processor_lines

__all__ = [
    "Exported",
    "apart",
    "card",
    "check_files",
    "is_quantized",
    "open_quantized",
    "put_in_place",
    "read_config",
    "read_program",
    "write_program",
    "write_quantized",
]

KIND = QUANTIZED
FILES = ("model.onnx", "model.pt2", "model.pte")
ALIKE = 99.9


class Exported(nn.Module):
    """An ONNX file run by onnxruntime in a process of its own: pixels (N, C, H, W) to logits (N, classes), on the CPU,
    without gradients. Raises UserError where the file takes more time or memory than its operators account for."""

    rounds = True
    """Its answers jump from level to level."""

    def __init__(self, program: Program, content: bytes, threads: int):
        super().__init__()
        from ..onnxfile import Process

        self.program, self.process = program, Process(program, content, threads)
        self.digest: Tensor
        self.register_buffer("digest", torch.frombuffer(bytearray(hashlib.sha256(content).digest()), dtype=torch.uint8))

    def __deepcopy__(self, memo: dict[int, Any]) -> Exported:
        raise UserError(NO_COPY)

    def forward(self, pixels: Tensor) -> Tensor:
        shape, program = tuple(pixels.shape[1:]), self.program
        if shape != program.graph.shape:
            raise UserError(
                f"{program.path} got images of shape {shape}, expected {program.graph.shape}; give such images"
            )
        if not len(pixels):
            return torch.empty(0, program.classes or 0)
        return torch.from_numpy(self.process.run(pixels.detach().cpu().float().numpy()).copy())


def write_program(graph: nn.Module, path: Path, shape: tuple[int, int, int]) -> Path:
    """Torch's quantized program: ``torch.export.load(path)`` after ``import torchao``."""
    from .stack import any_number, quiet

    content = io.BytesIO()
    with torch.no_grad(), quiet():
        program = torch.export.export(graph, (torch.zeros(2, *shape),), dynamic_shapes=any_number())
        _forget_sources(program.graph_module)
        torch.export.save(program, content)
    write_bytes(path, content.getvalue())
    return path


def _forget_sources(graph: nn.Module) -> None:
    """Removes the source lines, with paths of whoever exported, that torch keeps with every operation."""
    for module in graph.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn"):
                node.meta.pop(key, None)


def write_quantized(folder: Path, network: Network, bits: Bits, card: str, *, fits_16_bits: bool | None = None) -> Path:
    """Writes config.json, last, and the card, over the files that are in the folder already.

    `fits_16_bits` is whether no sum of two products in model.onnx exceeds 16 bits, which x86 processors without VNNI need;
    None where that is unknown.
    """
    own = claim_folder(folder, kind=KIND)
    sweep(own)
    write_bytes(own / "README.md", card.encode())
    config = {
        "format": 1,
        "kind": KIND,
        "architecture": architecture_of(network).removeprefix("" if ":" in network.name else CUSTOM),
        "spec": network.spec.model_dump(mode="json"),
        "bits": bits.model_dump(mode="json"),
        "original": network.fingerprint(),
        "sha256": {name: sha256_file(own / name) for name in FILES if (own / name).is_file()},
        "datafree": __version__,
        **({} if fits_16_bits is None else {"fits_16_bits": fits_16_bits}),
    }
    write_sealed_json(own / "config.json", config)
    return own


def put_in_place(made: Path, folder: Path) -> None:
    """Copies the finished files of `made` into `folder`, config.json last, so that none stands under another's.

    All are written before the first old one goes: where that fails, a full disk say, the folder stays as it was.
    """
    names = sorted(path.name for path in made.iterdir() if path.name not in (MARKER, "config.json"))
    sweep(folder)
    with ExitStack() as stack:
        for name in ("config.json", *names):  # what is opened first is renamed last
            file = stack.enter_context(atomic(folder / name, size=(made / name).stat().st_size))
            with (made / name).open("rb") as source:
                shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        for name in ("config.json", *(own for own in FILES if own not in names)):
            (folder / name).unlink(missing_ok=True)


def open_quantized(folder: str | Path, *, threads: int = 0) -> Network:
    """The network in a folder that `datafree quantize` wrote; `threads` 0 is as many as there are cores.

    Raises UserError for another folder, and for a file that is not as it was written. A file that may answer differently
    on this processor comes with a `Notice`.
    """
    from .stack import require

    require("onnxruntime")
    folder = Path(folder)
    config = read_config(folder)
    program, content = read_program(folder, config)
    if config.bits.integer and (difference := cut_sums(config.fits_16_bits)):
        warnings.warn(Notice(f"{folder} {difference}"), stacklevel=2)
    name = f"{config.architecture}-{config.bits.name}"
    network = Network(Exported(program, content, threads), config.spec.unnormalised(), name)
    network.check()
    return network


def read_program(folder: Path, config: Config) -> tuple[Program, bytes]:
    """What model.onnx does, and its bytes; nothing is run, and no package but numpy is needed.

    Raises UserError for a file that is gone or not as it was written, and for one that is refused (`onnxfile.check`).
    """
    path = folder / "model.onnx"
    if "model.onnx" not in config.sha256 or not path.exists():
        raise UserError(f"{folder} has no model.onnx, wanted one to run; quantize again")
    with open_regular(path) as (file, size):
        if size > MAX_BYTES:
            raise UserError(
                f"{path} has {size:,} bytes, expected at most {MAX_BYTES:,}; get it again, or quantize again"
            )
        content = file.read(size + 1) or b""
    if hashlib.sha256(content).hexdigest() != config.sha256["model.onnx"]:
        raise UserError(f"{path} is not as it was written; get or write it again")
    return check(content, path, config.spec.shape, len(config.spec.classes)), content


def check_files(folder: Path) -> None:
    """Raises UserError where a file of a quantized network is gone, or not as it was written."""
    for name, digest in read_config(folder).sha256.items():
        if name not in FILES:
            raise UserError(
                f"{folder / 'config.json'}: sha256: got a file {name[:80]!r}, expected {', '.join(FILES)}; get it again"
            )
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            raise UserError(f"{folder / name} is not as it was written; get or write it again")


@dataclass(frozen=True)
class Config:
    """What config.json says, checked."""

    architecture: str
    spec: InputSpec
    bits: Bits
    original: str
    """The fingerprint of the network that it was made from."""
    sha256: dict[str, Any]
    fits_16_bits: bool | None
    """Whether no sum of two products exceeds 16 bits; None where the file does not say."""


def read_config(folder: Path) -> Config:
    """Raises UserError for a folder of something else, and for a config that nobody wrote with datafree."""
    path = folder / "config.json"
    config = read_sealed_json(path, OLDER)
    digests: Any = config.get("sha256")
    if not is_format(config.get("format"), 1) or config.get("kind") != KIND or not isinstance(digests, dict):
        raise UserError(f"{folder} holds no quantized network of format 1; make one with datafree quantize")
    name = config.get("architecture")
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= LONGEST:
        raise UserError(
            f"{path}: architecture: got {str(name)[:40]!r}, wanted a name of up to {LONGEST} printable characters; "
            "get it again"
        )
    if not re.fullmatch("[0-9a-f]{64}", str(config.get("original"))):
        raise UserError(f"{path}: original: wanted the fingerprint of a network; get it again")
    try:
        spec, bits = InputSpec.stored(config.get("spec"), path), parse(Bits, config.get("bits"))
        fits = config.get("fits_16_bits")
        return Config(name, spec, bits, str(config["original"]), digests, fits if isinstance(fits, bool) else None)
    except UserError as error:
        if str(path) in str(error):
            raise
        found = str(error).partition(";")[0].removeprefix("--")
        raise UserError(f"{path}: {found}; get it again") from None


def card(network: Network, bits: Bits, result: dict[str, Any]) -> str:
    """Markdown: what was made of which network, how it is run, what it is worth beside the original."""
    spec, speed = network.spec, result["speed"]
    operators = dict(result["integer operators"])
    other = operators.pop("other")
    lines = [
        f"# {markdown(network.name.rpartition(':')[2])} at {bits.words}",
        "",
        f"Weights of {bits.weights} bits, activations of {bits.activations}"
        + (f"; first layer's weights of {bits.first}" if bits.first is not None else "")
        + (f"; last layer of {bits.last}" if bits.last is not None else "")
        + ", made by datafree.",
        *([] if "sources" not in result else [markdown(chosen_on(result["sources"]))]),
        "",
        f"- input `pixels`: (images, {spec.shape[0]}, {spec.shape[1]}, {spec.shape[2]}) float32 in "
        f"[{spec.low:g}, {spec.high:g}]; normalisation is within the files",
        f"- output `logits`: (images, {len(spec.classes)})",
        f"- `model.onnx`: {speed['quantized_bytes']:,} bytes, {100 * speed['smaller']:.1f} % of the original as ONNX",
        f"- {speed['faster']:.2f} times as fast as the original, {speed['batch']} images at a time on "
        f"{speed['threads']} thread{'s' * (speed['threads'] != 1)} of onnxruntime, both in one run",
        f"- integer operators: {sum(operators.values())}, others: {other}",
    ]
    if "target cpu" in result:
        lines += [f"- {line}" for line in processor_lines(result)]
    if result["left in float"]:
        lines.append(f"- left in floating point: {markdown(', '.join(result['left in float']))}")
    if "mobile" in result:
        mobile = result["mobile"]
        lines.append(
            f"- `model.pte`: {mobile['quantized_bytes']:,} bytes, for ExecuTorch, {mobile['batch']} images at a time; "
            f"{mobile['faster']:.2f} times as fast as the original there"
        )
    if bits.simulated:
        lines.append(f"- {simulation(result)}")
    if apart(result) is not None:
        lines.append(f"- {apart(result)}")
    if "evaluation" in result:
        found, original = result["evaluation"], result["original"]
        lines.append(
            f"- accuracy {found['accuracy']:.2f} % (original {original['accuracy']:.2f} %) on {found['images']:,} test "
            f"images; agreement with the original {found['agreement']:.2f} %"
        )
    else:
        found = result["agreement on its own images"]
        lines.append(f"- agreement with the original on {found['images']:,} {result['asked']}: {found['equal']:.2f} %")
        lines += [f"  ({markdown(found.get('warning'))})"] * bool(found.get("warning")) + [f"- {NO_ACCURACY}"]
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
        "datafree checks `model.onnx` and runs that file alone. `model.pt2` and `model.pte` are programs that it never "
        "opens: load them only where you trust whoever made them.",
    ]
    return "\n".join(lines) + "\n"


def chosen_on(sources: dict[str, Any]) -> str:
    """A sentence on the images that a network was quantized with."""
    ranges, taught = sources["ranges"], sources.get("fine-tuning")
    words = f"Ranges chosen on {ranges['what']}"
    words += f"; fine-tuned on {taught['what']}" if taught else ""
    return words + ("; no training image was used." if all(own["synthetic"] for own in sources.values()) else ".")


def apart(result: dict[str, Any]) -> str | None:
    """A warning where the file answers otherwise than what was measured, on more than one image in a thousand."""
    found = result["exported"]
    if found["equal"] >= ALIKE:
        return None
    return (
        f"model.onnx answers otherwise than the simulation, whose accuracy and agreement are given here, on "
        f"{100 - found['equal']:.2f} % of {found['images']:,} images; measure the file itself with datafree evaluate"
    )


def simulation(result: dict[str, Any]) -> str:
    """What bits without kernels mean for the size and the speed that were measured."""
    integer = sum(count for kind, count in result["integer operators"].items() if kind != "other")
    how = f"with {integer} operators in integers of 8 bits and the others" if integer else "entirely"
    return (
        f"bits other than 8 are simulated: no kernels for them exist; this file runs {how} in floating point, at "
        f"{result['speed']['faster']:.2f} times the original's speed; packed, the weights would take "
        f"{result['packed bytes']:,} bytes"
    )
