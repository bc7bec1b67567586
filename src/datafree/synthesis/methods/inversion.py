"""Reconstruction by gradient: optimises pixels until the teacher's activations match targets (Lopes et al. 2017, sec.
3).
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..._core.errors import UserError
from ..._core.progress import report_share
from ..._core.seeds import stream
from ..._core.settings import Settings
from ...data.augmentation import Augmentation
from ...models import hooks as tap_names
from ...models.behaviour import check_pixel_gradient
from ...models.input_spec import InputSpec
from ...models.memory_format import channels_last
from ...models.network import Network, frozen
from ...models.precision import autocast
from ...records.record import Record
from ..losses import Objective, View, term_from_name
from . import Batch, chunk_labels

__all__ = ["BoundInversion", "Inversion", "InversionSettings", "invert", "noise", "not_finite", "shapes_noise"]


class InversionSettings(Settings):
    """Settings of every method that optimises pixels from noise."""

    steps: int = Field(default=40, ge=1)
    """Number of Adam steps on the pixels; the authors used 1,000. Many images of few steps train better students."""
    learning_rate: float = Field(default=0.03, gt=0, le=10)
    """Learning rate of Adam on the pixels, as a share of their range; the authors used 0.05 to 0.09."""
    box: bool = False
    """Clamp pixels to their range after each step; the paper does not."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the teacher's forward pass; bfloat16 is up to 3 times as fast on CPUs that have it."""
    extra_loss: str | None = None
    """A loss of your own that is added, as file.py:Class or package.module:Class: a subclass of Term."""
    extra_loss_weight: float = Field(default=1.0, ge=0)
    """Weight of the extra loss, which is a sum over images."""

    later: ClassVar[dict[str, Any]] = {"extra_loss": None, "extra_loss_weight": 1.0}

    @property
    def in_range(self) -> bool:
        return self.box

    def bind_objective(self, teacher: Network, record: Record | None, objective: Objective) -> BoundInversion:
        """The method that minimises `objective` with these settings.

        Raises UserError for a teacher without a gradient to its pixels, a jitter as large as the images, and an extra loss
        that is missing, fails or is no loss.
        """
        check_pixel_gradient(teacher, f"method {self.method}")  # type: ignore[attr-defined]
        jitter, flip = getattr(self, "jitter", 0), getattr(self, "flip", False)
        side = min(teacher.spec.shape[1:])
        if jitter >= side:
            raise UserError(f"jitter: got {jitter}, expected below {side}, the images' smaller side; give less")
        inversion = Inversion(self.steps, self.learning_rate, self.box, self.precision, jitter, flip)
        return BoundInversion(teacher, record, self.with_extra_loss(objective), inversion)

    def with_extra_loss(self, objective: Objective) -> Objective:
        """The objective plus the user's own loss, if there is one. Raises UserError for one that is missing, fails or
        is none.
        """
        if self.extra_loss is not None:
            return objective + self.extra_loss_weight * term_from_name(self.extra_loss)
        if self.extra_loss_weight != 1:
            raise UserError(
                f"extra_loss_weight: got {self.extra_loss_weight:g} without `extra_loss`, whose weight it is; name that loss"
            )
        return objective


@dataclass(frozen=True)
class Inversion:
    """How pixels are optimised: `steps` of Adam. `learning_rate` is a share of the range of pixel values; `clamp` clamps
    pixels to that range after each step.
    """

    steps: int
    learning_rate: float
    clamp: bool
    precision: str = "float32"
    jitter: int = 0
    """Maximum circular shift of the batch at each step, in pixels."""
    flip: bool = False
    """Mirror the batch left to right with probability 1/2 at each step."""
    augment: Augmentation | None = None
    """Augmentation of each image at each step, drawn independently."""


BEFORE_A_STEP = "the network or its record exceeds the range of float32 on the first images; use another method"


