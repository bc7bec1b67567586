"""Which normalisation a network was trained with, seen from its first batch norm."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

from datafree import InputSpec, Network, UserError, normalisations
from datafree.evaluation import normalisation
from datafree.evaluation.normalisation import COMMON, input_doubt

CLASSES = ("a", "b")


@pytest.fixture(autouse=True, scope="module")
def _photos_cut_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(normalisation, "_photos", cache(normalisation._photos))
        yield


def trained(mean, std, *, channels: int = 3, reverses: bool = False, low: float = 0.0, high: float = 1.0) -> Network:
    """Edge and colour filters, whose batch norm has the statistics of photos in that normalisation, of mean and std in
    [0, 1].
    """
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1), nn.BatchNorm2d(16, momentum=None), nn.ReLU())
    module.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)])
    shape = (channels, 24, 24)
    photos = normalisation._photos(shape, 64).roll(3, -1)
    pixels = photos.flip(1) if reverses else photos
    spec = InputSpec(shape=shape, classes=CLASSES, mean=mean, std=std)
    module.train()
    with torch.no_grad():
        module(spec.normalize(pixels))
    scaled = [
        tuple(low + (high - low) * value for value in spec.mean),
        tuple((high - low) * value for value in spec.std),
    ]
    given = InputSpec(shape=shape, classes=CLASSES, mean=scaled[0], std=scaled[1], low=low, high=high)
    return Network(module.eval(), given)


def declared(network: Network, mean, std) -> Network:
    return replace(network, spec=network.spec.model_copy(update={"mean": mean, "std": std}))


def as_tuple(value) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)


PHOTOS = [name for name in COMMON if "MNIST" not in name]


@pytest.fixture
def compared_once(monkeypatch):
    """`normalisations`, of which `input_doubt` takes the results for the network that it was last called with."""
    last: list[tuple[Network, tuple[normalisation.Normalisation, ...]]] = []

    def compare(network: Network):
        if not last or last[-1][0] is not network:
            last[:] = [(network, normalisations(network))]
        return last[-1][1]

    monkeypatch.setattr(normalisation, "normalisations", compare)
    return compare


@pytest.mark.parametrize("name", PHOTOS)
def test_the_normalisation_of_training_is_recognised(name, compared_once):
    mean, std = map(as_tuple, COMMON[name])
    network = trained(mean, std)
    results = compared_once(network)
    assert results[0].name == "normalised as given" and results[0].divergence == min(r.divergence for r in results)
    assert input_doubt(network) is None
    for other in PHOTOS:
        wrong = declared(network, *map(as_tuple, COMMON[other]))
        if other == name:
            continue
        best = compared_once(wrong)[1]
        assert best.name == name and not best.reverses
        assert f"look wrong: photos {name} fit the first batch norm " in str(input_doubt(wrong))


def test_the_order_of_the_channels_is_recognised():
    mean, std = map(as_tuple, COMMON["with ImageNet's mean and deviation"])
    assert "the order of the channels looks wrong: photos with blue first fit" in str(
        input_doubt(trained(mean, std, reverses=True))
    )
    wrong = declared(trained(mean, std, reverses=True), (0.0,), (1.0,))
    assert "photos with ImageNet's mean and deviation, blue first, fit" in str(input_doubt(wrong))


def test_grey_photos_and_other_ranges_of_pixels_are_compared_too():
    grey = trained((0.5,), (0.5,), channels=1)
    assert input_doubt(grey) is None
    assert "from -1 to 1" in str(input_doubt(declared(grey, (0.0,), (1.0,))))
    signed = trained((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), low=-1.0, high=1.0)
    assert input_doubt(signed) is None and normalisations(signed)[0].divergence < 0.1
    text = str(input_doubt(declared(signed, (0.0,), (1.0,))))
    assert "give mean -0.03 -0.088 -0.188 and std 0.458 0.448 0.45" in text


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 2)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
    ],
)
def test_networks_without_batch_norm_are_not_judged(module):
    network = Network(module.eval(), input_shape=(3, 24, 24), classes=2)
    assert normalisations(network) == () and input_doubt(network) is None


def test_images_of_other_numbers_of_channels_are_not_judged():
    module = nn.Sequential(
        nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    assert normalisations(Network(module.eval(), input_shape=(4, 24, 24), classes=2)) == ()


def test_the_network_is_left_as_it_was():
    network = trained((0.5,), (0.5,))
    network.module.train()
    before = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    normalisations(network)
    assert network.module.training and not network.module[1]._forward_pre_hooks
    assert all(torch.equal(before[name], tensor) for name, tensor in network.module.state_dict().items())


def test_a_network_that_does_not_take_its_images_is_refused():
    network = trained((0.5,), (0.5,))
    wrong = replace(network, spec=InputSpec(shape=(1, 24, 24), classes=CLASSES))
    with pytest.raises(UserError, match="does not take images of shape"):
        normalisations(wrong)


class Given(nn.BatchNorm2d):
    """A batch norm whose input is in a tuple."""

    def forward(self, pair):  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(pair[0])


class Calls(nn.Module):
    """Calls its batch norm in one of several ways."""

    def __init__(self, how: str):
        super().__init__()
        self.how = how
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
        self.norm = Given(4) if how == "tuple" else nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.running_mean, 0.2)  # pyright: ignore[reportArgumentType]

    def forward(self, images):
        hidden = self.conv(images)
        if self.how == "keyword":
            hidden = self.norm(input=hidden)
        elif self.how == "tuple":
            hidden = self.norm((hidden, None))
        elif len(images) == 1 or self.how == "double":
            hidden = self.norm(hidden)
        return self.fc(hidden.mean((2, 3)))


@pytest.mark.parametrize(("how", "found"), [("keyword", 12), ("tuple", 0), ("once", 0), ("double", 12)])
def test_batch_norms_that_are_called_in_unusual_ways_are_no_error(how, found):
    module = Calls(how).eval()
    network = Network(module.double() if how == "double" else module, InputSpec(shape=(3, 8, 8), classes=CLASSES))
    assert len(normalisations(network)) == found
    if how == "once":
        assert input_doubt(network) is None


def test_a_batch_norm_that_saw_no_images_is_not_compared():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    assert normalisations(Network(module.eval(), InputSpec(shape=(3, 8, 8), classes=CLASSES))) == ()


def test_few_images_are_compared_where_they_are_huge():
    spec = InputSpec(shape=(1, 2000, 2000), classes=CLASSES)
    assert all(len(images) == 2 for images in normalisation._images(spec))


@pytest.mark.parametrize(
    ("shape", "module"),
    [
        ((3, 24, 24), nn.Sequential(nn.Flatten(), nn.Linear(1728, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))),
        ((3, 1, 300), nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(1200, 2))),
        ((3, 2, 2), nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))),
    ],
)
def test_batch_norms_of_anything_but_images_with_edges_are_not_judged(shape, module):
    next(part for part in module if isinstance(part, nn.modules.batchnorm._BatchNorm)).running_mean.fill_(0.2)
    assert normalisations(Network(module.eval(), input_shape=shape, classes=2)) == ()
