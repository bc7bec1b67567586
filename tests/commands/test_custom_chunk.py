"""What a method of the user's own returns for a chunk is checked before anything is written."""

from __future__ import annotations

import pytest

import datafree as df

METHOD = '''
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

import datafree as df
from datafree.synthesis.methods import Batch, chunk_labels


class Mine(df.Settings):
    """Grey images."""

    method: Literal["mine"] = "mine"
    fault: str = ""
    """What goes wrong."""
    summary: ClassVar[str] = "grey images"
    in_range: ClassVar[bool] = True

    def bind(self, teacher, record):
        return Bound(self, teacher)


class Wide(Mine):
    method: Literal["wide"] = "wide"
    in_range: ClassVar[bool] = False


@dataclass(frozen=True)
class Bound:
    settings: Any
    teacher: Any

    def chunk(self, index, seed, size):
        labels = chunk_labels(index, size, 10)
        pixels = torch.linspace(0, 1, size * self.teacher.spec.pixels).view(size, *self.teacher.spec.shape)
        return {
            "none": None,
            "tuple": (pixels, labels),
            "lists": Batch(pixels, labels.tolist()),
            "few": Batch(pixels, labels[1:]),
            "high": Batch(pixels, labels + 5),
            "low": Batch(pixels, -torch.ones_like(labels)),
            "int32": Batch(pixels, labels.int()),
            "float": Batch(pixels, labels.float()),
            "nan": Batch(pixels * float("nan"), labels),
            "bytes": Batch((255 * pixels).byte(), labels),
            "scaled": Batch(3 * pixels - 1, labels),
            "rounding": Batch(1.0001 * pixels - 0.00005, labels),
        }.get(self.settings.fault, Batch(pixels, labels))
'''
FAULTS = [
    ("none", "returns None for a chunk, expected Batch(pixels, labels) of two tensors"),
    ("tuple", "returns a tuple for a chunk, expected Batch(pixels, labels) of two tensors"),
    ("lists", "returns a Batch of Tensor and list for a chunk, expected Batch(pixels, labels) of two tensors"),
    ("few", "returns pixels (16, 1, 8, 8) and labels (15,) for a chunk of 16, expected (16, 1, 8, 8) and (16,)"),
    ("high", "returns labels from 5 to 14, expected 0 to 9, the classes of "),
    ("low", "returns labels from -1 to -1, expected 0 to 9, the classes of "),
    ("int32", "returns pixels float32 and labels int32, expected float32 from 0 to 1 and int64; convert them"),
    ("float", "returns pixels float32 and labels float32, expected float32 from 0 to 1 and int64; convert them"),
    ("bytes", "returns pixels uint8 and labels int64, expected float32 from 0 to 1 and int64; convert them"),
    ("nan", "returns pixels with NaN or infinity in chunk 0, expected finite ones"),
    ("scaled", "says in_range, and its pixels go from -1 to 2, expected 0 to 1; clamp them, or set in_range = False"),
]
LINE = "synthesize mine.py:{} teacher --images 16 --chunk 16 --workers 1 --quiet --out a"


@pytest.fixture
def mine(here):
    (here / "mine.py").write_text(METHOD)
    return here


@pytest.mark.parametrize(("fault", "text"), FAULTS)
def test_a_chunk_that_does_not_fit_is_one_line_and_nothing_is_written(command, mine, fault, text):
    done = command(f"{LINE.format('Mine')} --fault {fault}")
    assert done.line.startswith(f"the method 'mine' {text}"), done.err
    assert not (mine / "a").exists() and not (mine / "a.run.json").exists()


@pytest.mark.parametrize(("fault", "text"), FAULTS)
def test_the_same_in_python_in_samples_and_in_training(mine, fault, text):
    teacher, method = df.load_model("teacher"), df.method("mine.py:Mine", fault=fault)
    student = df.new_model("hinton8", teacher.spec, seed=0)

    def fresh():
        return df.fresh_images(method, teacher, images=16, chunk=16)

    calls = (
        lambda: df.synthesize(teacher, None, method, mine / "a", images=16, chunk=16, workers=1),
        lambda: df.sample(teacher, method, n=16),
        lambda: df.distill(teacher, student, fresh(), df.Distillation(epochs=1)),
    )
    for call in calls:
        with pytest.raises(df.UserError) as caught:
            call()
        assert str(caught.value).startswith(f"the method 'mine' {text}")
    assert not (mine / "a").exists()


@pytest.mark.usefixtures("mine")
def test_rounding_is_accepted_and_so_are_other_pixels_of_a_method_that_does_not_promise_the_range(command):
    assert command(f"{LINE.format('Mine')} --fault rounding").code == 0
    assert command(f"{LINE.format('Wide')}2 --fault scaled").code == 0
