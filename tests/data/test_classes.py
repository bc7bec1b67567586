"""Classes of data and network are matched by name, in whatever order either has them."""

import dataclasses

import numpy as np
import pytest
import torch

from datafree._core.errors import UserError
from datafree._core.files import write_sealed_json
from datafree.data.dataset import in_memory
from datafree.data.dataset_checks import as_input
from datafree.distillation.distill import distill
from datafree.distillation.schedule import Distillation
from datafree.distillation.sources import MixedImages, labelled, soft_labelled
from datafree.evaluation.accuracy import evaluate
from datafree.models.class_names import check_order, class_positions, moved, ordered
from datafree.records.record import Record, record
from datafree.records.statistics.moments import Moments
from datafree.releases.load import new_model
from datafree.synthesis.methods import from_name
from datafree.synthesis.synthetic_set import SyntheticSet, synthesize

TWELVE = tuple(str(number) for number in range(12))
AS_TEXT = ("0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (AS_TEXT, list(TWELVE)),
        (["10", "9", "1"], ["1", "9", "10"]),
        (["00", "10", "02"], ["00", "02", "10"]),
        (["-1", "-10", "2"], ["-10", "-1", "2"]),
        (["0.5", "10.5", "2.5"], ["0.5", "2.5", "10.5"]),
        (["1", "01", "10", "2"], ["01", "1", "10", "2"]),
        (["10", "9", "cat"], ["10", "9", "cat"]),
        (["١٠", "٩"], ["٩", "١٠"]),
        (["²", "¹"], ["²", "¹"]),
        (["class10", "class9"], ["class10", "class9"]),
        (["n02", "n01"], ["n01", "n02"]),
    ],
)
def test_numbers_are_sorted_by_value_and_other_names_as_text(names, expected):
    assert ordered(names) == expected


def test_either_order_can_be_chosen():
    assert ordered(TWELVE, "text") == list(AS_TEXT)
    assert ordered(["class10", "class9", "b"], "number") == ["b", "class9", "class10"]
    assert ordered(["a²", "a10", "a9"], "number") == ["a9", "a10", "a²"]
    assert ordered(AS_TEXT, "number") == list(TWELVE)


@pytest.mark.parametrize(
    ("names", "expected", "positions"),
    [
        (TWELVE, TWELVE, range(12)),
        (AS_TEXT, TWELVE, [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]),
        (TWELVE, AS_TEXT, [0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3]),
        (("b", "a"), ("a", "b"), [1, 0]),
        (("02", "00", "01"), ("0", "1", "2"), [2, 0, 1]),
        (("cafe\u0301", "tea"), ("tea", "caf\u00e9"), [1, 0]),
        (("١", "٠"), ("0", "1"), [1, 0]),
        (("0", "1"), ("cat", "dog"), [0, 1]),
        (("cat", "dog"), ("0", "1"), [0, 1]),
        (("0", "1", "2"), ("n01440764", "n01443537", "n01484850"), [0, 1, 2]),
        (("0", "1", "2"), ("c1", "c2", "c10"), [0, 1, 2]),
        (("c1", "c10", "c2"), ("c1", "c2", "c10"), [0, 2, 1]),
        (("crane", "crane", "dog"), ("crane", "crane", "dog"), [0, 1, 2]),
    ],
)
def test_classes_match_by_name_by_value_and_bare_numbers_by_position(names, expected, positions):
    assert class_positions(names, expected, "data", "net") == tuple(positions)


