"""datafree import-condensed: its options; what it does is in import_condensed.py, which imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from .arguments import Model, Run, Whole

__all__ = ["import_condensed"]

Flag = Annotated[bool, Parameter(negative="")]


def import_condensed(
    source: Path,
    teacher: str,
    /,
    *,
    out: Path,
    pixels: str | None = None,
    labels: Literal["auto", "hard", "logits"] = "auto",
    patches: Whole = 1,
    entry: Whole = -1,
    layout: Literal["NHWC", "NCHW"] | None = None,
    zca: Flag = False,
    resize: Flag = False,
    anyway: Flag = False,
    model: Model | None = None,
    run: Run | None = None,
) -> None:
    """Read a condensed set as its authors published it, try it on the teacher, and write it as one checked file.

    Example: datafree import-condensed images_best.pt teacher --pixels normalised:0.1307/0.3081 --out condensed

    Parameters
    ----------
    source
        A .pt of DC, DSA, DM or IDC, a folder with images_best.pt and labels_best.pt (MTT, DATM), an .npz (KIP, FRePo), a
        folder of class folders of images (SRe2L, RDED), or parquet. No pickle in it is run.
    teacher
        A release folder whose image size and classes the set must have.
    out
        The folder to write: condensed.safetensors, README.md, run.json.
    pixels
        What the stored numbers are: 0-1, 0-255, or normalised:MEAN/STD with the authors' numbers, one or one per channel.
        Image files need none.
    labels
        How soft labels are read: `auto` takes class numbers and distributions alone, `logits` takes their softmax, `hard`
        the highest alone.
    patches
        For IDC: number of parts per side of each image; each part becomes an image.
    entry
        Index of the set in a file with several; the last by default.
    layout
        Layout of an .npz whose shape fits both.
    zca
        The set was learned under ZCA whitening: images_zca_*.pt, the un-whitened images, must be there.
    resize
        Bring images to the teacher's size (bilinear; image files are cropped to its aspect first).
    anyway
        Write the set although the teacher's accuracy on it is near chance, or the pixels look wrong.
    """
    from .import_condensed import import_condensed as read

    read(
        source, teacher, out=out, pixels=pixels, labels=labels, patches=patches, entry=entry, layout=layout, zca=zca,
        resize=resize, anyway=anyway, model=model, run=run,
    )  # fmt: skip
