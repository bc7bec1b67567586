"""Online distillation: a generator seeks images on which student and teacher differ, the student learns them (DAFL, DFAD,
Binici et al. 2021, 2022), and a memory of earlier images keeps it from forgetting.

One outer iteration is a few steps of the generator, then more of the student. In the generator's phase nothing of the
student moves, in the student's nothing of the generator; the teacher is frozen throughout.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from . import taps as tap_names
from .alignment import Alignment
from .distillation import check_student, temperature_of
from .divergence import stored
from .errors import UserError, unknown
from .files import read_tensors, write_tensors
from .generator import Exposure, Generator, new_generator
from .layout import channels_last
from .losses import kl
from .network import Network, frozen
from .progress import Progress, silent
from .records import Record
from .replay import Memory
from .replay.nothing import Nothing
from .seeds import stream
from .settings import Settings
from .states import adam_state, check_identity, load_adam
from .syntheticset import to_bytes, to_pixels
from .terms import Objective, View
from .terms.aligned import Aligned
from .terms.batchnorm import BatchNormDivergence
from .terms.classes import ClassBalance
from .terms.online import Disagreement, FeatureNorm, Kind, OneHot

__all__ = ["PRESETS", "Anchored", "Health", "History", "Online", "adversarial", "preset"]

PROBES = 2048
WATCHED = 512
ATTEMPTS = 3
SHOWN = 10


class Online(Settings):
    """A generator against a student under a frozen teacher; every weight of 0 leaves its term out."""

    epochs: int = Field(default=40, ge=1)
    """Of so many outer iterations each; the student of the last is kept."""
    iterations: int = Field(default=50, ge=1)
    """Outer iterations an epoch."""
    generator_steps: int = Field(default=1, ge=1)
    """Steps of the generator in an outer iteration."""
    student_steps: int = Field(default=5, ge=1)
    """Steps of the student in an outer iteration, each on new images."""
    batch: int = Field(default=256, ge=2)
    """New images a step."""
    replayed: float = Field(default=0.125, ge=0, le=1)
    """Replayed images beside them, as a share of `batch`."""
    write_every: int = Field(default=5, ge=1)
    """Outer iterations from one write into the memory to the next."""
    latent: int = Field(default=100, ge=1)
    """Numbers that an image is made of."""
    width: int | None = Field(default=None, ge=1)
    """Channels of the generator; by default its forward pass costs at most the teacher's."""
    exposure: Exposure = "both"
    """Contrast and brightness are drawn for each image: `both` ways, `dark` for drawings on black, `bright`, or `none`."""
    generator_rate: float = Field(default=1e-3, gt=0)
    """Of Adam on the generator, at its highest."""
    student_rate: float = Field(default=2e-3, gt=0)
    """Of Adam on the student, at its highest; both fall to 0 along a half cosine."""
    loss: Literal["kl", "l1"] = "kl"
    """Of the student: KL divergence at the temperature, or the mean absolute difference of logits."""
    temperature: float | None = Field(default=None, gt=0)
    """Both sides' logits are divided by it; by default chosen from the scale of the teacher's logits."""
    disagreement: float = Field(default=1.0, ge=0)
    """Weight of minus the teacher's and the student's disagreement, for the generator."""
    kind: Kind = "js"
    """Of disagreement: `js`, `l1` or `kl`."""
    sharpness: float = Field(default=3.0, gt=0)
    """The temperature of the disagreement."""
    one_hot: float = Field(default=1.0, ge=0)
    """Weight of the cross-entropy against the teacher's own answer."""
    balance: float = Field(default=5.0, ge=0)
    """Weight of the class balance."""
    features: float = Field(default=0.0, ge=0)
    """Weight of minus the mean absolute penultimate feature."""
    statistics: float = Field(default=0.0, ge=0)
    """Weight of the divergence from the teacher's batch norms, or from a record where it has none."""
    guidance: float | None = Field(default=None, ge=0)
    """Weight of the alignment with condensed images, where there are some; by default that of its kind."""
    ema: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the moving average of the student, by step."""
    keep: Literal["average", "last"] = "average"
    """The student that is kept after each epoch: the moving average, or the one that learns."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of forward and backward passes; weights stay float32."""

    summary: ClassVar[str] = "a generator against the student, with --replay (Binici et al. 2021, 2022)"

    def objective(self, teacher: Network, record: Record | None) -> Objective:
        """The generator's; raises UserError where `statistics` is asked for and nobody knows any."""
        parts: list[tuple[float, Any]] = [
            (self.disagreement, Disagreement(self.kind, self.sharpness)), (self.one_hot, OneHot()),
            (self.balance, ClassBalance()), (self.features, FeatureNorm()),
        ]  # fmt: skip
        if self.statistics:
            parts.append((self.statistics, BatchNormDivergence(stored(teacher, record))))
        kept = tuple((weight, term) for weight, term in parts if weight)
        if not kept:
            raise UserError("the generator has no term of a weight above 0, wanted one at least; give --disagreement 1")
        return Objective(kept)


