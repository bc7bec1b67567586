"""A pass over the data that is interrupted leaves its sums, and the next one goes on from them to the same record."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datafree._core.errors import UserError
from datafree._core.files import read_tensors, write_tensors
from datafree.records import record as records
from datafree.records import statistics
from datafree.records.record import record
from datafree.records.statistics.input import InputAccumulator, InputMoments
from datafree.records.statistics.moments import Moments
from datafree.records.statistics.spectral import SpectralAll, SpectralPairs

KINDS = [InputMoments(), Moments(covariance="full"), (SpectralAll(), ("conv", "fc")), SpectralPairs()]
OTHERS = [kind() for name, kind in statistics.offered().items() if kind.needs_data and kind not in {
    InputMoments, Moments, SpectralAll, SpectralPairs
}]  # fmt: skip
"""Kinds that are in the folder and not in the list above."""


@pytest.fixture
def network(tiny):
    return tiny("norm")


@pytest.fixture
def slow(monkeypatch):
    """Sixteen images a batch."""
    monkeypatch.setattr(records, "_chunk", lambda *_: 16)


def stop_after(images: int, error: type[BaseException] = KeyboardInterrupt):
    seen = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        if done >= images:
            raise error

    return progress, seen


@pytest.mark.usefixtures("slow")
def test_it_goes_on_where_it_was_to_the_same_bytes(network, toy, tmp_path):
    kept, data = tmp_path / "release.recording", toy()
    with pytest.raises(KeyboardInterrupt):
        record(network, data, KINDS + OTHERS, state=kept, progress=stop_after(32)[0])
    assert read_tensors(kept, kind="recording-state")[1]["images"] == 32
    progress, seen = stop_after(1000)
    record(network, data, KINDS + OTHERS, state=kept, progress=progress).save(tmp_path / "gone-on")
    assert seen == [(48, 60), (60, 60)]
    assert not kept.exists()
    record(network, data, KINDS + OTHERS).save(tmp_path / "whole")
    assert (tmp_path / "gone-on").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.usefixtures("slow")
def test_right_answers_are_counted_over_both_parts(network, toy, tmp_path):
    kept, data = tmp_path / "release.recording", toy()
    right = int((network.predict(data.pixels(np.arange(60))).argmax(1) == data.labels).sum())
    with pytest.raises(KeyboardInterrupt):
        record(network, data, KINDS, state=kept, progress=stop_after(32)[0])
    tensors, header = read_tensors(kept, kind="recording-state")
    counts: list[tuple[int, ...]] = []
    record(network, data, KINDS, state=kept, answered=lambda *count: counts.append(count))
    assert [images for images, _ in counts] == [32, 16, 12] and sum(hits for _, hits in counts) == right
    write_tensors(kept, tensors, header | {"right": 33}, kind="recording-state")
    with pytest.raises(UserError, match="counts 33 right answers on 32 images"):
        record(network, data, KINDS, state=kept)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("other", ["data", "teacher", "kinds"])
def test_it_does_not_go_on_from_another_run(other, network, tiny, toy, tmp_path):
    kept = tmp_path / "release.recording"
    with pytest.raises(KeyboardInterrupt):
        record(network, toy(), KINDS, state=kept, progress=stop_after(16)[0])
    before = kept.read_bytes()
    with pytest.raises(
        UserError, match=r"is of a run with other (settings|data or input files); name another `state`, or repeat"
    ):
        record(
            tiny("norm", seed=1) if other == "teacher" else network,
            toy(seed=1) if other == "data" else toy(),
            KINDS[:1] if other == "kinds" else KINDS,
            state=kept,
        )
    assert kept.read_bytes() == before


@pytest.mark.usefixtures("slow")
def test_nothing_is_left_by_an_error_or_where_no_file_is_named(network, toy, tmp_path):
    kept = tmp_path / "release.recording"
    with pytest.raises(ZeroDivisionError):
        record(network, toy(), KINDS, state=kept, progress=stop_after(32, ZeroDivisionError)[0])
    with pytest.raises(KeyboardInterrupt):
        record(network, toy(), KINDS, progress=stop_after(32)[0])
    with pytest.raises(KeyboardInterrupt):  # a class without an example has no finite key yet: measured again
        record(network, toy(), [SpectralPairs(signal="examples", examples=30)], state=kept, progress=stop_after(16)[0])
    assert not list(tmp_path.iterdir())
    assert torch.equal(
        record(network, toy(), KINDS[:1], state=kept).entries["input-moments"].summary["mean"],
        record(network, toy(), KINDS[:1]).entries["input-moments"].summary["mean"],
    )


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize(("name", "value"), [
    ("input-moments/mean", 1e30), ("input-moments/mean", -5.0), ("input-moments/square", 1e9), ("fc/mean", 1e30),
    ("fc/outer", -1.0), ("conv/outer", -1e6), ("fc/square-of-one", 1e12),
])  # fmt: skip
def test_sums_that_no_images_have_are_refused_and_make_no_record(network, toy, tmp_path, name, value):
    kept, data = tmp_path / "release.recording", toy()
    with pytest.raises(KeyboardInterrupt):
        record(network, data, KINDS, state=kept, progress=stop_after(32)[0])
    tensors, header = read_tensors(kept, kind="recording-state")
    if name == "fc/square-of-one":
        tensors["fc/outer"][0, 0, 1] = value
    else:
        tensors[name].fill_(value)
    kept.unlink()
    write_tensors(kept, tensors, header, kind="recording-state")
    with pytest.raises(UserError, match=r"that no images have.*; remove it to start again"):
        record(network, data, KINDS, state=kept)
    assert kept.exists()


def test_a_statistic_without_a_count_is_refused_before_the_pass(network, toy, monkeypatch):
    reduce = InputAccumulator.reduce

    class Countless(InputAccumulator):
        def reduce(self, activations, labels):
            return {name: tensor for name, tensor in reduce(self, activations, labels).items() if name != "count"}

    monkeypatch.setattr(InputMoments, "bind", lambda self, network, _: Countless(self, network.spec))
    passed = []
    with pytest.raises(UserError, match=r"Countless.reduce returns .* without 'count', expected the number of samples"):
        record(network, toy(), [InputMoments()], progress=lambda *_: passed.append(1))
    assert not passed
