"""The two players and the steps of each: in one's phase nothing of the other moves."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
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
from ...synthesis.losses import Objective, View
from ...synthesis.losses.alignment import Alignment
from ...synthesis.losses.alignment_loss import AlignmentLoss
from ..distill import temperature_of
from ..kl import kl
from ..muon import Muon
from ..replay import Memory, Written
from .generator import Generator, new_generator
from .history import GeneratorHealth, History
from .settings import OnlineDistillation

__all__ = ["Anchored", "OnlineTrainer"]

PROBES = 2048
WATCHED = 512
SHOWN = 10


@dataclass(frozen=True, eq=False)
class Anchored:
    """Condensed or few real images that the generator is kept near (Binici et al. 2024), and how."""

    alignment: Alignment
    pixels: Tensor
    """(N, C, H, W) in the spec's range."""
    labels: Tensor
    """(N, classes), probabilities."""


class OnlineTrainer:
    """Both players, their optimisers, the memory, the moving average and the probes: all that a stop must keep."""

    def __init__(
        self, teacher: Network, student: Network, own: OnlineDistillation, memory: Memory, objective: Objective, seed: int,
        anchored: Anchored | None = None,
    ):  # fmt: skip
        self.teacher, self.student, self.own, self.memory = teacher, student, own, memory
        self.alignment = None if anchored is None else anchored.alignment
        self.guide = (
            None if anchored is None else anchored.alignment.bind(teacher, anchored.pixels, anchored.labels, seed)
        )
        if self.guide is not None and self.alignment is not None:
            weight = self.alignment.guidance if own.guidance is None else own.guidance
            objective = objective + weight * AlignmentLoss(self.guide, "predicted")
        self.objective = objective
        self.seed, self.attempt = seed, 0
        self.world = world()
        part = self.world.part(own.batch)
        self.share = part.stop - part.start
        """New images a step that this process draws; all processes together draw `batch`."""
        self.history = History()
        self.probes = torch.empty((0, *teacher.spec.shape), dtype=torch.uint8)
        self.average = Network(copied(student.module).eval(), student.spec, student.name)
        self.shown: dict[int, Tensor] = {}
        optimizer = Muon if own.optimizer == "muon" else torch.optim.Adam
        self.student_optimizer = optimizer(student.module.parameters(), lr=own.student_rate)
        self.temperature = own.temperature or 0.0
        self.renew()

    def renew(self) -> None:
        """Another generator, with an optimiser of its own."""
        own = self.own
        self.generator: Generator = new_generator(
            self.teacher,
            seed=self.seed + 1009 * self.attempt,
            latent=own.latent,
            width=own.width,
            scene=own.composition(),
        ).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.memory.begin(self.generator)
        self.generator_optimizer = torch.optim.Adam(
            self.generator.parameters(), lr=own.generator_rate, betas=(0.5, 0.999)
        )

    # -- one epoch ------------------------------------------------------------------------------------------------

    def epoch(self, number: int, progress: Progress) -> tuple[float, float]:
        """Mean losses of student and generator."""
        own, mine = self.own, [self.world.rank] if self.world.rank else []
        rng = stream(self.seed, "online", number, self.attempt, *mine)  # every process has latents of its own
        totals = [0.0, 0.0]
        with torch.random.fork_rng([self.teacher.device] if self.teacher.device.type == "cuda" else []):
            torch.manual_seed(
                int(torch.randint(2**62, (1,), generator=rng))
            )  # dropout draws from torch's global stream
            for index in range(own.iterations):
                step = number * own.iterations + index
                self._rates(step)
                began = time.perf_counter()
                for _ in range(own.generator_steps):
                    totals[1] += self._generator_step(rng) / own.generator_steps
                middle = time.perf_counter()
                for turn in range(own.student_steps):
                    totals[0] += (
                        self._student_step(rng, write=turn == 0 and step % own.write_every == 0) / own.student_steps
                    )
                self.history.phases["generator"] += middle - began
                self.history.phases["student"] += time.perf_counter() - middle
                progress(step + 1, own.epochs * own.iterations)
        agree(self.student.module)
        agree(self.average.module)
        loss, made = (summed(torch.tensor(totals, dtype=torch.float64)) / self.world.size / own.iterations).tolist()
        return loss, made

    def _rates(self, step: int) -> None:
        steps = self.own.epochs * self.own.iterations
        rise = min(1.0, (step + 1) / max(self.own.warmup * steps, 1))
        fall = rise * 0.5 * (1 + math.cos(math.pi * step / steps))
        for one, rate in (
            (self.generator_optimizer, self.own.generator_rate),
            (self.student_optimizer, self.own.student_rate),
        ):
            for group in one.param_groups:
                group["lr"] = rate * fall

    def _narrow(self) -> Any:
        narrow = self.own.precision == "bfloat16"
        return torch.autocast(self.teacher.device.type, torch.bfloat16) if narrow else nullcontext()

    def _drawn(self, rng: torch.Generator, count: int | None = None) -> Tensor:
        latents = torch.randn((count or self.share, self.generator.drawn), generator=rng)
        return self.generator(latents.to(self.teacher.device))

    def _generator_step(self, rng: torch.Generator) -> float:
        """The student is frozen, its buffers too."""
        objective = self.objective.bind(self.teacher, torch.empty(0, dtype=torch.long), rng)
        with frozen(self.student.module), tap_names.watch(self.teacher, objective.taps) as seen, self._narrow():
            pixels = self._drawn(rng).float()
            if self.alignment is not None:  # anchors are shown augmented, so made images have to be
                pixels = self.alignment.show(pixels, self.teacher.spec, rng)
            logits, said = self.teacher.logits(pixels), self.student.logits(pixels)
            seen[tap_names.INPUT] = pixels
            labels = torch.zeros(len(pixels), dtype=torch.long, device=pixels.device)
            view = View(pixels, labels, logits, seen, student=said)
            total, _ = objective(view)
        loss = total / len(pixels)
        self.generator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.generator.parameters(), self.share)
        self.generator_optimizer.step()
        objective.learn(view)
        self.memory.follow(self.generator)
        return float(loss.detach())

    def _student_step(self, rng: torch.Generator, *, write: bool) -> float:
        """New images and replayed ones in one batch; the teacher labels both as they are shown."""
        own = self.own
        with torch.no_grad(), self._narrow():
            pixels = self._drawn(rng).float()
        old = self.memory.sample(round(own.replay_fraction * self.share), rng) if own.replay_fraction else None
        shown = pixels if old is None else torch.cat([pixels, old.to(pixels)])
        with torch.no_grad(), self._narrow():
            targets = self.teacher.logits(shown).float()
        if not self.temperature:
            self.temperature = first(lambda: temperature_of(targets.cpu()))
        self.student.module.train()
        with self._narrow():
            said = self.student.logits(shown)
        loss = (
            (said.float() - targets).abs().mean() if own.loss == "l1" else kl(said.float(), targets, self.temperature)
        )
        self.student_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.student.module.parameters(), self.share)
        self.student_optimizer.step()
        self.student.module.eval()
        self._follow()
        self.history.images += own.batch
        if write:
            began = time.perf_counter()
            self.memory.write(pixels, targets[: len(pixels)], rng)
            self.history.phases["memory"] += time.perf_counter() - began
        return float(loss.detach())

    @torch.no_grad()
    def _follow(self) -> None:
        """The moving average of weights and of batch statistics alike, each once, however often it is used."""
        for average, tensor in zip(_tensors(self.average.module), _tensors(self.student.module), strict=True):
            if average.shape != tensor.shape:  # a buffer of somebody's network that follows the size of the batch
                average.data = tensor.detach().clone()
            elif tensor.is_floating_point():
                average.lerp_(tensor, 1 - self.own.ema)
            else:
                average.copy_(tensor)

    @property
    def kept(self) -> Network:
        return self.average if self.own.keep == "average" else self.student

    # -- what is known without data -------------------------------------------------------------------------------

    @torch.no_grad()
    def watch(self, number: int) -> GeneratorHealth:
        """Health of a fresh batch; the first one that is healthy, and more like it, become the probes.

        How images differ is judged with the scene held fixed: drawn for each image, its contrast, brightness and grain
        make different images of one map too.
        """
        rng = stream(self.seed, "probe", number, self.attempt)
        pixels, alike = self._drawn(rng, WATCHED).float().cpu(), self._alike(number)
        if not bool(pixels.isfinite().all()):
            return GeneratorHealth(0.0, math.nan, 0.0)
        share = self.teacher.predict(pixels).argmax(1).bincount(minlength=len(self.teacher.spec.classes)) / len(pixels)
        entropy = float(-(share * share.clamp(min=1e-12).log()).sum())
        made = to_bytes(pixels, self.teacher.spec)
        spread = float(alike.std(0).mean()) / (self.teacher.spec.high - self.teacher.spec.low)
        different = len({image.numpy().tobytes() for image in to_bytes(alike, self.teacher.spec)})
        if not len(self.probes):
            more = self._drawn(rng, PROBES - WATCHED).float().cpu()
            self.probes = torch.cat([made, to_bytes(more, self.teacher.spec)])
        return GeneratorHealth(round(math.exp(entropy), 3), round(spread, 5), round(1 - different / len(alike), 4))

    def _alike(self, number: int) -> Tensor:
        """Fresh images that differ by what the generator makes alone: all of the median scene."""
        latents = torch.randn(
            (WATCHED, self.generator.drawn), generator=stream(self.seed, "alike", number, self.attempt)
        )
        latents[:, self.generator.latent :] = 0
        return self.generator(latents.to(self.teacher.device)).float().cpu()

    def agreement(self) -> list[float]:
        """In %, on the probes, of the student and of its average; nan where its logits are not finite."""
        pixels = to_pixels(self.probes, self.teacher.spec)
        wanted = self.teacher.predict(pixels).argmax(1)
        both = [own.predict(pixels, finite=False) for own in (self.student, self.average)]
        shares = [float((said.argmax(1) == wanted).float().mean()) for said in both]
        return [
            round(100 * own, 3) if said.isfinite().all() else math.nan for own, said in zip(shares, both, strict=True)
        ]

    @torch.no_grad()
    def show(self, epoch: int) -> None:
        """Keeps what the generator makes of the same latents, at some ten epochs spread over the run."""
        if self._shows(epoch):
            made = self._drawn(stream(self.seed, "shown"), WATCHED)[:SHOWN].float().cpu()
            self.shown[epoch + 1] = to_bytes(made, self.teacher.spec)

    def _shows(self, epoch: int) -> bool:
        return epoch % math.ceil(self.own.epochs / SHOWN) == 0 or epoch == self.own.epochs - 1

    # -- stops ----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Everything, as named tensors."""
        found = {"probes": self.probes.clone(), "temperature": torch.tensor(self.temperature, dtype=torch.float64)}
        for name, module in self._modules():
            found |= {f"{name}/{key}": own.detach().cpu().clone() for key, own in module.state_dict().items()}
        found |= optimizer_state(self.student_optimizer, "learner") | optimizer_state(self.generator_optimizer, "maker")
        found |= {f"shown/{epoch}": own for epoch, own in self.shown.items()}
        if self.guide is not None:
            found |= {f"guide/{key}": own for key, own in self.guide.state().items()}
        return found | {f"memory/{key}": own for key, own in self.memory.state().items()}

    def _modules(self) -> tuple[tuple[str, nn.Module], ...]:
        student, average = self.student.module, self.average.module
        return (("student", student), ("average", average), ("generator", self.generator))

    def slots(self, epochs: int) -> Slots:
        """What `state` returns in this process after so many epochs."""
        own, image, pixels = self.own, self.teacher.spec.shape, torch.uint8
        steps = epochs * own.iterations
        writes = -(-steps // own.write_every)
        low, high = (own.temperature, own.temperature) if own.temperature else (0.0, 1e6)
        found = {"probes": Slot(pixels, (PROBES, *image)), "temperature": Slot(torch.float64, (), low, high)}
        for name, module in self._modules():
            found |= module_slots(module, name)
        found |= optimizer_slots(self.student_optimizer, "learner", steps * own.student_steps)
        found |= optimizer_slots(self.generator_optimizer, "maker", steps * own.generator_steps)
        found |= {f"shown/{epoch + 1}": Slot(pixels, (SHOWN, *image)) for epoch in range(epochs) if self._shows(epoch)}
        if self.guide is not None:
            found |= prefixed(self.guide.slots(steps * own.generator_steps), "guide")
        written = Written(images=writes * self.share, writes=writes, steps=steps * own.generator_steps)
        return found | prefixed(self.memory.slots(written), "memory")

    def load(self, found: dict[str, Tensor]) -> None:
        """Raises UserError for the state of another game."""

        def part(name: str) -> dict[str, Tensor]:
            return {key.removeprefix(f"{name}/"): own for key, own in found.items() if key.startswith(f"{name}/")}

        for name, module in self._modules():
            module.load_state_dict(part(name))
        load_optimizer(self.student_optimizer, found, "learner")
        load_optimizer(self.generator_optimizer, found, "maker")
        self.memory.load(part("memory"))
        if self.guide is not None:
            self.guide.load(part("guide"))
        self.shown = {int(epoch): own.clone() for epoch, own in part("shown").items()}
        self.probes, self.temperature = found["probes"].clone(), float(found["temperature"])


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers, a shared one once."""
    yield from module.parameters()
    yield from module.buffers()
