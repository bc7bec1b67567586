"""Networks in ONNX files of other tools: checked from their bytes, converted by onnx2torch, compared with onnxruntime."""

from __future__ import annotations

import importlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._core import memory
from .._core.errors import UserError, out_of_memory
from .._core.files.open_file import check_pointer, open_regular
from .._core.folder_kinds import is_onnx, is_quantized
from .._core.optional_packages import first_line, installed_version, quiet, require_onnx
from ..models.class_names import MOST_CLASSES
from ..models.input_spec import InputSpec
from ..models.network import PROBES, Network
from .onnx_session import MAX_BYTES, Process
from .onnx_session.cost import cost
from .onnx_session.foreign import External, Foreign, external_names, program, read_foreign

__all__ = ["OnnxFile", "is_onnx", "onnx_files", "onnx_network", "onnx_spec", "read_onnx"]

SPREAD, SIZE = 2e-3, 1e-4
"""Largest difference to onnxruntime's logits, as a share of their spread and of the largest of them."""
IR = 13
"""The latest version of the format that onnxruntime reads; later ones add nothing that is read here."""
COPIES = 6
"""Copies of the weights in memory while a file is converted and compared, at most."""


@dataclass(frozen=True)
class OnnxFile:
    """A checked file. Nothing of it has been run."""

    path: Path
    content: bytes
    foreign: Foreign

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.foreign.graph.shape
        return channels, height, width

    @property
    def classes(self) -> int:
        return self.foreign.classes


def read_onnx(name: str | Path, shape: tuple[int, int, int] | None = None) -> OnnxFile:
    """The checked content of an ONNX file that takes images of `shape`, by default the shape that it states.

    The bytes are parsed and sizes are followed through the graph; nothing is run, and no package but numpy is needed.
    Raises UserError for a file that is damaged, no classifier, quantized, written for one number of images, or too large,
    and for weights outside of its folder.
    """
    path = Path(name)
    if not os.path.isfile(path) and not os.path.islink(path):
        raise UserError(f"no file {path}, expected an ONNX file; check the path")
    if is_quantized(path.parent):
        raise UserError(f"{path} is one file of a quantized network, expected its folder; give {path.parent}")
    content = _read(path)
    check_pointer(content[:64], str(path))
    try:
        foreign = read_foreign(content, _beside(path), shape)
        if not 2 <= foreign.classes <= MOST_CLASSES:
            raise UserError(f"it returns {foreign.classes} logits, expected 2 to {MOST_CLASSES:,}; give a classifier")
    except UserError as error:
        raise _refused(path, error) from None
    return OnnxFile(path, content, foreign)


def onnx_spec(name: str | Path) -> InputSpec:
    """The input that an ONNX file states: its shape, and as many classes as it returns logits; pixels are not normalised."""
    file = read_onnx(name)
    return InputSpec(shape=file.shape, classes=_numbered(file.classes))


def onnx_files(name: str | Path) -> list[Path]:
    """The other files with weights of an ONNX file, in its folder."""
    path = Path(name)
    try:
        return [path.parent / place for place in external_names(_read(path))]
    except UserError as error:
        raise _refused(path, error) from None


def onnx_network(name: str, spec: InputSpec | None = None) -> Network:
    """The network in an ONNX file, with its weights, in eval mode; `spec` is by default `onnx_spec`.

    Its logits on noise are compared with onnxruntime's. Raises UserError as `read_onnx` does, for a spec of another shape or
    number of classes, for operators that onnx2torch does not convert, and if the logits differ.
    """
    file = read_onnx(name, None if spec is None else spec.shape)
    if spec is None:
        spec = InputSpec(shape=file.shape, classes=_numbered(file.classes))
    if len(spec.classes) != file.classes:
        raise UserError(
            f"classes: got {len(spec.classes)}, and {file.path} returns {file.classes} logits, expected one for each; "
            "leave them out, or give as many"
        )
    require_onnx()
    needed = cost(file.foreign.graph, PROBES)
    memory.check_cost(
        COPIES * needed.weights + 2 * needed.peak, f"opening {file.path}", otherwise="use a smaller network"
    )
    try:
        network = Network(_converted(file.foreign).eval(), spec, name)
    except UserError as error:
        raise _refused(file.path, error) from None
    _compare(file, network)
    return network


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _read(path: Path) -> bytes:
    """All bytes of a file, up to MAX_BYTES."""
    with open_regular(path) as (file, size):
        if size > MAX_BYTES:
            raise UserError(f"{path} has {size:,} bytes, expected at most {MAX_BYTES:,}; use a smaller network")
        memory.check_cost(2 * size, f"reading {path}")
        content = file.read(size) or b""
        while len(content) < size and (more := file.read(size - len(content))):
            content += more
    return content


