"""Promises of the noun: what is saved is what is opened, and nothing else is opened."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from datafree._core.errors import UserError
from datafree._core.files import write_tensors
from datafree.data.condensed.condensed_set import FILE, Condensed, one_hot
from datafree.models.input_spec import InputSpec

SPEC = InputSpec(shape=(1, 4, 4), classes=("a", "b", "c"), mean=(0.3,), std=(0.2,))


def made(**changes) -> Condensed:
    pixels = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))  # outside of [0, 1] too
    labels = torch.tensor([[0.5, 0.25, 0.25], [0, 1, 0], [0, 0, 1]] * 2)
    return replace(Condensed(pixels, labels, SPEC, {"made": {"method": "dm"}, "leakage": "All of it."}), **changes)


def test_what_is_saved_is_what_is_opened(tmp_path):
    own = made()
    assert own.save(tmp_path / "set") == tmp_path / "set"
    for path in (tmp_path / "set", tmp_path / "set" / FILE):
        got = Condensed.open(path)
        assert torch.equal(got.pixels, own.pixels) and torch.equal(got.labels, own.labels)
        assert (got.spec, got.about) == (own.spec, own.about)
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [".datafree.json", "README.md", FILE]


def test_the_card_says_how_many_of_which_range_and_what_is_given_away(tmp_path):
    text = (made().save(tmp_path / "set") / "README.md").read_text()
    assert "6 images of 3 classes: a, b, c." in text
    assert "images per class: 2, 2, 2" in text and "**not normalised**" in text and "soft, each row" in text
    assert text.endswith("## Leakage\n\nAll of it.\n")


def test_hard_labels_are_one_hot():
    assert one_hot(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"pixels": torch.zeros(6, 1, 4, 5)},
            r"pixels of the condensed set are float32 \(6, 1, 4, 5\) on cpu; expected",
        ),
        ({"pixels": torch.zeros(6, 1, 4, 4, dtype=torch.uint8)}, "pixels of the condensed set are uint8"),
        ({"pixels": torch.full((6, 1, 4, 4), float("nan"))}, "pixels of the condensed set have NaN"),
        ({"labels": torch.full((6, 4), 0.25)}, r"labels of the condensed set are float32 \(6, 4\)"),
        ({"labels": torch.full((6, 3), 0.5)}, "label 0 of the condensed set sums to 1.5"),
        ({"labels": torch.tensor([[1.5, -0.5, 0.0]] * 6)}, "sums to 1 with a smallest entry of -0.5"),
        ({"labels": torch.tensor([[1.0, 0, 0]] * 5)}, "5 labels for 6 images"),
        ({"labels": torch.zeros(0, 3), "pixels": torch.zeros(0, 1, 4, 4)}, "0 labels for 0 images"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(changes, text):
    with pytest.raises(UserError, match=text):
        made(**changes)


def stored(path, tensors=None, **changes):
    own = made()
    header = {"format": 1, "spec": own.spec.model_dump(mode="json"), "about": own.about, **changes}
    write_tensors(path, tensors or {"pixels": own.pixels, "labels": own.labels}, header, kind="condensed")
    return path


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": 2}, "has format 2; expected 1; update datafree"),
        ({"about": []}, "is not a complete condensed set"),
        ({"spec": 3}, "InputSpec is int"),
        ({"spec": {"shape": [1, 4, 5], "classes": ["a", "b", "c"]}}, "pixels of the condensed set are"),
        ({"tensors": {"pixels": torch.zeros(2, 1, 4, 4)}}, "is not a complete condensed set"),
    ],
)
def test_a_file_that_is_off_is_refused_in_one_line(tmp_path, changes, text):
    with pytest.raises(UserError, match=text):
        Condensed.open(stored(tmp_path / FILE, **changes))


def test_a_flipped_byte_is_refused_and_so_is_what_is_not_there(tmp_path):
    path = stored(tmp_path / FILE)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="is damaged: its sha256 does not fit"):
        Condensed.open(path)
    with pytest.raises(UserError, match=r"no condensed set .*; run datafree condense or import-condensed first"):
        Condensed.open(tmp_path / "nosuch")


def test_another_network_is_refused(tmp_path, tiny):
    own = stored(tmp_path / FILE)
    assert len(Condensed.open(own, tiny())) == 6
    with pytest.raises(UserError, match=r"has images \(1, 4, 4\) of 3 classes, tiny expects \(1, 6, 6\) of 3"):
        Condensed.open(own, tiny(shape=(1, 6, 6)))
    named = replace(tiny(), spec=tiny().spec.model_copy(update={"classes": ("a", "z", "c")}))
    with pytest.raises(UserError, match=r"class 1 of the condensed set is 'b', expected 'z' as in tiny; use the data"):
        Condensed.open(own, named)
    numbered = replace(tiny(), spec=tiny().spec.model_copy(update={"classes": ("0", "1", "2")}))
    assert len(Condensed.open(own, numbered)) == 6


@pytest.mark.parametrize("value", [1e30, -1e30, 1e6, -1001.5])
def test_pixels_a_thousand_ranges_away_are_refused(value):
    pixels = made().pixels.clone()
    pixels[3, 0, 1, 2] = value
    with pytest.raises(
        UserError,
        match=r"pixels of the condensed set go from .*, expected -1000 to 1001, the range of images extended by 1000 times",
    ):
        made(pixels=pixels)


def like(tiny, **changes):
    """The tiny network with another range or other class names."""
    return replace(tiny(classes=len(changes.get("classes", "abc"))), spec=SPEC.model_copy(update=changes))


@pytest.mark.parametrize(("low", "high"), [(0.0, 255.0), (-1.0, 1.0), (100.0, 101.0)])
def test_a_network_of_another_range_gets_the_same_images_in_its_own(tmp_path, tiny, low, high):
    own = made(pixels=torch.linspace(-0.5, 1.5, 96).view(6, 1, 4, 4))
    got = Condensed.open(own.save(tmp_path / "set"), like(tiny, low=low, high=high))
    assert (got.pixels.double() - (low + (high - low) * own.pixels.double())).abs().max() < 1e-6 * max(
        map(abs, (low, high))
    )
    shown = got.clamped()
    assert (float(shown.min()), float(shown.max())) == (low, high)
    assert torch.equal(got.labels, own.labels) and got.spec.high == high
    assert torch.equal(Condensed.open(tmp_path / "set", like(tiny)).pixels, own.pixels)


@pytest.mark.parametrize(
    ("names", "expected", "order"),
    [
        (("1", "2", "10"), ("1", "10", "2"), [0, 2, 1]),
        (("0", "1", "2"), ("2", "0", "1"), [2, 0, 1]),
        (("a", "b", "c"), ("c", "a", "b"), [2, 0, 1]),
        (("007", "3", "1"), ("1", "3", "7"), [2, 1, 0]),
        (("0", "1", "2"), ("a", "b", "c"), [0, 1, 2]),
    ],
)
def test_labels_come_in_the_order_of_the_networks_classes(tmp_path, tiny, names, expected, order):
    """`order`: for each class of the network, which column of the set's labels is its own."""
    own = made(spec=SPEC.model_copy(update={"classes": names}))
    got = Condensed.open(own.save(tmp_path / "set"), like(tiny, classes=expected))
    assert torch.equal(got.labels, own.labels[:, order]) and torch.equal(got.pixels, own.pixels)


@pytest.mark.parametrize(
    ("names", "expected"), [(("1", "2", "3"), ("0", "1", "2")), (("0", "1", "2"), ("1", "2", "3"))]
)
def test_counting_from_0_is_not_counting_from_1(tmp_path, tiny, names, expected):
    own = made(spec=SPEC.model_copy(update={"classes": names})).save(tmp_path / "set")
    with pytest.raises(UserError, match="expected the same numbers"):
        Condensed.open(own, like(tiny, classes=expected))


def test_some_of_the_images_are_of_every_class_alike():
    labels = one_hot(torch.arange(30) // 10, 3)
    own = made(pixels=torch.arange(30.0).view(30, 1, 1, 1).expand(30, 1, 4, 4) / 30, labels=labels)
    for count, each in ((9, [3, 3, 3]), (15, [5, 5, 5]), (30, [10] * 3), (99, [10] * 3)):
        chosen = (own.chosen(count)[:, 0, 0, 0] * 30).round().long()
        assert (chosen // 10).bincount(minlength=3).tolist() == each and len(set(chosen.tolist())) == len(chosen)
    assert torch.equal(own.chosen(None), own.clamped())
