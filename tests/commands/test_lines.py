"""Lines that users found untrue or of no help: what they say now."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image

from datafree._core.errors import UserError, nearest, unknown
from datafree.cli.synthesize import _advice
from datafree.distillation.train import train
from datafree.distillation.training_loop import Schedule
from datafree.runs.difference import difference

PACK = "--weights teacher/model.safetensors --shape 1 8 8 --classes 10 --out o"
NET = "from torch import nn\n\ndef {}:\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, {}))\n"


def test_only_names_that_are_like_it_are_called_nearest():
    assert str(unknown("layer", "fc9", ["fc1", "conv"])) == "no layer 'fc9'; nearest: 'fc1'"
    assert str(unknown("layer", "zzz", ["fc1", "conv"])) == "no layer 'zzz'; expected one of 'fc1', 'conv'"
    assert nearest("zzz", ["fc1"]) == "expected 'fc1'"
    assert nearest("zzz", []) == "there are none"
    names = [f"layer{number}" for number in range(40)]
    assert nearest("zzz", names) == "none of the 40 names is similar; the first is 'layer0'"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            "pack teacher/model.safetensors",
            "datafree pack file.py:function --weights teacher/model.safetensors --shape",
        ),
        ("pack w.pt", "datafree pack file.py:function --weights w.pt --shape CHANNELS HEIGHT WIDTH --classes COUNT"),
        (
            "evaluate mine:Net --weights w.pth --data digits",
            "make a release of it: datafree pack mine:Net --weights w.pth --shape CHANNELS HEIGHT WIDTH --classes COUNT",
        ),
        ("pack hinton16 --weights w --shape 1 8 8 --classes 10", "pack needs --out, which was not given."),
        ("train hinton16 --data digits --out", "parameter --out requires an argument"),
        ("record teacher --data digits --kind moments --preset small", "--kind and --preset: got both, expected one"),
        ("record teacher --data digits --preset=small --kind=input", "--kind and --preset: got both, expected one"),
        ("evaluate set --data digits", "set is a synthetic set, which holds no network, expected a release"),
        ("evaluate told --data digits", "told was written by datafree evaluate and holds no network"),
        ("report told --out page.html", "told was written by datafree evaluate, expected a release, set or similarity"),
        ("report teacher told --out page.html", "name the folder of the network that it measured, and give --data"),
        ("pack broken.py " + PACK, "broken.py is not readable Python: "),
        (
            "pack three.py:build " + PACK,
            "three.py:build needs the argument 'a', expected a value for it; name it 'three.py:build(a=VALUE)', or",
        ),
        ("pack three.py:both " + PACK, "three.py:both needs the argument 'depth', expected a value"),
    ],
    ids=lambda own: own[:40],
)
def test_the_line_says_what_is_wrong_and_what_to_do(refused, here, line, text):
    (here / "w.pt").write_bytes(b"")
    (here / "broken.py").write_text("def build(:\n")
    (here / "three.py").write_text("def build(a, b, c): ...\n\ndef both(spec, depth): ...\n")
    (here / "told").mkdir()
    (here / "told" / "run.json").write_text(json.dumps({"verb": "evaluate"}))
    assert text in refused(line)


@pytest.mark.parametrize(
    ("signature", "outputs"),
    [
        ("build(width=10)", "width"),
        ("build(*args)", "10 - len(args)"),
        ("build(spec=None)", "len(spec.classes)"),
        ("build(width=10, spec=None)", "len(spec.classes) * width // 10"),
        ("build(*, spec)", "len(spec.classes)"),
        ("build(how: 'InputSpec' = None)", "len(how.classes)"),
        ("build(spec, /, width=10)", "len(spec.classes)"),
    ],
)
def test_the_input_spec_goes_to_the_parameter_that_is_meant_for_it(command, here, signature, outputs):
    (here / "net.py").write_text(NET.format(signature, outputs))
    assert command("train net.py:build --data digits --epochs 1 --limit 50 --out o --quiet").code == 0


def test_a_builder_that_fails_is_not_blamed_on_datafree(refused, here):
    (here / "net.py").write_text("def build(spec):\n    return int(spec)\n")
    line = refused(f"pack net.py:build {PACK}")
    assert "TypeError" in line and "net.py, line 2)" in line and "models.py" not in line


def test_a_class_that_no_image_shows_is_a_line_about_the_data(tiny, toy):
    data = toy(20)
    lacking = dataclasses.replace(data, labels=data.labels * 0)
    with pytest.raises(
        UserError, match="none of the 20 training images of toy is of class 'b', expected some of each class"
    ):
        train(tiny(), lacking, Schedule(epochs=1))


def test_the_size_that_was_asked_for_is_told_beside_the_folders_own(command, here):
    rng = np.random.default_rng(0)
    for label in "ab":
        (here / "pics" / label).mkdir(parents=True)
        for side in range(20, 30):
            Image.fromarray(rng.integers(0, 256, (side, side)).astype(np.uint8)).save(here / f"pics/{label}/{side}.png")
    done = command("train hinton8 --data pics --size 8 --epochs 1 --out o --quiet")
    assert "18 of another size than the first, 20 x 20, cropped and resized to it" in done.out
    assert "  images of 20 x 20 were resized to the 8 x 8 that hinton8 takes\n" in done.out


def test_a_page_is_printed_with_what_it_lacks(command, here):
    (here / "own.py").write_text(NET.format("build(spec)", 10))
    assert command("train own.py:build --data digits --epochs 1 --limit 50 --out custom --quiet").code == 0
    done = command("report teacher custom --data digits --out page.html --quiet")
    lines = done.out.splitlines()
    doubts = [line for line in lines if "is near chance" in line]
    assert all(
        re.match(r"  teacher: accuracy \d+\.\d\d % is near chance \(10\.0 %\): is this the data", own) for own in doubts
    )
    assert [line for line in lines if line not in doubts] == [
        "page.html: 2 networks, 1 set of images",
        "  custom is a custom network and was not measured, because its code was not given; give it: datafree report ... "
        "--code custom=file.py:function, or from Python report(..., networks={'custom': network})",
        "  no accuracy was measured for custom",
    ]


@pytest.mark.usefixtures("here")
def test_inspect_prints_lines_and_no_python(command):
    for path in ("teacher", "teacher/record.safetensors", "set"):
        out = command(f"inspect {path}").out
        assert not set("{}[]'") & set(out.replace("[0, 1]", "")), out
    assert "  method distribution\n    degrees 15.0\n" in command("inspect set").out
    assert "record: " in command("inspect teacher").out
    assert "images of digits (train split), sha256 " in command("inspect teacher").out


def test_other_data_recorded_into_a_new_release_is_flagged_by_the_networks_own_log(command, here, release):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (300, 8, 8)).astype(np.uint8), np.arange(300) % 10
    np.savez(here / "d.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    done = command("record teacher --data d.npz --preset small --out other-data --quiet")
    assert "warning: near chance (10.0 %), and its own log says " in done.out
    assert command("record teacher --data d.npz --preset full --out noise-data --quiet").code == 0
    line = "--online distribution --epoch-images 64 --epochs 1 --quiet --out"
    done = command(f"distill noise-data {line} unlike")
    text = "near chance (10.0 %): its images do not show their classes; a student will learn little from them"
    assert done.code == 0 and f" of 512 images of distribution, {text}" in done.out
    assert "whose target class the teacher predicts near chance" in (here / "unlike" / "README.md").read_text()
    assert "near chance" not in command(f"distill {release} {line} like").out


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ({"online": {"balance": 0.1}}, {"online": {"balance": 0.2}}, "with `balance=0.1`, not 0.2"),
        ({"method": {"method": "bns"}}, {"method": {"method": "top"}}, "with the method bns, not top"),
        ({"method": {"warp": {"shift": 1}}}, {"method": {"warp": {"shift": 2}}}, "with `shift=1`, not 2"),
        ({"epoch_images": 1}, {"epoch_images": 2}, "with `epoch_images=1`, not 2"),
    ],
)
def test_a_setting_that_differs_is_named_by_its_own_flag(old, new, text):
    before, after = ({"verb": "distill", "settings": own, "inputs": {}} for own in (old, new))
    assert difference(after, before) == text


@pytest.mark.usefixtures("here")
def test_a_teacher_of_another_input_size_is_told_of(command):
    assert command("train hinton8 --data digits --size 16 --epochs 1 --limit 50 --out larger --quiet").code == 0
    done = command("evaluate teacher --teacher larger --data digits --quiet")
    assert "  images of 8 x 8 were resized to the 16 x 16 that hinton8 takes\nagreement with larger: " in done.out


@pytest.mark.usefixtures("here")
def test_pack_says_what_the_network_is_shown(command):
    plain = command(f"pack hinton16 {PACK}1")
    assert "input pixels in [0, 1] are not normalised; if the network was trained on normalised ones" in plain.out
    normed = command(f"pack hinton16 {PACK}2 --mean 0.5 --std 0.25").out
    assert "normalised as (pixels - mean) / std, mean 0.5, std 0.25" in normed and "warning" not in normed
    for values in ("--mean 128 --std 64", "--mean 0.5 --std 64", "--mean 128"):
        done = command(f"pack hinton16 {PACK}{values.replace(' ', '').replace('-', '')} {values}")
        assert "warning: no pixels in [0, 1] have that mean and deviation; divide both by 255" in done.out


@pytest.mark.usefixtures("here")
def test_advice_about_images_near_chance_names_only_what_the_method_has(command):
    assert _advice({"method": "distribution"}) == "try another method, or a record that holds more"
    learnt = command("synthesize inception teacher --steps 1 --images 16 --chunk 8 --out learnt --quiet")
    assert "try more --steps, a higher --learning-rate, another method, or a record that holds more" in learnt.out


def test_training_says_that_test_images_of_another_size_are_resized(command, here):
    rng = np.random.default_rng(0)
    images = {
        name: rng.integers(0, 256, (20, side, side)).astype(np.uint8) for name, side in (("train", 8), ("test", 9))
    }
    labels = np.arange(20) % 2
    np.savez(here / "d.npz", **{f"x_{name}": pixels for name, pixels in images.items()}, y_train=labels, y_test=labels)
    done = command("train hinton8 --data d.npz --epochs 1 --out o --quiet")
    assert done.code == 0 and "  test images of 9 x 9 were resized to the 8 x 8 that hinton8 takes\n" in done.out


def test_other_code_for_recorded_weights_is_refused_by_every_verb_that_reads_it(command, here):
    text = (
        "from torch import nn\n\ndef build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.{}(), nn.Linear(16, 10))\n"
    )
    for name, layer in (("right", "ReLU"), ("wrong", "Tanh")):
        (here / f"{name}.py").write_text(text.format(layer))
    assert command("train right.py:build --data digits --limit 200 --epochs 1 --out o --quiet").code == 0
    assert command("record o --code right.py:build --data digits --limit 200 --preset small --quiet").code == 0
    for line in ("evaluate o --data digits", "distill o hinton8 --data digits --epochs 1 --out s"):
        assert command(f"{line} --code right.py:build --quiet --limit 100").code == 0
        refused = command(f"{line}2 --code wrong.py:build --quiet --limit 100".replace("digits2", "digits"))
        assert refused.code == 2
        assert "gives other logits than its publisher's network; use the code that came with it" in refused.line


def test_a_network_of_ones_own_is_handed_over_with_its_code_and_a_larger_student_is_flagged(command, here):
    (here / "own.py").write_text(NET.format("build()", 10))
    done = command("train own.py:build --data digits --epochs 1 --limit 50 --out o --quiet")
    assert "the release does not hold the network's code: hand over own.py with it, for --code\n" in done.out
    assert "hand over" not in command(f"pack hinton16 {PACK}1").out
    done = command("distill o hinton64 --code own.py:build --data digits --limit 50 --epochs 1 --out s --quiet")
    assert "13.80 times as many as" in done.out and "warning: the student is larger than its teacher" in done.out


@pytest.mark.usefixtures("here")
def test_a_file_that_is_safetensors_already_is_said_to_be(command):
    assert command("convert teacher/model.safetensors --out o").line == (
        "'teacher/model.safetensors' is safetensors already, expected what torch.save writes; use it as it is"
    )
