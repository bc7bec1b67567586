"""The image sets of a comparison: one for each method and seed, which all students share."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..._core.errors import UserError
from ..._core.files import write_json
from ..._core.files.atomic import make_folder
from ..._core.files.lock import waiting_lock
from ..._core.progress import Progress
from ..._core.settings import first_problem
from ...models.network import Network
from ...records.record import Record
from ...runs.difference import difference
from ...synthesis.synthetic_set import SyntheticSet, make_set
from .measure import even_chunk, image_count
from .methods import ComparedMethod
from .protocol import Protocol
from .stopwatch import clock_for
from .stored import stored_json

__all__ = ["ImageSets", "MadeSet", "check_same", "naming_the_set"]

AGAIN = "remove that file to make the images again"
SAVE_EVERY = 1.0
"""Seconds between two writes of the time so far."""


@dataclass(frozen=True)
class MadeSet:
    """A complete set, and the seconds that it took."""

    images: SyntheticSet
    seconds: float


class _State(BaseModel):
    """What the file beside a set states."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    identity: dict[str, Any]
    images: int = Field(ge=1)
    seconds: float = Field(ge=0)
    complete: bool


@dataclass(frozen=True)
class ImageSets:
    """Makes sets in `folder`, or continues them."""

    folder: Path
    teacher: Network
    record: Record | None
    protocol: Protocol
    workers: int | None
    replace: bool

    def place(self, method: ComparedMethod, seed: int) -> Path:
        """The folder of the method's set."""
        return self.folder / method.label / f"seed-{seed}"

    def identity(self, method: ComparedMethod, seed: int) -> dict[str, Any]:
        """Everything that decides the images."""
        protocol = self.protocol
        amount = {"images": protocol.images, "budget": protocol.budget, "batch": protocol.training.batch}
        settings = {"method": method.identity(), "seed": seed, "images": protocol.images}
        inputs = {
            "teacher": self.teacher.fingerprint(),
            "record": self.record and self.record.digest(),
            **method.code(),
        }
        return {
            "verb": "compare", "settings": settings | (amount if protocol.budget is not None else {}), "inputs": inputs,
        }  # fmt: skip

    def made(self, method: ComparedMethod, seed: int, progress: Progress) -> MadeSet:
        """The set. Waits while another process makes it. Raises UserError for one of other settings, unless replaced."""
        place, about_file = self.place(method, seed), self.place(method, seed).with_suffix(".json")
        make_folder(place.parent)
        identity = self.identity(method, seed)
        with waiting_lock(place.parent, file=place.name):
            about = _state(about_file) if about_file.is_file() else {}
            if about and not check_same(identity, about.get("identity", {}), place, replace=self.replace):
                about = {}
            if not about:
                shutil.rmtree(place, ignore_errors=True)
                count = image_count(self.teacher, self.record, method, seed, self.protocol, self.workers)
                about = {"identity": identity, "images": count, "seconds": 0.0, "complete": False}
                write_json(about_file, about)
            if about["complete"] and not (place / "set.json").is_file():  # somebody removed the images
                shutil.rmtree(place, ignore_errors=True)
                about |= {"seconds": 0.0, "complete": False}
            if not about["complete"]:
                with _timed(about_file, about, self.teacher, progress) as timed_progress:
                    make_set(
                        self.teacher, self.record, method.settings, place, images=about["images"], seed=seed,
                        chunk=even_chunk(method, self.teacher, about["images"]), workers=self.workers,
                        progress=timed_progress,
                    )  # fmt: skip
                about["complete"] = True
                write_json(about_file, about)
            with naming_the_set(place):
                return MadeSet(SyntheticSet.open(place, self.teacher), about["seconds"])


@contextmanager
def naming_the_set(place: Path) -> Iterator[None]:
    """Inside, the error of a damaged set says which folder to remove: nobody ran `datafree synthesize`."""
    try:
        yield
    except UserError as error:
        reason = str(error).rpartition(";")[0]
        raise UserError(f"{reason}; remove {place}, and the same call makes its images again") from None


def _state(path: Path) -> dict[str, Any]:
    try:
        return _State.model_validate(stored_json(path, AGAIN)).model_dump()
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}; {AGAIN}") from None


def check_same(identity: dict[str, Any], earlier: dict[str, Any], place: Path, *, replace: bool) -> bool:
    """Whether what is in `place` has this identity; False if it has another one and is to be replaced.

    Raises UserError if it is not to be replaced.
    """
    changed = difference(identity, earlier)
    if changed is not None and not replace:
        raise UserError(f"{place} was made {changed}: give `replace=True` to make it again, or name another `out`")
    return changed is None


@contextmanager
def _timed(file: Path, about: dict[str, Any], teacher: Network, progress: Progress) -> Iterator[Progress]:
    """Adds the seconds of the block to `about`, and saves them in between, as a stopped set is continued."""
    clock, before = clock_for(teacher.device), about["seconds"]
    began, saved = clock(), time.monotonic()

    def timed(done: int, total: int) -> None:
        nonlocal saved
        about["seconds"] = before + clock() - began
        if time.monotonic() - saved > SAVE_EVERY:
            saved = time.monotonic()
            write_json(file, about)
        progress(done, total)

    yield timed
    about["seconds"] = before + clock() - began
