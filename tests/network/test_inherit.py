"""A student begins with the first channels of its teacher, or stays as it is."""

from __future__ import annotations

import pytest
import torch

from datafree.inherit import inherited
from datafree.models import new_model
from datafree.spec import InputSpec

SPEC = InputSpec(shape=(1, 32, 32), classes=tuple("abcd"))


def _state(network):
    return {name: tensor.clone() for name, tensor in network.module.state_dict().items()}


def test_the_first_channels_are_copied_and_sums_stay_as_large():
    teacher, student = new_model("lenet5", SPEC, seed=0), new_model("lenet5-half", SPEC, seed=1)
    kept = _state(teacher)
    assert inherited(student, teacher)
    own = student.module.state_dict()
    assert torch.equal(own["conv1.weight"], kept["conv1.weight"][:3])
    assert torch.equal(own["conv2.weight"], 2 * kept["conv2.weight"][:8, :3])
    assert torch.equal(own["conv2.bias"], kept["conv2.bias"][:8])
    assert torch.equal(own["fc1.weight"], 2 * kept["fc1.weight"][:, : 8 * 25])  # the first 8 channels' places
    assert torch.equal(own["fc3.weight"], kept["fc3.weight"])
    assert all(torch.equal(tensor, kept[name]) for name, tensor in teacher.module.state_dict().items())


def test_of_a_student_as_wide_as_its_teacher_a_copy_is_made():
    teacher, student = new_model("lenet5", SPEC, seed=0), new_model("lenet5", SPEC, seed=1)
    assert inherited(student, teacher)
    pixels = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(student.predict(pixels), teacher.predict(pixels))


def test_running_statistics_and_counts_of_batch_norms_go_along():
    spec = InputSpec(shape=(3, 32, 32), classes=tuple("abcd"))
    teacher, student = new_model("resnet8", spec, seed=0), new_model("resnet8", spec, seed=1)
    for name, tensor in teacher.module.state_dict().items():
        if name.endswith(("running_mean", "num_batches_tracked")):
            tensor.add_(3)
    assert inherited(student, teacher)
    own = student.module.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in teacher.module.state_dict().items())


@pytest.mark.parametrize(
    ("teacher", "student"), [("lenet5-half", "lenet5"), ("lenet5", "hinton8"), ("resnet20", "resnet8")]
)
def test_a_student_of_other_or_wider_layers_is_left_as_it_is(teacher, student):
    channels = 3 if teacher == "resnet20" else 1
    spec = InputSpec(shape=(channels, 32, 32), classes=tuple("abcd"))
    one, other = new_model(teacher, spec, seed=0), new_model(student, spec, seed=1)
    kept = _state(other)
    assert not inherited(other, one)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in other.module.state_dict().items())
