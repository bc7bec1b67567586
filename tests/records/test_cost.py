"""What cannot fit in the memory that is left is refused before it is begun, with advice that fits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from datafree._core import memory
from datafree._core.errors import UserError
from datafree._core.memory import check_cost
from datafree.cli.synthesize import estimate as estimated_line
from datafree.data.condensed import methods
from datafree.data.condensed.methods import Job, condense
from datafree.models import hooks
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.records import record as records
from datafree.records.cost import record_bytes
from datafree.records.record import record
from datafree.records.statistics.moments import Moments
from datafree.records.statistics.spectral import SpectralAll
from datafree.synthesis.cost import (
    StepCost,
    affordable_chunk,
    classes_at_a_time,
    distribution_bytes,
    fitting_workers,
    inversion_bytes,
    step_cost,
)  # fmt: skip
from datafree.synthesis.methods import from_name
from datafree.synthesis.synthetic_set import SyntheticSet, synthesize

ROOT = Path(__file__).parents[2]


@pytest.fixture
def left(monkeypatch):
    """Makes so many bytes available."""

    def set_to(count: int | None) -> None:
        monkeypatch.setattr(memory, "available", lambda: count)

    return set_to


def estimate(network: Network, statistic, images: int = 10**6) -> int:
    plan = records._plan(network, [(statistic, None)])
    return record_bytes(network, plan, lambda own: records._chunk(network, own), images)


def wide(side: int = 56) -> Network:
    spec = InputSpec(shape=(3, side, side), classes=tuple(map(str, range(100))))
    return Network(
        nn.Sequential(nn.Conv2d(3, 32, 3), nn.Flatten(), nn.Linear(32 * (side - 2) ** 2, 100)).eval(), spec, "wide"
    )


def test_what_is_left_is_the_least_of_machine_control_group_and_limit(monkeypatch, tmp_path):
    found = memory.available()
    assert found is not None and 0 < found <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for kind in ("_machine", "_group", "_limit"):
        for other in ("_machine", "_group", "_limit"):
            monkeypatch.setattr(memory, other, lambda: 900)
        monkeypatch.setattr(memory, kind, lambda: 100)
        assert memory.available() == 100
        monkeypatch.setattr(memory, kind, lambda: None)
        assert memory.available() == 900
    monkeypatch.setattr(memory, "_machine", lambda: -5)
    assert memory.available() == 0
    for name, text in (("max", "1000"), ("current", "700"), ("memory.stat", "anon 5\ninactive_file 200\n")):
        (tmp_path / name).write_text(text)
    assert memory._remaining(tmp_path, "max", "current", "inactive_file") == 500
    (tmp_path / "max").write_text("max\n")
    assert memory._remaining(tmp_path, "max", "current", "inactive_file") is None
    assert memory._remaining(Path("/nowhere"), "max", "current", "inactive_file") is None


def test_an_estimate_grows_as_the_sums_do():
    network = wide(16)
    units, classes = 32 * 14 * 14, 100
    assert estimate(network, Moments(covariance="full", conv="units")) >= 2 * 8 * classes * units**2
    diagonal = estimate(network, Moments(conv="units"))
    assert 2 * 3 * 8 * classes * units <= diagonal < estimate(network, Moments(covariance="lowrank", conv="units"))
    assert estimate(network, Moments(conv="channels")) < diagonal
    assert estimate(network, Moments(covariance="full", pooled=True, conv="units")) < 8 * 8 * units**2
    assert estimate(network, SpectralAll()) >= 8 * (units + classes) ** 2
    assert distribution_bytes(1000, 3072, 256) < 4e9 < 1000 * 3072**2 * 8  # a covariance of each class at a time


def test_the_record_that_is_advised_is_then_taken(left, toy):
    network = Network(
        nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 64, 3)).eval(),
        InputSpec(shape=(1, 8, 8), classes=("a", "b", "c")), "net",
    )  # fmt: skip
    data = toy(shape=(1, 8, 8))
    left(3_000_000)
    with pytest.raises(UserError, match=r"; give the statistic 'moments' with `conv='channels'` \(about \d+ MB\)"):
        record(network, data, [Moments(covariance="full", conv="units")])
    record(network, data, [Moments(covariance="full", conv="channels")])
    left(100)
    with pytest.raises(UserError, match="use a machine with more memory"):
        record(network, data, [Moments(covariance="full", conv="units")])


def test_a_distribution_that_cannot_fit_is_refused_with_a_method_that_can(left, toy, tiny):
    network, data = tiny("linear"), toy()
    pixels = record(network, data, [(Moments(covariance="full"), ("input",))])
    both = record(network, data, [(Moments(covariance="full"), ("input", "fc3"))])
    left(2_000)
    for found, method in ((pixels, "the method 'inception'"), (both, "the method 'top'")):
        with pytest.raises(UserError) as caught:
            from_name("distribution").bind(network, found)
        assert "the distribution of 16 pixels in each of 3 classes needs about" in str(caught.value)
        assert f"; give {method} (about 0 MB)" in str(caught.value)
    left(None)
    from_name("distribution").bind(network, both)


def test_fewer_classes_are_fitted_at_a_time_where_memory_is_short(left):
    fit = (3 * 8 + 8 * 4) * 3072**2
    for free, expected in ((None, 4), (100 * fit, 4), (6 * fit, 3), (fit, 1), (0, 1)):
        left(free)
        assert classes_at_a_time(4, 3072) == expected


def test_chunks_that_cannot_fit_are_refused_with_ones_that_can(left):
    cost = StepCost(fixed=1000, image=10, seconds=0.1)  # 3,560 bytes for 256 images
    left(15_000)
    assert fitting_workers(cost, 256, 100, None) == min(os.cpu_count() or 1, 3)
    assert fitting_workers(cost, 256, 1, None) == fitting_workers(cost, 256, 1, 4) == 1
    with pytest.raises(UserError, match=r"making 5 x 256 images at a time needs about .*; give `workers=1` \("):
        fitting_workers(cost, 256, 100, 5)
    left(2000)
    with pytest.raises(UserError, match=r"making 1 x 256 images .*; give `workers=1` and `chunk=64` \("):
        fitting_workers(cost, 256, 100, None)


def test_a_set_that_was_started_keeps_its_chunks_and_a_whole_one_needs_no_memory(left, tiny, tmp_path):
    network, method, folder = tiny("norm"), from_name("bns", steps=1), tmp_path / "set"
    synthesize(network, None, method, folder, images=8, chunk=8, workers=1)
    left(step_cost(network).bytes(8) - 1)
    synthesize(network, None, method, folder, images=8, chunk=8, workers=1)  # all are there
    with pytest.raises(UserError, match="continue on a machine with more memory, or make another set with a smaller"):
        synthesize(network, None, method, folder, images=16, chunk=8, workers=1)
    with pytest.raises(UserError, match="continue on a machine with more memory"):
        estimated_line(network, method, 16, 8, 1, out=folder)
    with pytest.raises(UserError, match=r"give `workers=1` and `chunk="):
        synthesize(network, None, method, tmp_path / "other", images=16, chunk=8, workers=1)


def test_a_default_chunk_of_large_images_is_smaller_on_every_machine(tiny, left, monkeypatch):
    network = tiny("norm")
    assert affordable_chunk(network, 256) == 256
    left(1)
    assert affordable_chunk(network, 256) == 256
    cost = step_cost(network)
    monkeypatch.setattr("datafree.synthesis.cost.CHUNK_BYTES", cost.bytes(39))
    assert affordable_chunk(network, 256) == 32
    monkeypatch.setattr("datafree.synthesis.cost.CHUNK_BYTES", 1)
    assert affordable_chunk(network, 256) == 8


def test_fewer_large_images_are_made_for_ranges():
    pytest.importorskip("torchao")
    from datafree.quantization.image_sources import default_images

    for side, expected in ((32, 256), (64, 256), (96, 113), (224, 64)):
        network = Network(nn.Flatten(), input_shape=(3, side, side), classes=2)
        assert default_images(network, "bns") == default_images(network, "noise") == expected
        assert default_images(network, "digits") == 256


def test_a_long_work_is_estimated_before_it_begins(tiny, monkeypatch):
    network, method = tiny("norm"), from_name("bns", steps=1000)
    assert estimated_line(network, from_name("bns", steps=1), 8, 8, 1) is None
    assert estimated_line(network, from_name("distribution"), 10**6, 256, 1) is None
    monkeypatch.setattr(
        "datafree.synthesis.cost._measured", lambda *_: StepCost(fixed=10**9, image=10**7, seconds=0.01)
    )
    line = estimated_line(tiny("norm"), method, 1000, 200, 2)
    assert line == "estimate for 1,000 images: 1 h 40 min, 6.0 GB of memory; 2 x 200 at a time on one thread each"
    line = estimated_line(tiny("norm"), method, 100, 100, 1, all_threads=True)
    assert line == "estimate for 100 images: 16 min 40 s, 2.0 GB of memory; 100 at a time"


def test_an_estimate_is_of_whole_chunks_that_are_not_made_yet(tiny, tmp_path, monkeypatch):
    network, out = tiny("norm"), tmp_path / "set"
    synthesize(network, method=from_name("bns", steps=1), out=out, images=6, chunk=4, workers=1)
    monkeypatch.setattr("datafree.synthesis.cost._measured", lambda *_: StepCost(fixed=10**9, image=10**7, seconds=1))
    network, method = tiny("norm"), from_name("bns", steps=100)
    line = estimated_line(network, method, 2, 4, 1)  # four are made, of which two are used
    assert line == "estimate for 2 images: 6 min 40 s, 1.0 GB of memory; 4 at a time on one thread"
    assert estimated_line(network, method, 8, 4, 9, out=out) is None
    line = estimated_line(network, method, 10, 4, 9, out=out)
    assert line == "estimate for the other 2 images: 6 min 40 s, 1.0 GB of memory; 4 at a time on one thread"


@pytest.fixture(scope="module")
def shares_of_the_estimate() -> dict[str, float]:
    """Method -> largest memory of a step, as a share of the estimate; each in a process that does no other work."""
    code = """
