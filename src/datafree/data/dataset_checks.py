"""Whether a data set fits a network: classes matched, pixels brought into the network's range."""

from __future__ import annotations

from ..models.class_names import class_positions
from ..models.network import Network
from . import Dataset

__all__ = ["as_input", "check_classes"]


def check_classes(network: Network, data: Dataset, *, part: bool = False) -> None:
    """Raises UserError where the data's classes cannot be matched with the network's; see `class_positions`."""
    class_positions(data.classes, network.spec.classes, data.name, network.name, part=part)


def as_input(network: Network, data: Dataset, *, part: bool = False) -> Dataset:
    """The data as `network` takes it: labels in the order of its classes, pixels in its range.

    With `part`, data of some of its classes will do. Raises UserError where the classes cannot be matched.
    """
    positions = class_positions(data.classes, network.spec.classes, data.name, network.name, part=part)
    return data.relabelled(positions, network.spec.classes).scaled_to(network.spec)