_PLAIN = {"exposure": "none", "keep": "last"}
_DAFL = {**_PLAIN, "one_hot": 1.0, "balance": 5.0, "features": 0.1}
PRESETS: dict[str, tuple[dict[str, Any], str]] = {
    "dafl": ({**_DAFL, "disagreement": 0.0}, "none"),
    "dfad": ({**_PLAIN, "disagreement": 1.0, "kind": "l1", "one_hot": 0.0, "balance": 0.0, "loss": "l1"}, "none"),
    "mb-dfkd": ({**_DAFL, "disagreement": 1.0}, "bank"),
    "pre-dfkd": ({**_DAFL, "disagreement": 1.0, "write_every": 1}, "vae"),
}
"""Name -> (settings, kind of replay). The weights 1, 5, 0.1 are DAFL's; rates and numbers of steps are ours."""


def preset(name: str, **changes: Any) -> tuple[Online, str]:
    """The settings of a method of the field, and its kind of replay. Raises UserError for another name."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    own, kind = PRESETS[name]
    return Online(**{**own, **changes}), kind


@dataclass(frozen=True)
class Health:
    """What a fresh batch of the generator looks like; nobody's data is needed to know."""

    classes: float
    """exp of the entropy of the teacher's answers: 1 where it sees one class alone."""
    spread: float
    """Standard deviation between images, averaged over pixels, as a share of the range: 0 where all are one image."""
    duplicates: float
    """Share of images that are, as bytes, another's double."""

    def collapsed(self, most: float = math.inf) -> str | None:
        """What is wrong, in words; None where nothing is. `most` is the most classes that were there before: a generator
        that has not found a second one yet is no collapse."""
        if not math.isfinite(self.spread):
            return "images that are not finite"
        if self.duplicates > 0.5 or self.spread < 0.01:
            return "one image"
        return "one class" if self.classes < 1.05 and most > 1.5 else None