import os
import datafree as df
from benchmarks.large_images import largest_memory
from datafree.synthesis.cost import step_cost
for name in ("bns", "inception"):
    if os.fork() == 0:
        network = df.new_model("resnet20", df.InputSpec(shape=(3, 32, 32), classes=tuple("0123456789")), seed=0)
        bound = df.method(name, steps=1).bind(network, None)
        bound.chunk(0, 0, 2)
        print(name, largest_memory(lambda: bound.chunk(0, 0, 64)) / step_cost(network).bytes(64), flush=True)
        os._exit(0)
    os.wait()
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc here to measure memory")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name: float(share) for name, share in map(str.split, done.stdout.splitlines())}


@pytest.mark.parametrize("method", ["bns", "inception"])
def test_a_step_needs_what_was_estimated(method, shares_of_the_estimate):
    assert 0.3 < shares_of_the_estimate[method] < 1.1


def test_a_new_network_counts_the_memory_that_is_left(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 12_345)
    assert memory.available() == 12_345
    assert memory.in_words(15_600_000_000) == "15.6 GB" and memory.in_words(40_000_000) == "40 MB"
    monkeypatch.setattr(memory, "available", lambda: 5)
    with pytest.raises(UserError, match=r"x needs about 9\.0 GB of memory, expected at most the .*; give less"):
        check_cost(9_000_000_000, "x", otherwise="give less")


