"""Training on labelled data: teachers, and the students that data-free ones are compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Unpack

from torch.nn.functional import cross_entropy

from .._core.arguments import checked
from .._core.errors import UserError
from .._core.progress import Progress, silent
from .._core.settings import called_with
from ..data.adapters import LabelledData, as_dataset
from ..models.memory_format import channels_last
from ..models.network import Network
from .schedule import ScheduleChanges
from .sources import labelled
from .training_loop import Curve, Schedule, fit

__all__ = ["train"]


@checked
def train(
    network: Network,
    data: LabelledData,
    settings: Schedule | Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    state: Path | None = None,
    identity: dict[str, Any] | None = None,
    score: Callable[[Network], float] | None = None,
    progress: Progress = silent,
    **changes: Unpack[ScheduleChanges],
) -> Curve:
    """Trains `network` in place with cross-entropy (nats); it ends with the last epoch's weights.

    `settings` is a Schedule or a mapping; its fields can be given as keywords, too: `train(network, data, epochs=20)`.
    `data`: what `load_data` returns, a torch Dataset or DataLoader, or a pair (images, labels); see `as_dataset`.
    Raises UserError for a class without images, and for data that does not fit.
    """
    schedule = called_with(Schedule, settings, changes, train) or Schedule()
    schedule = Schedule(**{**schedule.model_dump(), **changes})
    data = as_dataset(data, network)
    empty = (data.labels.bincount(minlength=len(data.classes)) == 0).nonzero().flatten().tolist()
    if empty:
        raise UserError(
            f"none of the {len(data):,} training images of {data.name} is of class {data.classes[empty[0]]!r}, "
            "expected some of each class; give images of every class"
        )
    network.check()
    source = labelled(network, data)
    options: dict[str, Any] = {"seed": seed, "state": state, "identity": identity, "score": score}
    with channels_last(network):
        return fit(network, source, cross_entropy, schedule, progress=progress, **options)
