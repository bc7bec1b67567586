"""Prunes a network and repairs it without its data: channels are left out, and the rest is distilled from the original."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from .._core.arguments import check_count, checked
from .._core.distributed import main_process, together
from .._core.errors import Notice, UserError
from .._core.progress import Progress, silent, stage
from .._core.resume import ADVICE, open_state
from ..data.augmentation import Augmentation
from ..data.condensed.condensed_set import Condensed
from ..models.agreement import agreement
from ..models.network import Network, copied
from ..models.reducing import take_sizes
from ..pruning.allocation import pruned
from ..records.record import Record
from .distill import Distillation, DistillationChanges, DistillationPlan, DistilledNetwork, plan_distillation
from .source_choice import SHARE, ChosenSource, ImagesLike, MethodLike
from .training_loop import KIND, FitHeader, checked_score

__all__ = ["PrunedNetwork", "PruningPlan", "Round", "plan_pruning", "prune"]

IMAGES, PIXELS = 512, 512 * 3 * 32 * 32
"""Images on which channels are compared: at most, and their pixels together."""
FEWEST = 32
"""Images on which channels are compared, at least."""
MOST_ROUNDS = 100


class Round(BaseModel):
    """What one round of pruning left, before it was repaired."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    weights: int = Field(ge=1)
    """Number of weights."""
    agreement: float = Field(ge=0, le=100)
    """Agreement with the original, in percent, on the images on which channels were compared; these are no test images."""
    accuracy: float | None = None
    """What `accuracy` returned, if it was given."""


class _Done(BaseModel):
    """The rounds that are done, in the identity of a state."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rounds: list[Round] = Field(min_length=1, max_length=MOST_ROUNDS)
    sizes: dict[str, list[int]]
    """Shape of each tensor of the last round's network."""


@dataclass(frozen=True, repr=False)
class PrunedNetwork(DistilledNetwork):
    """A pruned and repaired network, with a description of both."""

    keep: float
    rounds: tuple[Round, ...]


