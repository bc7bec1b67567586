"""An option that was given has its effect, or is refused in one line."""

from __future__ import annotations

import json

import pytest

import datafree as df

TRAINED = "--epochs 1 --iterations 1 --student-steps 1 --batch 16 --latent 4 --quiet"


@pytest.mark.parametrize(
    "line",
    [
        f"distill online teacher hinton8 --data digits --limit 30 --out s {TRAINED}",
        "distill fresh gaussian teacher hinton8 --data digits --limit 30 --out s --epochs 1 --epoch-images 32 --quiet",
        "distill teacher hinton8 --set set --data digits --limit 30 --out s --epochs 1 --quiet",
    ],
)
def test_the_limit_is_for_the_test_images_of_data_that_only_measures(command, here, refused, line):
    assert refused(line.replace("--limit 30", "--limit 0")).startswith("--limit: got 0, expected at least 1")
    done = command(line)
    assert done.code == 0, done.err
    evaluation = json.loads((here / "s" / "run.json").read_text())["result"]["evaluation"]
    assert evaluation["images"] == 30


def test_the_limit_is_for_the_training_images_where_the_student_learns_from_the_data(command, here):
    assert command("distill teacher hinton8 --data digits --limit 60 --out s --epochs 1 --quiet").code == 0
    log = json.loads((here / "s" / "run.json").read_text())
    assert log["result"]["evaluation"]["images"] > 300


ONLINE = [
    ("--guidance 5", "--guidance: got 5 without --condensed, expected --condensed; give that, or leave --guidance out"),
    ("--disagreement 0 --disagreement-kind kl", "--disagreement-kind: got kl with --disagreement 0, expected"),
    ("--preset dafl --disagreement-temperature 2", "--disagreement-temperature: got 2 with --disagreement 0, expected"),
    (
        "--disagreement-kind l1 --disagreement-temperature 2",
        "--disagreement-temperature: got 2 with --disagreement-kind l1, expected --disagreement-kind js or "
        "--disagreement-kind kl; give that, or leave --disagreement-temperature out",
    ),
    ("--loss l1 --temperature 4", "--temperature: got 4 with --loss l1, expected --loss kl; give that, or leave"),
    ("--preset dfad --temperature 4", "--temperature: got 4 with --loss l1, expected --loss kl"),
    ("--replay none --write-every 5", "--write-every: got 5 with --replay none, expected another --replay; give"),
    ("--preset dfad --replay-fraction 0.5", "--replay-fraction: got 0.5 with --replay none, expected another"),
    ("--condensed few --guidance 0 --alignment coral", "--alignment: got coral with --guidance 0, expected"),
]


@pytest.mark.parametrize(("flags", "text"), ONLINE, ids=[flags for flags, _ in ONLINE])
def test_online_distillation_refuses_an_option_without_effect(command, refused, flags, text):
    if "few" in flags:
        assert command("condense random --data digits --per-class 1 --teacher teacher --out few --quiet").code == 0
    assert refused(f"distill online teacher hinton8 {flags} --out s {TRAINED}").startswith(text)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "flags", ["--condensed few --guidance 0 --bend 2", "--preset dfad", "--preset dafl", "--keep-student last"]
)
def test_online_distillation_accepts_what_has_an_effect(command, flags):
    assert command("condense random --data digits --per-class 1 --teacher teacher --out few --quiet").code == 0
    assert command(f"distill online teacher hinton8 {flags} --out s {TRAINED}").code == 0


@pytest.mark.usefixtures("here")
def test_python_refuses_what_was_given_and_not_what_a_log_holds_by_default():
    teacher = df.load_model("teacher")
    short = {"epochs": 1, "iterations": 1, "student_steps": 1, "batch": 16, "latent": 4}
    with pytest.raises(
        df.UserError, match=r"^guidance: got 5 without `condensed`, expected `condensed`; give that, or"
    ):
        df.distill_online(teacher, "hinton8", guidance=5, **short)
    with pytest.raises(df.UserError, match=r"^write_every: got 5 with `replay='none'`, expected another `replay`"):
        df.distill_online(teacher, "hinton8", replay="none", write_every=5, **short)
    with pytest.raises(df.UserError, match=r"^temperature: got 4 with `loss='l1'`, expected `loss='kl'`"):
        df.distill_online(teacher, "hinton8", {"loss": "l1", "temperature": 4.0, **short})
    every_field = df.OnlineDistillation(**short).model_dump()
    assert df.distill_online(teacher, "hinton8", every_field, replay="none").history.loss


def test_a_run_of_an_earlier_version_that_was_given_such_an_option_is_repeated_with_a_note(command, here):
    assert command(f"distill online teacher hinton8 --out s {TRAINED}").code == 0
    log = json.loads((here / "s.run.json").read_text())
    log["argv"] += ["--guidance", "5"]
    (here / "s.run.json").write_text(json.dumps(log))
    done = command("rerun s --out again")
    assert done.code == 0
    assert "datafree: note: --guidance: got 5 without --condensed, where it has no effect\n" in done.err


