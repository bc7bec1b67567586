"""What images `quantize` and `similarity` use where the user names none, without batch norm and without data."""

from __future__ import annotations

import pytest

from datafree._core.errors import UserError
from datafree.evaluation.similarity import similarity
from datafree.quantization.image_sources import default_method
from datafree.records import presets
from datafree.records.record import record
from datafree.records.statistics.input import InputMoments
from datafree.records.statistics.moments import Moments

BY_RECORD = {"safe": "distribution", "best": "distribution", "sharp": "bns", "small": "bns"}
"""The last two hold moments of the top layer."""


@pytest.mark.parametrize("preset", BY_RECORD)
def test_a_network_without_batch_norm_is_calibrated_by_the_method_that_its_record_serves(preset, teacher, digits):
    known = record(teacher, digits, presets.preset(preset, teacher, digits))
    assert default_method(teacher, known) == BY_RECORD[preset]


def test_statistics_of_layers_come_first(teacher, digits, tiny):
    assert default_method(tiny("norm"), None) == "bns"
    layers = record(teacher, digits, [(Moments(), ("fc1",)), (Moments(covariance="full"), ("input",))])
    assert default_method(teacher, layers) == "bns"


def test_without_any_the_line_names_what_needs_no_data_of_the_publisher(teacher, digits):
    with pytest.raises(UserError) as caught:
        default_method(teacher, None)
    assert str(caught.value) == (
        "calibrate: got nothing, expected images to choose ranges on, since hinton32 has no batch norm, and there is no record; give "
        "a folder of images (labels are not needed), a data set, 'inception', or 'noise'"
    )
    with pytest.raises(UserError, match="and no images can be made from this record; give a folder"):
        default_method(teacher, record(teacher, digits, [InputMoments()]))


PIXELS = {
    "safe": None,
    "channels": [InputMoments(per="channel")],
    "pixels": [InputMoments()],
    "pooled": [(Moments(covariance="lowrank", rank=2, pooled=True, conv="units"), ("input",))],
    "spatial means": [(Moments(conv="channels"), ("input",))],
}


@pytest.mark.parametrize("kind", PIXELS)
def test_similarity_goes_by_the_pixels_of_a_record_without_layers(kind, tiny, toy):
    """The training data itself is at 0 up to the record's rounding; brighter images are further away."""
    network, data = tiny(), toy(600)
    known = record(network, data, PIXELS[kind] or presets.preset("safe", network, data))
    near, far = similarity(network, {"train": data, "other": 1 - data.pixels(range(len(data)))}, known)
    assert (near.name, list(near.by_layer)) == ("train", ["input"])
    assert near.total < 0.02 < far.total
