"""Every objective works on any network with linear and conv layers: residual, branching to channels, with batch norm."""

from __future__ import annotations

import re

import pytest

from datafree._core.errors import UserError
from datafree.data import load
from datafree.models import hooks as tap_names
from datafree.models.input_spec import InputSpec
from datafree.records import presets
from datafree.records.record import record
from datafree.records.statistics.batchnorm import BatchNorm
from datafree.releases.load import new_model
from datafree.synthesis import methods
from datafree.synthesis.methods import meta_generator

NETWORKS = {"resnet8": 6, "alexnet/32": 32, "lenet5-half": 32}
ANYWHERE = {
    "top", "all", "all-dropout", "spectral-all", "spectral-pairs", "gaussian", "inception", "bns", "bns-inception",
}  # fmt: skip
WORKING = {
    "resnet8": {"distribution", "matched", *ANYWHERE},
    "alexnet/32": ANYWHERE,  # its first layer is strided and does not determine the pixels
    "lenet5-half": ANYWHERE,  # its first layer has 3 filters and is recorded by a low rank
}
"""The methods that may not refuse these networks and their records."""


@pytest.fixture(
    scope="module",
    params=["resnet8", "alexnet/32", pytest.param("lenet5-half", marks=pytest.mark.slow)],
    ids=str,
)
def published(request):
    data = load("digits", "train").subset(120)
    side = NETWORKS[request.param]
    spec = InputSpec(shape=(1, side, side), classes=data.classes)
    network = new_model(request.param, spec, seed=0)
    statistics = presets.preset("full" if request.param == "resnet8" else "paper", network, data)
    if tap_names.batch_norms(network):
        statistics.append((BatchNorm(), None))
    return network, record(network, data, statistics)


def refused(method, network, known) -> str | None:
    """What the method says of the network and its record; None if it takes them."""
    try:
        method.bind(network, known)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", sorted(methods.methods()))
def test_every_method_makes_finite_images_of_the_input_shape(published, name, monkeypatch):
    monkeypatch.setattr(meta_generator, "TRIAL", 32)
    network, known = published
    fields = methods.methods()[name].model_fields
    few = {field: count for field, count in (("steps", 3), ("discard", 1), ("width", 8)) if field in fields}
    method = methods.from_name(name, **few)
    if name not in WORKING[network.name] and (refusal := refused(method, network, known)) is not None:
        assert re.fullmatch(".*publisher.*", refusal)  # one line; tests/synthesis has the details
        pytest.skip(refusal)
    made = method.bind(network, known).chunk(0, 0, 20)
    assert made.pixels.shape == (20, *network.spec.shape)
    assert made.pixels.isfinite().all()
    assert made.labels.bincount(minlength=10).sum() == 20
