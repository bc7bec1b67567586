"""A condensing method of the user's own: what it returns is checked, and it states what its images reveal."""

from __future__ import annotations

import json

import pytest

import datafree as df
from datafree._core.files import sha256_file

METHOD = '''
from pathlib import Path
from typing import ClassVar, Literal

import torch

import datafree as df


class Mine(df.Settings):
    """The first images."""

    method: Literal["mine"] = "mine"
    fault: str = ""
    """What goes wrong."""
    table: Path = Path("nowhere.txt")
    """A file."""
    summary: ClassVar[str] = "the first images"
    leakage: ClassVar[str] = "Contains original images."

    def make(self, job):
        pixels = job.pixels(torch.cat([positions[: job.per_class] for _, positions in job.by_class()]))
        faults = {
            "none": None, "pair": (pixels, 1), "few": pixels[1:], "nan": pixels * float("nan"),
            "bytes": (255 * pixels).byte(), "beyond": 5 * pixels - 2, "double": pixels.double(),
        }
        return faults.get(self.fault, pixels)


class Silent(Mine):
    method: Literal["silent"] = "silent"
    leakage: ClassVar[str] = " "
'''
LINE = "condense mine.py:{} --data digits --per-class 2 --quiet --out a"


@pytest.fixture
def mine(here):
    (here / "mine.py").write_text(METHOD)
    return here


@pytest.mark.parametrize(
    ("name", "fault", "text"),
    [
        ("Mine", "none", "'mine': make returns None, expected a tensor of images"),
        ("Mine", "pair", "'mine': make returns a tuple, expected a tensor of images"),
        ("Mine", "few", "'mine': make returns pixels (19, 1, 8, 8), expected (20, 1, 8, 8), 2 images of each class"),
        ("Mine", "nan", "'mine': make returns pixels with NaN or infinity, expected finite ones"),
        ("Mine", "bytes", "'mine': make returns pixels uint8, expected float32 from 0 to 1; convert them"),
        ("Silent", "", "'silent' has leakage ' ', expected a sentence on what its images reveal of the data"),
    ],
)
def test_what_does_not_fit_is_one_line_and_nothing_is_written(command, mine, name, fault, text):
    done = command(f"{LINE.format(name)} --fault '{fault}'")
    assert done.line.startswith(f"the condensing method {text}"), done.err
    assert not (mine / "a").exists()


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize("fault", ["beyond", "double"])
def test_optimised_pixels_may_leave_the_range_and_double_is_converted(command, fault):
    assert command(f"{LINE.format('Mine')} --fault {fault}").code == 0


def test_a_path_among_its_settings_is_the_hash_of_the_file(command, mine):
    (mine / "private.txt").write_text("1")
    assert command(f"{LINE.format('Mine')} --table private.txt").code == 0
    for path in (mine / "a").iterdir():
        assert b"private.txt" not in path.read_bytes()
    hashed = f"file {sha256_file(mine / 'private.txt')[:12]}"
    assert df.Condensed.open(mine / "a").about["made"]["table"] == hashed
    assert json.loads((mine / "a" / "run.json").read_text())["settings"]["table"] == hashed
