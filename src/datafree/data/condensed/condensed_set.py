"""A condensed set: one to some dozens of images a class that stand for a data set, with labels, in one checked file.

`condensed.safetensors` holds `pixels` and `labels`, and in its header the InputSpec and what made them; a card stands
beside it. It is readable without this library.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot as _one_hot

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
FORMAT = 1
TOLERANCE = 1e-4
BEYOND = 1000
"""Times the range of images, how far learnt pixels may lie outside it."""


@dataclass(frozen=True, eq=False)
class Condensed:
    """Images and their labels. Raises UserError for tensors that do not fit each other or the spec."""

    pixels: Tensor
    """float32 (N, C, H, W) in the spec's pixel units, not normalised; learnt images may lie outside its range."""
    labels: Tensor
    """float32 (N, classes), each row a distribution."""
    spec: InputSpec
    about: dict[str, Any]
    """What made them: plain JSON."""

    def __post_init__(self) -> None:
        for name, tensor, shape in (
            ("pixels", self.pixels, self.spec.shape),
            ("labels", self.labels, (len(self.spec.classes),)),
        ):
            if tensor.dtype != torch.float32 or tuple(tensor.shape[1:]) != shape or tensor.device.type != "cpu":
                got = f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)} on {tensor.device}"
                wanted = f"wanted float32 (images, {', '.join(map(str, shape))}) on cpu"
                raise UserError(f"{name} of the condensed set are {got}; {wanted}; convert them")
            if not bool(tensor.isfinite().all()):
                raise UserError(f"{name} of the condensed set have NaN or infinity; make or get it again")
        if len(self.pixels) != len(self.labels) or not len(self.pixels):
            got = f"{len(self.labels)} labels for {len(self.pixels)} images"
            raise UserError(f"the condensed set has {got}; wanted as many, and at least one; make or get it again")
        _check_rows(self.labels)
        _check_pixels(self.pixels, self.spec)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def classes(self) -> Tensor:
        """The likeliest class (N,) of each label."""
        return self.labels.argmax(1)

    def by_class(self) -> list[int]:
        """How many images there are of each class."""
        return self.classes.bincount(minlength=len(self.spec.classes)).tolist()

    def accuracy(self, network: Network) -> float:
        """Share, in %, of the images in which `network` sees the class of the label."""
        return 100 * float((network.predict(self.pixels).argmax(1) == self.classes).double().mean())

    def clamped(self) -> Tensor:
        """The pixels cut to the spec's range: what a network is shown."""
        return self.spec.clamp(self.pixels)

    def missing(self) -> tuple[str, ...]:
        """The names of the classes that have no image."""
        return tuple(name for name, count in zip(self.spec.classes, self.by_class()) if not count)

    def chosen(self, count: int | None) -> Tensor:
        """`clamped`, of so many images that keep each class's share; None gives all."""
        if count is None or count >= len(self):
            return self.clamped()
        return self.clamped()[torch.from_numpy(choose(self.classes.numpy(), count))]

    def fitted(self, network: Network) -> Condensed:
        """The set as `network` takes it: labels in the order of its classes, pixels in its range.

        Raises UserError for a network of other images or other classes; classes match as those of data do.
        """
        own, wanted = (self.spec.shape, len(self.spec.classes)), (network.spec.shape, len(network.spec.classes))
        if own != wanted:
            raise UserError(
                f"the condensed set is of images {own[0]} of {own[1]} classes, {network.name} takes {wanted[0]} of "
                f"{wanted[1]}; condense or import for this network"
            )
        places = class_positions(self.spec.classes, network.spec.classes, "the condensed set", network.name)
        ordered = places == tuple(range(len(places)))
        if ordered and (self.spec.low, self.spec.high) == (network.spec.low, network.spec.high):
            return self
        labels = self.labels if ordered else self.labels[:, torch.tensor(places).argsort()]
        pixels = self.spec.rescaled(self.pixels, network.spec)
        return Condensed(pixels, labels, network.spec, self.about)

    def save(self, folder: str | Path) -> Path:
        """Writes the folder: condensed.safetensors and its card."""
        own = claim_folder(folder, kind=KIND)
        header = {"format": FORMAT, "spec": self.spec.model_dump(mode="json"), "about": self.about}
        with locked(own):
            sweep(own)
            write_tensors(own / FILE, {"pixels": self.pixels, "labels": self.labels}, header, kind=KIND)
            write_text(own / "README.md", card(self))
        return own

    @classmethod
    def open(cls, path: str | Path, network: Network | None = None) -> Condensed:
        """The set in a folder or file, as `network` takes it where one is given; see `fitted`.

        Raises UserError for one that is damaged, or not for `network`.
        """
        folder, path = Path(path), Path(path)
        path = path / FILE if path.is_dir() else path
        if not path.exists():
            check_finished(folder)
            raise UserError(f"no condensed set {path}; run datafree condense or import-condensed first")
        tensors, header = read_tensors(path, kind=KIND)
        if not is_format(header.get("format"), FORMAT):
            raise UserError(f"{path} has format {str(header.get('format'))[:40]}; wanted {FORMAT}; update datafree")
        if tensors.keys() != {"pixels", "labels"} or not isinstance(header.get("about"), dict):
            raise UserError(f"{path} is no whole condensed set: wanted pixels, labels and about; get it again")
        spec = InputSpec.stored(header.get("spec"), path)
        opened = cls(tensors["pixels"], tensors["labels"], spec, header["about"])
        return opened if network is None else opened.fitted(network)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Class numbers (N,) as label rows (N, classes)."""
    return _one_hot(labels.long(), classes).float()


def _check_pixels(pixels: Tensor, spec: InputSpec) -> None:
    most, low, high = BEYOND * (spec.high - spec.low), float(pixels.min()), float(pixels.max())
    if low < spec.low - most or high > spec.high + most:
        raise UserError(
            f"pixels of the condensed set go from {low:.4g} to {high:.4g}, wanted {spec.low - most:g} to "
            f"{spec.high + most:g}, {BEYOND} times the range of images beyond it; make or get it again"
        )


def _check_rows(labels: Tensor) -> None:
    wrong = ((labels.double().sum(1) - 1).abs() > TOLERANCE) | (labels < 0).any(1)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise UserError(
            f"label {row} of the condensed set sums to {float(labels[row].sum()):.4g} with a least entry of "
            f"{float(labels[row].min()):.4g}, wanted a distribution over the classes; convert it"
        )


def card(made: Condensed) -> str:
    """Markdown: what the set is, where it comes from, what it gives away."""
    spec, counts = made.spec, made.by_class()
    low, high = float(made.pixels.min()), float(made.pixels.max())
    hard = bool((made.labels.max(1).values == 1).all())
    more = " ..." if len(counts) > 20 else ""
    facts = [
        f"- {markdown(key)}: {markdown(_words(value))}" for key, value in made.about.items() if key != "gives_away"
    ]
    away = made.about.get("gives_away") or "Unknown: whoever made the set knows. Suppose that it shows training images."
    lines = [
        "# Condensed set",
        "",
        f"{len(made)} images of {len(counts)} classes: {', '.join(map(markdown, spec.classes[:20]))}{more}.",
        "",
        f"- pixels: {' x '.join(map(str, spec.shape))}, from {low:.3g} to {high:.3g}, **not normalised**; the range of"
        f" images is [{spec.low:g}, {spec.high:g}], and learnt ones may leave it",
        f"- labels: {'one class each' if hard else 'soft, each row a distribution'}",
        f"- images by class: {', '.join(map(str, counts[:20]))}{more}",
        *facts,
        "",
        "## What it gives away",
        "",
        markdown(away),
    ]
    return "\n".join(lines) + "\n"


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(own)}" for key, own in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
