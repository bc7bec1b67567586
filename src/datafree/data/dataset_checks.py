"""Fits a data set to a network: matches classes and scales pixels to the network's range."""

from __future__ import annotations

from ..models.class_names import class_positions
from ..models.network import Network
from . import Dataset

__all__ = ["as_input", "check_classes"]


def check_classes(network: Network, data: Dataset, *, part: bool = False) -> None:
    """Raises UserError if the data's classes do not match the network's; see `class_positions`."""
    class_positions(data.classes, network.spec.classes, data.name, network.name, part=part)


def as_input(network: Network, data: Dataset, *, part: bool = False) -> Dataset:
    """The data with labels in the order of the network's classes and pixels in its range.

    With `part`, the data may have only some of the network's classes. Raises UserError if the classes do not match.
    """
    positions = class_positions(data.classes, network.spec.classes, data.name, network.name, part=part)
    return data.relabelled(positions, network.spec.classes).scaled_to(network.spec)
