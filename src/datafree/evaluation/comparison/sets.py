"""The image sets of a comparison: one for each method and seed, which all students share."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..._core.errors import UserError
from ..._core.files import read_json, write_json
from ..._core.files.atomic import make_folder
from ..._core.files.lock import waiting_lock
from ..._core.progress import Progress
from ...models.network import Network
from ...records.record import Record
from ...runs.difference import difference
from ...synthesis.synthetic_set import SyntheticSet, make_set
from .measure import even_chunk, image_count
from .methods import ComparedMethod
from .protocol import Protocol
from .stopwatch import clock_for

__all__ = ["ImageSets", "MadeSet", "check_same"]

SAVE_EVERY = 1.0
"""Seconds between two writes of the time so far."""


@dataclass(frozen=True)
class MadeSet:
    """A complete set, and the seconds that it took."""

    images: SyntheticSet
    seconds: float


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
            about = read_json(about_file) if about_file.is_file() else {}
            if about and not check_same(identity, about.get("identity", {}), place, replace=self.replace):
                about = {}
            if not about:
                shutil.rmtree(place, ignore_errors=True)
                count = image_count(self.teacher, self.record, method, seed, self.protocol, self.workers)
                about = {"identity": identity, "images": count, "seconds": 0.0, "complete": False}
                write_json(about_file, about)
            if not about["complete"]:
                with _timed(about_file, about, self.teacher, progress) as timed_progress:
                    make_set(
                        self.teacher, self.record, method.settings, place, images=about["images"], seed=seed,
                        chunk=even_chunk(method, self.teacher, about["images"]), workers=self.workers,
                        progress=timed_progress,
                    )  # fmt: skip
                about["complete"] = True
                write_json(about_file, about)
            return MadeSet(SyntheticSet.open(place, self.teacher), about["seconds"])


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
