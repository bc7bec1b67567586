"""Reads condensed sets in their authors' formats: `read(source, ...)` detects the format.

No pickle is executed: a `.pt` file is parsed opcode by opcode, and only the selected tensors are read. `meaning`
interprets the numbers (pixels, labels, patches), and `trial` tests the interpretation on the teacher.
"""

from __future__ import annotations

from pathlib import Path

from ...._core.errors import UserError
from ....models.input_spec import InputSpec
from .raw import UNWHITENED, Options, Raw

__all__ = ["FORMATS", "Options", "Raw", "read"]

FORMATS = {
    "dc": "a .pt dictionary whose `data` lists [images, labels]: DC, DSA, DM",
    "pair": "a .pt list [images, labels]: IDC",
    "best": "images_best.pt and labels_best.pt: MTT, DATM",
    "npz": "an .npz of images, labels: KIP, FRePo",
    "folder": "<class>/*.png: SRe2L, RDED",
    "parquet": "parquet of image and label, as on the Hugging Face hub",
}


def read(source: str | Path, spec: InputSpec, options: Options | None = None) -> Raw:
    """The set in `source`, a file or a folder. Raises UserError for an unknown format, damage or whitened images."""
    options = options or Options()
    raw = _read(Path(source), spec, options)
    if options.zca and not raw.files[0].name.startswith(UNWHITENED):
        raise UserError(
            f"zca: got True for {raw.files[0]}, which is whitened, expected an un-whitened {UNWHITENED}*.pt beside it; "
            "get that file too"
        )
    return raw


def _read(path: Path, spec: InputSpec, options: Options) -> Raw:
    if path.is_dir():
        return _folder(path, spec, options)
    if not path.exists():
        raise UserError(f"no file or folder {str(path)!r}; give a condensed set: {_format_list()}")
    if not path.is_file():
        raise UserError(f"{str(path)!r} is a device or a pipe, expected a file; give a condensed set: {_format_list()}")
    if path.suffix in (".pt", ".pth"):
        from . import torchfiles

        return torchfiles.read(path, options)
    if path.suffix.lower() == ".npz":
        from . import arrays

        return arrays.read(path, spec, options)
    if path.suffix == ".parquet":
        from . import parquet

        return parquet.read([path], spec, options)
    raise UserError(f"{str(path)!r} has an unknown format; expected {_format_list()}; convert it to one of them")


def _folder(path: Path, spec: InputSpec, options: Options) -> Raw:
    if (path / "images_best.pt").is_file() or any(path.glob(f"{UNWHITENED}*.pt")):
        from . import torchfiles

        return torchfiles.best(path)
    tables = sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")])
    if tables:
        from . import parquet

        return parquet.read(tables, spec, options)
    if (path / "data.pt").is_file():
        return _read(path / "data.pt", spec, options)
    if any(entry.is_dir() and not entry.name.startswith(".") for entry in path.iterdir()):
        from . import pictures

        return pictures.read(path, spec, options)
    raise UserError(
        f"no condensed set in {str(path)!r}; expected {_format_list()}; give another folder or the file itself"
    )


def _format_list() -> str:
    return "; ".join(FORMATS.values())