@pytest.mark.parametrize(
    ("names", "expected", "message"),
    [
        (("1", "2", "3"), ("0", "1", "2"), "class '3' of data is none of net, which has '0' to '2'; expected the same"),
        (("0", "1", "2"), ("1", "2", "3"), "class '0' of data is none of net"),
        (("2", "3", "10"), ("a", "b", "c"), "class 0 of data is '2', expected 'a' as in net"),
        (("1", "0"), ("a", "b"), "class 0 of data is '1', expected 'a'"),
        (("a", "b"), ("1", "0"), "class 0 of data is 'a', expected '1'"),
        (("Cat", "dog"), ("cat", "dog"), "class 0 of data is 'Cat', expected 'cat'"),
        (("a", "dog", "dog"), ("dog", "a", "dog"), "have one name twice"),
        (("٠", "٢"), ("0", "1"), "class '٢' of data is none of net"),
        (("a", "b"), ("a", "b", "c"), "data has 2 classes, net 3"),
        (("0", "1", "2"), ("c1", "c10", "c2"), "'c1', 'c10', 'c2', ..., are not in the order of their numbers"),
        (("c2", "c1"), ("0", "1"), "not in the order of their numbers"),
        (("c1", "c10", "c2"), ("0", "1", "2"), "not in the order of their numbers; expected the same names"),
    ],
)
def test_what_cannot_be_matched_is_refused_in_one_line(names, expected, message):
    with pytest.raises(UserError, match=message):
        class_positions(names, expected, "data", "net")


@pytest.mark.parametrize(
    ("names", "expected", "positions"),
    [
        (("b",), ("a", "b", "c"), [1]),
        (("c", "a"), ("a", "b", "c"), [2, 0]),
        (("07", "3"), TWELVE, [7, 3]),
        (("tea",), ("caf\u00e9", "tea"), [1]),
        (("cafe\u0301",), ("tea", "caf\u00e9"), [1]),
    ],
)
def test_some_of_the_classes_match_by_name_where_that_is_asked_for(names, expected, positions):
    assert class_positions(names, expected, "data", "net", part=True) == tuple(positions)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("0", "1"), ("cat", "dog", "owl")),
        (("cat", "fox"), ("cat", "dog", "owl")),
        (("1", "01"), ("0", "1", "2")),
        (("cat",), ("0", "1")),
    ],
)
def test_fewer_classes_match_by_no_position(names, expected):
    with pytest.raises(UserError, match="is none of those"):
        class_positions(names, expected, "data", "net", part=True)


def test_accuracy_on_some_classes_is_that_of_their_images(tiny, toy):
    network, data = tiny(), toy()
    rows = (data.labels != 1).nonzero().flatten()
    images = data.read(rows.numpy())
    labels = np.where(data.labels[rows].numpy() == 2, 0, 1)
    part = evaluate(network, in_memory("part", "test", ("c", "a"), labels, images))
    whole = evaluate(network, data)
    assert (part.by_class[0], part.by_class[1], part.by_class[2]) == (whole.by_class[0], None, whole.by_class[2])
    assert part.images == len(rows)


def permuted(data, order):
    """The same images, their classes listed in another order."""
    place = np.argsort(order)
    labels = torch.from_numpy(place)[data.labels]
    return dataclasses.replace(data, labels=labels, classes=tuple(data.classes[k] for k in order))


@pytest.fixture
def pair(tiny, toy):
    """A network of three classes, and the same images in two orders of classes."""
    data = toy()
    return tiny(), data, permuted(data, [2, 0, 1])


def test_accuracy_and_agreement_are_those_of_the_images_in_any_order_of_classes(pair, tiny):
    network, data, other = pair
    teacher = tiny(seed=3)
    renamed = dataclasses.replace(teacher, spec=teacher.spec.model_copy(update={"classes": ("c", "a", "b")}))
    with torch.no_grad():
        renamed.module.fc3.weight.copy_(teacher.module.fc3.weight[[2, 0, 1]].clone())
        renamed.module.fc3.bias.copy_(teacher.module.fc3.bias[[2, 0, 1]].clone())
    first = evaluate(network, data, tiny(seed=3))
    assert evaluate(network, other, tiny(seed=3)) == first
    assert evaluate(network, data, renamed) == first
    assert len(set(first.by_class)) > 1


