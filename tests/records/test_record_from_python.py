"""What `record` takes and promises in Python: presets by name, the promise of `safe`, entries added, statistics by name."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import make_data, make_network

import datafree as df
from datafree._core.errors import Notice, UserError
from datafree.records import statistics
from datafree.records.presets import LEAK, PRESETS
from datafree.records.record import Record
from datafree.records.statistics.batchnorm import BatchNorm
from datafree.records.statistics.input import InputMoments
from datafree.records.statistics.moments import Moments

DATA = make_data(600)


def refused(call) -> str:
    with pytest.raises(UserError) as raised:
        call()
    message = str(raised.value)
    assert "; " in message and "\n" not in message
    return message


def forecast(record: Record, network: df.Network) -> float:
    return df.forecast_auc(record.released_statistics(network))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_by_name_is_what_preset_returns(name):
    network = make_network("norm")
    by_name = df.record(network, DATA, name)
    assert by_name.digest() == df.record(network, DATA, df.preset(name, network, DATA)).digest()


def test_the_default_is_safe():
    network = make_network()
    assert df.record(network, DATA).digest() == df.record(network, DATA, "safe").digest()
    assert forecast(df.record(network, DATA), network) <= LEAK


def test_sixty_digits_are_too_few_for_the_promise_of_safe(digits, teacher):
    few = digits.subset(60)
    message = refused(lambda: df.record(teacher, few))
    assert message == (
        "leak: got a forecast AUC of 0.624 for the least that the preset 'safe' records, expected at most 0.6; "
        "give more samples of each class, or a higher leak"
    )
    assert forecast(df.record(teacher, few, leak=0.63), teacher) == pytest.approx(0.624, abs=5e-4)
    assert forecast(df.record(teacher, digits, leak=0.55), teacher) <= 0.55


def test_leak_is_refused_where_nothing_would_keep_it():
    network = make_network()
    assert "leak: got 0.7 beside the preset 'sharp'" in refused(lambda: df.record(network, DATA, "sharp", leak=0.7))
    assert "leak: got 0.7 beside a list" in refused(lambda: df.record(network, DATA, [Moments()], leak=0.7))
    assert "leak: got 1.2, expected above 0.5 and below 1" in refused(lambda: df.record(network, DATA, leak=1.2))


def test_a_statistic_is_settings_a_name_or_a_dict():
    network = make_network()
    expected = df.record(network, DATA, [InputMoments(), (Moments(covariance="full"), ("fc1", "fc3"))])
    values = {"kind": "moments", "covariance": "full"}
    assert df.record(network, DATA, ["input", (values, ["fc1", "fc3"])]).digest() == expected.digest()
    assert df.record(network, DATA, ["moments"]).digest() == df.record(network, DATA, [Moments()]).digest()


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("save", "no preset 'save'; nearest: 'safe'"),
        (["momens"], "no statistic 'momens'; nearest: 'moments'"),
        ([{"kind": "moments", "covarianc": "full"}], "covarianc"),
        ([{"covariance": "full"}], "no statistic 'None'"),
        ([("moments", ["fc9"])], "fc9"),
        ([3], "preset[0]: got 3, expected"),
        ([], "preset: got a list without statistics, expected at least one to measure; give the name of a preset"),
        ([("moments", [])], "preset: got statistics of no layer, expected at least one to measure; give the name"),
        (None, "preset: got None, expected text or a list"),
    ],
)
def test_a_preset_or_statistic_that_does_not_exist_is_one_line(preset, expected):
    assert expected in refused(lambda: df.record(make_network(), DATA, preset))


def test_a_preset_without_data_is_one_line():
    assert "data: got None, expected the data that tiny was trained on" in refused(
        lambda: df.record(make_network(), None)
    )


# -- adding ------------------------------------------------------------


@pytest.fixture
def network():
    return make_network()


def test_the_preset_safe_names_the_record_that_it_is_added_to_if_that_breaks_its_promise(digits):
    network = df.new_model("hinton8", df.InputSpec(shape=digits.shape, classes=digits.classes), seed=0)
    layer = df.record(network, digits, [(Moments(), ("fc2",))])
    message = refused(lambda: df.record(network, digits, "safe", add_to=layer))
    auc = df.forecast_auc(
        df.record(network, digits, "safe").released_statistics(network) + layer.released_statistics(network)
    )
    assert message == (
        f"add_to: got a record with which the forecast AUC is {auc:.3f}, expected at most 0.6, the promise of the preset "
        "'safe'; leave `add_to` out, or give a higher `leak`"
    )
    assert set(df.record(network, digits, "safe", add_to=layer, leak=0.9).entries) == {"fc2", "input-moments", "input"}
    with pytest.raises(df.UserError, match=r"^preset: got a list without statistics"):
        df.record(network, digits, [], add_to=layer)


def test_entries_are_added_and_those_that_are_there_stay(network):
    first = df.record(network, DATA, "small")
    both = df.record(network, DATA, [(Moments(), ("fc1",))], add_to=first)
    assert set(both.entries) == {*first.entries, "fc1"} and set(first.entries) == {"input-moments", "fc3"}
    assert both.made == first.made
    together = [(InputMoments(per="channel"), None), (Moments(covariance="full"), ("fc3",)), (Moments(), ("fc1",))]
    assert both.digest() == df.record(network, DATA, together).digest()


def test_layers_that_the_record_has_with_other_settings_are_kept_and_named(network):
    first = df.record(network, DATA, [(Moments(covariance="full"), ("fc3",))])
    with pytest.warns(Notice, match="kept as the record has them, with other settings: fc3; record all again"):
        both = df.record(network, DATA, [Moments(covariance="none")], add_to=first)
    assert (
        set(both.entries) == {"fc1", "fc2", "fc3"} and both.entries["fc3"].statistic == first.entries["fc3"].statistic
    )


def test_nothing_that_the_record_has_is_lost(network):
    first = df.record(network, DATA, [(Moments(covariance="full"), ("fc3",))])
    message = refused(lambda: df.record(network, DATA, [(Moments(covariance="none"), ("fc3",))], add_to=first))
    assert "add_to: got a record that has an entry 'fc3' with other settings, which would be lost" in message


def test_safe_promises_for_the_record_as_a_whole(network):
    rich = df.record(network, DATA, [(Moments(covariance="full"), ("fc1", "fc2"))])
    assert forecast(rich, network) > LEAK
    assert "add_to: got a record with which the forecast AUC is" in refused(
        lambda: df.record(network, DATA, "safe", add_to=rich)
    )


def test_what_is_added_is_of_the_same_network_and_data(network):
    first = df.record(network, DATA, "small")
    fewer, other = make_data(300), make_data(600, seed=1)
    message = refused(lambda: df.record(network, fewer, ["input"], add_to=first))
    assert "add_to: got a record of 600 images, expected one of the 300 of the data" in message
    message = refused(lambda: df.record(network, other, ["input"], add_to=first))
    assert "add_to: got a record of other images or labels, expected one of the 600 of the data" in message
    message = refused(lambda: df.record(make_network(seed=1), DATA, ["input"], add_to=first))
    assert message.startswith("add_to: the record was made for another teacher")


def test_add_to_takes_records_alone(network):
    assert "add_to: got 'teacher', expected a Record or None" in refused(
        lambda: df.record(network, DATA, add_to="teacher")
    )


# -- batch norm ------------------------------------------------------------


def test_batch_norm_is_read_from_earlier_records_and_not_offered_for_new_ones(tmp_path):
    network = make_network("norm")
    assert "batch-norm" in statistics.kinds() and "batch-norm" not in statistics.offered()
    assert "no statistic 'batch-norm'" in refused(lambda: df.record(network, DATA, ["batch-norm"]))
    assert "no statistic 'batch-norm'" in refused(lambda: df.record(network, DATA, [{"kind": "batch-norm"}]))
    for name in PRESETS:
        assert not df.record(network, DATA, name).of_kind("batch-norm")
    earlier = df.record(network, None, [BatchNorm()])
    earlier.save(tmp_path / "record.safetensors")
    known = Record.load(tmp_path / "record.safetensors", network)
    assert known.digest() == earlier.digest() and set(known.entries) == {"bn"}
    assert torch.equal(known.entries["bn"].summary["mean"], network.module.bn.running_mean)
