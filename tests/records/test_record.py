"""The record: bit-equal after a round trip, and refused for any other teacher or any damage."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from datafree._core.errors import UserError
from datafree._core.files import read_tensors, write_tensors
from datafree.data import sha256
from datafree.models.network import Network
from datafree.records.record import Record, record
from datafree.records.statistics.batchnorm import BatchNorm
from datafree.records.statistics.input import InputMoments
from datafree.records.statistics.moments import Moments
from datafree.records.statistics.spectral import SpectralAll, SpectralPairs


@pytest.fixture(scope="module")
def network(tiny) -> Network:
    return tiny("norm", mean=(0.4,), std=(0.2,))


@pytest.fixture(scope="module")
def made(network, toy) -> Record:
    kinds = [InputMoments(), Moments(covariance="lowrank", rank=2), BatchNorm(), (SpectralAll(), ("conv", "fc"))]
    return record(network, toy(), [*kinds, SpectralPairs()])


@pytest.fixture
def path(made, tmp_path):
    made.save(tmp_path / "record.safetensors")
    return tmp_path / "record.safetensors"


def altered(network: Network, change) -> Network:
    module = copy.deepcopy(network.module)
    change(module)
    return Network(module, network.spec, network.name)


def refused(path, network) -> str:
    with pytest.raises(UserError) as caught:
        Record.load(path, network)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewritten(path, change) -> None:
    """The file with its tensors and header changed by hand, under a good checksum."""
    tensors, header = read_tensors(path, kind="record")
    change(tensors, header)
    path.unlink()
    write_tensors(path, tensors, header, kind="record")


def test_a_round_trip_keeps_every_bit_and_the_digest(made, network, path, toy):
    loaded = Record.load(path, network)
    assert list(loaded.entries) == list(made.entries) == ["input-moments", "conv", "fc", "bn", "graph", "conv--fc"]
    for name, entry in made.entries.items():
        own = loaded.entries[name]
        assert (own.statistic, own.taps) == (entry.statistic, entry.taps)
        assert own.summary.keys() == entry.summary.keys()
        for key, tensor in entry.summary.items():
            assert own.summary[key].dtype == tensor.dtype
            assert torch.equal(own.summary[key], tensor)
    assert loaded.digest() == made.digest()
    assert (loaded.spec, loaded.fingerprint, loaded.made) == (made.spec, made.fingerprint, made.made)
    assert made.made == {
        "data": "toy",
        "split": "train",
        "samples": 60,
        "sha256": sha256(toy()),
    }


def test_two_runs_write_the_same_bytes(network, toy, tmp_path):
    for name in ("a", "b"):
        record(network, toy(), [InputMoments(), Moments(covariance="full")]).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_digest_changes_with_any_number_and_any_setting(made, network, toy):
    digests = {made.digest()}
    for entry in made.entries.values():
        for key in entry.summary:
            other = copy.deepcopy(entry.summary)
            other[key].view(-1)[0] += 1
            name = next(name for name, own in made.entries.items() if own is entry)
            changed = {**made.entries, name: type(entry)(entry.statistic, entry.taps, other)}
            digests.add(Record(made.spec, made.fingerprint, made.answers, changed).digest())
    assert len(digests) == 1 + sum(len(entry.summary) for entry in made.entries.values())
    kinds = [Moments(covariance="lowrank", rank=rank) for rank in (2, 3)]
    assert len({record(network, toy(), [(kind, ("fc",))]).digest() for kind in kinds}) == 2


def test_the_batch_has_no_part_in_the_record(network, toy, monkeypatch):
    whole = record(network, toy(), [Moments(covariance="full"), InputMoments()])
    monkeypatch.setattr("datafree.records.record._chunk", lambda *_: 16)
    split = record(network, toy(), [Moments(covariance="full"), InputMoments()])
    for name, entry in whole.entries.items():
        for key, tensor in entry.summary.items():
            other = split.entries[name].summary[key]
            if key == "factor":
                tensor, other = tensor @ tensor.transpose(1, 2), other @ other.transpose(1, 2)
            torch.testing.assert_close(other, tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.conv.weight.data.view(-1)[0].mul_(-1),
        lambda m: m.conv.weight.data.copy_(m.conv.weight.data.flip(0)),
        lambda m: m.bn.running_mean[0].add_(1e-6),
        lambda m: m.bn.running_var.copy_(m.bn.running_var.flip(0)),
        lambda m: m.half(),
        lambda m: m.bn.num_batches_tracked.add_(1),
    ],
)
def test_any_other_weights_are_another_teacher(network, path, change):
    text = refused(path, altered(network, change))
    assert text.startswith(
        f"the record was made for another teacher (fingerprint {network.fingerprint()[:12]}, tiny has"
    )


def test_another_seed_another_normalisation_and_another_activation_are_refused(network, path, tiny):
    assert "another teacher" in refused(path, tiny("norm", mean=(0.4,), std=(0.2,), seed=1))
    other = Network(network.module, network.spec.model_copy(update={"mean": (0.5,)}), "other")
    assert refused(path, other) == (
        "the record is for images (1, 4, 4) normalised by (0.4,) / (0.2,), other takes (1, 4, 4) by (0.5,) / (0.2,); "
        "use the release it came with"
    )
    wide = Network(network.module, network.spec.model_copy(update={"high": 255.0}), "wide")
    assert refused(path, wide) == (
        "the record is for images (1, 4, 4) from 0 to 1 normalised by (0.4,) / (0.2,), wide takes (1, 4, 4) from 0 to 255 "
        "by (0.4,) / (0.2,); use the release it came with"
    )
    tanh = altered(network, lambda m: setattr(m, "relu", torch.nn.Tanh()))
    assert refused(path, tanh) == "tiny has the recorded weights but gives other answers; use the code it came with"


def test_renamed_classes_a_training_mode_and_frozen_weights_are_the_same_teacher(network, path, made):
    spec = network.spec.model_copy(update={"classes": ("x", "y", "z")})
    module = copy.deepcopy(network.module).train().requires_grad_(False)
    assert Record.load(path, Network(module, spec, "renamed")).digest() == made.digest()
    assert module.training


def test_a_missing_entry_is_refused(path, network):
    def drop(tensors, _):
        for key in [key for key in tensors if key.startswith("fc/")]:
            del tensors[key]

    rewritten(path, drop)
    assert refused(path, network).startswith("no entry 'fc' in the record's tensors; expected one of ")


def test_a_foreign_tensor_is_refused(path, network):
    rewritten(path, lambda tensors, _: tensors.update({"stranger/mean": torch.zeros(2)}))
    text = refused(path, network)
    assert text.endswith("holds a tensor 'stranger/mean' that no entry owns; get the record again")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(path, network, bad, monkeypatch):
    monkeypatch.setattr("datafree._core.files.tensors._check_values", lambda *_: None)  # as a stranger's writer would
    rewritten(path, lambda tensors, _: tensors["fc/mean"].view(-1)[0].fill_(bad))
    monkeypatch.undo()
    assert "tensor 'fc/mean' in" in refused(path, network)
    assert "has NaN or infinity" in refused(path, network)


def test_one_flipped_bit_anywhere_in_the_file_is_refused(path, network):
    whole = path.read_bytes()
    for at in range(0, len(whole), 31):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        refused(path, network)


@pytest.mark.parametrize(
    "change",
    [
        lambda t, _: t.update({"fc/mean": t["fc/mean"][:, :2]}),
        lambda t, _: t.update({"fc/mean": t["fc/mean"].double()}),
        lambda t, _: t.update({"fc/count": t["fc/count"].float()}),
        lambda t, _: t["fc/count"].fill_(0),
        lambda t, _: t["fc/variance"].fill_(-1.0),
        lambda t, _: t.update({"fc/more": t["fc/mean"]}),
        lambda t, _: t.pop("fc/factor"),
        lambda t, _: t["bn/variance"].fill_(-1.0),
        lambda t, _: t.pop("probes/answers"),
        lambda t, _: t.update({"probes/answers": t["probes/answers"][:3]}),
        lambda _, h: h.pop("entries"),
        lambda _, h: h.update(entries={}),
        lambda _, h: h.update(entries=[1]),
        lambda _, h: h.update(spec=[1]),
        lambda _, h: h.update(made=[1]),
        lambda _, h: h["entries"].append(h["entries"][0]),
        lambda _, h: h["entries"][1].update(taps=5),
        lambda _, h: h["entries"][1].update(taps="conv"),
        lambda _, h: h["entries"][1].update(taps=["conv", "fc"]),
        lambda _, h: h["entries"][1].update(taps=["nowhere"]),
        lambda _, h: h["entries"][1].update(taps=[]),
        lambda _, h: h["entries"][1].update(name="../conv"),
        lambda _, h: h["entries"][1].update(statistic=7),
        lambda _, h: h["entries"][1].update(statistic={"kind": ["moments"]}),
        lambda _, h: h["entries"][1].update(statistic={"kind": "os:system"}),
        lambda _, h: h["entries"][1]["statistic"].update(rank=-1),
        lambda _, h: h["entries"][1]["statistic"].update(more=1),
        lambda _, h: h["entries"][3].update(taps=["conv"]),
        lambda _, h: h["entries"][0].update(taps=["fc"]),
    ],
)
def test_a_file_made_by_hand_is_refused_in_one_line(path, network, change):
    rewritten(path, change)
    refused(path, network)


def test_a_release_of_another_kind_is_no_record(network, tmp_path):
    write_tensors(tmp_path / "shard", {"x": torch.zeros(1)}, {}, kind="shard")
    assert "is of kind 'shard'; expected 'record'" in refused(tmp_path / "shard", network)


def test_a_class_without_samples_and_data_of_other_classes_are_refused(network, toy):
    with pytest.raises(
        UserError, match="no samples of class 2, expected at least 1 of each; give data with every class"
    ):
        record(network, toy(2), [Moments()])
    with pytest.raises(UserError, match="toy has 4 classes, tiny 3; use the data that the network was trained for"):
        record(network, toy(classes=4), [Moments()])


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("a", "b", "c"), None),
        (("0", "1", "2"), None),
        (("b", "a", "c"), None),
        (("a", "b", "3"), "class 2 of toy is '3', expected 'c' as in tiny"),
    ],
)
def test_data_of_other_class_names_is_refused_unless_they_are_bare_numbers(classes, message, network, toy):
    data = dataclasses.replace(toy(), classes=classes)
    if message is None:
        assert record(network, data, [InputMoments()]).made["samples"] == 60
    else:
        with pytest.raises(UserError, match=message):
            record(network, data, [InputMoments()])


def test_two_statistics_under_one_name_are_refused_and_not_dropped(network, toy):
    with pytest.raises(UserError, match="two statistics would be entry 'bn' of the record"):
        record(network, toy(), [BatchNorm(), (Moments(), ("bn",))])
    assert list(record(network, toy(), [InputMoments(), InputMoments()]).entries) == ["input-moments"]


def test_weights_and_activations_that_are_not_finite_are_refused_by_the_name_of_their_layer(network, toy):
    broken = altered(network, lambda m: m.conv.bias.data.fill_(torch.inf))
    with pytest.raises(
        UserError, match=r"weight 'conv\.bias' of tiny has NaN or infinity; use weights that are finite"
    ):
        record(broken, toy(), [Moments()])
    beyond = altered(network, lambda m: (m.conv.bias.data.fill_(3e38), m.conv.weight.data.fill_(3e38)))
    beyond.module.bn.register_forward_pre_hook(lambda _, inputs: torch.zeros_like(inputs[0]))
    with pytest.raises(UserError, match="activations of layer 'conv' are not finite; check the weights and the data"):
        record(beyond, toy(), [Moments()])


def test_recording_leaves_the_network_as_it_was(tiny, toy):
    network = tiny("norm")
    network.module.train()
    before = network.fingerprint()
    record(network, toy(), [Moments(), BatchNorm()])
    assert network.fingerprint() == before
    assert network.module.training
    assert all(parameter.requires_grad for parameter in network.module.parameters())
    assert not any(part._forward_hooks for part in network.module.modules())


def test_a_missing_kind_names_what_there_is(made):
    bare = Record(made.spec, made.fingerprint, made.answers, {})
    with pytest.raises(UserError, match="the record holds nothing, expected 'moments'; its publisher can add it"):
        bare.need("moments")
    some = Record(made.spec, made.fingerprint, made.answers, {"bn": made.entries["bn"]})
    with pytest.raises(UserError, match="the record holds batch-norm, expected 'input'"):
        some.need("input")


def test_the_size_is_that_of_the_tensors(made, path):
    assert made.nbytes() == sum(t.numel() * t.element_size() for e in made.entries.values() for t in e.summary.values())
    assert made.nbytes() < path.stat().st_size


def test_a_record_that_no_file_could_list_is_refused_before_an_image_is_read(tiny, toy, monkeypatch):
    """Many layers, for a limit of 20,000 bytes; and long class names, for that of 1 MiB."""
    network = tiny("norm")
    many = {f"layer{index:05d}": (Moments(), ("fc",)) for index in range(60)}
    unread = lambda *_: pytest.fail("an image was read")  # noqa: E731
    data = dataclasses.replace(toy(), read=unread)
    with monkeypatch.context() as patch:
        patch.setattr("datafree.records.record._plan", lambda *_: many)
        patch.setattr("datafree._core.files.tensors.HEADER_CAP_RECORD", 20_000)
        with pytest.raises(UserError, match=r"record of 60 entries and 3 classes cannot be written: .*at most 20,000"):
            record(network, data, [Moments()])
    names = tuple(f"{'x' * 250}{index}" for index in range(5000))
    network.module.fc = torch.nn.Linear(12, len(names))
    wide = dataclasses.replace(network, spec=network.spec.model_copy(update={"classes": names}))
    with pytest.raises(
        UserError, match=r"record of 2 entries and 5,000 classes cannot be written: .*at most 1,048,576"
    ):
        record(wide, data, [Moments()])


def test_the_room_that_is_asked_for_is_what_a_record_takes(made, network):
    """`layout` names the tensors that are written; the largest of shapes that the data decides."""
    for name, entry in made.entries.items():
        layout = made.accumulator(name, network).layout()
        assert layout.keys() == entry.summary.keys()
        for key, (number, shape) in layout.items():
            got = tuple(entry.summary[key].shape)
            assert number == str(entry.summary[key].dtype).removeprefix("torch.")
            assert len(got) == len(shape) and all(own <= most for own, most in zip(got, shape))


def test_a_file_of_many_strange_tensors_is_refused_in_a_short_line(network, path):
    def change(tensors, _header):
        tensors |= {f"fc/mean{index}": torch.zeros(1) for index in range(3000)}

    rewritten(path, change)
    assert len(refused(path, network)) < 400


def test_a_record_that_counts_images_and_says_it_is_of_none_is_refused(network, toy):
    recorded = record(network, toy(), [InputMoments()])
    altered = dataclasses.replace(recorded, made={**recorded.made, "samples": 0})
    with pytest.raises(UserError, match=r"counts .* samples, the record 0"):
        altered.check_counts()


def test_a_record_is_shown_in_one_short_line(whole_record):
    text = repr(whole_record)
    assert text.startswith("Record(") and len(text) < 500 and "\n" not in text
    assert f"{whole_record.nbytes():,} bytes" in text and all(name in text for name in whole_record.entries)