DISTILL = [
    (
        "distill teacher --set set --share 0.3",
        "--share: got 0.3 without --condensed, expected --condensed; give that, or",
    ),
    ("distill teacher --data digits --share 0.3", "--share: got 0.3 without --condensed, expected --condensed"),
    (
        "distill teacher --set set --epoch-images 5",
        "--epoch-images: got 5 without --condensed, where every epoch has all",
    ),
    (
        "distill teacher --data digits --epoch-images 5",
        "--epoch-images: got 5 without --condensed, where every epoch has",
    ),
    (
        "distill teacher --set set --loss mse --temperature 4",
        "--temperature: got 4 with --loss mse, expected --loss kl;",
    ),
    (
        "distill fresh gaussian teacher --loss mse --temperature 4",
        "--temperature: got 4 with --loss mse, expected --loss",
    ),
    (
        "distill teacher --set set --limit 5",
        "--limit: got 5 without --data, expected --data; give that, or leave --limit",
    ),
    ("distill teacher --set set --class-order text", "--class-order: got text without --data, expected --data; give"),
    ("distill fresh gaussian teacher --data-dir .", "--data-dir: got . without --data, expected --data; give"),
    ("distill online teacher --limit 5", "--limit: got 5 without --data, expected --data; give"),
    ("report teacher --limit 5", "--limit: got 5 without --data, expected --data; give"),
    ("quantize teacher --calibrate set --limit 5", "--limit: got 5 without --data, expected --data; give"),
    ("quantize teacher --calibrate digits --limit 5", "--limit: got 5 without --data, expected --data; give"),
    ("quantize teacher --calibrate set --data-dir .", "--data-dir: got . without --data, expected --data; give"),
    (
        "quantize teacher --calibrate set --finetune set --loss mse --temperature 4",
        "--temperature: got 4 with --loss mse, expected --loss kl; give that, or leave --temperature out",
    ),
]


@pytest.mark.parametrize(("line", "text"), DISTILL, ids=[line for line, _ in DISTILL])
def test_what_is_learned_from_decides_which_options_have_an_effect(refused, line, text):
    if line.startswith("quantize"):
        pytest.importorskip("torchao")
    assert refused(f"{line} --out o").startswith(text)


RECORDS = [
    (
        "synthesize gaussian teacher",
        "with gaussian, which uses nothing that it holds, expected a method that does; give",
    ),
    ("synthesize inception teacher", "with inception, which uses nothing that it holds, expected a method that does"),
    ("distill fresh gaussian teacher", "with gaussian, which uses nothing that it holds, expected a method that does"),
    ("expand teacher few --statistics 0", "with expand, which uses nothing that it holds, expected a method that does"),
    (
        "quantize teacher --calibrate set",
        "with images that are not made with it, expected a method in --calibrate that",
    ),
    (
        "quantize teacher --calibrate noise --finetune set",
        "with images that are not made with it, expected a method in",
    ),
]


@pytest.mark.parametrize(("line", "text"), RECORDS, ids=[line for line, _ in RECORDS])
def test_a_record_that_nothing_is_read_of_is_refused(command, refused, line, text):
    """Methods that start from noise read the moments of the input alone, which this record lacks."""
    if line.startswith("quantize"):
        pytest.importorskip("torchao")
    assert command("condense random --data digits --per-class 1 --teacher teacher --out few --quiet").code == 0
    assert command("record moments teacher --data digits --replace --quiet").code == 0
    assert refused(f"{line} --record teacher/record.safetensors --out o").startswith(
        f"--record: got teacher/record.safetensors {text}"
    )


@pytest.mark.usefixtures("here")
def test_a_record_that_shapes_the_noise_is_used(command):
    assert command("record input teacher --data digits --replace --quiet").code == 0
    line = "synthesize gaussian teacher --record teacher/record.safetensors --images 8 --chunk 8 --out o --quiet"
    assert command(line).code == 0


@pytest.mark.usefixtures("here")
def test_quantize_refuses_a_record_from_python_where_no_image_is_made_with_it():
    pytest.importorskip("torchao")
    teacher = df.load_model("teacher")
    record = df.Record.load("teacher/record.safetensors", teacher)
    with pytest.raises(
        df.UserError, match=r"^record: got one with images that are not made with it, expected a method in"
    ):
        df.quantize(teacher, calibrate="set", record=record)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            "evaluate teacher --data digits --teacher-code own.py:build",
            "--teacher-code: got own.py:build without --teacher",
        ),
        (
            "similarity teacher noise set --split train",
            "--split: got train with nothing that it is for, expected a data set that names",
        ),
        (
            "similarity teacher noise digits:test --split train",
            "--split: got train with nothing that it is for, expected a data set that",
        ),
        (
            "similarity teacher noise set --data-dir .",
            "--data-dir: got . with noise and sets alone, expected a data set; give that, or",
        ),
        (
            "quantize teacher --weight-bits 4 --activation-bits 4 --target-cpu vnni --out o",
            "--target-cpu: got vnni with w4a4, expected 8-bit weights of a layer with 8-bit inputs; give that, or leave",
        ),
    ],
)
def test_measurements_and_targets_refuse_options_without_effect(refused, line, text):
    if line.startswith("quantize"):
        pytest.importorskip("torchao")
    assert refused(line).startswith(text)


@pytest.mark.usefixtures("here")
def test_a_split_that_some_data_takes_is_used(command):
    assert command("similarity teacher digits set --split train --images 20 --quiet").code == 0


@pytest.mark.usefixtures("here")
def test_python_refuses_a_spec_beside_a_release_that_has_another():
    teacher = df.load_model("teacher")
    assert df.load_model("teacher", spec=teacher.spec).spec == teacher.spec
    other = teacher.spec.model_copy(update={"classes": tuple("abcdefghij")})
    with pytest.raises(
        df.UserError, match=r"^spec: got another classes .* than teacher has, expected .*; leave `spec` out"
    ):
        df.load_model("teacher", spec=other)


def test_python_refuses_a_state_for_a_method_that_keeps_none(tmp_path):
    data = df.load_data("digits", "train")
    with pytest.raises(
        df.UserError, match=r"^state: got .*/s with random, which keeps none, expected a method that does"
    ):
        df.condense("random", data=data, per_class=1, state=tmp_path / "s")
    kept = df.condense({"method": "dm", "iterations": 2, "width": 8}, data=data, per_class=1, state=tmp_path / "s")
    assert kept.pixels.shape[0] == 10
