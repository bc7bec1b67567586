"""Options that several commands share: seed and device, data, model, input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token

from .._core.code_names import with_arguments
from .._core.errors import UserError

__all__ = [
    "Arguments",
    "Data",
    "Input",
    "Model",
    "NamedModel",
    "RecordedModel",
    "Run",
    "Start",
    "Trust",
    "Whole",
    "WithCode",
    "settings_of",
    "without_condensed",
]


def _whole(_: Any, tokens: Sequence[Token]) -> int:
    """cyclopts itself would take 1.5 for 1."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"got {tokens[0].value}, expected a whole number.") from None


Whole = Annotated[int, Parameter(converter=_whole)]
"""A flag that is a whole number."""
Start = Literal["teacher", "random"]
"""`distillation.students.Start`, which imports torch."""


def without_condensed(option: str) -> UserError:
    """The error for an option that only --condensed has a use for."""
    return UserError(f"{option}: got it without --condensed, expected --condensed SET; name the set, or leave it out")


@Parameter(name="*")
@dataclass(frozen=True)
class Run:
    """How a run is made."""

    seed: Whole = 0
    """Seed of every random number; the same result for the same seed, machine and number of threads."""
    device: str = "cpu"
    """`cpu`, `cuda` or `cuda:1`."""
    threads: Whole | None = None
    """Number of torch's threads; the number of cores by default."""
    quiet: Annotated[bool, Parameter(negative="")] = False
    """No progress bar."""


@Parameter(name="*")
@dataclass(frozen=True)
class Data:
    """Where data comes from."""

    data: str | None = None
    """`digits`, `mnist`, `fashion-mnist`, `cifar10`, `cifar100`, `svhn`, `celeba`, an image folder, or an .npz file."""
    data_dir: Path | None = None
    """The folder with the standard layouts; else the environment's DATAFREE_DATA."""
    attribute: str = "Attractive"
    """CelebA's attribute to classify."""
    limit: Whole | None = None
    """Number of images to use, the same share of each class; all by default. Where a network is trained on the data, the
    limit is for the training images, and all test images are used."""
    class_order: Literal["number", "text"] | None = None
    """Order of an image folder's classes: by the numbers in their names, or as text; numbers by value and other names as
    text by default."""


Arguments = Annotated[tuple[str, ...], Parameter(name="--arg", negative="")]
"""Arguments of the function that builds a network, `NAME=VALUE` each."""


WithCode = Annotated[bool, Parameter(negative="")]
"""Whether a release that is written holds the code of its network."""
Trust = Annotated[bool, Parameter(negative="")]
"""A flag without which no code of a release or a log runs."""


@Parameter(name="*")
@dataclass(frozen=True)
class Model:
    """How a model is built that is not a release of the zoo's networks."""

    code: str | None = None
    """file.py:function or package.module:function that builds the network, or the ONNX file that it comes from, for a
    release of a custom network."""
    arg: Arguments = ()
    """Argument of the function that builds the network, NAME=VALUE; repeat it for more."""
    weights: Path | None = None
    """File of weights to use instead of the release's own: safetensors, or a .pt or .pth file, of which no code is run."""
    key: str | None = None
    """Which weights of a file of several networks, with / between nested keys, such as `ema/module`."""
    output: str | None = None
    """Which of several tensors that a network given by name returns are the logits: position or name, with / between nested
    ones; by default the one named `logits`, or the only one of that shape."""
    trust: Trust = False
    """Run the code that a release holds; read it first. Without it, none of it runs."""
    record: Annotated[Path | None, Parameter(parse=False)] = None
    """Not an option of commands that read no record; see `RecordedModel`."""

    def __post_init__(self) -> None:
        if self.code is not None and self.arg:  # the arguments are part of the name
            object.__setattr__(self, "code", with_arguments(self.code, self.arg))
            object.__setattr__(self, "arg", ())


def settings_of(source: Model) -> dict[str, Any]:
    """The options of a model for run.json; without those that earlier versions lacked unless they were given."""
    settings = asdict(source)
    del settings["arg"]  # in the name of the code
    for later in ("key", "output", "trust", "with_code"):
        if settings.get(later) in (None, False):
            settings.pop(later, None)
    return settings


@Parameter(name="*")
@dataclass(frozen=True)
class RecordedModel(Model):
    """The options of `Model`, for commands that read the record as well."""

    record: Path | None = None
    """The record; by default the one in the release folder."""


@Parameter(name="*")
@dataclass(frozen=True)
class NamedModel(RecordedModel):
    """The options of `RecordedModel`, for a command that also takes a network by name."""

    weights: Path | None = None
    """File of weights to use instead of the release's own, or of a network that is given by name: safetensors, or a .pt or
    .pth file, of which no code is run."""
    with_code: WithCode = False
    """Put the Python file that builds the network, and what it imports from its folder, into the release as text."""


@Parameter(name="*")
@dataclass(frozen=True)
class Input:
    """What the network takes, where the model is not a release that says so itself."""

    size: Whole | None = None
    """Height and width the images are resized to; the data's own by default, 32 for lenet5."""
    mean: Annotated[tuple[float, ...], Parameter(consume_multiple=True, negative="")] = (0.0,)
    """Mean subtracted from pixels in [0, 1]; one number, or one per channel."""
    std: Annotated[tuple[float, ...], Parameter(consume_multiple=True, negative="")] = (1.0,)
    """Standard deviation that pixels are then divided by; one number, or one per channel."""
