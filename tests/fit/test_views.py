"""Views of stored images: new in every epoch, labelled by the teacher after the augmentation."""

from __future__ import annotations

import pytest
import torch

import datafree as df
from datafree.distillation.schedule import Distillation
from datafree.distillation.sources import StoredImages
from datafree.distillation.views import Views, viewed


@pytest.fixture
def stored(teacher, digits) -> StoredImages:
    pixels = digits.pixels(range(60))
    return StoredImages(teacher.spec, pixels, teacher.predict(pixels))


def test_without_augmentation_the_stored_labels_are_used(teacher, stored):
    assert viewed(teacher, stored, Distillation()) is stored


@pytest.mark.parametrize("settings", [{"shift": 1}, {"shift": None}, {"flip": True}, {"mixup": 0.5}])
def test_every_view_has_the_teachers_own_answer(settings, teacher, stored):
    views = viewed(teacher, stored, Distillation(**settings))
    assert isinstance(views, Views) and len(views) == 60 and views.distinct(3) == 60
    first, again, later = (list(views.epoch(0, epoch, 20)) for epoch in (0, 0, 1))
    assert len(first) == 3
    for pixels, logits in first:
        torch.testing.assert_close(logits, teacher.predict(pixels))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a[0], b[0]) for a, b in zip(first, later, strict=True))


def test_a_student_of_views_differs_and_a_stopped_run_is_continued_to_the_same_bits(teacher, stored, tmp_path):
    options = {"images": stored, "batch": 20, "seed": 1}
    plain = df.distill(teacher, "hinton16", epochs=3, **options)
    whole = df.distill(teacher, "hinton16", epochs=3, shift=1, flip=True, **options)
    assert plain.fingerprint() != whole.fingerprint()
    plan = dict(epochs=3, shift=1, flip=True, **options)

    def stop(_, curve):
        if len(curve.loss) == 2:
            raise df.UserError("stopped")

    with pytest.raises(df.UserError, match="stopped"):
        df.distill(teacher, "hinton16", state=tmp_path / "state.safetensors", on_epoch=stop, **plan)
    assert (
        df.distill(teacher, "hinton16", state=tmp_path / "state.safetensors", **plan).fingerprint()
        == whole.fingerprint()
    )


def test_settings_that_earlier_versions_lacked_are_not_written_at_their_defaults():
    assert not {"shift", "flip", "mixup"} & Distillation().model_dump().keys()
    assert Distillation(flip=True).model_dump()["flip"] is True


@pytest.mark.parametrize("shift", [8, 40])
def test_a_shift_out_of_the_image_is_refused_before_the_training(shift, teacher, stored):
    with pytest.raises(
        df.UserError, match=f"shift: got {shift}, expected below 8, the images' smaller side; give less"
    ):
        df.distill(teacher, "hinton16", images=stored, shift=shift)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_stopped_convolutional_student_continues_to_the_same_bits_and_its_weights_lie_as_before(
    optimizer, digits, tmp_path
):
    teacher = df.new_model("resnet8", digits_spec(digits), seed=0)
    options = {"images": digits.pixels(range(64)), "batch": 16, "shift": 1, "epochs": 2, "optimizer": optimizer}
    whole = df.distill(teacher, "resnet8", **options)
    assert all(tensor.is_contiguous() for net in (teacher, whole) for tensor in net.module.state_dict().values())

    def stop(*_):
        raise df.UserError("stopped")

    state = tmp_path / "state.safetensors"
    with pytest.raises(df.UserError, match="stopped"):
        df.distill(teacher, "resnet8", state=state, on_epoch=stop, **options)
    assert df.distill(teacher, "resnet8", state=state, **options).fingerprint() == whole.fingerprint()


def test_a_narrow_schedule_labels_views_in_the_same_number_format(digits):
    teacher = df.new_model("resnet8", digits_spec(digits), seed=0)
    pixels = digits.pixels(range(32))
    stored = StoredImages(teacher.spec, pixels, teacher.predict(pixels))
    views, logits = next(iter(viewed(teacher, stored, Distillation(shift=1, precision="bfloat16")).epoch(0, 0, 32)))
    exact = teacher.predict(views)
    assert not torch.equal(logits, exact)
    torch.testing.assert_close(logits, exact, atol=0.05 * float(exact.std()), rtol=0.05)


def digits_spec(digits) -> df.InputSpec:
    return df.InputSpec(shape=digits.shape, classes=digits.classes)