def test_estimating_leaves_no_hook_behind(tiny):
    network = tiny("norm")
    inversion_bytes(network, 3)
    assert not any(part._forward_hooks for part in network.module.modules())
    assert hooks.layers(network) == ("conv", "fc")


@pytest.mark.parametrize(
    ("method", "line"),
    [
        (
            {"method": "dm", "iterations": 1},
            "learning 6 images at once needs about .* MB of memory, .* lower `per_class`",
        ),
        (
            {"method": "kmeans"},
            "k-means on the 20 images of one class needs about .* use fewer images, or the method",
        ),
    ],
)
def test_condensing_that_cannot_fit_is_refused_before_an_image_is_read(method, line, toy, left, monkeypatch):
    left(1000)
    job = Job(toy(shape=(1, 8, 8)), InputSpec(shape=(1, 8, 8), classes=tuple("abc")), 2)
    monkeypatch.setattr(Job, "pixels", lambda *_: pytest.fail("an image was read"))
    with pytest.raises(UserError, match=line):
        condense(methods.from_dict(method), job)


def test_a_set_that_cannot_fit_is_refused_and_of_a_part_only_its_files_are_read(tiny, tmp_path, left):
    folder = tmp_path / "set"
    synthesize(tiny("linear"), None, from_name("gaussian"), folder, images=7, chunk=3, workers=1)
    (folder / "unit-000002.safetensors").unlink()
    opened = SyntheticSet.open(folder)
    pixels, labels, logits = opened.load(5)
    assert (len(pixels), len(labels), len(logits)) == (5, 5, 5)
    with pytest.raises(UserError, match=r"unit-000002\.safetensors is missing"):
        opened.load()
    left(100)
    with pytest.raises(
        UserError, match=r"the images of .*set needs about 0 MB .* use a smaller set, or fewer images of it"
    ):
        opened.load(5)