@dataclass
class History:
    """What happened, epoch by epoch."""

    loss: list[float] = field(default_factory=list)
    """Of the student."""
    generator: list[float] = field(default_factory=list)
    """Of the generator, all its terms."""
    agreement: list[float] = field(default_factory=list)
    """In %, of student and teacher on frozen images of the generator that no student learnt from; no data is needed."""
    average_agreement: list[float] = field(default_factory=list)
    """The same of the moving average."""
    health: list[dict[str, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    """`score` of the student after each epoch, where one was asked for; the method cannot read it."""
    average_scores: list[float] = field(default_factory=list)
    """The same of the moving average."""
    rollbacks: list[str] = field(default_factory=list)
    """Why an epoch was thrown away and begun again with another generator."""
    phases: dict[str, float] = field(default_factory=lambda: {"generator": 0.0, "student": 0.0, "memory": 0.0})
    """Seconds."""
    images: int = 0
    """New images that the student learnt from."""
    memory_bytes: int = 0
    """Of what is replayed from, after the last epoch."""


@dataclass(frozen=True, eq=False)
class Anchored:
    """Condensed or few real images that the generator is kept near (Binici et al. 2024), and how."""

    alignment: Alignment
    pixels: Tensor
    """(N, C, H, W) in the spec's range."""
    labels: Tensor
    """(N, classes), probabilities."""


class _Game:
    """Both players, their optimisers, the memory, the moving average and the probes: all that a stop must keep."""

    def __init__(
        self, teacher: Network, student: Network, own: Online, memory: Memory, objective: Objective, seed: int,
        anchored: Anchored | None = None,
    ):  # fmt: skip
        self.teacher, self.student, self.own, self.memory = teacher, student, own, memory
        self.alignment = None if anchored is None else anchored.alignment
        self.guide = (
            None if anchored is None else anchored.alignment.on(teacher, anchored.pixels, anchored.labels, seed)
        )
        if self.guide is not None and self.alignment is not None:
            weight = self.alignment.guidance if own.guidance is None else own.guidance
            objective = objective + weight * Aligned(self.guide, "seen")
        self.objective = objective
        self.seed, self.attempt = seed, 0
        self.history = History()
        self.probes = torch.empty((0, *teacher.spec.shape), dtype=torch.uint8)
        self.average = Network(copy.deepcopy(student.module).eval(), student.spec, student.name)
        self.shown: dict[int, Tensor] = {}
        self.learner = torch.optim.Adam(student.module.parameters(), lr=own.student_rate)
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
            exposure=own.exposure,
        ).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.memory.begin(self.generator)
        self.maker = torch.optim.Adam(self.generator.parameters(), lr=own.generator_rate, betas=(0.5, 0.999))

    # -- one epoch ------------------------------------------------------------------------------------------------

    def epoch(self, number: int, progress: Progress) -> tuple[float, float]:
        """Mean losses of student and generator."""
        own, rng = self.own, stream(self.seed, "online", number, self.attempt)
        totals = [0.0, 0.0]
        with torch.random.fork_rng([self.teacher.device] if self.teacher.device.type == "cuda" else []):
            torch.manual_seed(
                int(torch.randint(2**62, (1,), generator=rng))
            )  # dropout draws from torch's global stream
            for index in range(own.iterations):
                step = number * own.iterations + index
                self._rates(step / (own.epochs * own.iterations))
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
        return totals[0] / own.iterations, totals[1] / own.iterations

    def _rates(self, share: float) -> None:
        fall = 0.5 * (1 + math.cos(math.pi * share))
        for adam, rate in ((self.maker, self.own.generator_rate), (self.learner, self.own.student_rate)):
            for group in adam.param_groups:
                group["lr"] = rate * fall

    def _narrow(self) -> Any:
        narrow = self.own.precision == "bfloat16"
        return torch.autocast(self.teacher.device.type, torch.bfloat16) if narrow else nullcontext()

    def _drawn(self, rng: torch.Generator, count: int | None = None) -> Tensor:
        latents = torch.randn((count or self.own.batch, self.generator.drawn), generator=rng)
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
        self.maker.zero_grad(set_to_none=True)
        loss.backward()
        self.maker.step()
        objective.learn(view)
        self.memory.follow(self.generator)
        return float(loss.detach())

    def _student_step(self, rng: torch.Generator, *, write: bool) -> float:
        """New images and replayed ones in one batch; the teacher labels both as they are shown."""
        own = self.own
        with torch.no_grad(), self._narrow():
            pixels = self._drawn(rng).float()
        old = self.memory.sample(round(own.replayed * own.batch), rng) if own.replayed else None
        shown = pixels if old is None else torch.cat([pixels, old.to(pixels)])
        with torch.no_grad(), self._narrow():
            targets = self.teacher.logits(shown).float()
        if not self.temperature:
            self.temperature = temperature_of(targets.cpu())
        self.student.module.train()
        with self._narrow():
            said = self.student.logits(shown)
        loss = (
            (said.float() - targets).abs().mean() if own.loss == "l1" else kl(said.float(), targets, self.temperature)
        )
        self.learner.zero_grad(set_to_none=True)
        loss.backward()
        self.learner.step()
        self.student.module.eval()
        self._follow()
        self.history.images += len(pixels)
        if write:
            began = time.perf_counter()
            self.memory.write(pixels, targets[: len(pixels)], rng)
            self.history.phases["memory"] += time.perf_counter() - began
        return float(loss.detach())

    @torch.no_grad()
    def _follow(self) -> None:
        """The moving average of weights and of batch statistics alike."""
        for own, tensor in zip(self.average.module.state_dict().values(), self.student.module.state_dict().values()):
            if tensor.is_floating_point():
                own.lerp_(tensor, 1 - self.own.ema)
            else:
                own.copy_(tensor)

    @property
    def kept(self) -> Network:
        return self.average if self.own.keep == "average" else self.student

    # -- what is known without data -------------------------------------------------------------------------------

    @torch.no_grad()
    def watch(self, number: int) -> Health:
        """Health of a fresh batch; while there are few probes, it joins them."""
        pixels = self._drawn(stream(self.seed, "probe", number, self.attempt), WATCHED).float().cpu()
        if not bool(pixels.isfinite().all()):
            return Health(0.0, math.nan, 0.0)
        share = self.teacher.predict(pixels).argmax(1).bincount(minlength=len(self.teacher.spec.classes)) / len(pixels)
        entropy = float(-(share * share.clamp(min=1e-12).log()).sum())
        made = to_bytes(pixels, self.teacher.spec)
        different = len({image.numpy().tobytes() for image in made})
        spread = float(pixels.std(0).mean()) / (self.teacher.spec.high - self.teacher.spec.low)
        if len(self.probes) < PROBES:
            self.probes = torch.cat([self.probes, made])[:PROBES]
        return Health(round(math.exp(entropy), 3), round(spread, 5), round(1 - different / len(made), 4))

    def agreement(self) -> list[float]:
        """In %, on the probes, of the student and of its average."""
        pixels = to_pixels(self.probes, self.teacher.spec)
        wanted = self.teacher.predict(pixels).argmax(1)
        both = [own.predict(pixels).argmax(1) == wanted for own in (self.student, self.average)]
        return [round(100 * float(same.float().mean()), 3) for same in both]

    @torch.no_grad()
    def show(self, epoch: int) -> None:
        """Keeps what the generator makes of the same latents, at some ten epochs spread over the run."""
        if epoch % math.ceil(self.own.epochs / SHOWN) == 0 or epoch == self.own.epochs - 1:
            made = self._drawn(stream(self.seed, "shown"), WATCHED)[:SHOWN].float().cpu()
            self.shown[epoch + 1] = to_bytes(made, self.teacher.spec)

    # -- stops ----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Everything, as named tensors."""
        found = {"probes": self.probes.clone(), "temperature": torch.tensor(self.temperature, dtype=torch.float64)}
        for name, module in self._modules():
            found |= {f"{name}/{key}": own.detach().cpu().clone() for key, own in module.state_dict().items()}
        found |= adam_state(self.learner, "learner") | adam_state(self.maker, "maker")
        found |= {f"shown/{epoch}": own for epoch, own in self.shown.items()}
        if self.guide is not None:
            found |= {f"guide/{key}": own for key, own in self.guide.state().items()}
        return found | {f"memory/{key}": own for key, own in self.memory.state().items()}

    def _modules(self) -> tuple[tuple[str, nn.Module], ...]:
        student, average = self.student.module, self.average.module
        return (("student", student), ("average", average), ("generator", self.generator))

    def load(self, found: dict[str, Tensor]) -> None:
        """Raises UserError for the state of another game."""

        def part(name: str) -> dict[str, Tensor]:
            return {key.removeprefix(f"{name}/"): own for key, own in found.items() if key.startswith(f"{name}/")}

        for name, module in self._modules():
            wanted = {key: own.shape for key, own in module.state_dict().items()}
            if {key: own.shape for key, own in part(name).items()} != wanted:
                raise UserError(f"that run has another {name}; name another --out, or repeat that run's command")
            module.load_state_dict(part(name))
        load_adam(self.learner, found, "learner")
        load_adam(self.maker, found, "maker")
        self.memory.load(part("memory"))
        if self.guide is not None:
            self.guide.load(part("guide"))
        self.shown = {int(epoch): own.clone() for epoch, own in part("shown").items()}
        self.probes, self.temperature = found["probes"].clone(), float(found["temperature"])


def adversarial(
    teacher: Network,
    student: Network,
    settings: Online | None = None,
    replay: Any = None,
    *,
    record: Record | None = None,
    anchored: Anchored | None = None,
    seed: int = 0,
    state: Path | None = None,
    identity: dict[str, Any] | None = None,
    score: Callable[[Network], float] | None = None,
    each: Callable[[Network, History, dict[int, Tensor]], None] | None = None,
    progress: Progress = silent,
) -> History:
    """Trains `student` in place against a generator under `teacher`; it ends in eval mode as `settings.keep` says. No data.

    `replay` is a setting of `datafree.replay`, none by default. `anchored` keeps the generator near a few images. With
    `state`, a file there holds everything after each epoch, and a run with the same `identity` goes on from it. `each` is
    told after every epoch: the student that would be kept if it were the last, the history, and generated images, uint8
    (10, C, H, W), by epoch. An epoch that leaves a collapsed generator, or a loss that is not finite, is thrown away and
    begun again with another generator, three times at most. Raises UserError then, the student as it was after the last
    good epoch; and where student and teacher do not go together.
    """
    settings, replay = settings or Online(), replay or Nothing()
    check_student(student, teacher, teacher.spec)
    teacher.check()
    with channels_last(teacher, student), frozen(teacher.module):
        memory, objective = replay.on(teacher, seed), settings.objective(teacher, record)
        game = _Game(teacher, student, settings, memory, objective, seed, anchored)
        start = _resume(state, game, identity or {}) if state is not None and state.exists() else 0
        try:
            for epoch in range(start, settings.epochs):
                _epoch(game, epoch, progress)
                if score is not None:
                    game.history.scores.append(score(student))
                    game.history.average_scores.append(score(game.average))
                if state is not None:
                    _save(state, game, identity or {}, epoch + 1)
                if each is not None:
                    each(game.kept, game.history, game.shown)
        finally:
            student.module.load_state_dict(game.kept.module.state_dict())
            student.module.eval()
    return game.history


def _epoch(game: _Game, number: int, progress: Progress) -> None:
    """One epoch that ends well, or a UserError with everything as it was before it."""
    good, history = game.state(), copy.deepcopy(game.history)
    for _ in range(ATTEMPTS + 1):
        began = time.perf_counter()
        loss, made = game.epoch(number, progress)
        health = game.watch(number)
        most = max((own["classes"] for own in history.health), default=1.0)
        why = "a loss that is not finite" if not math.isfinite(loss + made) else health.collapsed(most)
        if why is None:
            own = game.history
            own.loss.append(round(loss, 6))
            own.generator.append(round(made, 6))
            own.health.append(asdict(health))
            for kept, value in zip((own.agreement, own.average_agreement), game.agreement(), strict=True):
                kept.append(value)
            own.memory_bytes = game.memory.nbytes()
            game.show(number)
            own.seconds.append(round(time.perf_counter() - began, 3))
            return
        game.load(good)
        history.rollbacks.append(f"epoch {number + 1}: {why}")
        game.history = copy.deepcopy(history)
        game.attempt += 1
        game.renew()
    advice = "--student-rate or --generator-rate" if "loss" in why else "--generator-rate, or raise --balance"
    raise UserError(
        f"the generator ends in {why} in epoch {number + 1}, {ATTEMPTS + 1} times; the student is as it was before that "
        f"epoch; lower {advice}"
    )


def _save(path: Path, game: _Game, identity: dict[str, Any], epoch: int) -> None:
    header = {"identity": identity, "epoch": epoch, "attempt": game.attempt, "history": asdict(game.history)}
    write_tensors(path, game.state(), header, kind="online-state")


def _resume(path: Path, game: _Game, identity: dict[str, Any]) -> int:
    tensors, header = read_tensors(path, kind="online-state")
    check_identity(path, header, identity)
    game.attempt = int(header["attempt"])
    game.renew()
    game.load(tensors)
    game.history = History(**header["history"])
    return int(header["epoch"])