def invert(
    network: Network, objective: Objective, start: Tensor, labels: Tensor, inversion: Inversion,
    rng: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Pixels (N, C, H, W) optimised from `start`. `objective` is already bound to this batch with its `labels` (N,).

    `rng` draws the augmentation, shifts and flips of each step. Only the pixels get a gradient; losses that learn do so
    after each step. Raises UserError with the step's number if the objective is not finite.
    """
    pixels = start.clone().requires_grad_(True)
    width = network.spec.high - network.spec.low
    adam = torch.optim.Adam([pixels], lr=inversion.learning_rate * width, eps=1e-8 / width)
    layout = channels_last(network) if network.device.type == "cpu" else nullcontext()  # measured on CPUs only
    watched = tap_names.watch(network, objective.taps, objective.edits, objective.reductions)
    with layout, frozen(network.module), watched as activations:
        if objective.taps and not objective.edits:  # edits have the size of the batch
            with torch.no_grad(), suppress(RuntimeError):
                network.logits(start[:2])  # a first pass copies all activations; of two images that costs nothing
        for step in range(inversion.steps):
            augmented = _augmented(pixels, inversion, network.spec, rng)
            with autocast(inversion.precision, network.device):
                logits = network.logits(augmented)
            activations[tap_names.INPUT] = augmented
            view = View(augmented, labels, logits, activations, reduced=activations.reduced)
            total, terms = objective(view)
            (pixels.grad,) = torch.autograd.grad(total, pixels)
            if not bool(total.isfinite()):
                raise UserError(not_finite(terms, step))
            adam.step()
            objective.learn(view)
            if inversion.clamp:
                with torch.no_grad():
                    pixels.clamp_(network.spec.low, network.spec.high)
            report_share((step + 1) / inversion.steps)
    return pixels.detach()


def not_finite(terms: dict[str, Tensor], step: int) -> str:
    """What to do about an objective that is not finite: correct the one term that is not, if others are, or the settings.

    If all terms (their unweighted values) are finite, a weight is too large.
    """
    wrong = [name for name, value in terms.items() if not bool(value.isfinite())]
    if 0 < len(wrong) < len(terms):
        return (
            f"the loss {wrong[0]} is {terms[wrong[0]].item():g} at step {step}, expected a finite number, as the other "
            "losses are; correct it, or leave it out"
        )
    if not wrong:
        values = ", ".join(f"{name} {value.item():g}" for name, value in terms.items())
        return f"the objective is not finite at step {step}, although its losses are ({values}); lower their weights"
    return f"the objective is not finite at step {step}; " + (
        "lower the method's `learning_rate`" if step else BEFORE_A_STEP
    )


def _augmented(pixels: Tensor, inversion: Inversion, spec: InputSpec, rng: torch.Generator | None) -> Tensor:
    """The batch as the network sees it in one step: augmented, shifted and mirrored."""
    if inversion.augment is not None and rng is not None:
        pixels = inversion.augment.show(pixels, spec, rng)
    if inversion.jitter and rng is not None:
        down, right = torch.randint(-inversion.jitter, inversion.jitter + 1, (2,), generator=rng).tolist()
        pixels = pixels.roll((down, right), (2, 3))
    if inversion.flip and rng is not None and int(torch.randint(2, (1,), generator=rng)):
        pixels = pixels.flip(3)
    return pixels


@dataclass(frozen=True)
class BoundInversion:
    """Images that start from noise (see `noise`) and are optimised under `objective`."""

    teacher: Network
    record: Record | None
    objective: Objective
    inversion: Inversion

    def chunk(self, index: int, seed: int, size: int) -> Batch:
        labels, rng = chunk_labels(index, size, len(self.teacher.spec.classes)), stream(seed, "unit", index)
        start = noise(self.teacher, self.record, labels, rng).to(self.teacher.device)
        bound = self.objective.bind(self.teacher, labels, rng)
        pixels = invert(self.teacher, bound, start, labels.to(self.teacher.device), self.inversion, rng).cpu()
        return Batch(pixels, labels)


def shapes_noise(record: Record) -> bool:
    """Whether `noise` uses anything of the record."""
    return bool(record.of_kind("input"))


def noise(network: Network, record: Record | None, labels: Tensor, rng: torch.Generator) -> Tensor:
    """Images (N, C, H, W), one per label (N,), drawn pixel by pixel from the recorded mean and std of the input.

    Pixels are not clamped, as in the paper. Without a record: the spec's mean and std, so that the network sees
    standard normal inputs. If the spec does not normalise: the middle of the range, with a quarter of its width as std.
    """
    spec = network.spec
    if not spec.normalises:
        mean, std = torch.tensor((spec.low + spec.high) / 2), torch.tensor((spec.high - spec.low) / 4)
    else:
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
    for entry in record.of_kind("input").values() if record is not None else ():
        mean, std = entry.summary["mean"], entry.summary["std"]
    return mean + std * torch.randn(len(labels), *spec.shape, generator=rng)
