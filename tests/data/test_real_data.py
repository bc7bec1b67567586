"""Facts about the real files, of shared/data/README.md. They are not in the repository; without them these skip."""

from functools import lru_cache

import pytest

from datafree.data import cifar, load, sha256

pytestmark = pytest.mark.data

COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}


FOLDERS = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "cifar-10-batches-bin",
    "cifar100": "cifar-100-binary",
    "celeba": "celeba",
}


@lru_cache  # since an .xz takes more than a second to decompress
def get(real, name, split, **options):
    folder = real / FOLDERS[name]
    if not folder.is_dir():
        pytest.skip(f"no folder {str(folder)!r}")
    with pytest.MonkeyPatch.context() as patch:  # the fine and the coarse labels are in one file
        patch.setattr(cifar, "read", read_once)
        return load(name, split, data_dir=real, **options)


read_once = lru_cache(cifar.read)


@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_has_its_published_class_counts(real, split):
    dataset = get(real, "mnist", split)
    assert (len(dataset), dataset.shape) == ({"train": 60_000, "test": 10_000}[split], (1, 28, 28))
    assert dataset.labels.bincount().tolist() == COUNTS[split]


def test_mnist_has_its_published_mean_and_deviation(real):
    pixels = get(real, "mnist", "train").pixels(range(60_000))
    assert round(pixels.mean().item(), 4) == 0.1307
    assert round(pixels.std().item(), 4) == 0.3081


@pytest.mark.parametrize(
    ("name", "split", "count", "of_a_class"),
    [
        ("fashion-mnist", "train", 60_000, 6000),
        ("fashion-mnist", "test", 10_000, 1000),
        ("cifar10", "test", 10_000, 1000),
        pytest.param("cifar100", "test", 10_000, 100, marks=pytest.mark.slow),
    ],
)
def test_even_data_sets_have_as_many_of_each_class(real, name, split, count, of_a_class):
    dataset = get(real, name, split)
    assert len(dataset) == count
    assert dataset.labels.bincount().tolist() == [of_a_class] * len(dataset.classes)


def test_the_first_cifar10_batch_begins_as_published(real):
    dataset = get(real, "cifar10", "train")
    assert len(dataset) % 10_000 == 0
    assert [dataset.classes[label] for label in dataset.labels[:4]] == ["frog", "truck", "truck", "deer"]
    assert dataset.read(dataset.labels[:1].numpy() * 0)[0, :, 0, 0].tolist() == [59, 62, 63]


def test_cifar100_has_five_fine_classes_in_each_coarse_one(real):
    fine, coarse = get(real, "cifar100", "test"), get(real, "cifar100", "test", labels="coarse")
    pairs = set(zip(fine.labels.tolist(), coarse.labels.tolist()))
    assert len(pairs) == 100
    assert coarse.labels.bincount().tolist() == [500] * 20
    named = {fine.classes[f]: coarse.classes[c] for f, c in pairs}
    assert named["rose"] == "flowers"
    assert named["willow_tree"] == "trees"
    assert named["streetcar"] == "vehicles_2"


def test_celebas_training_part_is_attractive_by_its_published_share(real):
    train, test = get(real, "celeba", "train"), get(real, "celeba", "test")
    if (len(train), len(test)) != (8000, 2000):
        pytest.skip("not the sample of 10,000")
    assert round(train.labels.double().mean().item(), 3) == 0.489
    assert train.shape == (3, 64, 64)
    assert 0.3 < train.pixels(range(0, 8000, 80)).mean() < 0.6


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * name.startswith("cifar")) for name in FOLDERS]
)
def test_loading_twice_gives_the_same_hash(real, name):
    dataset = get(real, name, "test")
    assert sha256(dataset) == sha256(load(name, "test", data_dir=real))
    assert dataset.pixels(range(3), (16, 16)).shape == (3, dataset.shape[0], 16, 16)
