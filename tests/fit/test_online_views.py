"""Views of a generator's images, and the learning rates of online distillation."""

from __future__ import annotations

import math

import pytest
import torch

import datafree as df
from datafree.distillation.online.settings import OnlineDistillation
from datafree.distillation.online.trainer import OnlineTrainer
from datafree.distillation.replay.bank import Bank
from datafree.models.network import Network, copied

TINY = {"epochs": 3, "iterations": 2, "student_steps": 2, "batch": 16, "width": 8}


def trainer_of(teacher, **changes) -> OnlineTrainer:
    settings = OnlineDistillation(**{**TINY, **changes})
    student = Network(copied(teacher.module), teacher.spec, "student")
    memory = Bank().bind(teacher, 0)
    return OnlineTrainer(teacher, student, settings, memory, settings.objective(teacher, None), 0)


def test_fields_that_earlier_versions_lacked_are_not_written_at_their_defaults():
    assert not {"decay", "shift", "flip"} & OnlineDistillation().model_dump().keys()
    changed = OnlineDistillation(decay="constant", shift=1, flip=True).model_dump()
    assert (changed["decay"], changed["shift"], changed["flip"]) == ("constant", 1, True)


@pytest.mark.parametrize("decay", ["constant", "cosine"])
def test_both_rates_stay_constant_or_follow_a_half_cosine(teacher, decay):
    trainer, steps = trainer_of(teacher, decay=decay, warmup=0.0), 6
    for step in range(steps):
        trainer._set_learning_rates(step)
        share = 1.0 if decay == "constant" else 0.5 * (1 + math.cos(math.pi * step / steps))
        assert trainer.student_optimizer.param_groups[0]["lr"] == trainer.settings.student_rate * share
        assert trainer.generator_optimizer.param_groups[0]["lr"] == trainer.settings.generator_rate * share


def test_a_memory_gets_images_without_views_and_the_teachers_answer_to_these(teacher, monkeypatch):
    trainer, written = trainer_of(teacher, shift=2, flip=True, write_every=1), []
    monkeypatch.setattr(trainer.memory, "write", lambda *parts: written.append(parts[:2]))
    plain = trainer_of(teacher)
    same = []
    monkeypatch.setattr(plain.memory, "write", lambda *parts: same.append(parts[0]))
    for each in (trainer, plain):
        each._student_step(torch.Generator().manual_seed(0), write=True)
    assert torch.equal(written[0][0], same[0])
    torch.testing.assert_close(written[0][1], teacher.predict(written[0][0]))


def test_a_stopped_run_of_views_is_continued_to_the_same_bits(teacher, tmp_path):
    options = {**TINY, "shift": 1, "flip": True, "decay": "constant", "seed": 1}
    whole = df.distill_online(teacher, "hinton16", **options)
    assert whole.fingerprint() != df.distill_online(teacher, "hinton16", **TINY, decay="constant", seed=1).fingerprint()

    def stop(_, history, images):  # noqa: ARG001
        if len(history.loss) == 2:
            raise df.UserError("stopped")

    state = tmp_path / "state.safetensors"
    with pytest.raises(df.UserError, match="stopped"):
        df.distill_online(teacher, "hinton16", state=state, on_epoch=stop, **options)
    assert df.distill_online(teacher, "hinton16", state=state, **options).fingerprint() == whole.fingerprint()


def test_a_shift_out_of_the_image_is_refused_before_the_training(teacher):
    with pytest.raises(df.UserError, match="shift: got 8, expected below 8, the images' smaller side; give less"):
        df.distill_online(teacher, "hinton16", shift=8)
