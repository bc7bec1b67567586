"""Online distillation in one call: a generator searches for images that the student gets wrong; no images or data needed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, Unpack

from torch import Tensor

from .._core.arguments import checked
from .._core.distributed import together, world
from .._core.errors import UserError
from .._core.progress import Progress, silent
from .._core.settings import called_with, with_paths
from .._core.unused import Use, check_used, given_in
from .._core.user_code import code_entry
from ..data.condensed.condensed_set import Condensed
from ..data.tone import Ground
from ..models.network import Network
from ..records.record import Record
from ..releases.release import architecture_of
from ..synthesis.generator import check_generator
from ..synthesis.losses import alignment as alignments
from ..synthesis.losses.alignment import Alignment
from ..synthesis.losses.online import Kind
from . import replay as memories
from .online.history import History
from .online.run import PRESETS, train_online
from .online.settings import OnlineDistillation, online_preset
from .online.trainer import AnchorImages
from .replay import Replay
from .student_init import init_student_from_teacher, same_architecture
from .students import Provenance, Start, StudentLike, new_student
from .views import check_shift

__all__ = [
    "PRESETS", "REPLAY", "OnEpoch", "OnlineChanges", "OnlineDistillation", "OnlineNetwork", "OnlinePlan", "OnlineTraining",
    "distill_online", "online_settings", "plan_online",
]  # fmt: skip

REPLAY = "bank"
"""Default kind of replay."""
USES = (
    Use("guidance", "condensed"),
    Use("alignment", "guidance", lambda weight: weight != 0, "`guidance` above 0"),
    Use("kind", "disagreement", bool, "`disagreement` above 0"),
    Use("disagreement_temperature", "disagreement", bool, "`disagreement` above 0"),
    Use("disagreement_temperature", "kind", lambda kind: kind != "l1", "`kind='js'` or `kind='kl'`"),
    Use("temperature", "loss", lambda loss: loss == "kl", "`loss='kl'`"),
    Use("replay_fraction", "replay", lambda replay: replay != "none", "another `replay`"),
    Use("write_every", "replay", lambda replay: replay != "none", "another `replay`"),
)
"""Options that have an effect beside some others alone. `ema` is none: `history` has the average's scores in any case."""
OnEpoch: TypeAlias = Callable[[Network, History, dict[int, Tensor]], None]
"""Gets the student as it would be saved now, the history, and generated images, uint8 (10, C, H, W), by epoch."""


class OnlineChanges(TypedDict, total=False):
    """Fields of `OnlineDistillation` as keywords."""

    epochs: int
    iterations: int
    generator_steps: int
    student_steps: int
    batch: int
    replay_fraction: float
    write_every: int
    latent: int
    width: int | None
    scene: Literal["things", "drawings", "none"]
    ground: Ground
    symmetry: float
    centre: float
    generator_rate: float
    optimizer: Literal["muon", "adam"]
    student_rate: float
    decay: Literal["constant", "cosine"]
    warmup: float
    loss: Literal["kl", "l1"]
    temperature: float | None
    disagreement: float
    kind: Kind
    disagreement_temperature: float
    confidence: float
    balance: float
    features: float
    statistics: float
    guidance: float | None
    ema: float
    keep: Literal["average", "last"]
    precision: Literal["float32", "bfloat16"]
    shift: int | None
    flip: bool
    hints: float


@dataclass(frozen=True)
class OnlineTraining:
    """How a student was trained against a generator."""

    history: History
    settings: OnlineDistillation
    replay: Replay
    started_from_teacher: bool
    """False if the student has other layers, or `start` was "random"."""
    processes: int
    provenance: Provenance = field(repr=False)


@dataclass(frozen=True, repr=False)
class OnlineNetwork(Network):
    """A student: a network with a description of its training."""

    training: OnlineTraining

    @property
    def history(self) -> History:
        """Measurements of the training by epoch."""
        return self.training.history


