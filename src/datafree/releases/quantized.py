"""Opens a quantized network: its files are checked, then `model.onnx` runs in a process with limits."""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._core.errors import Notice, UserError
from .._core.files import (
    is_format,
    read_sealed_json,
    sha256_file,
)
from .._core.files.open_file import open_regular
from .._core.folder_kinds import NO_COPY, QUANTIZED
from .._core.settings import parse
from ..models.input_spec import InputSpec
from ..models.network import Network, OpaqueModule
from ..runs.output_folder import Kind
from .bits import Bits
from .onnx_session import MAX_BYTES, Program, check
from .processors import cut_sums
from .release import LONGEST, OLDER

__all__ = [
    "FILES",
    "KIND",
    "QUANTIZED_FOLDER",
    "Config",
    "Exported",
    "check_files",
    "open_quantized",
    "read_config",
    "read_program",
]


KIND = QUANTIZED


FILES = ("model.onnx", "model.pt2", "model.pte")


class Exported(OpaqueModule):
    """An ONNX file that onnxruntime runs in a separate process: pixels (N, C, H, W) to logits (N, classes), on the CPU,
    without gradients. Raises UserError if the file takes more time or memory than its operators account for."""

    rounds = True
    """Its answers change in steps."""

    def __init__(self, program: Program, content: bytes, threads: int):
        super().__init__()
        from .onnx_session import Process

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


def open_quantized(folder: str | Path, *, threads: int = 0) -> Network:
    """The network in a folder that `datafree quantize` wrote; 0 `threads` means one per core.

    Raises UserError for another folder and for a file that has changed. Warns with a `Notice` if the file may give other
    answers on this processor.
    """
    from .._core.optional_packages import require

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
    """The checked program in model.onnx, and the file's bytes. Nothing is run, and only numpy is needed.

    Raises UserError for a file that is missing or has changed, and for one that `onnx_session.check` refuses.
    """
    path = folder / "model.onnx"
    if "model.onnx" not in config.sha256 or not path.exists():
        raise UserError(f"{folder} has no model.onnx, expected one to run; quantize again")
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
    """Raises UserError if a file of a quantized network is missing or has changed."""
    for name, digest in read_config(folder).sha256.items():
        if name not in FILES:
            raise UserError(
                f"{folder / 'config.json'}: sha256: got a file {name[:80]!r}, expected {', '.join(FILES)}; get it again"
            )
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            raise UserError(f"{folder / name} is not as it was written; get or write it again")


@dataclass(frozen=True)
class Config:
    """The checked content of config.json."""

    architecture: str
    spec: InputSpec
    bits: Bits
    original: str
    """The fingerprint of the original network."""
    sha256: dict[str, Any]
    fits_16_bits: bool | None
    """Whether no sum of two products exceeds 16 bits; None if the file does not say."""


def read_config(folder: Path) -> Config:
    """The config.json of a folder. Raises UserError for another kind of folder, and for a config not written by datafree."""
    path = folder / "config.json"
    config = read_sealed_json(path, OLDER)
    digests: Any = config.get("sha256")
    if not is_format(config.get("format"), 1) or config.get("kind") != KIND or not isinstance(digests, dict):
        raise UserError(f"{folder} holds no quantized network of format 1; make one with datafree quantize")
    name = config.get("architecture")
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= LONGEST:
        raise UserError(
            f"{path}: architecture: got {str(name)[:40]!r}, expected a name of up to {LONGEST} printable characters; "
            "get it again"
        )
    if not re.fullmatch("[0-9a-f]{64}", str(config.get("original"))):
        raise UserError(f"{path}: original: expected the fingerprint of a network; get it again")
    try:
        spec, bits = InputSpec.stored(config.get("spec"), path), parse(Bits, config.get("bits"))
        fits = config.get("fits_16_bits")
        return Config(name, spec, bits, str(config["original"]), digests, fits if isinstance(fits, bool) else None)
    except UserError as error:
        if str(path) in str(error):
            raise
        reason = str(error).partition(";")[0]
        raise UserError(f"{path}: {reason}; get it again") from None


QUANTIZED_FOLDER = Kind(
    "quantized",
    "quantized network",
    ("config.json", "model.onnx", "model.pt2", "model.pte", "README.md"),
    check_files,
)
"""The folder of a quantized network, as `runs.output_folder` takes it."""
