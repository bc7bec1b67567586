"""Reconstruction by gradient: the input is optimised until the teacher's activations are the wanted ones (eq. in sec. 3)."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ..._core.errors import UserError
from ..._core.seeds import stream
from ..._core.settings import Settings
from ...data.augmentation import Augmentation
from ...models import hooks as tap_names
from ...models.behaviour import check_pixel_gradient
from ...models.input_spec import InputSpec
from ...models.memory_format import channels_last
from ...models.network import Network, frozen
from ...records.record import Record
from ..losses import Objective, View
from . import Batch, unit_labels

__all__ = ["BoundInversion", "Inversion", "InversionSettings", "invert", "noise"]


class InversionSettings(Settings):
    """The fields that every method that optimises pixels from noise has."""

    steps: int = Field(default=40, ge=1)
    """Number of Adam steps on the pixels; the authors' code takes 1,000. More images in fewer steps make better students."""
    learning_rate: float = Field(default=0.03, gt=0, le=10)
    """Learning rate of Adam on the pixels, of a range of 1; the authors': 0.07 (HINTON), 0.09 (LeNet-5), 0.05 (AlexNet)."""
    box: bool = False
    """Keep pixels in their range; the paper does not."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the teacher's forward pass; bfloat16 is up to 3 times as fast on CPUs that have it."""

    @property
    def in_range(self) -> bool:
        return self.box

    def maker(self, teacher: Network, record: Record | None, objective: Objective) -> BoundInversion:
        """Units that follow `objective` as these settings say."""
        check_pixel_gradient(teacher, f"--method {self.method}")  # type: ignore[attr-defined]
        moved = getattr(self, "jitter", 0), getattr(self, "flip", False)
        side = min(teacher.spec.shape[1:])
        if moved[0] >= side:
            raise UserError(f"--jitter: got {moved[0]}, wanted below {side}, the images' smaller side; give less")
        how = Inversion(self.steps, self.learning_rate, self.box, self.precision, *moved)
        return BoundInversion(teacher, record, objective, how)


@dataclass(frozen=True)
class Inversion:
    """How pixels are optimised: Adam, `steps` times at `learning_rate`, a share of the range of pixel values; `box` keeps
    them in it.
    """

    steps: int
    learning_rate: float
    box: bool
    precision: str = "float32"
    jitter: int = 0
    """Each step the network sees the batch shifted by up to so many pixels, around the edges."""
    flip: bool = False
    """Mirror the batch left to right before the network with probability 1/2, each step."""
    augment: Augmentation | None = None
    """Each step the network sees every image augmented in a way of its own."""


BEFORE_A_STEP = "the network or its record gives numbers beyond float32 on the first images; use another --method"


def invert(
    network: Network, objective: Objective, start: Tensor, labels: Tensor, how: Inversion,
    rng: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Pixels like `start` (N, C, H, W), after Adam on them; `objective` is bound to this batch.

    `rng` draws the augmentation, shifts and flips of each step. Only the pixels get a gradient; what the objective itself
    learns, it learns after each step. Raises UserError when the objective turns non-finite, naming the step.
    """
    pixels = start.clone().requires_grad_(True)
    width = network.spec.high - network.spec.low
    adam = torch.optim.Adam([pixels], lr=how.learning_rate * width, eps=1e-8 / width)
    narrow = how.precision == "bfloat16"
    turned = channels_last(network) if network.device.type == "cpu" else nullcontext()  # measured on CPUs only
    with turned, frozen(network.module), tap_names.watch(network, objective.taps, objective.edits) as seen:
        for step in range(how.steps):
            shown = _shown(pixels, how, network.spec, rng)
            with torch.autocast(network.device.type, torch.bfloat16) if narrow else nullcontext():
                logits = network.logits(shown)
            seen[tap_names.INPUT] = shown
            view = View(shown, labels, logits, seen)
            total, _ = objective(view)
            (pixels.grad,) = torch.autograd.grad(total, pixels)
            if not bool(total.isfinite()):
                what = "lower --learning-rate" if step else BEFORE_A_STEP
                raise UserError(f"the objective is not finite at step {step}; {what}")
            adam.step()
            objective.learn(view)
            if how.box:
                with torch.no_grad():
                    pixels.clamp_(network.spec.low, network.spec.high)
    return pixels.detach()


def _shown(pixels: Tensor, how: Inversion, spec: InputSpec, rng: torch.Generator | None) -> Tensor:
    """The batch as one step shows it."""
    if how.augment is not None and rng is not None:
        pixels = how.augment.show(pixels, spec, rng)
    if how.jitter and rng is not None:
        down, right = torch.randint(-how.jitter, how.jitter + 1, (2,), generator=rng).tolist()
        pixels = pixels.roll((down, right), (2, 3))
    if how.flip and rng is not None and int(torch.randint(2, (1,), generator=rng)):
        pixels = pixels.flip(3)
    return pixels


@dataclass(frozen=True)
class BoundInversion:
    """Units that start from noise, of the input record where there is one, and are optimised under `objective`."""

    teacher: Network
    record: Record | None
    objective: Objective
    how: Inversion

    def chunk(self, index: int, seed: int, size: int) -> Batch:
        labels, rng = unit_labels(index, size, len(self.teacher.spec.classes)), stream(seed, "unit", index)
        start = noise(self.teacher, self.record, labels, rng).to(self.teacher.device)
        bound = self.objective.bind(self.teacher, labels, rng)
        pixels = invert(self.teacher, bound, start, labels.to(self.teacher.device), self.how, rng).cpu()
        return Batch(pixels, labels)


def noise(network: Network, record: Record | None, labels: Tensor, rng: torch.Generator) -> Tensor:
    """Images (N, C, H, W) drawn pixel by pixel from the input record's mean and std; not clamped, as in the paper.

    Without input statistics: standard normal to the network, by its spec's mean and std; where the spec normalises nothing,
    from the middle of the range with a quarter of it as std.
    """
    spec = network.spec
    if not spec.normalises:
        mean, std = torch.tensor((spec.low + spec.high) / 2), torch.tensor((spec.high - spec.low) / 4)
    else:
        mean, std = (torch.tensor(own).view(-1, 1, 1) for own in (spec.mean, spec.std))
    for entry in record.of_kind("input").values() if record is not None else ():
        mean, std = entry.summary["mean"], entry.summary["std"]
    return mean + std * torch.randn(len(labels), *spec.shape, generator=rng)
