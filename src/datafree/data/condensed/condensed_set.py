"""A condensed set: from one to some dozens of labelled images per class that represent a data set, in one checked file.

`condensed.safetensors` holds `pixels` and `labels`, with the InputSpec and the provenance in its header. Its folder
also has a card. The file can be read without this library.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot as _one_hot

from ..._core.arguments import check_count, checked
from ..._core.errors import UserError
from ..._core.files import claim_folder, is_format, locked, read_tensors, sweep, write_tensors, write_text
from ..._core.files.unfinished import check_finished
from ..._core.folder_kinds import CONDENSED as FILE
from ..._core.text import markdown
from ...models.class_names import class_positions
from ...models.input_spec import InputSpec
from ...models.network import Network
from ..stratified import choose

__all__ = ["FILE", "Condensed", "one_hot"]

KIND = "condensed"
LEAKAGE, OLD_LEAKAGE = "leakage", "gives_away"
"""Key of what the images reveal, and its name in files of earlier versions."""
FORMAT = 1
TOLERANCE = 1e-4
BEYOND = 1000
"""Maximum distance of optimised pixels from the range of images, in multiples of its width."""


@dataclass(frozen=True, eq=False)
class Condensed:
    """Images and labels. Raises UserError for tensors that do not fit each other or the spec."""

    pixels: Tensor
    """float32 (N, C, H, W) in the spec's pixel units, not normalised; optimised images may leave its range."""
    labels: Tensor
    """float32 (N, classes); each row is a probability distribution."""
    spec: InputSpec
    about: dict[str, Any]
    """Provenance, as plain JSON."""

    def __post_init__(self) -> None:
        for name, tensor, shape in (
            ("pixels", self.pixels, self.spec.shape),
            ("labels", self.labels, (len(self.spec.classes),)),
        ):
            if tensor.dtype != torch.float32 or tuple(tensor.shape[1:]) != shape or tensor.device.type != "cpu":
                got = f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)} on {tensor.device}"
                expected = f"expected float32 (images, {', '.join(map(str, shape))}) on cpu"
                raise UserError(f"{name} of the condensed set are {got}; {expected}; convert them")
            if not bool(tensor.isfinite().all()):
                raise UserError(f"{name} of the condensed set have NaN or infinity; make or get it again")
        if len(self.pixels) != len(self.labels) or not len(self.pixels):
            got = f"{len(self.labels)} labels for {len(self.pixels)} images"
            raise UserError(
                f"the condensed set has {got}; expected one label per image and at least one image; make or get it "
                "again"
            )
        _check_rows(self.labels)
        _check_pixels(self.pixels, self.spec)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def classes(self) -> Tensor:
        """The most likely class (N,) of each label."""
        return self.labels.argmax(1)

    def by_class(self) -> list[int]:
        """Number of images per class."""
        return self.classes.bincount(minlength=len(self.spec.classes)).tolist()

    @checked
    def accuracy(self, network: Network) -> float:
        """Share of the images for which `network` predicts the label's class, in %."""
        return 100 * float((network.predict(self.pixels).argmax(1) == self.classes).double().mean())

    def clamped(self) -> Tensor:
        """Pixels clamped to the spec's range, as networks see them."""
        return self.spec.clamp(self.pixels)

    def missing(self) -> tuple[str, ...]:
        """Names of the classes without an image."""
        return tuple(name for name, count in zip(self.spec.classes, self.by_class()) if not count)

    @checked
    def chosen(self, count: int | None) -> Tensor:
        """Clamped pixels of `count` images that keep each class's share; None returns all."""
        if count is None:
            return self.clamped()
        check_count("count", count)
        if count >= len(self):
            return self.clamped()
        return self.clamped()[torch.from_numpy(choose(self.classes.numpy(), count))]

    @checked
    def fitted(self, network: Network) -> Condensed:
        """The set with labels in the order of the network's classes and pixels in its range.

        Raises UserError for a network with another image shape or other classes.
        """
        got, expected = (self.spec.shape, len(self.spec.classes)), (network.spec.shape, len(network.spec.classes))
        if got != expected:
            raise UserError(
                f"the condensed set has images {got[0]} of {got[1]} classes, {network.name} expects {expected[0]} of "
                f"{expected[1]}; condense or import for this network"
            )
        positions = class_positions(self.spec.classes, network.spec.classes, "the condensed set", network.name)
        ordered = positions == tuple(range(len(positions)))
        if ordered and (self.spec.low, self.spec.high) == (network.spec.low, network.spec.high):
            return self
        labels = self.labels if ordered else self.labels[:, torch.tensor(positions).argsort()]
        pixels = self.spec.rescaled(self.pixels, network.spec)
        return Condensed(pixels, labels, network.spec, self.about)

    @checked
    def save(self, folder: str | Path) -> Path:
        """Writes condensed.safetensors and a card to `folder`. Returns the folder's path."""
        path = claim_folder(folder, kind=KIND)
        header = {"format": FORMAT, "spec": self.spec.model_dump(mode="json"), "about": self.about}
        with locked(path):
            sweep(path)
            write_tensors(path / FILE, {"pixels": self.pixels, "labels": self.labels}, header, kind=KIND)
            write_text(path / "README.md", card(self))
        return path

    @classmethod
    @checked
    def open(cls, path: str | Path, network: Network | None = None) -> Condensed:
        """The set in a folder or file; with `network`, fitted to it (see `fitted`).

        Raises UserError for a missing or damaged set, or one that does not fit `network`.
        """
        folder, path = Path(path), Path(path)
        path = path / FILE if path.is_dir() else path
        if not path.exists():
            check_finished(folder)
            raise UserError(f"no condensed set {path}; run datafree condense or import-condensed first")
        tensors, header = read_tensors(path, kind=KIND)
        if not is_format(header.get("format"), FORMAT):
            raise UserError(f"{path} has format {str(header.get('format'))[:40]}; expected {FORMAT}; update datafree")
        if tensors.keys() != {"pixels", "labels"} or not isinstance(header.get("about"), dict):
            raise UserError(f"{path} is not a complete condensed set: expected pixels, labels and about; get it again")
        spec = InputSpec.stored(header.get("spec"), path)
        about = {LEAKAGE if key == OLD_LEAKAGE else key: value for key, value in header["about"].items()}
        opened = cls(tensors["pixels"], tensors["labels"], spec, about)
        return opened if network is None else opened.fitted(network)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Class numbers (N,) as one-hot float32 rows (N, classes)."""
    return _one_hot(labels.long(), classes).float()


def _check_pixels(pixels: Tensor, spec: InputSpec) -> None:
    margin, low, high = BEYOND * (spec.high - spec.low), float(pixels.min()), float(pixels.max())
    if low < spec.low - margin or high > spec.high + margin:
        raise UserError(
            f"pixels of the condensed set go from {low:.4g} to {high:.4g}, expected {spec.low - margin:g} to "
            f"{spec.high + margin:g}, the range of images extended by {BEYOND} times its width; make or get it again"
        )


def _check_rows(labels: Tensor) -> None:
    invalid = ((labels.double().sum(1) - 1).abs() > TOLERANCE) | (labels < 0).any(1)
    if bool(invalid.any()):
        row = int(invalid.nonzero()[0])
        raise UserError(
            f"label {row} of the condensed set sums to {float(labels[row].sum()):.4g} with a smallest entry of "
            f"{float(labels[row].min()):.4g}, expected a distribution over the classes; convert it"
        )


def card(condensed: Condensed) -> str:
    """The set's card in Markdown: contents, provenance, leakage."""
    spec, counts = condensed.spec, condensed.by_class()
    low, high = float(condensed.pixels.min()), float(condensed.pixels.max())
    hard = bool((condensed.labels.max(1).values == 1).all())
    ellipsis = " ..." if len(counts) > 20 else ""
    facts = [
        f"- {markdown(key)}: {markdown(_words(value))}" for key, value in condensed.about.items() if key != LEAKAGE
    ]
    leakage = (
        condensed.about.get(LEAKAGE) or "Unknown: only the set's author knows. Assume that it shows training images."
    )
    lines = [
        "# Condensed set",
        "",
        f"{len(condensed)} images of {len(counts)} classes: {', '.join(map(markdown, spec.classes[:20]))}{ellipsis}.",
        "",
        f"- pixels: {' x '.join(map(str, spec.shape))}, from {low:.3g} to {high:.3g}, **not normalised**; the range of"
        f" images is [{spec.low:g}, {spec.high:g}], and optimised ones may leave it",
        f"- labels: {'hard, one class each' if hard else 'soft, each row a distribution'}",
        f"- images per class: {', '.join(map(str, counts[:20]))}{ellipsis}",
        *facts,
        "",
        "## Leakage",
        "",
        markdown(leakage),
    ]
    return "\n".join(lines) + "\n"


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(entry)}" for key, entry in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
