"""The data of a comparison: what would make its numbers mean something else is said."""

from __future__ import annotations

import numpy as np

from datafree.data.dataset import in_memory
from datafree.evaluation.comparison.data_notes import data_notes


def data(labels: list[int], images: np.ndarray):
    return in_memory("toy", "test", ("a", "b", "c"), np.array(labels), images)


def images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (count, 1, 4, 4)).astype(np.uint8)


def test_nothing_is_said_of_all_classes_and_other_training_images():
    assert data_notes(data([0, 1, 2], images(3, 0)), data([0, 1, 2], images(3, 1))) == []
    assert data_notes(data([0, 1, 2], images(3, 0)), None) == []


def test_classes_without_test_images_are_named():
    (note,) = data_notes(data([0, 0, 2], images(3, 0)), None)
    assert note == "no test images of 1 of 3 classes (b): accuracy is of the others"


def test_test_images_that_are_training_images_are_counted():
    test = images(3, 0)
    train = np.concatenate([images(5, 1), test[1:]])
    (note,) = data_notes(data([0, 1, 2], test), data([0, 1, 2, 0, 1, 2, 0], train))
    assert note.startswith("2 of 3 test images are training images too")
