"""Condensed sets as their authors publish them, read as they stand: `read(source, ...)` finds the format.

No pickle is run: a `.pt` file is described opcode by opcode, and only the picked tensors are read. What the numbers mean
(pixels, labels, patches) is for `meaning`, whether they mean it for `trial`.
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
    """The set in `source`, a file or a folder. Raises UserError for what is no format of these, damaged or whitened."""
    own = options or Options()
    raw = _read(Path(source), spec, own)
    if own.zca and not raw.files[0].name.startswith(UNWHITENED):
        raise UserError(
            f"--zca: {raw.files[0]} is whitened, and no un-whitened {UNWHITENED}*.pt is beside it, so its pixels cannot be "
            "had; get that file too"
        )
    return raw


def _read(path: Path, spec: InputSpec, own: Options) -> Raw:
    if path.is_dir():
        return _folder(path, spec, own)
    if not path.exists():
        raise UserError(f"no file or folder {str(path)!r}; give a condensed set: {_named()}")
    if not path.is_file():
        raise UserError(f"{str(path)!r} is a device or a pipe, wanted a file; give a condensed set: {_named()}")
    if path.suffix in (".pt", ".pth"):
        from . import torchfiles

        return torchfiles.read(path, own)
    if path.suffix.lower() == ".npz":
        from . import arrays

        return arrays.read(path, spec, own)
    if path.suffix == ".parquet":
        from . import parquet

        return parquet.read([path], spec, own)
    raise UserError(f"{str(path)!r} is of no format that is known; wanted {_named()}; convert it to one of them")


def _folder(path: Path, spec: InputSpec, own: Options) -> Raw:
    if (path / "images_best.pt").is_file() or any(path.glob(f"{UNWHITENED}*.pt")):
        from . import torchfiles

        return torchfiles.best(path)
    tables = sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")])
    if tables:
        from . import parquet

        return parquet.read(tables, spec, own)
    if (path / "data.pt").is_file():
        return _read(path / "data.pt", spec, own)
    if any(entry.is_dir() and not entry.name.startswith(".") for entry in path.iterdir()):
        from . import pictures

        return pictures.read(path, spec, own)
    raise UserError(f"no condensed set in {str(path)!r}; wanted {_named()}; give another folder or the file itself")


def _named() -> str:
    return "; ".join(FORMATS.values())
