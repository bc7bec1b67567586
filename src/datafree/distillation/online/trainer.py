"""Generator and student, and the training steps of each. A step of one never changes the other."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..._core.distributed import agree, average_gradients, first, summed, world
from ..._core.progress import Progress
from ..._core.resume import load_optimizer, optimizer_state
from ..._core.seeds import stream
from ..._core.slots import Slot, Slots, module_slots, optimizer_slots, prefixed
from ...models import hooks as tap_names
from ...models.network import Network, copied, frozen
from ...models.pixel_bytes import to_bytes, to_pixels
from ...models.precision import autocast, note_emulation
from ...synthesis.generator import Generator, new_generator
from ...synthesis.losses import Objective, View
from ...synthesis.losses.alignment import Alignment
from ...synthesis.losses.alignment_loss import AlignmentLoss
from ..hints import hint_layers, hint_loss
from ..kl import kl
from ..muon import Muon
from ..replay import Memory, Written
from ..train_student import temperature_of
from ..views import moved
from .history import GeneratorHealth, History
from .settings import OnlineDistillation

__all__ = ["AnchorImages", "OnlineTrainer"]

PROBES = 2048
HEALTH_IMAGES = 512
SAMPLES = 10


@dataclass(frozen=True, eq=False)
class AnchorImages:
    """Condensed images, or a few real ones, that the generator is kept near by an alignment (Binici et al. 2024)."""

    alignment: Alignment
    pixels: Tensor
    """(N, C, H, W) in the spec's range."""
    labels: Tensor
    """(N, classes) probabilities."""


