"""datafree evaluate"""

from __future__ import annotations

from .. import evaluation
from .common import Data, Model, Run, load_data, load_network

__all__ = ["evaluate"]


def evaluate(
    model: str,
    /,
    *,
    data: Data | None = None,
    split: str = "test",
    teacher: str | None = None,
    source: Model | None = None,
    run: Run | None = None,
) -> None:
    """Accuracy of a network on labelled data, in total and by class, and its agreement with a teacher.

    Example: datafree evaluate student --data mnist --teacher teacher

    Parameters
    ----------
    model
        A release folder, or a model with --weights.
    split
        `test` or `train`.
    teacher
        Another release to agree with.
    """
    data, source, run = data or Data(), source or Model(), run or Run()
    network = load_network(model, source, run)
    other = load_network(teacher, Model(), run) if teacher is not None else None
    found = evaluation.evaluate(network, load_data(data, split), other)
    print(f"accuracy {found.accuracy:.2f} % on {found.images:,} images of {data.data} ({split})")
    for name, value in zip(network.spec.classes, found.by_class, strict=True):
        print(f"  {name}: no images" if value is None else f"  {name}: {value:.2f} %")
    if found.agreement is not None:
        print(f"agreement with {teacher}: {found.agreement:.2f} %")
