"""Diversity: in how many directions the images of one class differ."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import datafree as df
from datafree.evaluation.diversity import diversity


class Projection(nn.Module):
    """Features are 16 pixels; the class is the sign of the first one."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(16, 2, bias=False)
        self.last.weight.data.zero_()
        self.last.weight.data[:, 0] = torch.tensor([1.0, -1.0])

    def forward(self, x):
        return self.last(x.flatten(1))


@pytest.fixture
def network() -> df.Network:
    return df.Network(Projection(), df.InputSpec(shape=(1, 4, 4), classes=("bright", "dark"), mean=(0.5,), std=(0.5,)))


def images(features: torch.Tensor) -> torch.Tensor:
    """Images whose features these rows (N, 16) are."""
    return (features / 2 + 0.5).view(-1, 1, 4, 4)


def signs(count: int) -> torch.Tensor:
    return torch.where(torch.arange(count) % 2 == 0, 1.0, -1.0)


def test_images_that_differ_in_k_orthogonal_directions_have_diversity_k(network):
    hadamard = torch.tensor([[1.0]])
    for _ in range(4):
        hadamard = torch.cat([torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)])
    for k in (1, 3, 8):
        rows = torch.zeros(32, 16)
        rows[:, 0] = 0.5
        rows[:, 1 : k + 1] = 0.5 * hadamard[:, 1 : k + 1].repeat(2, 1)  # columns are orthogonal and have mean 0
        assert diversity(network, images(rows)) == pytest.approx(k, abs=1e-4)


def test_one_picture_per_class_has_diversity_0_and_two_have_1(network):
    torch.manual_seed(0)
    pictures = torch.rand(4, 16) * 0.8
    one = pictures[0].repeat(40, 1) * signs(40)[:, None]
    two = torch.cat([pictures[:2].repeat(20, 1), -pictures[2:].repeat(20, 1)])
    assert diversity(network, images(one)) == pytest.approx(0, abs=1e-3)
    assert diversity(network, images(two)) == pytest.approx(1, abs=1e-3)


def test_too_few_images_of_every_class_and_networks_without_a_layer_have_none(network):
    assert diversity(network, torch.rand(20, 1, 4, 4)[:15]) is None

    class Pooled(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :2]

    assert diversity(df.Network(Pooled(), network.spec), torch.rand(64, 1, 4, 4)) is None


def test_similarity_reports_it_for_data_sets_tensors_and_synthetic_sets_alike(digits, tmp_path):
    bn_teacher = df.new_model("resnet8", df.InputSpec(shape=digits.shape, classes=digits.classes), seed=0)
    images = df.synthesize(bn_teacher, None, {"method": "bns", "steps": 2}, tmp_path / "set", images=64, workers=1)
    pixels = images.load()[0]
    rows = {row.name: row for row in df.similarity(bn_teacher, {"set": images, "pixels": pixels, "digits": digits})}
    expected = diversity(bn_teacher, pixels.float() / 255)
    assert expected
    assert [rows[name].diversity for name in ("set", "pixels")] == pytest.approx([expected, expected])
    assert rows["set"].total == pytest.approx(rows["pixels"].total)
    assert rows["digits"].diversity == diversity(bn_teacher, digits)
