"""A statistic of the user's own: what it returns is checked before a record is written."""

from __future__ import annotations

import json

import pytest

import datafree as df
from datafree._core import plugins
from datafree.records import statistics

STATISTIC = '''
from typing import ClassVar, Literal

import torch

import datafree as df


class MyMean(df.Settings):
    """Mean of the pixels."""

    kind: Literal["my-mean"] = "my-mean"
    fault: str = ""
    """What goes wrong."""
    needs_data: ClassVar[bool] = True
    summary: ClassVar[str] = "mean of the pixels"

    def plan(self, network, taps):
        return {f"{tap}-mine": (self, (tap,)) for tap in taps}

    def bind(self, network, taps):
        return Bound(self, network.spec.pixels)


class Bound:
    def __init__(self, settings, pixels):
        self.settings, self.pixels = settings, pixels

    def observe(self, activations):
        return [activations[0]]

    def reduce(self, activations, labels):
        pixels = activations[0].detach().double().flatten(1)
        return {"count": torch.tensor([len(pixels)], dtype=torch.float64), "sum": pixels.sum(0, keepdim=True)}

    def merge(self, a, b):
        return {key: a[key] + b[key] for key in a}

    def finish(self, state):
        mean, count = (state["sum"] / state["count"]).float(), state["count"].long()
        return {
            "none": None,
            "number": {"count": count, "mean": 3.0},
            "lacks": {"count": count},
            "shape": {"count": count, "mean": mean[:, :3]},
            "format": {"count": count, "mean": mean.double()},
            "nan": {"count": count, "mean": mean * float("nan")},
            "count": {"count": count + 7, "mean": mean},
        }.get(self.settings.fault, {"count": count, "mean": mean})

    def layout(self):
        return {"count": ("int64", (1,)), "mean": ("float32", (1, self.pixels))}

    def check(self, summary):
        pass

    def sample(self, summary, labels, rng):
        return [summary["mean"].expand(len(labels), -1)]

    def distance(self, summary, activations, labels):
        return ((activations[0].flatten(1).mean(0) - summary["mean"][0]) ** 2).mean()

    def released_statistics(self, summary):
        faults = {"negative": -5.0, "released-nan": float("nan"), "infinite": float("inf"), "text": "a", "true": True}
        return faults.get(self.settings.fault, summary["mean"].numel() / float(summary["count"]))
'''
RECORD = "record st.py:MyMean fresh --data digits --taps input --quiet"


@pytest.fixture
def fresh(here, command):
    """st.py, and a release without a record."""
    (here / "st.py").write_text(STATISTIC)
    assert command("train hinton8 --data digits --limit 50 --epochs 1 --out fresh --quiet").code == 0
    return here


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (
            "none",
            "finish returns None for 'input-mine', expected a table of the tensors 'count' (int64 (1,)), 'mean' (float32",
        ),
        ("number", "finish returns a float as 'mean' for 'input-mine', expected a table of the tensors"),
        (
            "lacks",
            "finish returns for 'input-mine' no tensor as 'mean', expected float32 (1, 64), as its layout says",
        ),
        ("shape", "finish returns for 'input-mine' float32 (1, 3) as 'mean', expected float32 (1, 64)"),
        ("format", "finish returns for 'input-mine' float64 (1, 64) as 'mean', expected float32 (1, 64)"),
        ("nan", "finish returns NaN or infinity in 'mean' for 'input-mine', expected finite numbers"),
        ("count", "finish returns a 'count' of 1,304 in total for 'input-mine', expected 1,297, the number of images"),
        ("negative", "released_statistics returns -5.0 for 'input-mine', expected a finite number of at least 0"),
        ("released-nan", "released_statistics returns nan for 'input-mine', expected a finite number"),
        ("infinite", "released_statistics returns inf for 'input-mine', expected a finite number"),
        ("text", "released_statistics returns 'a' for 'input-mine', expected a finite number"),
        ("true", "released_statistics returns True for 'input-mine', expected a finite number"),
    ],
)
def test_a_statistic_that_returns_something_else_is_named_and_nothing_is_written(command, fresh, fault, text):
    before = sorted(fresh.rglob("*"))
    done = command(f"{RECORD} --fault {fault}")
    assert done.line.startswith(f"the statistic 'my-mean': {text}"), done.err
    assert "; correct " in done.line
    after = [path for path in sorted(fresh.rglob("*")) if "__pycache__" not in path.parts]
    assert after == [path for path in before if "__pycache__" not in path.parts]


@pytest.fixture
def published(fresh, command, monkeypatch):
    """A release with moments, and an entry whose class another process has loaded."""
    assert command("record moments fresh --taps input --data digits --quiet").code == 0
    assert command(f"{RECORD} --add").code == 0
    digest = json.loads(command("--json inspect fresh").out)
    monkeypatch.setattr(plugins, "_LOADED", {})
    return fresh, digest


def test_a_record_with_a_statistic_that_is_not_loaded_serves_all_that_do_not_need_it(command, published):
    folder, before = published
    done = command("inspect fresh")
    assert done.code == 0 and "input-mine: my-mean, " in done.out
    assert "forecast of a membership attack: not known here, needs the publisher's class of my-mean" in done.out
    assert done.err == (
        "datafree: note: entry 'input-mine' of the record is not used: its statistic 'my-mean' is a class of its "
        "publisher's own that is not loaded\n"
    )
    after = json.loads(command("--json inspect fresh").out)["result"]["record"]
    assert after == {**before["result"]["record"], "forecast_auc": None}
    for line in (
        "synthesize gaussian fresh --images 8 --chunk 8 --out g --quiet",
        "synthesize distribution fresh --images 8 --chunk 8 --out t --quiet",
        "distill fresh distribution fresh hinton8 --epochs 1 --epoch-images 16 --out d --quiet",
        "similarity fresh g --out s --quiet",
    ):
        done = command(line)
        assert done.code == 0 and done.err.count("\n") == 1, done.err
    assert (folder / "d").is_dir()


def test_the_digest_of_a_record_does_not_depend_on_the_loaded_classes(published):
    folder, _ = published
    network = df.load_model(str(folder / "fresh"))
    with pytest.warns(match="entry 'input-mine' of the record is not used"):
        digest = df.Record.load(folder / "fresh" / "record.safetensors", network).digest()
    statistics.FAMILY.class_of(f"{folder / 'st.py'}:MyMean")
    assert df.Record.load(folder / "fresh" / "record.safetensors", network).digest() == digest


def test_adding_to_such_a_record_says_what_is_needed_and_keeps_it(command, published):
    folder, _ = published
    before = (folder / "fresh" / "record.safetensors").read_bytes()
    done = command("record input fresh --data digits --add --quiet")
    assert done.line.startswith(
        "the record in fresh has entries of my-mean, whose class is not loaded, expected it for the forecast of the new "
        "record; install the class as a plug-in, name it file.py:Class as the kind to record"
    )
    assert (folder / "fresh" / "record.safetensors").read_bytes() == before
    assert "already complete" in command(f"{RECORD} --add").out


def test_a_record_that_cannot_be_read_is_not_said_to_be_replaced_where_it_is_added_to(command, published):
    folder, _ = published
    (folder / "fresh" / "record.safetensors").write_bytes(b"damaged")
    assert "replaced" not in command("record input fresh --data digits --add --quiet").line
