"""datafree prune."""

# Annotations are evaluated: the options are classes that are made from settings.

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from .._core.errors import UserError
from .arguments import Data, Model, Run, Whole, WithCode
from .distill import TRAINING, run_distillation
from .method_options import of_settings, values
from .settings_source import read

__all__ = ["prune"]

PRUNING = Group("Pruning", sort_key=0)
Settings = of_settings(read("datafree.distillation.schedule", "Distillation"), group=TRAINING)


def prune(
    teacher: str,
    /,
    *,
    keep: Annotated[float, Parameter(group=PRUNING)],
    rounds: Annotated[Whole, Parameter(group=PRUNING)] = 1,
    out: Path,
    images: Annotated[Path | None, Parameter(name="--set")] = None,
    settings: Annotated[Settings | None, Parameter(name="*")] = None,  # pyright: ignore[reportInvalidTypeForm]
    with_code: WithCode = False,
    data: Data | None = None,
    source: Model | None = None,
    run: Run | None = None,
) -> None:
    """Leave out the channels of a network that it misses least, and repair it by distillation from the original.

    Works for any network whose channels can be followed from layer to layer. With --data, accuracy is measured before
    pruning, after it, and after the repair.

    Example: datafree prune teacher --keep 0.5 --set set --out pruned

    Example: datafree prune teacher --keep 0.25 --rounds 3 --set set --data cifar10 --out pruned

    Example (the baseline, repaired with data): datafree prune teacher --keep 0.5 --data cifar10 --out baseline

    Parameters
    ----------
    teacher
        Release folder. With --weights, those weights are used instead of its own.
    keep
        Share of the weights that is kept at most, between 0 and 1.
    rounds
        Number of times that the network is pruned and repaired; every round keeps the same share of the one before.
    out
        Release folder to write for the pruned network.
    images
        Synthetic set to learn from. With --data and no --set, the network is repaired with the real data: the baseline.
    with_code
        Put the Python file that builds the network, and what it imports from its folder, into the release as text.
    """
    if images is None and (data is None or data.data is None):
        raise UserError("nothing to learn from, expected --set SET or --data NAME; give one of them")
    pruning = {"keep": keep, "rounds": rounds}
    run_distillation(
        teacher,
        None,
        out,
        {"images": images},
        "random",
        values(settings),
        with_code,
        data,
        source,
        run,
        pruning=pruning,
    )