class OnlineTrainer:
    """Generator, student, optimizers, memory, moving average and probes: everything that a resumed run needs."""

    def __init__(
        self,
        teacher: Network,
        student: Network,
        settings: OnlineDistillation,
        memory: Memory,
        objective: Objective,
        seed: int,
        anchors: AnchorImages | None = None,
    ):
        self.teacher, self.student, self.settings, self.memory = teacher, student, settings, memory
        self.alignment = None if anchors is None else anchors.alignment
        self.guide = None if anchors is None else anchors.alignment.bind(teacher, anchors.pixels, anchors.labels, seed)
        if self.guide is not None and self.alignment is not None:
            weight = self.alignment.guidance if settings.guidance is None else settings.guidance
            objective = objective + weight * AlignmentLoss(self.guide, "predicted")
        self.objective = objective
        self.seed, self.attempt = seed, 0
        self.world = world()
        part = self.world.part(settings.batch)
        self.local_batch = part.stop - part.start
        """Number of new images that this process draws per step; all processes together draw `batch`."""
        self.history = History()
        self.probes = torch.empty((0, *teacher.spec.shape), dtype=torch.uint8)
        self.probe_classes: Tensor | None = None
        """The teacher's classes of the probes, once they are needed."""
        self.average = student.with_module(copied(student.module).eval())
        self.samples: dict[int, Tensor] = {}
        optimizer = Muon if settings.optimizer == "muon" else torch.optim.Adam
        self.student_optimizer = optimizer(student.module.parameters(), lr=settings.student_rate)
        self.temperature = settings.temperature or 0.0
        self.hinted = hint_layers(student, teacher) if settings.hints else ()
        """Layers whose activations are compared."""
        note_emulation(settings.precision, teacher.device)
        self.replace_generator()

    def replace_generator(self) -> None:
        """Starts a new generator with a new optimizer."""
        settings = self.settings
        self.generator: Generator = new_generator(
            self.teacher,
            seed=self.seed + 1009 * self.attempt,
            latent=settings.latent,
            width=settings.width,
            scene=settings.composition(),
        ).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.memory.on_new_generator(self.generator)
        self.generator_optimizer = torch.optim.Adam(
            self.generator.parameters(), lr=settings.generator_rate, betas=(0.5, 0.999)
        )

    # -- one epoch ------------------------------------------------------------------------------------------------

    def epoch(self, number: int, progress: Progress) -> tuple[float, float]:
        """Trains one epoch. Returns the mean losses of student and generator, over all processes."""
        settings, rank = self.settings, [self.world.rank] if self.world.rank else []
        rng = stream(self.seed, "online", number, self.attempt, *rank)  # each process draws its own latents
        totals = [0.0, 0.0]
        with torch.random.fork_rng([self.teacher.device] if self.teacher.device.type == "cuda" else []):
            dropout_seed = int(torch.randint(2**62, (1,), generator=rng))
            torch.manual_seed(dropout_seed)  # dropout draws from torch's global stream
            for iteration in range(settings.iterations):
                step = number * settings.iterations + iteration
                self._set_learning_rates(step)
                start = time.perf_counter()
                for _ in range(settings.generator_steps):
                    totals[1] += self._generator_step(rng) / settings.generator_steps
                student_start = time.perf_counter()
                for index in range(settings.student_steps):
                    totals[0] += (
                        self._student_step(rng, write=index == 0 and step % settings.write_every == 0)
                        / settings.student_steps
                    )
                self.history.phases["generator"] += student_start - start
                self.history.phases["student"] += time.perf_counter() - student_start
                progress(step + 1, settings.epochs * settings.iterations)
        agree(self.student.module)
        agree(self.average.module)
        loss, generator_loss = (
            summed(torch.tensor(totals, dtype=torch.float64)) / self.world.size / settings.iterations
        ).tolist()
        return loss, generator_loss

    def _set_learning_rates(self, step: int) -> None:
        steps = self.settings.epochs * self.settings.iterations
        warmup = min(1.0, (step + 1) / max(self.settings.warmup * steps, 1))
        scale = warmup if self.settings.decay == "constant" else warmup * 0.5 * (1 + math.cos(math.pi * step / steps))
        for optimizer, rate in (
            (self.generator_optimizer, self.settings.generator_rate),
            (self.student_optimizer, self.settings.student_rate),
        ):
            for group in optimizer.param_groups:
                group["lr"] = rate * scale

    def _autocast(self) -> Any:
        return autocast(self.settings.precision, self.teacher.device)

    def _generate(self, rng: torch.Generator, count: int | None = None) -> Tensor:
        latents = torch.randn((count or self.local_batch, self.generator.latents_per_image), generator=rng)
        return self.generator(latents.to(self.teacher.device))

    def _generator_step(self, rng: torch.Generator) -> float:
        """One step of the generator; the student is frozen, including its buffers. Returns the loss per image."""
        objective = self.objective.bind(self.teacher, torch.empty(0, dtype=torch.long), rng)
        with (
            frozen(self.student.module),
            tap_names.watch(self.teacher, objective.taps, reductions=objective.reductions) as activations,
            self._autocast(),
        ):
            pixels = self._generate(rng).float()
            if self.alignment is not None:  # anchors are augmented, so generated images must be too
                pixels = self.alignment.show(pixels, self.teacher.spec, rng)
            logits, student_logits = self.teacher.logits(pixels), self.student.logits(pixels)
            activations[tap_names.INPUT] = pixels
            labels = torch.zeros(len(pixels), dtype=torch.long, device=pixels.device)
            view = View(pixels, labels, logits, activations, student=student_logits, reduced=activations.reduced)
            total, _ = objective(view)
        loss = total / len(pixels)
        self.generator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.generator.parameters(), self.local_batch)
        self.generator_optimizer.step()
        objective.learn(view)
        self.memory.on_generator_step(self.generator)
        return float(loss.detach())

    def _student_step(self, rng: torch.Generator, *, write: bool) -> float:
        """One step of the student on new and replayed images, both labelled by the teacher. Returns the loss."""
        settings = self.settings
        with torch.no_grad(), self._autocast():
            pixels = self._generate(rng).float()
        replayed = (
            self.memory.sample(round(settings.replay_fraction * self.local_batch), rng)
            if settings.replay_fraction
            else None
        )
        batch = pixels if replayed is None else torch.cat([pixels, replayed.to(pixels)])
        has_views = settings.shift != 0 or settings.flip
        if has_views:
            batch = moved(batch, settings, self.teacher.spec, rng)
        with tap_names.watch(self.teacher, self.hinted) as teacher_activations:
            targets = self._labels(batch)
        if not self.temperature:
            self.temperature = first(lambda: temperature_of(targets.cpu()))
        self.student.module.train()
        with tap_names.watch(self.student, self.hinted) as activations, self._autocast():
            logits = self.student.logits(batch)
        loss = (
            (logits.float() - targets).abs().mean()
            if settings.loss == "l1"
            else kl(logits.float(), targets, self.temperature)
        )
        if self.hinted:
            loss = loss + settings.hints * hint_loss(activations, teacher_activations, self.hinted)
        self.student_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.student.module.parameters(), self.local_batch)
        self.student_optimizer.step()
        self.student.module.eval()
        self._update_average()
        self.history.images += settings.batch
        if write:
            start = time.perf_counter()
            logits = self._labels(pixels) if has_views else targets[: len(pixels)]  # the memory gets no views
            self.memory.write(pixels, logits, rng)
            self.history.phases["memory"] += time.perf_counter() - start
        return float(loss.detach())

    def _labels(self, pixels: Tensor) -> Tensor:
        """The teacher's logits, in the settings' precision."""
        with torch.no_grad(), self._autocast():
            return self.teacher.logits(pixels).float()

    @torch.no_grad()
    def _update_average(self) -> None:
        """Updates the moving average of weights and batch statistics. A shared tensor is updated once."""
        for average, tensor in zip(_tensors(self.average.module), _tensors(self.student.module), strict=True):
            if average.shape != tensor.shape:  # some networks have a buffer that depends on the batch size
                average.data = tensor.detach().clone()
            elif tensor.is_floating_point():
                average.lerp_(tensor, 1 - self.settings.ema)
            else:
                average.copy_(tensor)

    @property
    def saved_student(self) -> Network:
        """The moving average or the last student, according to `settings.keep`."""
        return self.average if self.settings.keep == "average" else self.student

    # -- measured without data --------------------------------------------------------------------------------

    @torch.no_grad()
    def check_health(self, number: int) -> GeneratorHealth:
        """Health of a fresh batch of generated images. The first finite batch becomes part of the probes.

        The spread of images is measured with a fixed scene. Otherwise its random contrast, brightness and grain would
        make images differ even if the generator's maps do not.
        """
        rng = stream(self.seed, "probe", number, self.attempt)
        pixels, fixed_scene = self._generate(rng, HEALTH_IMAGES).float().cpu(), self._generate_fixed_scene(number)
        if not bool(pixels.isfinite().all()):
            return GeneratorHealth(0.0, math.nan, 0.0)
        share = self.teacher.predict(pixels).argmax(1).bincount(minlength=len(self.teacher.spec.classes)) / len(pixels)
        entropy = float(-(share * share.clamp(min=1e-12).log()).sum())
        image_bytes = to_bytes(pixels, self.teacher.spec)
        spread = float(fixed_scene.std(0).mean()) / (self.teacher.spec.high - self.teacher.spec.low)
        distinct = len({image.numpy().tobytes() for image in to_bytes(fixed_scene, self.teacher.spec)})
        if not len(self.probes):
            further = self._generate(rng, PROBES - HEALTH_IMAGES).float().cpu()
            self.probes, self.probe_classes = torch.cat([image_bytes, to_bytes(further, self.teacher.spec)]), None
        return GeneratorHealth(round(math.exp(entropy), 3), round(spread, 5), round(1 - distinct / len(fixed_scene), 4))

    def _generate_fixed_scene(self, number: int) -> Tensor:
        """Fresh images that all have the median scene, so that they differ only by the generator's maps."""
        latents = torch.randn(
            (HEALTH_IMAGES, self.generator.latents_per_image),
            generator=stream(self.seed, "alike", number, self.attempt),
        )
        latents[:, self.generator.latent :] = 0
        return self.generator(latents.to(self.teacher.device)).float().cpu()

    def agreement(self) -> list[float]:
        """Agreement of student and average with the teacher on the probes, in %; NaN if the logits are not finite."""
        pixels = to_pixels(self.probes, self.teacher.spec)
        if self.probe_classes is None:
            self.probe_classes = self.teacher.predict(pixels).argmax(1)
        percentages = []
        for network in (self.student, self.average):
            logits = network.predict(pixels, finite=False)
            share = float((logits.argmax(1) == self.probe_classes).float().mean())
            percentages.append(round(100 * share, 3) if logits.isfinite().all() else math.nan)
        return percentages

    @torch.no_grad()
    def save_samples(self, epoch: int) -> None:
        """Saves images generated from fixed latents, after about ten epochs spread over the run."""
        if self._has_samples(epoch):
            pixels = self._generate(stream(self.seed, "shown"), HEALTH_IMAGES)[:SAMPLES].float().cpu()
            self.samples[epoch + 1] = to_bytes(pixels, self.teacher.spec)

    def _has_samples(self, epoch: int) -> bool:
        return epoch % math.ceil(self.settings.epochs / SAMPLES) == 0 or epoch == self.settings.epochs - 1

    # -- resuming --------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """All tensors that `load` needs, by name."""
        tensors = {"probes": self.probes.clone(), "temperature": torch.tensor(self.temperature, dtype=torch.float64)}
        for name, module in self._modules():
            tensors |= {f"{name}/{key}": tensor.detach().cpu().clone() for key, tensor in module.state_dict().items()}
        tensors |= optimizer_state(self.student_optimizer, "learner") | optimizer_state(
            self.generator_optimizer, "maker"
        )
        tensors |= {f"shown/{epoch}": tensor for epoch, tensor in self.samples.items()}
        if self.guide is not None:
            tensors |= {f"guide/{key}": tensor for key, tensor in self.guide.state().items()}
        return tensors | {f"memory/{key}": tensor for key, tensor in self.memory.state().items()}

    def _modules(self) -> tuple[tuple[str, nn.Module], ...]:
        student, average = self.student.module, self.average.module
        return (("student", student), ("average", average), ("generator", self.generator))

    def slots(self, epochs: int) -> Slots:
        """Expected dtype, shape and range of each tensor of `state` in this process after `epochs` epochs."""
        settings, image, pixels = self.settings, self.teacher.spec.shape, torch.uint8
        steps = epochs * settings.iterations
        writes = -(-steps // settings.write_every)
        low, high = (settings.temperature, settings.temperature) if settings.temperature else (0.0, 1e6)
        slots = {"probes": Slot(pixels, (PROBES, *image)), "temperature": Slot(torch.float64, (), low, high)}
        for name, module in self._modules():
            slots |= module_slots(module, name)
        slots |= optimizer_slots(self.student_optimizer, "learner", steps * settings.student_steps)
        slots |= optimizer_slots(self.generator_optimizer, "maker", steps * settings.generator_steps)
        slots |= {
            f"shown/{epoch + 1}": Slot(pixels, (SAMPLES, *image)) for epoch in range(epochs) if self._has_samples(epoch)
        }
        if self.guide is not None:
            slots |= prefixed(self.guide.slots(steps * settings.generator_steps), "guide")
        written = Written(images=writes * self.local_batch, writes=writes, steps=steps * settings.generator_steps)
        return slots | prefixed(self.memory.slots(written), "memory")

    def load(self, state: dict[str, Tensor]) -> None:
        """Restores a `state`. Raises UserError if it does not fit this run."""

        def part(name: str) -> dict[str, Tensor]:
            return {key.removeprefix(f"{name}/"): tensor for key, tensor in state.items() if key.startswith(f"{name}/")}

        for name, module in self._modules():
            module.load_state_dict(part(name))
        load_optimizer(self.student_optimizer, state, "learner")
        load_optimizer(self.generator_optimizer, state, "maker")
        self.memory.load(part("memory"))
        if self.guide is not None:
            self.guide.load(part("guide"))
        self.samples = {int(epoch): tensor.clone() for epoch, tensor in part("shown").items()}
        self.probes, self.probe_classes = state["probes"].clone(), None
        self.temperature = float(state["temperature"])


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """All parameters and buffers; a shared tensor occurs once."""
    yield from module.parameters()
    yield from module.buffers()
