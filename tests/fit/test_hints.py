"""Hints: which layers are compared, the loss, and training with it."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import make_network

import datafree as df
from datafree._core.errors import UserError
from datafree.distillation.hints import hint_layers, hint_loss
from datafree.distillation.online.settings import OnlineDistillation
from datafree.models import hooks
from datafree.releases.load import new_model

LENET = df.InputSpec(shape=(1, 32, 32), classes=("a", "b", "c"))
TINY = {"epochs": 1, "iterations": 2, "student_steps": 2, "batch": 16, "width": 8}


def test_the_layers_of_one_size_are_compared_without_the_last():
    teacher, half = (new_model(name, LENET, seed=0) for name in ("lenet5", "lenet5-half"))
    assert hint_layers(half, teacher) == ("fc1", "fc2")
    assert hint_layers(teacher, teacher) == ("conv1", "conv2", "fc1", "fc2")


def test_the_loss_is_relative_to_the_teachers_activations():
    teacher = {"a": torch.full((2, 3), 2.0), "b": torch.full((2, 5), 10.0)}
    student = {"a": torch.zeros(2, 3, requires_grad=True), "b": torch.full((2, 5), 9.0, requires_grad=True)}
    loss = hint_loss(student, teacher, ("a", "b"))
    assert loss.item() == pytest.approx((1.0 + 0.01) / 2)
    loss.backward()
    assert student["a"].grad is not None and student["b"].grad is not None
    silent = hint_loss({"a": torch.zeros(2, 3)}, {"a": torch.zeros(2, 3)}, ("a",))
    assert float(silent) == 0.0


def test_a_student_with_hints_is_nearer_to_its_teachers_activations():
    teacher, images = new_model("lenet5", LENET, seed=0), torch.rand(64, *LENET.shape)

    def apart(hints: float) -> float:
        few = {**TINY, "epochs": 2, "iterations": 4, "student_steps": 10, "batch": 8, "scene": "drawings"}
        settings = {**few, "hints": hints}
        student = df.distill_online(teacher, "lenet5-half", settings, start="random")
        activations = []
        for network in (student, teacher):
            with hooks.watch(network, ("fc1", "fc2")) as seen, torch.no_grad():
                network.logits(images)
                activations.append(dict(seen))
        return float(hint_loss(*activations, ("fc1", "fc2")))

    assert apart(5.0) < 0.9 * apart(0.0)


def test_a_student_without_a_layer_of_one_size_is_refused():
    teacher, student = make_network("linear"), make_network("norm", shape=(1, 4, 4))
    with pytest.raises(UserError, match="hints: got a student tiny without hidden layers of the same name and size"):
        df.distill_online(teacher, student, {**TINY, "hints": 1.0, "scene": "none"})


def test_the_setting_is_not_written_at_its_default():
    assert "hints" not in OnlineDistillation().model_dump()
    assert OnlineDistillation(hints=1.0).model_dump()["hints"] == 1.0
