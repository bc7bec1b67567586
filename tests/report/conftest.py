import numpy as np
import pytest

from datafree.evaluation.report import Grid, Line, Report, Row


def make_grid(name="Real", classes=3, channels=1, side=4, samples=2, value=0.25):
    shape = (classes, channels, side, side)
    return Grid(name, np.full(shape, value), np.full((samples, *shape), value), 0.0, 1.0)


@pytest.fixture
def rows():
    return [
        Row("pairs", "without data", 92.471, 93.0, 15_738, 64_210, 2804.0, 12_000, sd=0.414, seeds=5),
        Row("labels", "with data", 98.65, None, 15_738, 64_210, 98.2, 60_000),
        Row("big", "teacher", 98.9, None, 62_952, 248_312, None, 60_000, note="ten epochs"),
        Row("top", "without data", 77.3, None, 15_738, 812, 3.0, None),
    ]


@pytest.fixture
def report(rows):
    return Report(
        title="A title",
        summary="A sentence.",
        rows=rows,
        grids=[make_grid("Real"), make_grid("Pairs", value=0.75)],
        lines=[Line("big", [2.0, 1.0, 0.5], "loss, nats"), Line("big", [50.0, 90.0, 98.9], "accuracy, %")],
        settings={"seed": 0, "synthesis": {"steps": 300}, "versions": {"torch": "2.13.0"}},
        warnings=["one thing went wrong"],
        classes=("a", "b", "c"),
        scatter=[("pairs", 1_000_000.0, 0.8, 92.47), ("none", 0.0, float("nan"), 11.0)],
    )
