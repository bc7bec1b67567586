"""Condensing: a few images per class that represent a data set. Each method is frozen settings in its own file.

Done by a publisher, since it reads the data. `method.make(job)` returns pixels ordered by class; `condense` makes a
`Condensed` set of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import torch

from ...._core.arguments import checked
from ...._core.device import check_device
from ...._core.errors import UserError, cut
from ...._core.files import sha256_file
from ...._core.plugins import Family
from ...._core.progress import Progress, silent
from ...._core.settings import Settings, with_paths
from ...._core.unused import unused
from ....models.class_names import class_positions
from ....models.input_spec import InputSpec
from ....models.network import Network
from ... import Dataset, sha256
from ...adapters import LabelledData, as_dataset
from ...dataset_checks import check_classes
from ..condensed_set import Condensed, one_hot

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DEFAULT", "FAMILY", "Condenser", "Job", "condense", "from_dict", "from_name", "methods"]


DEFAULT = "dm"


@dataclass(frozen=True)
class Job:
    """The data to condense. Raises UserError if a class has too few images."""

    data: Dataset
    spec: InputSpec
    per_class: int
    seed: int = 0
    device: str = "cpu"
    state: Path | None = None
    """The file for the state of a slow method that is stopped."""
    identity: dict[str, Any] = field(default_factory=dict)
    """What must be the same to continue a stopped run."""
    progress: Progress = silent

    def __post_init__(self) -> None:
        if self.per_class < 1:
            raise UserError(f"per_class: got {self.per_class}, expected at least 1; give a positive count")
        if self.spec.shape[0] not in self.data.channels or len(self.data.classes) != len(self.spec.classes):
            raise UserError(
                f"{self.data.name} has {self.data.shape[0]} channels and {len(self.data.classes)} classes, expected "
                f"{self.spec.shape[0]} and {len(self.spec.classes)}; use data of that kind or another network"
            )
        positions = class_positions(self.data.classes, self.spec.classes, self.data.name, "the network")
        fitting = self.data.relabelled(positions, self.spec.classes).scaled_to(self.spec)
        object.__setattr__(self, "data", fitting)  # neither changes data that fits already
        counts = self.data.labels.bincount(minlength=len(self.spec.classes))
        if int(counts.min()) < self.per_class:
            rarest = int(counts.argmin())
            raise UserError(
                f"per_class: got {self.per_class}, but {self.data.name} has {int(counts[rarest])} images of class "
                f"{self.spec.classes[rarest]!r}; give at most as many, or more data"
            )

    def resumed(self, state: Path, identity: dict[str, Any], progress: Progress) -> Job:
        """The same job, continued from the file `state` if it exists."""
        return replace(self, state=state, identity=identity, progress=progress)

    def of_class(self, label: int) -> Tensor:
        """The positions of the images of a class in the data."""
        return (self.data.labels == label).nonzero()[:, 0]

    def by_class(self) -> Iterator[tuple[int, Tensor]]:
        """Every class with the positions of its images; reports progress per class."""
        for label in range(len(self.spec.classes)):
            self.progress(label, len(self.spec.classes))
            yield label, self.of_class(label)
        self.progress(len(self.spec.classes), len(self.spec.classes))

    def pixels(self, positions: Tensor) -> Tensor:
        """The images at these positions (n, C, H, W), float32 in the spec's range and shape."""
        pixels = self.data.pixels(positions, self.spec.shape[1:])
        self.spec.check(pixels)
        return pixels


@runtime_checkable
class Condenser(Protocol):
    """Settings with a `method`; `make` returns the images.

    A class may also have `keeps_state: ClassVar[bool] = False`, if it is too fast to be stopped and continued.
    """

    method: str
    summary: ClassVar[str]

    @property
    def leakage(self) -> str:
        """What the images reveal of the data, in a sentence or two."""
        ...

    def make(self, job: Job) -> Tensor:
        """Images (classes * per_class, C, H, W) in the spec's pixel units, ordered by class; the same for the same seed."""
        ...


@checked
def condense(
    method: str | Mapping[str, Any] | Condenser = DEFAULT,
    job: Job | None = None,
    *,
    data: LabelledData | None = None,
    per_class: int | None = None,
    teacher: Network | None = None,
    spec: InputSpec | None = None,
    seed: int = 0,
    device: str = "cpu",
    state: Path | None = None,
    identity: dict[str, Any] | None = None,
    progress: Progress = silent,
) -> Condensed:
    """Condenses `data` to `per_class` images per class with hard labels.

    `method` is a name, a mapping with `method`, or settings. The images have the size and classes of `teacher`, which
    is also tried on them, or those of `spec`, or else of the data. `state` is a file for the state of a slow method,
    from which the same call continues; `identity` is what must be the same then, by default everything that decides
    the result. A `job` replaces all of these. Raises UserError for data that does not fit or has too few images of a
    class.
    """
    settings = FAMILY.resolve(method, "method")
    if state is not None and not getattr(settings, "keeps_state", True):
        unused("state", str(state), f"with {settings.method}, which keeps none", "a method that does")
    if job is None:
        job = _job(data, per_class, teacher, spec, seed, device)
        if state is not None and identity is None:
            identity = {
                "method": _dumped(settings), "per_class": job.per_class, "seed": seed, "data": sha256(job.data),
                "spec": job.spec.model_dump(mode="json"),
            }  # fmt: skip
        if state is not None or progress is not silent:
            job = replace(job, state=state, identity=identity or {}, progress=progress)
    elif (data, per_class, teacher, spec, state, identity) != (None,) * 6 or (seed, device) != (0, "cpu"):
        raise UserError("job: got it beside data or its settings, expected one of them; leave the others out")
    condensed = _condensed(settings, job)
    if teacher is not None:
        condensed.about["teacher"] = {
            "fingerprint": teacher.fingerprint(),
            "accuracy": round(condensed.accuracy(teacher), 2),
        }
    return condensed


