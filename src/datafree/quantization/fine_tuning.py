"""Quantization-aware distillation: the rounded network learns the original's outputs. Batch norms are folded, so frozen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._core.arguments import checked
from .._core.errors import UserError
from .._core.progress import Progress, silent
from .._core.seeds import stream
from ..distillation.train_student import train_student
from ..distillation.training_loop import Curve
from ..distillation.views import check_shift, view
from ..models.input_spec import InputSpec
from ..models.network import Network
from ..models.pixel_bytes import to_pixels
from .post_training import Quantized, round_biases
from .settings import FineTuning

__all__ = ["Augmented", "digest_of", "finetune"]


@dataclass(frozen=True)
class Augmented:
    """Images with new shifts, flips and blends in every epoch, labelled by the teacher after that."""

    teacher: Network
    pixels: Tensor
    """uint8 or float32 (N, C, H, W)."""
    settings: FineTuning
    border: tuple[float, ...] | None = None
    """Colour on which they are shifted; None: the teacher's border."""

    @property
    def spec(self) -> InputSpec:
        spec = self.teacher.spec
        return spec if self.border is None else spec.model_copy(update={"border": self.border})

    def __len__(self) -> int:
        return len(self.pixels)

    def distinct(self, epochs: int) -> int:
        return len(self.pixels) if epochs else 0

    def epoch(self, seed: int, epoch: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """An epoch has every image once; with `repeats`, a share of the images, each `repeats` times within its batch.

        An incomplete last batch is dropped: of 100 images in batches of 64, 36 are not used in that epoch.
        """
        rng, repeats = stream(seed, "augment", epoch), self.settings.repeats
        order = torch.randperm(len(self), generator=rng)
        distinct = max(1, min(batch, len(self)) // repeats)
        for start in range(0, len(self) - min(batch, len(self)) + 1, min(batch, len(self))):
            rows = order[start // repeats : start // repeats + distinct].repeat(repeats)
            pixels = view(to_pixels(self.pixels[rows], self.spec), self.settings, self.spec, rng)
            yield pixels, self.teacher.predict(pixels)


@checked
def finetune(
    quantized: Quantized,
    teacher: Network,
    pixels: Tensor,
    settings: FineTuning | None = None,
    *,
    border: tuple[float, ...] | None = None,
    seed: int = 0,
    state: Path | None = None,
    identity: dict[str, Any] | None = None,
    progress: Progress = silent,
) -> Curve:
    """Trains `quantized` in place to give the outputs of `teacher` on `pixels` (N, C, H, W), without labels. Returns the
    curve. They are shifted on `border`, a colour in pixel units, by default the teacher's (see `InputSpec`).

    It ends with the weights of the last epoch. With a `state` path, everything is saved there after each epoch, and the same
    call continues from it. Raises UserError for images that do not fit, and if the loss is not finite.
    """
    settings = settings or FineTuning()
    check_shift(settings, teacher.spec)
    teacher.spec.check_form(pixels, stored=True)
    if len(pixels) == 0:
        raise UserError("pixels: got no image, expected at least 1 to fine-tune on; give some")
    for part in pixels.split(4096):
        teacher.spec.check(to_pixels(part, teacher.spec))
    source = Augmented(teacher, pixels, settings, border)
    content = {
        "sha256_of_images": digest_of({"": pixels}),
        "sha256_of_start": digest_of(quantized.network.module.state_dict()),
    }
    if border is not None:
        content["border"] = repr(border)
    identity = {**(identity or {}), **content} if state is not None else identity
    curve = train_student(
        teacher, quantized.network, source, settings,
        seed=seed, state=state, identity=identity, progress=progress,
    )  # fmt: skip
    round_biases(quantized)
    return curve


def digest_of(tensors: dict[str, Tensor]) -> str:
    """sha256 of names, number formats, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)} ".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
