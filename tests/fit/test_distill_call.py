"""`distill` and `distill_online` in one call: students, sources, settings, what is refused, and that nothing is changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import datafree as df
from datafree._core.errors import Notice, UserError
from datafree.distillation.distill import DistillationChanges, plan_distillation
from datafree.distillation.distill_online import OnlineChanges
from datafree.distillation.schedule import Distillation
from datafree.distillation.sources import StoredImages, soft_labelled
from datafree.distillation.students import new_student
from datafree.distillation.train_student import train_student

QUICK = {"epochs": 1, "batch": 32}
ONLINE = {"epochs": 2, "iterations": 2, "student_steps": 2, "batch": 16, "latent": 4}


class Small(nn.Module):
    def __init__(self, pixels=64, classes=10, width=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, classes))

    def forward(self, x):
        return self.layers(x)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def weights(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one | other)


def line(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return str(caught.value)


def test_a_record_is_enough_and_the_student_is_half_of_the_teacher(teacher, whole_record):
    student = df.distill(teacher, record=whole_record, epoch_images=256, epochs=2)
    assert isinstance(student, df.Network) and student.name == "hinton16" and not student.module.training
    training = student.training
    assert training.settings == df.Distillation(epochs=2, temperature=training.settings.temperature)
    assert len(training.curve.loss) == 2 and training.learned_from.startswith("fresh images of distribution")
    assert (training.images, training.distinct) == (256, 512)
    assert training.agreement.equal > 10


def test_the_call_is_the_lower_level_function_on_the_source_that_it_chooses(teacher, whole_record, digits):
    for arguments, source in (
        (
            {"record": whole_record, "epoch_images": 128},
            df.fresh_images("distribution", teacher, whole_record, images=128),
        ),
        ({"images": digits}, soft_labelled(teacher, digits)),
    ):
        student = df.distill(teacher, "hinton8", seed=3, **arguments, **QUICK)
        expected = df.new_model("hinton8", teacher.spec, seed=3)
        settings = df.Distillation(**QUICK)
        curve = df.distill(teacher, expected, source, settings, seed=3)
        assert curve.loss == student.training.curve.loss
        assert same(weights(expected.module), weights(student.module))


def test_a_module_or_network_that_is_given_stays_as_it_is(teacher, digits):
    module = Small()
    network, before = df.Network(module, teacher.spec, "mine"), weights(module)
    results = [df.distill(teacher, student, images=digits.subset(64), **QUICK) for student in (module, network)]
    assert same(before, weights(module)) and module.training
    assert [student.name for student in results] == ["Small", "mine"]
    assert same(weights(results[0].module), weights(results[1].module))
    assert not same(before, weights(results[0].module))
    assert results[0].spec == teacher.spec


def test_the_same_pixels_in_any_form_give_the_same_student(teacher, tmp_path):
    method = df.method("gaussian")
    made = df.synthesize(teacher, None, method, tmp_path / "set", images=64, workers=1)
    pixels, _, logits = made.load()
    forms = [made, made.folder, str(made.folder), pixels, StoredImages(teacher.spec, pixels, logits)]
    students = [df.distill(teacher, "hinton8", images=form, **QUICK) for form in forms]
    assert all(same(weights(students[0].module), weights(other.module)) for other in students[1:])
    assert students[0].training.learned_from == "a synthetic set of gaussian"


def test_data_of_torch_and_numpy_gives_the_same_student_as_the_data_set(teacher, digits):
    data = digits.subset(80)
    pixels, labels = data.pixels(range(80)), data.labels
    items = torch.utils.data.TensorDataset(pixels, labels)
    forms = [data, (pixels, labels), items, torch.utils.data.DataLoader(items, batch_size=9)]
    students = [df.distill(teacher, "hinton8", images=form, **QUICK) for form in forms]
    assert all(same(weights(students[0].module), weights(other.module)) for other in students[1:])
    few = [df.condense("random", data=form, per_class=1, teacher=teacher).pixels for form in forms]
    assert all(torch.equal(few[0], other) for other in few[1:])
    arrays = [df.distill(teacher, "hinton8", images=form, **QUICK) for form in (pixels, pixels.numpy())]
    assert same(weights(arrays[0].module), weights(arrays[1].module))


def test_condensed_images_alone_or_beside_others(teacher, digits, tmp_path):
    few = df.condense("random", data=digits, per_class=2, teacher=teacher)
    few.save(tmp_path / "few")
    alone = df.distill(teacher, "hinton8", condensed=few, epoch_images=64, **QUICK)
    assert alone.training.learned_from == "20 condensed images" and alone.training.images == 64
    both = [
        df.distill(teacher, "hinton8", condensed=form, images=digits.subset(100), share=0.25, **QUICK)
        for form in (few, tmp_path / "few")
    ]
    assert both[0].training.source_settings["share"] == 0.25 and both[0].training.images == 100
    assert same(weights(both[0].module), weights(both[1].module))


@pytest.mark.parametrize("images", ["stored", "fresh"])
def test_a_stopped_call_continues_to_the_same_student_and_refuses_other_settings(teacher, digits, tmp_path, images):
    if images == "stored":
        source = {"images": digits.subset(96)}
    else:
        source = {"method": "gaussian", "epoch_images": 96}
    state = tmp_path / "state.safetensors"
    options = {"epochs": 3, "batch": 32, "seed": 1, **source}
    whole = df.distill(teacher, "hinton8", **options)

    class Stop(Exception):
        pass

    def stop(student, curve):
        assert not student.module.training
        if len(curve.loss) == 2:
            raise Stop

    with pytest.raises(Stop):
        df.distill(teacher, "hinton8", state=state, on_epoch=stop, **options)
    for change in ({"learning_rate": 1.0}, {"seed": 2}, {"start": "teacher"}):
        assert "is of a run with other" in line(
            lambda change=change: df.distill(teacher, "hinton8", state=state, **{**options, **change})
        )
    if images == "stored":
        other = {**options, "images": digits.subset(95)}
        assert "is of a run with other" in line(lambda: df.distill(teacher, "hinton8", state=state, **other))
    again = df.distill(teacher, "hinton8", state=state, **options)
    assert again.training.curve.loss == whole.training.curve.loss
    assert same(weights(again.module), weights(whole.module))


def test_a_student_can_start_with_channels_of_its_teacher(teacher, digits):
    options = {"images": digits.subset(64), "epochs": 1, "learning_rate": 1e-12}
    taught = df.distill(teacher, start="teacher", **options)
    assert taught.training.started_from_teacher and df.evaluate(taught, digits, teacher).agreement > 60
    assert not df.distill(teacher, Small(), start="teacher", **options).training.started_from_teacher


def test_images_that_show_no_class_are_flagged(teacher):
    poor = {"method": "inception", "steps": 1, "learning_rate": 1e-6}
    with pytest.warns(Notice, match=r"near chance .* a student will learn little from them"):
        student = df.distill(teacher, "hinton8", method=poor, epoch_images=64, **QUICK)
    assert "near chance" in student.training.warnings[0]


OUTSIDE = torch.full((4, 1, 8, 8), 2.0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "nothing to learn from, expected record, method, images or condensed; give one of them"),
        ({"images": "x", "method": "bns"}, "method: got it beside images, expected one of them to learn from"),
        ({"condensed": "x", "method": "bns"}, "method: got it beside condensed, expected one"),
        (
            {"images": torch.rand(4, 1, 8, 8), "epoch_images": 5},
            "epoch_images: got 5 without `condensed`, where every epoch has all images, expected `condensed`",
        ),
        ({"method": "gaussian", "epoch_images": 0}, "epoch_images: got 0, expected at least 1"),
        (
            {"method": "gaussian", "loss": "mse", "temperature": 4},
            "temperature: got 4 with `loss='mse'`, expected `loss='kl'`",
        ),
        (
            {"method": "gaussian", "share": 0.3},
            "share: got 0.3 without `condensed` and `images`, expected `condensed` and",
        ),
        ({"condensed": "x", "images": "y", "share": 0.0}, "share: got 0, expected above 0 and at most 1"),
        ({"condensed": "x", "images": "y", "share": float("nan")}, "share: got nan, expected above 0"),
        ({"method": "gausian"}, "no synthesis method 'gausian'; nearest: 'gaussian'"),
        ({"method": 3}, "method: got 3, expected text or a dict or a Synthesizer"),
        ({"method": {"steps": 2}}, "method: got settings without 'method'"),
        ({"method": "distribution"}, "method 'distribution' needs a record"),
        ({"images": "no/such"}, "no data set 'no/such': no such file or folder"),
        ({"images": OUTSIDE}, "expected 0 to 1; scale the images first"),
        ({"images": torch.rand(4, 3, 8, 8)}, "images of shape (3, 8, 8), expected (1, 8, 8)"),
        ({"images": torch.rand(0, 1, 8, 8)}, "images: got no image, expected at least one"),
        ({"images": 5}, "images: got 5, expected"),
        ({"condensed": "no/such"}, "no condensed set no/such"),
        ({"method": "gaussian", "epochs": 0}, "epochs: got 0, expected at least 1"),
        ({"method": "gaussian", "epoch": 1}, "no argument 'epoch' in distill; nearest: 'epochs'"),
        ({"method": "gaussian", "imagse": "x"}, "no argument 'imagse' in distill; nearest: 'images'"),
        ({"method": "gaussian", "settings": 3}, "settings: got 3, expected a Distillation or a dict"),
        ({"method": "gaussian", "settings": {"loss": "ce"}}, "loss: got 'ce', expected 'kl' or 'mse'"),
        ({"method": "gaussian", "start": "tecaher"}, "no start 'tecaher'; nearest: 'teacher'"),
        ({"method": "gaussian", "student": "lenet"}, "no model 'lenet'"),
        ({"method": "gaussian", "student": Small(classes=3)}, "Small returns outputs of shape"),
        ({"method": "gaussian", "student": 3}, "student: got 3, expected a Network"),
        ({"method": "gaussian", "seed": "x"}, "seed: got 'x', expected a whole number"),
        ({"method": "gaussian", "augmentation": df.Distillation()}, "augmentation: got Distillation"),
    ],
)
def test_what_does_not_fit_is_one_line_before_anything_is_trained(teacher, tmp_path, monkeypatch, arguments, text):
    monkeypatch.chdir(tmp_path)
    before = teacher.fingerprint()
    assert text in line(lambda: df.distill(teacher, state=tmp_path / "state", **arguments))
    assert list(tmp_path.iterdir()) == [] and teacher.fingerprint() == before


def test_a_teacher_without_a_half_needs_a_student_and_is_no_student(teacher, digits):
    whole = df.new_model("resnet8/16", teacher.spec, seed=0)
    message = "no student named, and the zoo has no half of resnet8/16;"
    assert line(lambda: df.distill(whole, images=digits)).startswith(message)
    custom = df.Network(teacher.module, teacher.spec, "mine")
    assert "student: got the teacher" in line(lambda: df.distill(custom, custom, images=digits))
    assert "student: got the teacher" in line(lambda: df.distill(custom, custom.module, images=digits))


def test_a_set_of_another_teacher_is_refused(teacher, normed, tmp_path):
    made = df.synthesize(normed, None, "gaussian", tmp_path / "set", images=16, workers=1)
    assert "was made from another teacher" in line(lambda: df.distill(teacher, images=made, **QUICK))


def test_the_earlier_form_takes_no_second_source(teacher, digits):
    source, student = soft_labelled(teacher, digits.subset(20)), new_student("hinton8", teacher, seed=0)
    assert "images: got it beside source" in line(
        lambda: df.distill(teacher, student, source, df.Distillation(), images=digits)
    )


def test_a_plan_says_what_will_be_done_and_trains_nothing(teacher, digits):
    plan = plan_distillation(teacher, images=digits.subset(64), **QUICK)
    before = weights(plan.student.module)
    assert plan.settings.temperature is not None and plan.chosen.description == "real data, digits"
    assert plan.identity() == plan_distillation(teacher, images=digits.subset(64), **QUICK).identity()
    assert same(before, weights(plan.student.module))
    student = plan.run()
    reference = df.new_model("hinton16", teacher.spec, seed=0)
    train_student(teacher, reference, plan.chosen.source, plan.settings)
    assert same(weights(student.module), weights(reference.module))


def test_every_setting_is_a_typed_keyword():
    for settings, changes in ((df.Distillation, DistillationChanges), (df.OnlineDistillation, OnlineChanges)):
        assert set(settings.model_fields) == set(changes.__annotations__)


# -- without images ------------------------------------------------------------


def test_online_starts_from_the_teacher_and_leaves_the_given_student_alone(teacher):
    student = df.distill_online(teacher, **ONLINE)
    assert isinstance(student, df.Network) and student.name == "hinton16" and student.training.started_from_teacher
    assert len(student.history.loss) == 2 and student.training.replay.replay == "bank"
    module = Small()
    before = weights(module)
    other = df.distill_online(teacher, module, **ONLINE)
    assert same(before, weights(module)) and not other.training.started_from_teacher and other.name == "Small"
    plain = df.distill_online(teacher, start="random", **{**ONLINE, "student_rate": 1e-9, "epochs": 1})
    fresh = weights(df.new_model("hinton16", teacher.spec, seed=0).module)
    for name, tensor in plain.module.state_dict().items():
        torch.testing.assert_close(tensor, fresh[name], atol=1e-5, rtol=0)


def test_online_takes_names_mappings_and_settings_alike(teacher):
    from datafree.distillation import replay

    memory = replay.from_name("bank", replay_bytes=4096)
    forms = [
        df.distill_online(teacher, "hinton8", df.OnlineDistillation(**ONLINE), replay=memory),
        df.distill_online(teacher, "hinton8", ONLINE, replay={"replay": "bank", "replay_bytes": 4096}),
        df.distill_online(teacher, "hinton8", replay=memory, **ONLINE),
    ]
    assert all(same(weights(forms[0].module), weights(other.module)) for other in forms[1:])
    preset = df.distill_online(teacher, "hinton8", preset="dfad", balance=2.0, **ONLINE)
    assert preset.training.replay.replay == "none"
    assert (preset.training.settings.kind, preset.training.settings.balance) == ("l1", 2.0)


def test_online_is_kept_near_condensed_images(teacher, digits):
    few = df.condense("random", data=digits, per_class=1, teacher=teacher)
    student = df.distill_online(teacher, "hinton8", condensed=few, alignment="means", **ONLINE)
    assert len(student.history.loss) == 2


def test_a_stopped_online_call_continues_to_the_same_student(teacher, tmp_path):
    whole, seen = df.distill_online(teacher, "hinton8", **ONLINE), []
    state = tmp_path / "state"

    def stop(_, history, images):
        seen.append((len(history.loss), sorted(images)))
        if len(seen) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        df.distill_online(teacher, "hinton8", state=state, on_epoch=stop, **ONLINE)
    assert "is of a run with other" in line(
        lambda: df.distill_online(teacher, "hinton8", state=state, seed=1, **ONLINE)
    )
    again = df.distill_online(teacher, "hinton8", state=state, on_epoch=stop, **ONLINE)
    assert [count for count, _ in seen] == [1, 2] and again.history.loss == whole.history.loss
    assert same(weights(again.module), weights(whole.module))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"preset": "dafi"}, "no preset 'dafi'; nearest: 'dafl'"),
        ({"replay": "banc"}, "no kind of replay 'banc'; nearest: 'bank'"),
        ({"replay": 3}, "replay: got 3, expected text or a dict or"),
        ({"alignment": "mmd"}, "alignment: got it without condensed"),
        ({"ground": "dark", "scene": "none"}, "ground: got dark with `scene='none'`, expected `scene='things'` or"),
        ({"epochs": 0}, "epochs: got 0, expected at least 1"),
        ({"epoch": 1}, "no argument 'epoch' in distill_online; nearest: 'epochs'"),
        ({"start": "x"}, "no start 'x'"),
        ({"statistics": 1.0}, "no batch norm"),
        ({"disagreement": 0, "confidence": 0, "balance": 0}, "above 0"),
        ({"condensed": "no/such"}, "no condensed set no/such"),
        ({"student": Small(classes=3)}, "Small returns outputs of shape"),
        ({"settings": {"width": 0}}, "width: got 0, expected at least 1"),
        ({"replay": {"replay": "bank", "replay_bytes": 1}}, "got 1, expected at least 64"),
    ],
)
def test_an_online_call_that_does_not_fit_is_one_line(teacher, tmp_path, arguments, text):
    assert text in line(lambda: df.distill_online(teacher, state=tmp_path / "state", **arguments))
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_would_not_be_used_is_refused(teacher, whole_record):
    assert "record: got it with statistics 0" in line(lambda: df.distill_online(teacher, record=whole_record, **ONLINE))


def test_a_student_with_batch_norm_gets_muon_unless_its_optimizer_is_chosen(normed, teacher, digits):
    fast = {"optimizer": "muon", "learning_rate": 0.02, "warmup": 0.1}
    plain = {"optimizer": "adam", "learning_rate": 0.002, "warmup": 0.0}

    student = normed.to("cpu")  # a copy

    def chosen(network, student, settings=None, **changes):
        plan = plan_distillation(network, student, images=digits, settings=settings, **changes)
        return {name: getattr(plan.settings, name) for name in fast}

    assert chosen(normed, student, epochs=1) == fast
    assert chosen(normed, student, Distillation(batch=32)) == chosen(normed, student, {"batch": 32}) == fast
    assert chosen(normed, student, start="teacher") == {**fast, "learning_rate": 0.002}
    assert chosen(normed, student, optimizer="adam") == plain
    assert chosen(normed, student, learning_rate=0.002) == chosen(normed, student, {"warmup": 0.0}) == plain
    assert chosen(teacher, "hinton16") == plain
    assert chosen(normed, student, Distillation(**Distillation().model_dump())) == plain  # as read from a log