def _job(
    data: LabelledData | None,
    per_class: int | None,
    teacher: Network | None,
    spec: InputSpec | None,
    seed: int,
    device: str,
) -> Job:
    if data is None:
        raise UserError("data: got None, expected the data set to condense; give what load_data returns")
    if per_class is None:
        raise UserError("per_class: got None, expected the number of images per class; give one")
    check_device(device)
    if teacher is not None and spec is not None:
        raise UserError("spec: got it beside teacher, which has its own; leave one of them out")
    expected = teacher or spec
    if expected is not None:
        data = as_dataset(data, expected)
    elif not isinstance(data, Dataset):
        raise UserError("spec: got None, expected teacher or spec beside such data; give one of them")
    if teacher is not None:
        teacher.check()
        check_classes(teacher, data)
    chosen = teacher.spec if teacher is not None else spec or InputSpec(shape=data.shape, classes=data.classes)
    return Job(data, chosen, per_class, seed=seed, device=device)


def _dumped(settings: Any) -> Any:
    return settings.model_dump(mode="json")


def _condensed(settings: Any, job: Job) -> Condensed:
    method, leakage = settings, _leakage(settings)
    pixels = _checked(settings.make(job), method, job)
    labels = one_hot(torch.arange(len(job.spec.classes)).repeat_interleave(job.per_class), len(job.spec.classes))
    about = {
        "made": {**_public(with_paths(method)), "seed": job.seed, "per_class": job.per_class},
        "data": {
            "name": job.data.public,
            "sha256": sha256(job.data)[:16],
            "split": job.data.split,
            "images": len(job.data),
        },
        "leakage": leakage,
    }
    return Condensed(pixels.float().cpu(), labels, job.spec, about)


def _public(value: Any) -> Any:
    """Settings with each path as the hash of the file there, or as what it is."""
    if isinstance(value, Path):
        return f"file {sha256_file(value)[:12]}" if value.is_file() else "a folder" if value.is_dir() else "a file"
    if isinstance(value, dict):
        return {key: _public(part) for key, part in value.items()}
    return [_public(part) for part in value] if isinstance(value, list) else value


def _leakage(method: Any) -> str:
    """What the method says that its images reveal. Raises UserError if it says nothing."""
    leakage = method.leakage
    if not isinstance(leakage, str) or not leakage.strip():
        raise UserError(
            f"the condensing method {method.method!r} has leakage {cut(repr(leakage))}, expected a sentence on what its "
            "images reveal of the data, which the card of the set states; write one"
        )
    return leakage


def _checked(pixels: Any, method: Any, job: Job) -> Tensor:
    """What `make` returned. Raises UserError, naming the method, unless these are finite images of each class."""
    subject, spec = f"the condensing method {method.method!r}: make", job.spec
    if not isinstance(pixels, torch.Tensor):
        got = "None" if pixels is None else f"a {type(pixels).__name__}"
        raise UserError(f"{subject} returns {got}, expected a tensor of images; correct what it returns")
    expected = (len(spec.classes) * job.per_class, *spec.shape)
    if tuple(pixels.shape) != expected:
        raise UserError(
            f"{subject} returns pixels {tuple(pixels.shape)}, expected {expected}, {job.per_class} images of each class; "
            "correct what it returns"
        )
    if not pixels.is_floating_point():
        raise UserError(
            f"{subject} returns pixels {str(pixels.dtype).removeprefix('torch.')}, expected float32 from {spec.low:g} to "
            f"{spec.high:g}; convert them"
        )
    if not bool(pixels.isfinite().all()):
        raise UserError(f"{subject} returns pixels with NaN or infinity, expected finite ones; correct what it returns")
    return pixels.detach()


FAMILY: Family[Condenser] = Family(__name__, "method", "condensing method", ("summary", "leakage", "make"))
"""The methods of this folder, installed plug-ins, and the user's own by `file.py:Class` or `package.module:Class`."""


def methods() -> dict[str, type[Settings]]:
    """Every method by its name: those of this folder, and installed plug-ins."""
    return FAMILY.kinds()


def from_name(name: str, /, **settings: Any) -> Any:
    """A method by name with settings: ``from_name("dm", iterations=100)``."""
    return from_dict({"method": name, **settings})


def from_dict(values: dict[str, Any]) -> Any:
    """A method from its dict. Raises UserError for an unknown name or an invalid setting."""
    return FAMILY.from_dict(values)
