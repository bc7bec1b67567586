"""Reads the part of an untrusted run.json that a report shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .._core.errors import UserError
from .._core.files import read_json
from .._core.settings import first_problem, modern

__all__ = ["SOURCES", "Curves", "Divergence", "FinishedRun", "HealthLog", "OnlineLog", "Result", "Scores", "Timing"]

EPOCHS = 100_000
"""Maximum number of epochs in a history."""
SOURCES = 500
"""Maximum number of data sets of one similarity run; each is drawn."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


Number = Annotated[float, Field(ge=-1e100, le=1e100)]
"""A number that can be added up and drawn; float32, in which runs compute, ends at 3.4e38."""
Seconds = Annotated[float, Field(ge=0, le=1e12)]


class Scores(_Part):
    """Accuracy and agreement, in %."""

    accuracy: float | None = Field(default=None, ge=0, le=100)
    agreement: float | None = Field(default=None, ge=0, le=100)
    images: int | None = Field(default=None, ge=1)


class Curves(_Part):
    """One value per epoch."""

    loss: tuple[Number, ...] = ()
    scores: tuple[Number, ...] = ()


class Timing(_Part):
    """Speed and size of a quantized file; `faster` is the original's time over its own."""

    faster: float = Field(gt=0)
    quantized_bytes: int = Field(ge=0)


class Divergence(_Part):
    """One data set of `datafree similarity`."""

    name: str
    images: int
    total: Number
    by_layer: dict[str, Number]
    diversity: Annotated[float, Field(ge=0, le=1e6)] | None = None


class HealthLog(_Part):
    """Variety of a generator's images after an epoch."""

    classes: Annotated[float, Field(ge=0, le=1e6)]
    duplicates: float = Field(ge=0, le=1)


Percent = Annotated[float, Field(ge=0, le=100)]
Percents = Annotated[tuple[Percent, ...], Field(max_length=EPOCHS)]


class OnlineLog(_Part):
    """The history of a generator against a student, by epoch."""

    loss: Annotated[tuple[Number, ...], Field(max_length=EPOCHS)] = ()
    scores: Percents = ()
    agreement: Percents = ()
    average_scores: Percents = ()
    """Accuracy of the student's moving average; `average_agreement` is its agreement."""
    average_agreement: Percents = ()
    health: Annotated[tuple[HealthLog, ...], Field(max_length=EPOCHS)] = ()
    seconds: Annotated[tuple[Seconds, ...], Field(max_length=EPOCHS)] = ()
    rollbacks: Annotated[tuple[str, ...], Field(max_length=EPOCHS)] = ()
    phases: Annotated[dict[str, Seconds], Field(max_length=12)] = {}
    """Seconds; writing to the memory is in `memory` and in `student`."""
    images: int | None = Field(default=None, ge=0)
    memory_bytes: int | None = Field(default=None, ge=0)


class Result(_Part):
    """The result of a run."""

    evaluation: Scores = Scores()
    curve: Curves = Curves()
    images: int | None = Field(default=None, ge=0)
    """Number of images that a network learned from in one epoch."""
    distinct: int | None = Field(default=None, ge=0)
    """Number of different images in all epochs."""
    parameters: int | None = Field(default=None, ge=0)
    speed: Timing | None = None
    simulated: bool = False
    """Whether some number of bits has no kernel."""
    similarity: Annotated[tuple[Divergence, ...], Field(max_length=SOURCES)] = ()
    online: OnlineLog | None = None


class FinishedRun(_Part):
    """The log of a finished run."""

    verb: str | None = None
    settings: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    """Path as it was typed -> sha256."""
    seconds: Seconds | None = None
    """Duration of the last run, without the earlier runs that it continued."""
    resumed: bool = False
    result: Result = Result()

    @property
    def whole_seconds(self) -> float | None:
        """Time that the whole result took; None if earlier runs, whose time is not known, made a part of it."""
        return None if self.resumed else self.seconds

    @property
    def distinct_images(self) -> int | None:
        """Number of different images that a network learned from in all epochs; None if the log does not say."""
        if self.result.online is not None and self.result.online.images is not None:
            return self.result.online.images
        if self.result.distinct is not None or self.result.images is None:
            return self.result.distinct
        words = str(self.settings.get("learns_from", ""))
        if words.startswith("fresh images"):  # of an earlier version
            epochs = len(self.result.curve.loss)
            return self.result.images * epochs if epochs else None
        return None if "condensed images" in words else self.result.images

    @classmethod
    def of(cls, folder: str | Path) -> FinishedRun:
        """The log of the run that made a folder, not of a later `record`; an empty one if there is none.

        Raises UserError for a file that is no log.
        """
        path = Path(folder) / "run.json"
        if not path.is_file():
            return cls()
        log = modern(read_json(path))
        try:
            content = json.dumps(log["before"] if isinstance(log.get("before"), dict) else log, ensure_ascii=False)
            return cls.model_validate_json(content.encode("utf-8", "replace"), strict=True)  # true is no number there
        except ValidationError as error:
            raise UserError(
                f"{path} is no log of a run: {first_problem(error)}; get the folder again, or remove that file"
            ) from None
