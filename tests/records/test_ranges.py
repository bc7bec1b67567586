"""Numbers that no data and no network can give are refused when a record is opened, and nothing that is recorded is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datafree._core.errors import UserError
from datafree._core.files import read_tensors, write_tensors
from datafree.data.dataset import in_memory
from datafree.records.record import Record, record
from datafree.records.statistics.batchnorm import BatchNorm
from datafree.records.statistics.input import InputMoments
from datafree.records.statistics.moments import Moments
from datafree.records.statistics.spectral import SpectralPairs

KINDS = ["none", "diagonal", "lowrank", "shrunk", "full"]


@pytest.fixture(scope="module")
def network(tiny):
    return tiny("norm")


@pytest.fixture
def written(network, toy, tmp_path):
    pixels = (Moments(covariance="full"), ("input",))
    record(network, toy(), [InputMoments(), pixels, Moments(), BatchNorm(), SpectralPairs()]).save(tmp_path / "r")
    return tmp_path / "r"


CASES = [
    ("input-moments/mean", 1e20, "pixel means"),
    ("input-moments/mean", -0.5, "pixel means"),
    ("input-moments/std", 0.8, "pixel variance"),
    ("input-moments/std", 1e15, "pixel variance"),
    ("input-moments/count", 460_000_000_000_000_000, "counts"),
    ("input-moments/count", 61, "counts 61 samples, the record 60"),
    ("input/mean", 1.2, "pixel means"),
    ("input/mean", 1e20, "mean of 1e\\+20"),
    ("input/factor", 1e15, "variance of"),
    ("input/factor", 0.3, "pixel variance"),
    ("input/count", 460_000_000_000_000_000, "counts"),
    ("conv/mean", 1e20, "mean of 1e\\+20"),
    ("conv/variance", 1e30, "variance of 1e\\+30"),
    ("conv/count", 0, "counts"),
    ("conv/count", 21, "counts 63 samples, the record 60"),
    ("bn/mean", 1e20, "mean of"),
    ("bn/variance", 1e30, "variance of"),
    ("bn/variance", 0.7, "differs from the network's own statistics"),
    ("conv--fc/count", 1 << 60, "counts"),
    ("conv--fc/mean", 1e30, "mean of"),
    ("conv--fc/factor", 1e30, "factor of"),
    ("conv--fc/check", 1e30, "check of"),
]


@pytest.mark.parametrize(("name", "value", "words"), CASES)
def test_a_number_that_cannot_be_is_refused(name, value, words, written, network):
    tensors, header = read_tensors(written, kind="record")
    written.unlink()
    write_tensors(written, {**tensors, name: torch.full_like(tensors[name], value)}, header, kind="record")
    with pytest.raises(UserError, match=words):
        Record.load(written, network)


@pytest.mark.parametrize("samples", [61, -1, 1 << 60, "60", None, 1.5])
def test_a_count_of_samples_that_contradicts_the_entries_is_refused(samples, written, network):
    tensors, header = read_tensors(written, kind="record")
    written.unlink()
    write_tensors(written, tensors, {**header, "made": {**header["made"], "samples": samples}}, kind="record")
    with pytest.raises(UserError, match="samples"):
        Record.load(written, network)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [6, 7, 30])
def test_images_at_the_ends_of_the_range_are_recorded_and_open(kind, count, network, tmp_path):
    rows = np.arange(count)[:, None, None, None] // 3 % 2
    images = (255 * np.broadcast_to(rows, (count, 1, 4, 4))).astype(np.uint8)
    data = in_memory("toy", "train", "abc", np.arange(count) % 3, images)
    for pooled in (False, True):
        for storage in ("float32", "float16"):
            statistic = Moments(covariance=kind, pooled=pooled, storage=storage)
            path = tmp_path / f"{storage}-{pooled}"
            record(network, data, [InputMoments(per="channel"), (statistic, ("input",))]).save(path)
            Record.load(path, network)


def test_activations_beyond_what_float32_counts_are_refused_while_recording(toy, tiny):
    large = tiny("norm")
    with torch.no_grad():
        large.module.fc.bias.fill_(1e13)
    with pytest.raises(UserError, match="activations of layer 'fc' are as large as 1e\\+13, expected at most 1e\\+12"):
        record(large, toy(), [Moments()])
