"""Images of a generator that learns to make a batch of new images in a few steps (Fast, Fang et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from ..._core.errors import UserError
from ..._core.progress import Progress, report_share, silent, stage
from ..._core.seeds import stream
from ..._core.settings import Settings
from ...data.augmentation import mirrored, shifted
from ...models import hooks as tap_names
from ...models.behaviour import check_pixel_gradient
from ...models.input_spec import Border
from ...models.memory_format import channels_last
from ...models.network import Network, frozen
from ...models.precision import autocast
from ...records.divergence import Form, stored_statistics
from ...records.record import Record
from ..generator import Generator
from ..losses import Objective, View
from ..losses.batchnorm import BatchNormDivergence
from ..losses.classes import TargetClass
from . import Batch, chunk_labels
from .inversion import not_finite

__all__ = ["BoundMetaGenerator", "MetaGenerator", "augmentation_of", "generator_settings"]

LARGEST = 10_240
"""Maximum number of images per chunk: each chunk begins with a new generator and its `discard` batches."""
BETAS = (0.5, 0.999)
TRIAL = 128
"""Number of images that show how the teacher's training images were shifted and mirrored; before them, as many teach the
generator."""
WITHSTANDS = 0.5
"""Share of images that must keep their class when they are shifted or mirrored. Measured on synthetic images: 0.7 to 0.9 for
a ResNet-20 and 0.5 to 0.65 for a SimpNet trained on such images, 0.2 to 0.5 for ResNet-8 on 8 x 8 digits; on real images
1.0, and 0.3 to 0.4."""


class MetaGenerator(Settings):
    """Images of a generator that is adapted to each batch in a few steps, and learns to be adapted."""

    method: Literal["meta-generator"] = "meta-generator"
    steps: int = Field(default=10, ge=1)
    """Number of Adam steps per batch, on a copy of the generator and on its latents."""
    batch: int = Field(default=16, ge=2)
    """Number of images per batch, all made by one copy of the generator: smaller batches make more varied images."""
    discard: int = Field(default=160, ge=0)
    """Number of batches at the start of each chunk that the generator only learns from."""
    learning_rate: float = Field(default=0.005, gt=0, le=10)
    """Learning rate of Adam on the copy of the generator."""
    latent_rate: float = Field(default=0.015, ge=0, le=10)
    """Learning rate of Adam on the latents."""
    meta_rate: float = Field(default=0.002, ge=0, le=10)
    """Learning rate of Adam on the generator, which takes one step per batch on the mean gradient of its copy."""
    classes: float = Field(default=0.2, ge=0)
    """Weight of the target class's cross-entropy; that of the batch-norm divergence is 1."""
    form: Form = "forward"
    """Divergence: `forward` is a KL divergence, `reverse` the other direction, `l2` that of DeepInversion."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Share of earlier batches in the statistics that are compared."""
    jitter: int | None = Field(default=None, ge=0)
    """Maximum random shift of each image at each step, in pixels; by default an eighth of the smaller side, or 0 if the
    teacher's statistics are then matched better.
    """
    border: Border | None = None
    """Colour on which images are shifted; by default the teacher's, or if unknown the one with which its statistics are
    matched better.
    """
    flip: bool | None = None
    """Mirror each image left to right with probability 1/2 at each step; by default if the teacher's class withstands it.
    """
    latent: int = Field(default=128, ge=1)
    """Number of latents per image."""
    width: int = Field(default=64, ge=8, le=1024)
    """Width of the generator."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the forward passes; bfloat16 is up to 3 times as fast on CPUs that have it."""

    later: ClassVar[dict[str, Any]] = {"border": None}
    summary: ClassVar[str] = "a generator that learns to make a batch in a few steps (Fang et al. 2022)"
    in_range: ClassVar[bool] = True

    def chunk_size(self, classes: int, images: int) -> int:  # noqa: ARG002
        """Number of images per chunk for `images` in total: whole batches, in as few chunks as possible."""
        chunks = -(-images // LARGEST)
        return self.batch * -(-images // (chunks * self.batch))

    def bind(self, teacher: Network, record: Record | None, *, progress: Progress = silent) -> BoundMetaGenerator:
        """Raises UserError for a teacher without batch norms or gradient, and for a shift as large as the images."""
        check_pixel_gradient(teacher, f"method {self.method}")
        side = min(teacher.spec.shape[1:])
        if self.jitter is not None and self.jitter >= side:
            raise UserError(f"jitter: got {self.jitter}, expected below {side}, the images' smaller side; give less")
        term = BatchNormDivergence(stored_statistics(teacher, record), self.form, momentum=self.momentum)
        with torch.random.fork_rng(devices=[]):  # its weights are drawn again for every chunk
            generator = Generator(teacher.spec, self.latent, self.width, contrast=True)
        bound = BoundMetaGenerator(self, teacher, term, generator.to(teacher.device))
        return bound.as_trained(progress)


@dataclass(frozen=True)
class BoundMetaGenerator:
    """Makes chunks. Each has a generator of its own, so that it only depends on seed and index."""

    settings: MetaGenerator
    teacher: Network
    divergence: BatchNormDivergence
    generator: Generator
    """Its architecture; every chunk trains a copy."""
    guide: Objective = field(default_factory=lambda: Objective(()))
    """Further losses."""

    def chunk(self, index: int, seed: int, size: int) -> Batch:
        labels, rng = chunk_labels(index, size, len(self.teacher.spec.classes)), stream(seed, "unit", index)
        batches = [pixels.cpu() for pixels in self._batches(labels, rng)]
        return Batch(torch.cat(batches)[:size], labels)

    def as_trained(self, progress: Progress = silent) -> BoundMetaGenerator:
        """With the `jitter`, `border` and `flip` that were not chosen as in the teacher's training, which few images show.
        Each of at most three kinds of images is a step of a stage of `progress`.

        A teacher that was trained on shifted or mirrored images keeps its class under them. Its batch norms then contain the
        borders of shifted images, and match images that are shifted on the same border best.
        """
        settings, spec = self.settings, self.teacher.spec
        jitter = min(spec.shape[1:]) // 8 if settings.jitter is None else settings.jitter
        borders: list[Border | None] = [settings.border]
        if jitter and settings.border is None and spec.border is None and set(spec.mean) != {spec.black}:
            borders = ["black", "mean"]
        still, moved = self._with(0, settings.border), [self._with(jitter, border) for border in borders if jitter]
        if settings.jitter is not None and settings.flip is not None and len(moved) <= 1:
            return moved[0] if moved else still
        with stage(progress, "find shift, border and mirroring") as shown:
            trials = list(_trials(moved if settings.jitter else [still], shown))
            if settings.jitter is None and moved and still._keeps_class(trials[0].images, jitter=jitter):
                trials += _trials(moved, shown)
        best = min(trials, key=lambda trial: trial.divergence)
        flip = still._keeps_class(best.images, flip=True) if settings.flip is None else settings.flip
        return replace(best.method, settings=best.method.settings.model_copy(update={"flip": flip}))

    def _keeps_class(self, images: Tensor, *, jitter: int = 0, flip: bool = False) -> bool:
        views = self._moved(images.flip(-1) if flip else images, jitter)
        before, after = (self.teacher.predict(pixels).argmax(1) for pixels in (images, views))
        return float((before == after).float().mean()) >= WITHSTANDS

    def _moved(self, images: Tensor, jitter: int) -> Tensor:
        return shifted(images, jitter, stream(0, "trial"), self.teacher.spec.border_colour(images))

    def _with(self, jitter: int, border: Border | None) -> BoundMetaGenerator:
        teacher = self.teacher
        if border is not None:
            teacher = replace(teacher, spec=teacher.spec.with_border(border))
        settings = self.settings.model_copy(update={"jitter": jitter, "border": border})
        return replace(self, settings=settings, teacher=teacher)

    def _trial(self) -> _Trial:
        """A few images, not mirrored at any step."""
        settings, teacher = self.settings, self.teacher
        short = {"flip": False, "discard": min(settings.discard, TRIAL // settings.batch)}
        batch = replace(self, settings=settings.model_copy(update=short)).chunk(0, 0, TRIAL)
        pixels, labels = batch.pixels.to(teacher.device), batch.labels.to(teacher.device)
        views = self._moved(pixels, settings.jitter or 0)
        watched = tap_names.watch(teacher, self.divergence.taps, reductions=self.divergence.reductions)
        with torch.no_grad(), watched as activations:
            view = View(views, labels, teacher.logits(views), activations, reduced=activations.reduced)
            return _Trial(self, pixels, float(self.divergence(view)) / len(views))

    def _batches(self, labels: Tensor, rng: torch.Generator) -> Iterator[Tensor]:
        """Pixels (batch, C, H, W) of one batch after another, for `labels` and further ones that fill the last batch."""
        settings, teacher = self.settings, self.teacher
        generator = initialised(deepcopy(self.generator), rng)
        meta = torch.optim.Adam(generator.parameters(), lr=settings.meta_rate, betas=BETAS)
        divergence = self.divergence
        count = -(-len(labels) // settings.batch)
        labels = torch.cat([labels, labels[: settings.batch].repeat(settings.batch)])[: count * settings.batch]
        guide = self.guide.bind(teacher, labels, rng)
        layout = channels_last(teacher) if teacher.device.type == "cpu" else nullcontext()
        terms = 1.0 * divergence + guide
        watched = tap_names.watch(teacher, terms.taps, reductions=terms.reductions)
        with layout, frozen(teacher.module), watched as activations:
            for number in range(-settings.discard, count):
                start = max(number, 0) * settings.batch
                batch_labels = labels[start : start + settings.batch].to(teacher.device)
                adapted = deepcopy(generator)
                initialise_layer(adapted.first, rng)
                pixels, divergence, gradients = self._adapt(adapted, batch_labels, divergence, guide, activations, rng)
                for parameter, gradient in zip(generator.parameters(), gradients, strict=True):
                    parameter.grad = gradient
                meta.step()
                report_share((number + 1 + settings.discard) / (count + settings.discard))
                if number >= 0:
                    yield pixels

    def _adapt(
        self,
        generator: Generator,
        labels: Tensor,
        divergence: BatchNormDivergence,
        guide: Objective,
        activations: Any,
        rng: torch.Generator,
    ) -> tuple[Tensor, BatchNormDivergence, list[Tensor]]:
        """Images of a generator after a few steps of training, the statistics so far, and the mean gradients."""
        settings, jitter = self.settings, self.settings.jitter or 0
        latents = torch.randn(len(labels), settings.latent, generator=rng).to(labels.device).requires_grad_(True)
        parameters = list(generator.parameters())
        adam = torch.optim.Adam(
            [
                {"params": parameters, "lr": settings.learning_rate},
                {"params": [latents], "lr": settings.latent_rate},
            ],
            betas=BETAS,
        )
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        objective = Objective(((1.0, divergence), (settings.classes, TargetClass()))) + guide
        border = self.teacher.spec.border_colour(latents)
        for step in range(settings.steps):
            with autocast(settings.precision, labels.device):
                pixels = generator(latents)
                views = shifted(pixels, jitter, rng, border)
                views = mirrored(views, rng) if settings.flip else views
                logits = self.teacher.logits(views)
            view = View(views, labels, logits, activations, reduced=activations.reduced)
            total, terms = objective(view)
            gradients = torch.autograd.grad(total / len(labels), [*parameters, latents])
            if not bool(total.isfinite()):
                raise UserError(not_finite(terms, step))
            if step + 1 == settings.steps:
                with torch.no_grad():
                    divergence = replace(
                        divergence,
                        earlier=tuple(tuple(part.detach() for part in pair) for pair in divergence.running(view)),
                    )
            for parameter, gradient in zip([*parameters, latents], gradients, strict=True):
                parameter.grad = gradient
            for total_gradient, gradient in zip(sums, gradients, strict=False):  # the last one is of the latents
                total_gradient.add_(gradient, alpha=1 / settings.steps)
            adam.step()
            guide.learn(view)
        return pixels.detach().float(), divergence, sums


def generator_settings(settings: Any) -> dict[str, Any] | None:
    """The settings of this method among those in set.json, where it may be within another one's `generator`; or None."""
    generator = settings.get("generator", settings) if isinstance(settings, dict) else None
    return generator if isinstance(generator, dict) and generator.get("method") == "meta-generator" else None


def augmentation_of(settings: Any) -> tuple[int, bool]:
    """Maximum shift in pixels, and whether images were mirrored, while a set was made; (0, False) for other methods.

    `settings` are those of the method in set.json.
    """
    generator = generator_settings(settings) or {}
    shift, flip = generator.get("jitter"), generator.get("flip")
    return (shift if isinstance(shift, int) and shift > 0 else 0), flip is True


class _Trial(NamedTuple):
    """A few images of a method."""

    method: BoundMetaGenerator
    images: Tensor
    """(TRIAL, C, H, W)."""
    divergence: float
    """That of the shifted images, per image."""


def _trials(candidates: Sequence[BoundMetaGenerator], progress: Progress) -> Iterator[_Trial]:
    for number, candidate in enumerate(candidates):
        progress(number, len(candidates))
        yield candidate._trial()
    progress(len(candidates), len(candidates))


def initialised(generator: Generator, rng: torch.Generator) -> Generator:
    """The generator with new weights from `rng`, as torch draws them; norms are not changed."""
    for layer in generator.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            initialise_layer(layer, rng)
    return generator


@torch.no_grad()
def initialise_layer(layer: nn.Linear | nn.Conv2d, rng: torch.Generator) -> None:
    """Draws weights and biases from U(-1 / sqrt(inputs), 1 / sqrt(inputs))."""
    bound = 1 / math.sqrt(layer.weight[0].numel())
    for parameter in (layer.weight, layer.bias):
        if parameter is not None:
            parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=rng))
