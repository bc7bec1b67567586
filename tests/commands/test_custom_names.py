"""A field of a class of the user's own that is called like an option of the command is refused by name."""

from __future__ import annotations

import pytest

CODE = """
from typing import ClassVar, Literal

from pydantic import create_model

import datafree as df
from datafree.data.condensed.methods.random import RandomImages
from datafree.distillation.replay.none import NoReplay
from datafree.records.statistics.input import InputMoments
from datafree.synthesis.losses.alignment.means import Means
from datafree.synthesis.methods.activations import TopLayer


def named(base, field, name, own):
    return create_model(name, __base__=base, **{field: (Literal[name], name), own: (int, 3)})


"""
BASES = {
    "synthesize": ("TopLayer", "method", "teacher --out a", "datafree synthesize"),
    "distill fresh": ("TopLayer", "method", "teacher hinton8 --out a", "datafree distill fresh"),
    "record": ("InputMoments", "kind", "teacher --data digits --add", "datafree record"),
    "condense": ("RandomImages", "method", "--data digits --per-class 2 --out a", "datafree condense"),
    "expand": ("Means", "alignment", "teacher c --out a", "datafree expand"),
    "distill online --replay": ("NoReplay", "replay", "teacher hinton8 --out a", "datafree distill online"),
    "distill online --alignment": ("Means", "alignment", "teacher hinton8 --out a", "datafree distill online"),
}
FIELDS = {
    "synthesize": ("images", "out", "seed", "chunk", "workers", "teacher", "code", "record", "help", "model"),
    "distill fresh": ("epochs", "student", "out", "epoch_images", "data"),
    "record": ("taps", "add", "replace", "data", "limit", "mean", "device"),
    "condense": ("per_class", "out", "teacher", "data", "size", "threads"),
    "expand": ("images", "condensed", "steps", "chunk", "log"),
    "distill online --replay": ("epochs", "preset", "condensed", "replay_fraction", "alignment"),
    "distill online --alignment": ("iterations", "start", "data", "seed"),
}


@pytest.mark.parametrize(
    ("command_line", "field"), [(line, field) for line, names in FIELDS.items() for field in names]
)
def test_it_is_refused_when_the_command_is_built(command, here, command_line, field):
    base, kind, rest, verb = BASES[command_line]
    (here / "own.py").write_text(f"{CODE}Mine = named({base}, {kind!r}, 'mine', {field!r})\n")
    done = command(f"{command_line} own.py:Mine {rest}")
    flag = f"--{field.replace('_', '-')}"
    assert done.line == (
        f"own.py:Mine has a setting {field!r}, expected another name, since {flag} is an option of {verb} itself; rename it"
    )
    assert not (here / "a").exists()


@pytest.mark.parametrize("command_line", FIELDS)
def test_a_name_of_its_own_is_taken(command, here, command_line):
    base, kind, rest, _ = BASES[command_line]
    (here / "own.py").write_text(f"{CODE}Mine = named({base}, {kind!r}, 'mine', 'of_mine')\n")
    done = command(f"{command_line} own.py:Mine --help {rest}")
    assert done.code == 0 and "--of-mine" in done.out