@dataclass(frozen=True)
class PruningPlan:
    """A pruning that is checked and ready to run."""

    distillation: DistillationPlan
    """The repair; its student is a copy of the original."""
    keep: float
    rounds: int

    @property
    def student(self) -> Network:
        """The network before pruning, a copy of the original."""
        return self.distillation.student

    @property
    def chosen(self) -> ChosenSource:
        """What the repair learns from."""
        return self.distillation.chosen

    @property
    def settings(self) -> Distillation:
        """Those of the repair."""
        return self.distillation.settings

    def with_temperature_of(self, earlier: Mapping[str, Any]) -> PruningPlan:
        """See `DistillationPlan.with_temperature_of`."""
        return replace(self, distillation=self.distillation.with_temperature_of(earlier))

    def identity(self) -> dict[str, Any]:
        """Everything that must be equal for a stopped run to be continued."""
        return {**self.distillation.identity(), "keep": self.keep, "rounds": self.rounds}

    def run(
        self,
        *,
        state: Path | None = None,
        identity: dict[str, Any] | None = None,
        accuracy: Callable[[Network], float] | None = None,
        progress: Progress = silent,
    ) -> PrunedNetwork:
        """Prunes and repairs; see `prune`."""
        plain: dict[str, Any] = json.loads(json.dumps(self.identity() if identity is None else identity))
        teacher, network, rounds, result = self.distillation.teacher, self.student, list[Round](), None
        if state is not None and state.exists():
            network, rounds = self._resumed(state, plain)
            result = network = self._repaired(network, state, plain, rounds, None, progress)
        while len(rounds) < self.rounds:
            earlier = None if result is None else _with_rounds(plain, rounds, result)
            share = self.keep ** ((len(rounds) + 1) / self.rounds)
            with stage(progress, "measure what channels are worth") as shown:
                network = pruned(network, share, self._pixels, original=teacher.parameters, progress=shown)
            rounds.append(self._round(network, accuracy))
            result = network = self._repaired(network, state, plain, rounds, earlier, progress)
        assert result is not None  # there is at least one round
        before, after = rounds[-1].agreement, self._round(result, None).agreement
        if after < before and main_process():
            warnings.warn(
                Notice(
                    f"the repair lowered the agreement with {teacher.name} from {before:.2f} to {after:.2f} % on the images "
                    "on which channels were compared: train for more epochs, or with a lower rate"
                ),
                stacklevel=3,
            )
        repair = result.training.provenance
        settings = {key: value for key, value in repair.settings.items() if key not in ("student", "start")}
        provenance = replace(
            repair, settings={**settings, "keep": self.keep, "rounds": self.rounds, "seed": self.distillation.seed}
        )
        training = replace(result.training, started_from_teacher=True, provenance=provenance)
        return PrunedNetwork(
            result.module, result.spec, result.name, result.output, True, training, self.keep, tuple(rounds)
        )

    def _repaired(
        self, network: Network, state: Path | None, identity: dict[str, Any], rounds: list[Round],
        earlier: dict[str, Any] | None, progress: Progress,
    ) -> DistilledNetwork:  # fmt: skip
        """The network of the last of these rounds, trained. `earlier` is the identity of the state of the round before."""
        seed = self.distillation.seed + len(rounds) - 1
        plan = replace(self.distillation, student=network, start="random", seed=seed)
        return plan.run(
            state=state, identity=_with_rounds(identity, rounds, network), replaces=earlier, progress=progress
        )

    def _resumed(self, state: Path, identity: dict[str, Any]) -> tuple[Network, list[Round]]:
        """A network of the sizes of the one in a state, and the rounds so far. Raises UserError for another state."""
        header = open_state(state, KIND, FitHeader, identity, partly=True)
        try:
            done = _Done.model_validate_json(json.dumps(header.identity.get("pruning")))
            if len(done.rounds) > self.rounds:
                raise ValueError("rounds")
            network = self.student.with_module(copied(self.student.module))
            take_sizes(network.module, {name: torch.Size(size) for name, size in done.sizes.items()})
            network.check()
        except (ValueError, RuntimeError, UserError) as error:
            raise UserError(f"{state} is no state of this run: {str(error).splitlines()[0]}; {ADVICE}") from None
        return network, list(done.rounds)

    def _round(self, network: Network, accuracy: Callable[[Network], float] | None) -> Round:
        equal = agreement(self._expected, network.predict(self._pixels), network.spec.classes).equal
        return Round(
            weights=network.parameters,
            agreement=equal,
            accuracy=None if accuracy is None else checked_score(accuracy(network), "accuracy"),
        )

    @cached_property
    def _pixels(self) -> Tensor:
        """The images on which channels are compared."""
        count = min(IMAGES, max(FEWEST, PIXELS // self.student.spec.pixels))
        pixels, _ = next(iter(self.chosen.source.epoch(self.distillation.seed, 0, count)))
        return pixels

    @cached_property
    def _expected(self) -> Tensor:
        """The original's logits on them."""
        return self.distillation.teacher.predict(self._pixels)


def _with_rounds(identity: dict[str, Any], rounds: list[Round], network: Network) -> dict[str, Any]:
    """The identity of the state of the last of these rounds, which is that of a network of these sizes."""
    sizes = {name: list(tensor.shape) for name, tensor in network.module.state_dict().items()}
    return {**identity, "pruning": {"rounds": [entry.model_dump() for entry in rounds], "sizes": sizes}}


def plan_pruning(
    teacher: Network,
    keep: float,
    *,
    rounds: int = 1,
    **arguments: Any,
) -> PruningPlan:
    """Chooses source and temperature as `prune` does, without pruning. Raises the same errors.

    `arguments` are those of `plan_distillation`, but for the student and its start.
    """
    if not 0 < keep < 1:
        raise UserError(f"keep: got {keep:g}, expected above 0 and below 1, a share of the weights; give such a share")
    check_count("rounds", rounds)
    if rounds > MOST_ROUNDS:
        raise UserError(f"rounds: got {rounds:,}, expected at most {MOST_ROUNDS}; give fewer, of more epochs")
    module = copied(teacher.module)
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    student = replace(teacher.with_module(module), reduced=True)
    plan = plan_distillation(teacher, student, start="teacher", **arguments)
    return PruningPlan(plan, keep, rounds)


@checked
def prune(
    teacher: Network,
    keep: float,
    *,
    rounds: int = 1,
    record: Record | None = None,
    images: ImagesLike | None = None,
    condensed: Condensed | str | Path | None = None,
    method: MethodLike | None = None,
    epoch_images: int | None = None,
    share: float = SHARE,
    augmentation: Augmentation | None = None,
    settings: Distillation | Mapping[str, Any] | None = None,
    seed: int = 0,
    state: Path | None = None,
    identity: dict[str, Any] | None = None,
    accuracy: Callable[[Network], float] | None = None,
    progress: Progress = silent,
    **changes: Unpack[DistillationChanges],
) -> PrunedNetwork:
    """A network with at most the share `keep` of the weights of `teacher`, repaired without its data.

        small = prune(teacher, 0.25, images="set", epochs=30)

    Channels are left out in all layers that write or read them, most where the teacher's answers change least per weight
    (`pruning.allocation`); the others are chosen and refitted as for a student with `start` "teacher". Then the network is
    distilled from the teacher, as `distill` does from the same arguments, for `epochs` passes over the images. With several
    `rounds` both are repeated: each round keeps the same share of the weights of the one before.

    `accuracy` is called with the network of each round before it is repaired; what it returns, a number, is in the result's
    `rounds`, beside the agreement with the teacher. `state` and `identity` are those of `distill`. Raises UserError for a
    share that cannot be kept, and as `distill` does.
    """
    with together():
        plan = plan_pruning(
            teacher, keep, rounds=rounds, record=record, images=images, condensed=condensed, method=method,
            epoch_images=epoch_images, share=share, augmentation=augmentation, settings=settings, seed=seed,
            progress=progress, **changes,
        )  # fmt: skip
        for warning in plan.chosen.warnings if main_process() else ():
            warnings.warn(Notice(f"{warning}; a network is hardly repaired by them"), stacklevel=3)
        return plan.run(state=state, identity=identity, accuracy=accuracy, progress=progress)
