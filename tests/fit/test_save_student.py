"""Students from Python as release folders with run.json."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

import datafree as df
from datafree import UserError
from datafree._core.errors import Notice


@pytest.fixture(scope="module")
def teacher(digits):
    network = df.new_model("hinton32", df.InputSpec(shape=digits.shape, classes=digits.classes), seed=0)
    df.train(network, digits, df.Schedule(epochs=5, learning_rate=5e-3))
    return network


@pytest.fixture(scope="module")
def student(teacher, digits):
    return df.distill(teacher, "hinton16", images=digits, epochs=2)


def test_a_student_of_images_has_a_card_and_a_log_and_is_reported(teacher, student, digits, tmp_path):
    scores = df.evaluate(student, digits, teacher)
    df.save_student(tmp_path / "student", student, evaluation=scores, data_name="digits")
    log = json.loads((tmp_path / "student" / "run.json").read_text())
    assert log["verb"] == "distill" and log["settings"]["epochs"] == 2 and log["settings"]["seed"] == 0
    assert log["inputs"]["teacher_fingerprint"] == teacher.fingerprint()
    assert log["result"]["evaluation"]["accuracy"] == scores.accuracy
    card = (tmp_path / "student" / "README.md").read_text()
    assert f"accuracy {scores.accuracy:.2f} % on {scores.images:,} test images of digits" in card
    pixels = torch.rand(5, 1, 8, 8)
    assert torch.equal(df.load_model(str(tmp_path / "student")).predict(pixels), student.predict(pixels))
    df.write_release(tmp_path / "teacher", teacher)
    page = df.report([tmp_path / "teacher", tmp_path / "student"], out=tmp_path / "page.html")
    assert page.networks == 2


def test_the_same_student_again_changes_nothing_and_another_is_refused(teacher, student, digits, tmp_path):
    df.save_student(tmp_path / "student", student)
    before = {path.name: path.read_bytes() for path in (tmp_path / "student").iterdir()}
    with pytest.warns(Notice, match="already complete"):
        df.save_student(tmp_path / "student", student)
    other = df.distill(teacher, "hinton16", images=digits, epochs=1)
    with pytest.raises(UserError, match="was made with `epochs=2`, not 1: name another `folder`"):
        df.save_student(tmp_path / "student", other)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "student").iterdir()}


def test_a_student_that_was_changed_since_is_refused(teacher, digits, tmp_path):
    changed = df.distill(teacher, "hinton16", images=digits, epochs=1)
    with torch.no_grad():
        next(changed.module.parameters()).add_(1)
    with pytest.raises(UserError, match="weights that were changed after the training"):
        df.save_student(tmp_path / "student", changed)
    assert not (tmp_path / "student").exists()


def test_an_evaluation_of_another_student_or_teacher_is_refused(teacher, student, digits, tmp_path):
    other = df.distill(teacher, "hinton16", images=digits, epochs=1)
    online = df.distill_online(teacher, "hinton16", epochs=1, iterations=2, batch=16)
    for saved in (student, online):
        with pytest.raises(UserError) as raised:
            df.save_student(tmp_path / "student", saved, evaluation=df.evaluate(other, digits, teacher))
        assert str(raised.value) == (
            f"evaluation: got one of another network (fingerprint {other.fingerprint()[:12]}), expected "
            f"{saved.fingerprint()[:12]}; give what evaluate(student, data, teacher) returned for this student and its "
            "teacher"
        )
        with pytest.raises(UserError, match=r"^evaluation: got one of another teacher \(fingerprint "):
            df.save_student(tmp_path / "student", saved, evaluation=df.evaluate(saved, digits, other))
    assert not (tmp_path / "student").exists()
    df.save_student(tmp_path / "student", student, evaluation=df.evaluate(student, digits))
    unknown = dataclasses.replace(df.evaluate(other, digits), network=None)  # of an earlier version
    df.save_student(tmp_path / "old", student, evaluation=unknown)


def test_a_student_of_a_generator_too(teacher, tmp_path):
    student = df.distill_online(teacher, "hinton16", epochs=1, iterations=2, batch=16)
    df.save_student(tmp_path / "student", student)
    log = json.loads((tmp_path / "student" / "run.json").read_text())
    assert log["settings"]["online"]["epochs"] == 1 and log["result"]["stability"] and "unfinished" not in log["result"]
    assert "on generated images; accuracy was not measured" in (tmp_path / "student" / "README.md").read_text()


def test_a_network_that_was_not_distilled_is_refused(teacher, tmp_path):
    with pytest.raises(UserError, match="student: got Network, expected"):
        df.save_student(tmp_path / "student", teacher)


def test_a_score_that_is_no_number_is_refused(teacher, digits):
    for score in (lambda _: None, lambda _: float("nan")):
        with pytest.raises(UserError, match="score: returned"):
            df.distill(teacher, "hinton16", images=digits, epochs=1, score=score)


def test_odd_arrays_are_taken_or_refused_in_one_line(teacher, digits):
    images = digits.pixels(range(32)).numpy()
    df.distill(teacher, "hinton16", images=images[::-1], epochs=1)
    with pytest.raises(UserError, match="images: got an array of object"):
        df.distill(teacher, "hinton16", images=images.astype(object), epochs=1)