def _beside(path: Path) -> External:
    """Opens files of weights in the folder of an ONNX file."""

    def opened(place: str) -> memoryview:
        other = path.parent / place
        if not other.is_file():
            raise UserError(f"its weights are in {place!r}, which is not beside it; put both in one folder")
        content = _read(other)
        check_pointer(content[:64], str(other))
        return memoryview(content)

    return opened


def _refused(path: Path, error: UserError) -> UserError:
    reason = str(error)
    return UserError(f"{path} is not used: {reason}{'' if ';' in reason else '; export it again'}")


def _converted(foreign: Foreign) -> nn.Module:
    """The network as a torch module. Raises UserError with only the reason if onnx2torch does not convert it."""
    from .libraries import import_torchvision
    from .onnx_lowering import lower
    from .onnx_module import finished

    with quiet():
        import_torchvision(needed=True)
        convert = importlib.import_module("onnx2torch").convert
        try:
            lowered = lower(foreign)
            with torch.random.fork_rng(devices=[]):  # layers are made with random weights, which are then replaced
                module = convert(lowered.model)
        except UserError:
            raise
        except Exception as error:  # its converters raise errors of many types
            if out_of_memory(error):
                raise
            raise UserError(f"{_reason(error)}; give the network as Python code, with its weights") from None
        return finished(module, lowered)


def _reason(error: Exception) -> str:
    """What onnx2torch says of an operator or graph that it does not convert."""
    version = installed_version("onnx2torch")
    operator = re.search(r"operation_type='(\w+)'", str(error))
    if operator is not None:
        return f"onnx2torch {version} has no conversion of the operator {operator[1]!r}, expected one"
    return f"onnx2torch {version} does not convert it ({type(error).__name__}: {first_line(error)})"


@torch.no_grad()
def _compare(file: OnnxFile, network: Network) -> None:
    """Raises UserError unless the network returns onnxruntime's logits on noise."""
    images = file.foreign.batch or 1
    probes = network.probes()
    pixels = network.spec.normalize(
        probes.repeat(-(-images // PROBES), 1, 1, 1)[: max(images, PROBES // images * images)]
    )
    expected = _of_onnxruntime(file, pixels)
    module = network.module
    try:
        logits = torch.cat([module(part.clone()) for part in pixels.split(PROBES)])
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if out_of_memory(error):
            raise
        raise UserError(
            f"{file.path} is not used: the network that onnx2torch makes of it fails ({first_line(error)}); give the "
            "network as Python code, with its weights"
        ) from None
    if logits.shape != expected.shape:
        difference = f"shape {tuple(logits.shape)} instead of {tuple(expected.shape)}"
    else:
        spread, size = float((expected - expected.mean()).abs().max()), float(expected.abs().max())
        largest = float((logits - expected).abs().max())
        if largest <= SPREAD * spread + SIZE * size or not bool(expected.isfinite().all()):
            return  # logits that are not finite are reported by Network.check
        difference = f"by up to {largest:.2g} for logits up to {size:.2g}"
    raise UserError(
        f"{file.path} is not used: the network that onnx2torch {installed_version('onnx2torch')} makes of it returns other "
        f"logits than onnxruntime ({difference}); give the network as Python code, with its weights"
    )


def _of_onnxruntime(file: OnnxFile, pixels: Tensor) -> Tensor:
    """Logits of normalised images, from onnxruntime in a process with limits."""
    running = program(file.foreign, file.path)
    process = Process(running, _plain(file), 1)
    try:
        return torch.from_numpy(process.run(pixels.numpy()).copy())
    except UserError as error:
        raise UserError(str(error).replace("get it again, or quantize again", "export it again")) from None
    finally:
        process.close()


def _plain(file: OnnxFile) -> bytes:
    """The file with all weights inside, without metadata, which onnxruntime may take for settings."""
    import onnx

    model: Any = onnx.load_model_from_string(file.content)
    model.ir_version = min(model.ir_version, IR)
    model.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    if file.foreign.external:
        tensors = file.foreign.original.tensors
        for entry in model.graph.initializer:
            if entry.external_data:
                entry.raw_data = bytes(tensors[entry.name].stored[1][0])
                entry.ClearField("external_data")
                entry.ClearField("data_location")
    return model.SerializeToString()