@dataclass(frozen=True)
class OnlinePlan:
    """An online distillation that is checked and ready to run: nothing is trained yet."""

    teacher: Network
    student: Network
    """The student before training: a copy of the caller's, or a fresh network."""
    settings: OnlineDistillation
    replay: Replay
    alignment: Alignment | None
    anchors: Condensed | None
    record: Record | None
    start: Start
    seed: int

    @property
    def starts_from_teacher(self) -> bool:
        """Whether the student starts with channels of the teacher: `start` is "teacher", and the layers are the same."""
        return self.start == "teacher" and same_architecture(self.student, self.teacher)

    def identity(self) -> dict[str, Any]:
        """Everything that must be equal for a stopped run to be continued."""
        dumped = [None if part is None else _plain(part) for part in (self.settings, self.replay, self.alignment)]
        return {
            "settings": dumped, "seed": self.seed, "start": self.start, "teacher": self.teacher.fingerprint(),
            "student": self.student.fingerprint(), "record": None if self.record is None else self.record.digest(),
            "anchors": None if self.anchors is None else _digest(self.anchors),
            **code_entry(self.replay, self.alignment),
        }  # fmt: skip

    def run(
        self,
        *,
        state: Path | None = None,
        identity: dict[str, Any] | None = None,
        score: Callable[[Network], float] | None = None,
        on_epoch: OnEpoch | None = None,
        progress: Progress = silent,
    ) -> OnlineNetwork:
        """Trains the plan's student; see `distill_online`."""
        student, settings, began = self.student, self.settings, time.perf_counter()
        if state is not None and identity is None:
            identity = self.identity()
        from_teacher = self.starts_from_teacher
        if from_teacher and (state is None or not state.exists()):
            init_student_from_teacher(student, self.teacher, settings.composition(), seed=self.seed)
        anchors = None
        if self.anchors is not None and self.alignment is not None:
            anchors = AnchorImages(self.alignment, self.anchors.clamped(), self.anchors.labels)
        history = train_online(
            self.teacher, student, settings, self.replay, record=self.record, anchors=anchors, seed=self.seed,
            state=state, identity=identity, score=score, on_epoch=on_epoch, progress=progress,
        )  # fmt: skip
        training = OnlineTraining(
            history, settings, self.replay, from_teacher, world().size, self._provenance(time.perf_counter() - began)
        )
        return OnlineNetwork(student.module, student.spec, student.name, student.output, student.reduced, training)

    def _provenance(self, seconds: float) -> Provenance:
        identity = self.identity()
        online = identity["settings"][0]
        replay, alignment = (None if part is None else with_paths(part) for part in (self.replay, self.alignment))
        settings = {
            "teacher": self.teacher.name, "student": self.student.name, "learns_from": "a generator's images",
            "start": self.start, "online": online, "replay": replay, "alignment": alignment, "seed": self.seed,
        }  # fmt: skip
        hashes = {
            "teacher_fingerprint": identity["teacher"], "record_digest": identity["record"], "anchors": identity["anchors"],
        }  # fmt: skip
        digests = {role: digest for role, digest in hashes.items() if digest is not None}
        return Provenance(architecture_of(self.teacher), self.student.fingerprint(), settings, digests, seconds)


def online_settings(
    preset: str | None, settings: OnlineDistillation | Mapping[str, Any] | None, changes: Mapping[str, Any]
) -> tuple[OnlineDistillation, str]:
    """The default settings or a preset's, with the given `settings` and `changes`, and the default kind of replay for them.

    Raises UserError for an invalid name or value, and for a setting that the scene does not have.
    """
    settings = called_with(OnlineDistillation, settings, changes, distill_online)
    explicit = {} if settings is None else {key: getattr(settings, key) for key in settings.model_fields_set}
    explicit |= changes
    online, replay = (OnlineDistillation(**explicit), REPLAY) if preset is None else online_preset(preset, **explicit)
    for name, scenes in (("ground", ("things", "drawings")), ("symmetry", ("things",)), ("centre", ("things",))):
        if name in explicit and online.scene not in scenes:
            raise UserError(
                f"{name}: got {explicit[name]} with `scene={online.scene!r}`, expected "
                f"{' or '.join(f'`scene={scene!r}`' for scene in scenes)}; give such a scene, or leave `{name}` out"
            )
    return online, replay


