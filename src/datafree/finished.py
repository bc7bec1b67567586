"""Reading a run.json, which may be anybody's: what a report shows of it, checked, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import UserError
from .files import read_json

__all__ = ["Curves", "Divergence", "Finished", "Result", "Scores", "Timing"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Scores(_Part):
    """An evaluation, in %."""

    accuracy: float | None = Field(default=None, ge=0, le=100)
    agreement: float | None = Field(default=None, ge=0, le=100)


class Curves(_Part):
    """By epoch."""

    loss: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()


class Timing(_Part):
    """A quantized file beside the original."""

    faster: float = Field(gt=0)
    quantized_bytes: int = Field(ge=0)


class Divergence(_Part):
    """One data set of `datafree similarity`."""

    name: str
    images: int
    total: float
    by_layer: dict[str, float]


class Result(_Part):
    """What a run found."""

    evaluation: Scores = Scores()
    curve: Curves = Curves()
    images: int | None = Field(default=None, ge=0)
    """That a network has learnt from, in one epoch."""
    parameters: int | None = Field(default=None, ge=0)
    speed: Timing | None = None
    simulated: bool = False
    """Whether some number of bits has no kernel."""
    similarity: tuple[Divergence, ...] = ()


class Finished(_Part):
    """A run that has ended."""

    verb: str | None = None
    settings: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    """Path as it was typed -> sha256."""
    seconds: float | None = None
    result: Result = Result()

    @classmethod
    def of(cls, folder: str | Path) -> Finished:
        """The log of what made a folder, not of what recorded it later; an empty one where there is none.

        Raises UserError for a file that is no log.
        """
        path = Path(folder) / "run.json"
        if not path.is_file():
            return cls()
        log = read_json(path)
        try:
            return cls.model_validate(log["before"] if isinstance(log.get("before"), dict) else log)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UserError(
                f"{path} is no log of a run: {where}: {first['msg'].lower()}; get the folder again, or remove that file"
            ) from None
