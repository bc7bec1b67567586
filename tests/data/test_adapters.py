"""Data of torch and numpy as a Dataset: the same numbers as from files, and refused where it would silently give others."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import make_data, make_network
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from torch.utils.data import Dataset as TorchDataset

import datafree as df
from datafree._core.errors import Notice, UserError
from datafree.data import adapters, sha256

NETWORK = make_network(mean=(0.4,), std=(0.2,))
DATA = make_data()
PIXELS, LABELS = DATA.pixels(range(len(DATA))), DATA.labels
BYTES = torch.from_numpy(DATA.read(np.arange(len(DATA))))
TENSORS = TensorDataset(PIXELS, LABELS)


class Pictures(TorchDataset):
    """As users write them: a list of (image, label), and a transform."""

    def __init__(self, images=PIXELS, labels=LABELS, transform=None, classes=None):
        self.images, self.labels, self.transform = images, labels, transform
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = self.images[index]
        return image if self.transform is None else self.transform(image), int(self.labels[index])


def as_pil(image: torch.Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().to(torch.uint8)[0].numpy())


def refused(data, network=NETWORK, **options) -> str:
    def read_all() -> None:
        converted = df.as_dataset(data, network, **options)
        converted.pixels(range(len(converted)))

    with pytest.raises(UserError) as raised:
        read_all()
    message = str(raised.value)
    assert "; " in message and "\n" not in message
    return message


SAME = {
    "tensors": (PIXELS, LABELS),
    "tensors that need gradients": (PIXELS.clone().requires_grad_(), LABELS),
    "a list": [PIXELS, LABELS],
    "float64 arrays": (PIXELS.double().numpy(), LABELS.numpy()),
    "bytes": (BYTES.numpy(), LABELS.numpy().astype(np.uint8)),
    "a column of labels": (PIXELS, LABELS[:, None]),
    "TensorDataset": TENSORS,
    "TensorDataset of a column of labels": TensorDataset(PIXELS, LABELS[:, None]),
    "own Dataset": Pictures(),
    "own Dataset of bytes": Pictures(BYTES),
    "own Dataset of arrays": Pictures(transform=lambda image: image.numpy()),
    "own Dataset of PIL images": Pictures(transform=as_pil),
    "ConcatDataset": ConcatDataset([Subset(TENSORS, range(20)), Subset(TENSORS, range(20, 60))]),
    "DataLoader": DataLoader(TENSORS, batch_size=7),
    "shuffled DataLoader": DataLoader(TENSORS, batch_size=7, shuffle=True),
    "DataLoader of single images": DataLoader(TENSORS, batch_size=None),
    "DataLoader that would drop nothing": DataLoader(TENSORS, batch_size=6, drop_last=True),
    "DataLoader with a worker": DataLoader(TENSORS, batch_size=7, num_workers=1),
    "DataLoader of all indices": DataLoader(TENSORS, sampler=SubsetRandomSampler(range(60))),
}


@pytest.mark.parametrize("name", SAME)
def test_every_form_of_the_same_images_is_the_same_data(name):
    converted = df.as_dataset(SAME[name], NETWORK)
    assert sha256(converted) == sha256(DATA)
    assert torch.equal(converted.pixels(range(60)), PIXELS) and torch.equal(converted.labels, LABELS)
    assert converted.classes == NETWORK.spec.classes


def test_a_dataset_of_ours_is_returned_as_it_is():
    assert df.as_dataset(DATA, NETWORK) is DATA


def test_reading_draws_no_random_number():
    state = torch.get_rng_state()
    df.as_dataset(DataLoader(TENSORS, shuffle=True), NETWORK).pixels(range(60))
    assert torch.equal(torch.get_rng_state(), state)


def test_floats_that_are_no_bytes_come_back_as_they_are():
    floats = (PIXELS + 1e-4).clamp(max=1)
    converted = df.as_dataset((floats, LABELS), NETWORK)
    assert torch.equal(converted.pixels(range(60)), floats) and sha256(converted) != sha256(DATA)
    few = converted.subset(6).pixels(range(6))
    assert all(any(torch.equal(image, other) for other in floats) for image in few)
    assert converted.pixels([0], (2, 2)).shape == (1, 1, 2, 2)
    other = converted.scaled_to(make_network(low=-1.0, high=1.0).spec)
    torch.testing.assert_close(other.pixels(range(60)), floats * 2 - 1)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 255.0), (-0.5, 0.5)])
def test_another_range_of_pixels_is_that_of_the_network(low, high):
    network = make_network(low=low, high=high)
    expected = DATA.scaled_to(network.spec)
    converted = df.as_dataset((expected.pixels(range(60)), LABELS), network)
    assert sha256(converted) == sha256(DATA) and converted.floats is None
    assert torch.equal(converted.pixels(range(60)), expected.pixels(range(60)))


def test_labels_are_not_needed_where_they_do_not_count():
    for data in (PIXELS, BYTES.numpy(), TensorDataset(PIXELS), TENSORS, Pictures(labels=LABELS + 99), (PIXELS, LABELS)):
        converted = df.as_dataset(data, NETWORK, labelled=False)
        assert torch.equal(converted.pixels(range(60)), PIXELS) and converted.classes == ("images",)


def test_class_names_of_a_torch_dataset_are_matched_by_name():
    turned = df.as_dataset(Pictures(labels=2 - LABELS, classes=["c", "b", "a"]), NETWORK)
    assert turned.classes == ("c", "b", "a")
    got, expected = (df.evaluate(NETWORK, data).accuracy for data in (turned, DATA))
    assert got == expected
    part = Subset(Pictures(labels=2 - LABELS, classes=["c", "b", "a"]), range(30))
    assert df.as_dataset(part, NETWORK).classes == ("c", "b", "a")
    with pytest.raises(UserError, match="class 0 of data is 'x', expected 'a'"):
        df.evaluate(NETWORK, Pictures(classes=["x", "b", "c"]))


def test_pil_images_of_another_size_are_resized_as_files_are_with_a_notice():
    large = BYTES.repeat_interleave(2, 2).repeat_interleave(2, 3)
    with pytest.warns(Notice, match="images of 8 x 8 are resized to the 4 x 4 that the network takes"):
        converted = df.as_dataset(Pictures(large / 255, transform=as_pil), NETWORK)
    expected = replace(DATA, shape=(1, 8, 8), read=lambda indices: large.numpy()[indices])
    assert torch.equal(converted.pixels(range(60), (4, 4)), expected.pixels(range(60), (4, 4)))


def test_grey_pil_images_become_colour_where_nothing_is_lost():
    colour = make_network(shape=(3, 4, 4))
    converted = df.as_dataset(Pictures(transform=as_pil), colour)
    assert torch.equal(converted.pixels(range(60)), PIXELS.expand(-1, 3, -1, -1))
    for mode in ("RGB", "RGBA", "LA"):
        message = refused(Pictures(transform=lambda image, mode=mode: as_pil(image).convert(mode)))
        assert f"item 0 is a PIL image of mode {mode}, expected grey" in message


def test_a_dataset_can_be_pickled_for_workers():
    for source in (TENSORS, (PIXELS, LABELS)):
        again = pickle.loads(pickle.dumps(df.as_dataset(source, NETWORK)))
        assert torch.equal(again.pixels(range(60)), PIXELS)


# -- what would be silently wrong ------------------------------------------------------------


NORMALISED = "these look normalised; give the images before normalisation"


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (lambda x: (x - 0.4) / 0.2, NORMALISED),
        (lambda x: (x - 0.5) / 0.5, NORMALISED),
        (lambda x: x * 255, "these are bytes; give them as uint8, or divide them by 255"),
        (lambda x: x * 16, "scale the images to that range"),
        (lambda x: x / 255, "in that range these are one colour; scale them"),
        (lambda x: x / 0 * 0, "NaN or infinity"),
        (lambda x: x.half(), "images of torch.float16, expected torch.float32"),
        (lambda x: (x * 255).long(), "images of torch.int64"),
        (lambda x: (x > 0.4).to(torch.uint8), "in that range these are one colour"),
        (lambda x: torch.cat([x, x, x], dim=-3), "the images are colour and the network takes grey"),
        (lambda x: torch.cat([x, x], dim=-1), "shape (1, 4, 8), expected (1, 4, 4)"),
    ],
)  # fmt: skip
def test_pixels_that_are_not_the_networks_are_refused_with_the_reason(transform, expected):
    assert expected in refused((transform(PIXELS), LABELS))
    assert expected in refused(Pictures(transform=transform))
    assert expected in refused(DataLoader(Pictures(transform=transform), batch_size=8, shuffle=True))


def test_normalised_images_within_a_wide_range_are_known_by_their_mean_and_std():
    wide = make_network(mean=(0.4,), std=(0.2,), low=-3.0, high=4.0)
    message = refused(((PIXELS - PIXELS.mean()) / PIXELS.std(), LABELS), wide)
    assert "which look normalised, expected pixels of about mean 0.4 and std 0.2" in message
    assert len(df.as_dataset((PIXELS, LABELS), wide)) == 60


def test_shapes_without_a_channel_or_flat_say_what_to_do():
    assert "add the dimension of the channel, with [:, None]" in refused((PIXELS[:, 0], LABELS))
    assert "with .reshape(-1, 1, 4, 4)" in refused((PIXELS.flatten(1), LABELS))
    assert "with .permute(0, 3, 1, 2)" in refused((PIXELS.permute(0, 2, 3, 1), LABELS))
    assert "with [None]" in refused(Pictures(transform=lambda image: image[0]))
    assert "with .permute(2, 0, 1)" in refused(Pictures(transform=lambda image: image.permute(1, 2, 0)))


def flipped(image: torch.Tensor) -> torch.Tensor:
    return image.flip(-1) if torch.rand(()) < 0.5 else image


@pytest.mark.parametrize(
    "augmentation",
    [flipped, lambda x: (x + 0.01 * torch.rand_like(x)).clamp(0, 1), lambda x: x.roll(np.random.randint(4), 2)],
)
def test_random_augmentation_is_refused(augmentation):
    for data in (Pictures(transform=augmentation), DataLoader(Pictures(transform=augmentation), batch_size=4)):
        assert "changes each time it is read, expected the same pixels; leave out random augmentation" in refused(data)


def test_small_data_is_read_once_and_large_data_again(monkeypatch):
    reads = []
    source = Pictures()
    source.transform = lambda image: reads.append(1) or image
    small = df.as_dataset(source, NETWORK)
    reads.clear()
    images = small.pixels(range(len(small)))
    assert not reads
    monkeypatch.setattr(adapters, "KEPT_BYTES", 0)
    large = df.as_dataset(source, NETWORK)
    reads.clear()
    assert torch.equal(large.pixels(range(len(large))), images) and len(reads) == len(large)


def test_rare_augmentation_is_noticed_where_the_images_are_used(monkeypatch):
    """It changes one image in ten thousand readings, after the data was looked at."""
    monkeypatch.setattr(adapters, "KEPT_BYTES", 0)
    source = Pictures()
    converted = df.as_dataset(source, NETWORK)
    source.transform = lambda image: image.flip(-1) if torch.equal(image, PIXELS[41]) else image
    converted.pixels(range(41))
    with pytest.raises(UserError, match="image 41 changes each time"):
        converted.pixels([41])


class Passing(IterableDataset):
    def __iter__(self):
        yield from zip(PIXELS, LABELS)


class Unsized(TorchDataset):
    def __getitem__(self, index):
        return TENSORS[index]


class OwnLoader(DataLoader):
    def __iter__(self):
        return ((images * 2, labels) for images, labels in super().__iter__())


class TooLong(Pictures):
    def __len__(self):
        return 63

    def __getitem__(self, index):
        return TENSORS[index]


LOADERS = {
    "drops the last 4 of 60 images": lambda: DataLoader(TENSORS, batch_size=7, drop_last=True),
    "drops the last 60 of 60 images": lambda: DataLoader(TENSORS, batch_size=64, drop_last=True),
    "draws 60 of 60 images with replacement": lambda: DataLoader(
        TENSORS, sampler=RandomSampler(TENSORS, replacement=True)
    ),
    "draws 20 of 60 images": lambda: DataLoader(TENSORS, sampler=RandomSampler(TENSORS, num_samples=20)),
    "the sampler WeightedRandomSampler": lambda: DataLoader(TENSORS, sampler=WeightedRandomSampler(torch.ones(60), 60)),
    "the sampler DistributedSampler": lambda: DataLoader(TENSORS, sampler=DistributedSampler(TENSORS, 2, 0)),
    "repeats images": lambda: DataLoader(TENSORS, sampler=SubsetRandomSampler([0, 1, 1])),
    "the batch_sampler Twice": lambda: DataLoader(TENSORS, batch_sampler=Twice(SequentialSampler(TENSORS), 5, False)),
    "its own collate_fn": lambda: DataLoader(TENSORS, collate_fn=list),
    "DataLoader (OwnLoader) with its own __iter__": lambda: OwnLoader(TENSORS),
    "an IterableDataset (Passing), which can only be read in order": lambda: DataLoader(Passing()),
    "an IterableDataset (Passing)": Passing,
    "a Dataset (Unsized) without a length": Unsized,
    "a Dataset of 63 items without item 60": TooLong,
    "120 images of which 60 are different ones": lambda: ConcatDataset([TENSORS, TENSORS]),
    "a Dataset (TensorDataset) without images": lambda: TensorDataset(PIXELS[:0], LABELS[:0]),
}


class Twice(BatchSampler):
    def __iter__(self):
        for batch in super().__iter__():
            yield batch
            yield batch


@pytest.mark.parametrize("expected", LOADERS)
def test_whatever_does_not_give_each_image_once_is_refused(expected):
    assert expected in refused(LOADERS[expected]())


def test_repeated_arrays_are_refused_since_copies_would_count_as_samples():
    assert "120 images of which 60 are different ones" in refused((PIXELS.repeat(2, 1, 1, 1), LABELS.repeat(2)))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (torch.eye(3)[LABELS], "one-hot or probabilities, expected class numbers (60,); give .argmax(1)"),
        (LABELS.float(), "data[1]: got labels of torch.float32, expected whole numbers from 0 to 2"),
        (LABELS > 1, "data[1]: got labels of torch.bool"),
        (LABELS + 1, "label 3 of image 2 in data; expected 0 to 2"),
        (LABELS - 1, "label -1 of image 0 in data; expected 0 to 2"),
        (LABELS[:59], "data[1]: got 59 labels for 60 images"),
        (LABELS.view(6, 10), "data[1]: got labels of shape (6, 10)"),
        (np.array(["a"] * 60), "data[1]: got an array of <U1, expected numbers"),
    ],
)
def test_labels_that_are_no_class_numbers_are_refused(labels, expected):
    assert expected in refused((PIXELS, labels))


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (torch.eye(3)[1], "item 0 has a label of shape (3,), one-hot or probabilities, expected a class number"),
        (1.0, "item 0 has the label 1.0, expected a whole number from 0 to 2"),
        ("cat", "item 0 has the label 'cat', expected a whole number"),
        (True, "item 0 has the label True, expected a whole number"),
        (None, "item 0 has the label None, expected a whole number"),
        (3, "label 3 of image 0 in data; expected 0 to 2"),
        (-1, "item 0 has the label -1, expected 0 to 2"),
        (1 << 70, "item 0 has the label 1180591620717411303424, expected 0 to 2"),
    ],
)
def test_items_with_another_label_are_refused(label, expected):
    class Labelled(Pictures):
        def __getitem__(self, index):
            return PIXELS[index], label

    assert expected in refused(Labelled())


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"image": PIXELS[0], "label": 0}, "item 0 has a dict for an image"),
        ((PIXELS[0], 0, 0), "item 0 is a tuple of 3, expected a pair (image, label)"),
        ((PIXELS[0],), "item 0 is a tuple of 1, expected a pair (image, label)"),
        (PIXELS[0], "item 0 is a Tensor, expected a pair (image, label)"),
        (("a.png", 0), "item 0 has a str for an image"),
    ],
)
def test_items_that_are_no_pairs_are_refused(item, expected):
    class Items(Pictures):
        def __getitem__(self, index):
            return item

    assert expected in refused(Items())


def test_images_of_several_shapes_or_kinds_are_refused():
    assert "item 1 has the shape (1, 8, 8), the first one (1, 4, 4)" in refused(
        Pictures([Image.new("L", (4, 4), 99), *[Image.new("L", (8, 8), 200)] * 59])
    )
    assert "item 1 is torch.uint8, the first one of another kind" in refused(Pictures([PIXELS[0], *BYTES[1:]]))


def test_what_is_no_data_is_one_line():
    assert "data: got 'mnist', expected a Dataset or a torch Dataset or a torch DataLoader" in refused("mnist")
    assert "data: got images alone, expected (images, labels)" in refused(PIXELS)
    assert "training: got images alone" in refused(PIXELS, name="training")
    assert "data[0]: got no images" in refused((PIXELS[:0], LABELS[:0]))


# -- every function takes it ------------------------------------------------------------


FORMS = {"tuple": (PIXELS, LABELS), "numpy": (BYTES.numpy(), LABELS.numpy()), "Dataset": Pictures(),
         "DataLoader": DataLoader(TENSORS, batch_size=7, shuffle=True)}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_functions_give_the_same_numbers_for_every_form(form):
    data, network = FORMS[form], make_network("norm")
    assert df.evaluate(network, data) == df.evaluate(network, DATA)
    ours, theirs = (df.record(network, own, "sharp") for own in (DATA, data))
    assert ours.digest() == theirs.digest() and ours.made["sha256"] == theirs.made["sha256"]
    assert df.preset("safe", network, data) == df.preset("safe", network, DATA)
    soft = [df.soft_labelled(network, own) for own in (DATA, data)]
    assert torch.equal(soft[0].pixels, soft[1].pixels) and torch.equal(soft[0].targets, soft[1].targets)
    one, other = (df.similarity(network, {"a": own}) for own in (DATA, data))
    assert one == other
    trained = []
    for own in (DATA, data):
        student = make_network("norm", seed=2)
        df.train(student, own, df.Schedule(epochs=1, batch=16))
        trained.append(student.fingerprint())
    assert trained[0] == trained[1]


def test_similarity_takes_images_without_labels():
    network = make_network("norm")
    expected = df.similarity(network, {"a": PIXELS})[0].total
    for images in (PIXELS.numpy(), BYTES, TensorDataset(PIXELS)):
        assert df.similarity(network, {"a": images})[0].total == pytest.approx(expected, rel=1e-5)
    with pytest.raises(UserError, match="mine: got pixels from 0 to 199, expected 0 to 1"):
        df.similarity(network, {"mine": PIXELS.numpy() * 255})