def test_records_and_labels_are_in_the_networks_order(pair):
    network, data, other = pair
    first, second = (record(network, own, [Moments()]) for own in (data, other))
    for name, entry in first.entries.items():
        torch.testing.assert_close(entry.summary["mean"], second.entries[name].summary["mean"])
        assert torch.equal(entry.summary["count"], second.entries[name].summary["count"])
    assert torch.equal(labelled(network, data).targets, labelled(network, other).targets)
    assert torch.equal(soft_labelled(network, data).targets, soft_labelled(network, other).targets)


def test_matching_twice_is_matching_once(pair):
    network, _, other = pair
    once = as_input(network, other)
    assert as_input(network, once) is once
    assert once.classes == network.spec.classes


def test_numeric_folders_sorted_as_text_match_a_network_that_counts(tiny):
    """A record was measured with its classes permuted, since bare numbers fitted any names."""
    network = tiny(classes=12)
    network = dataclasses.replace(network, spec=network.spec.model_copy(update={"classes": TWELVE}))
    images = np.arange(24 * 16, dtype=np.uint32).reshape(24, 1, 4, 4) % 251
    data = in_memory("folder", "train", AS_TEXT, np.arange(24) % 12, images.astype(np.uint8))
    assert as_input(network, data).labels[:4].tolist() == [0, 1, 10, 11]


def test_a_record_whose_classes_are_in_another_order_is_not_this_networks(pair, tmp_path):
    network, data, _ = pair
    record(network, data, [Moments()]).save(tmp_path / "r")
    for names in (("b", "a", "c"), ("b", "a", "other"), ("b", "x", "y"), ("x", "a", "b")):
        moved = dataclasses.replace(network, spec=network.spec.model_copy(update={"classes": names}))
        place, name = next((place, name) for place, name in enumerate("abc") if name in names and names[place] != name)
        with pytest.raises(
            UserError, match=f"class {place} of the record is '{name}', tiny has '{names[place]}' there"
        ):
            Record.load(tmp_path / "r", moved)
    renamed = dataclasses.replace(network, spec=network.spec.model_copy(update={"classes": ("x", "b", "z")}))
    assert Record.load(tmp_path / "r", renamed)


def test_equal_values_of_other_names_are_told_apart_and_counting_from_1_is_no_other_order():
    assert moved(["1", "01"], ["01", "1"]) == 0 and moved(["1.0", "1"], ["1", "1.0"]) == 0
    assert moved(["0", "1", "2"], ["1", "2", "3"]) == 1 and moved(["007", "8"], ["7", "8"]) is None
    check_order(["0", "1", "2"], ["1", "2", "3"], "it", "net", renamed=True)
    for names in (["1", "0", "2"], ["0", "2", "1"], ["2", "1", "0"]):
        with pytest.raises(UserError, match="at another place"):
            check_order(names, ["1", "2", "3"], "it", "net", renamed=True)
    assert moved(["1", "0", "2"], ["1", "2", "3"]) == 2


def test_images_of_another_class_order_do_not_teach(pair):
    network, data, _ = pair
    source = soft_labelled(network, data)
    spec = network.spec.model_copy(update={"classes": ("b", "a", "c")})
    other = dataclasses.replace(source, spec=spec)
    student = new_model("hinton4", network.spec, seed=0)
    with pytest.raises(UserError, match="class 0 of the images is 'b', tiny has 'a' there"):
        distill(network, student, other, Distillation(epochs=1))
    with pytest.raises(UserError, match="class 0 of others is 'b', the teacher has 'a' there"):
        MixedImages(network, source.pixels[:4], other, 8)


def test_a_set_whose_classes_are_in_another_order_is_not_this_networks(pair, tmp_path):
    network, _, _ = pair
    made = synthesize(network, None, from_name("gaussian"), tmp_path / "s", images=3, chunk=3, workers=1)
    about = made.about
    for names in (["b", "a", "c"], ["b", "a", "other"], ["x", "c", "y"]):
        write_sealed_json(tmp_path / "s" / "set.json", {**about, "spec": {**about["spec"], "classes": names}})
        with pytest.raises(
            UserError, match=r"class \d of the set in .* tiny has '.' there and that name at another place"
        ):
            SyntheticSet.open(tmp_path / "s", network)