def plan_online(
    teacher: Network,
    student: StudentLike | None = None,
    settings: OnlineDistillation | Mapping[str, Any] | None = None,
    *,
    preset: str | None = None,
    replay: str | Mapping[str, Any] | Replay | None = None,
    start: Start = "teacher",
    condensed: Condensed | str | Path | None = None,
    alignment: str | Mapping[str, Any] | Alignment | None = None,
    record: Record | None = None,
    seed: int = 0,
    **changes: Unpack[OnlineChanges],
) -> OnlinePlan:
    """Checks the arguments and chooses all settings as `distill_online` does, without training. Raises the same errors."""
    chosen, memory = online_settings(preset, settings, dict(changes))
    if alignment is not None and condensed is None:
        raise UserError("alignment: got it without condensed, expected images to align with; give a condensed set")
    if record is not None:
        record.check_teacher(teacher)
        if not chosen.statistics:
            raise UserError(
                "record: got it with statistics 0, which does not use it; give `statistics=1`, or leave it out"
            )
    kind = memories.FAMILY.resolve(memory if replay is None else replay, "replay")
    guide = None if condensed is None else alignments.FAMILY.resolve(alignment or alignments.DEFAULT, "alignment")
    teacher.check()
    check_shift(chosen, teacher.spec)
    check_generator(teacher.spec, latent=chosen.latent, width=chosen.width, batch=chosen.batch)
    network = new_student(student, teacher, seed=seed)
    explicit = given_in(called_with(OnlineDistillation, settings, changes, distill_online), changes)
    if _names_kind_alone(alignment):
        explicit["alignment"] = guide and guide.alignment
    check_used(explicit, USES, {**chosen.model_dump(), "replay": kind.replay, "condensed": condensed})
    anchors = condensed.fitted(teacher) if isinstance(condensed, Condensed) else None
    if condensed is not None and anchors is None:
        anchors = Condensed.open(condensed, teacher)  # type: ignore[arg-type]
    return OnlinePlan(teacher, network, chosen, kind, guide, anchors, record, start, seed)


@checked
def distill_online(
    teacher: Network,
    student: StudentLike | None = None,
    settings: OnlineDistillation | Mapping[str, Any] | None = None,
    *,
    preset: str | None = None,
    replay: str | Mapping[str, Any] | Replay | None = None,
    start: Start = "teacher",
    condensed: Condensed | str | Path | None = None,
    alignment: str | Mapping[str, Any] | Alignment | None = None,
    record: Record | None = None,
    seed: int = 0,
    state: Path | None = None,
    identity: dict[str, Any] | None = None,
    score: Callable[[Network], float] | None = None,
    on_epoch: OnEpoch | None = None,
    progress: Progress = silent,
    **changes: Unpack[OnlineChanges],
) -> OnlineNetwork:
    """A student trained against a generator that searches for images on which it differs from `teacher`; no data is needed.

        student = distill_online(teacher, epochs=10)
        student = distill_online(teacher, MyModule(), preset="dfad", replay="vae")

    `student` is a network, a module with the teacher's input, or a name of the zoo or `file.py:function`; by default the
    teacher's half, if the zoo has one. A network or module is copied, not changed. With `start` "teacher" the student's
    weights are replaced by channels of the teacher, if it has the same layers, none wider; with "random" it keeps its own.

    Fields of `OnlineDistillation` are given as `settings` or as keywords, and change those of a `preset`: the losses and the
    memory of a method of the field ("dafl", "dfad", "mb-dfkd", "pre-dfkd"). `replay` is the memory of earlier images
    that the student sees again, a name ("bank" by default), a mapping with `replay`, or settings. With `condensed`, a
    condensed set or its path, the generator is kept near those images by an `alignment` ("mmd" by default) (Binici et
    al. 2024). A `record` is used if `statistics` is above 0 and the teacher has no batch norms.

    The same seed gives the same student. With a `state` path, everything is saved there after each epoch, and the same call
    continues from it, if `identity` is equal too; by default that is everything that determines the result. `on_epoch` is
    called after every epoch with the student so far, the history and generated images. `score` is measured after every epoch
    and never used for training.

    Returns the student in eval mode, on the teacher's device: its moving average, or the last one if `keep` is "last".
    `student.history` has losses, agreement and the generator's health by epoch. An epoch that ends in a collapsed generator
    or in numbers that are not finite is repeated with another generator, three times at most. Raises UserError after that
    (`on_epoch` was called with the student of the last good epoch), and before training for students, records, images or
    settings that do not fit.
    """
    with together():
        plan = plan_online(
            teacher, student, settings, preset=preset, replay=replay, start=start, condensed=condensed, alignment=alignment,
            record=record, seed=seed, **changes,
        )  # fmt: skip
        return plan.run(state=state, identity=identity, score=score, on_epoch=on_epoch, progress=progress)


def _names_kind_alone(alignment: Any) -> bool:
    """Whether an alignment was given without settings of its own: its augmentation has an effect at any weight."""
    return isinstance(alignment, str) or (isinstance(alignment, Mapping) and set(alignment) == {"alignment"})


def _plain(settings: Any) -> dict[str, Any]:
    return settings.model_dump(mode="json")


def _digest(anchors: Condensed) -> str:
    digest = hashlib.sha256()
    for tensor in (anchors.pixels, anchors.labels):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
