"""Every verb as its --help says it is used."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from datafree._core.files import read_json, read_tensors
from datafree.cli import demo
from datafree.distillation.distill import Distillation
from datafree.distillation.training_loop import Schedule
from datafree.models.input_spec import InputSpec
from datafree.releases.load import new_model
from datafree.releases.release import write_release
from datafree.synthesis import methods

from .conftest import tree


def weights(folder) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def log(folder) -> dict:
    return read_json(folder / "run.json")


def test_a_run_says_what_it_did(here):
    own = log(here / "other")
    shared = {"format", "verb", "settings", "inputs", "versions", "device", "commit"}
    assert own.keys() == shared | {"threads", "seconds", "result"}
    beside = read_json(here / "other.run.json")
    assert beside.keys() == shared | {"argv", "folder"}
    assert beside["argv"] == [
        "train",
        "hinton16",
        "--data",
        "digits",
        "--epochs",
        "1",
        "--seed",
        "1",
        "--out",
        "other",
        "--quiet",
    ]
    settings = own["settings"]
    assert (settings["epochs"], settings["batch"], settings["seed"], settings["data"]) == (1, 64, 1, "digits")
    assert {"datafree", "python", "torch", "numpy"} <= own["versions"].keys()
    assert own["versions"]["torch"] == torch.__version__
    assert len(own["inputs"]["digits (train)"]) == 64
    assert own["device"] == "CPU" and own["threads"] > 0 and own["seconds"] > 0
    assert own["result"]["evaluation"]["images"] == 500


def test_no_absolute_path_that_was_not_typed_is_in_a_run(here):
    for folder in ("teacher", "other", "set", "student"):
        own = log(here / folder)
        assert str(here.parent) not in json.dumps({key: own[key] for key in own if key != "result"})
    inputs = log(here / "student")["inputs"]
    assert inputs.keys() == {"teacher", "images"}
    assert log(here / "set")["inputs"].keys() == {"model", "record", "teacher_fingerprint", "record_digest"}


def test_a_record_keeps_the_log_of_the_training(command, here):
    own = log(here / "teacher")
    assert own["verb"] == "record" and own["before"]["verb"] == "train"
    assert command("record teacher --replace --data digits --preset small --quiet").code == 0
    again = log(here / "teacher")
    assert again["before"] == own["before"]
    done = command("report teacher student set --data digits --out page.html")
    assert (done.code, done.out.splitlines()[0]) == (0, "page.html: 2 networks, 2 sets of images")
    accuracy = own["before"]["result"]["evaluation"]["accuracy"]
    assert f"{accuracy:.2f}" in (here / "page.html").read_text()


@pytest.mark.parametrize("preset", ["small", "safe", "sharp", "paper"])
def test_every_preset_is_recorded_and_its_cost_said(command, here, preset):
    done = command(f"record teacher --replace --data digits --preset {preset} --quiet")
    assert (done.code, done.err) == (0, "")
    size = (here / "teacher" / "record.safetensors").stat().st_size
    assert f"{size:,} bytes" in done.out and "forecast of a membership attack" in done.out


def test_a_kind_has_its_own_flags_and_is_added_to_what_is_there(command, here):
    record = here / "teacher" / "record.safetensors"
    assert command("record teacher --replace --data digits --preset small --quiet").code == 0
    done = command(
        "record moments teacher --data digits --covariance lowrank --rank 3 --taps fc1 --taps fc2 --add --quiet"
    )
    assert done.code == 0
    entries = {item["name"]: item["statistic"] for item in read_tensors(record, kind="record")[1]["entries"]}
    assert entries.keys() == {"input-moments", "fc3", "fc1", "fc2"}
    assert entries["fc1"]["rank"] == 3 and entries["fc1"]["covariance"] == "lowrank"
    assert command("record spectral-all teacher --replace --data digits --fraction 0.5 --quiet").code == 0
    assert [item["name"] for item in read_tensors(record, kind="record")[1]["entries"]] == ["graph"]


def test_safe_writes_nothing_that_gives_away_more_than_it_may(refused):
    assert refused("record teacher --replace --data digits --leak 0.51 --quiet") == (
        "--leak: got a forecast AUC of 0.527 for the least that the preset 'safe' records, expected at most 0.51; "
        "give more samples of each class, or a higher leak"
    )


def test_inspect_says_what_a_release_a_record_a_set_and_a_run_hold(command, here):
    assert "release of hinton16, 1,482 parameters" in command("inspect teacher").out
    assert "record for a teacher with fingerprint" in command("inspect teacher/record.safetensors").out
    assert "synthetic set of 48 images, 3 shards, seed 0" in command("inspect set").out
    assert json.loads(command("inspect student/run.json").out) == log(here / "student")
    assert "no record" in command("inspect other").out


@pytest.mark.parametrize("method", sorted(methods.methods()))
def test_every_method_makes_its_images(command, here, method):
    fields = methods.methods()[method].model_fields
    few = " ".join(flag for field, flag in (("steps", "--steps 2"), ("discard", "--discard 1")) if field in fields)
    done = command(f"synthesize {method} teacher {few} --images 8 --chunk 8 --out made --quiet")
    assert (done.code, done.err) == (0, "")
    targeted = getattr(methods.methods()[method], "targeted", True)
    assert done.out.startswith(
        f"8 images in made{'; the teacher predicts the target class for ' if targeted else chr(10)}"
    )
    assert log(here / "made")["settings"]["method"] == method


def test_a_student_learns_from_a_set_from_fresh_images_or_from_data(command, here):
    assert command("distill teacher --set set --data digits --epochs 1 --out a --quiet").code == 0
    assert command("distill fresh distribution teacher hinton8 --epoch-images 64 --epochs 1 --mix 0 --out b").code == 0
    done = command("distill teacher --data digits --limit 200 --epochs 1 --out c --quiet")
    assert done.code == 0 and "on 500 test images" in done.out
    learnt = {name: log(here / name)["settings"] for name in "abc"}
    assert learnt["a"]["images"].startswith("synthetic set ")
    assert learnt["a"]["learns_from"].startswith("a synthetic set of distribution")
    assert learnt["b"]["method"]["mix"] == 0 and learnt["b"]["epoch_images"] == 64
    assert learnt["c"]["learns_from"] == "real data, digits" and learnt["c"]["limit"] == 200
    assert len({weights(here / name) for name in "abc"}) == 3
    assert log(here / "a")["result"]["evaluation"]["agreement"] >= 0


@pytest.mark.usefixtures("here")
def test_evaluate_prints_every_class_and_says_where_there_are_no_images(command):
    done = command("evaluate student --data digits --teacher teacher")
    assert done.code == 0 and len(done.out.splitlines()) == 13 and "  warning: near chance (10.0 %): " in done.out
    few = command("evaluate student --data digits --limit 3")
    assert few.code == 0 and few.out.count(": no images\n") == 7 and "nan" not in few.out


def test_few_images_train_a_network_that_is_measured_on_the_whole_test_set(command, here):
    done = command("train hinton8 --data digits --limit 10 --epochs 1 --out few --quiet")
    assert done.code == 0 and "on 500 test images" in done.out
    assert log(here / "few")["result"]["evaluation"]["images"] == 500


def test_a_class_without_test_images_is_none(command, here):
    import numpy as np

    rng, labels = np.random.default_rng(0), np.arange(30) % 3
    images = rng.integers(0, 255, (30, 6, 6), dtype=np.uint8)
    np.savez("own.npz", x_train=images, y_train=labels, x_test=images[:4], y_test=labels[:4] % 2)
    assert command("train hinton4 --data own.npz --epochs 1 --out npz --quiet").code == 0
    assert log(here / "npz")["result"]["evaluation"]["by_class"][2] is None
    assert command("distill npz hinton2 --data own.npz --epochs 1 --out npz2 --quiet").code == 0


@pytest.mark.parametrize("source", ["other", "set", "student", "teacher"])
def test_a_run_is_repeated_to_the_byte(command, here, source):
    done = command(f"rerun {source} --out again")
    assert done.code == 0 and done.out.startswith("datafree ") and "--out again" in done.out.splitlines()[0]
    name = {"set": "unit-000001.safetensors", "teacher": "record.safetensors"}.get(source, "model.safetensors")
    assert (here / "again" / name).read_bytes() == (here / source / name).read_bytes()


def test_rerun_says_where_an_input_has_changed_and_passes_on_the_exit_code(command, here):
    shutil.copytree(here / "other", here / "moved")
    (here / "set").rename(here / "away")
    done = command("rerun student --out again")
    (here / "away").rename(here / "set")
    assert done.code == 2 and "and reads 'set', which is not in" in done.err
    shutil.copy(here / "other" / "model.safetensors", here / "teacher" / "model.safetensors")
    assert "note: teacher is not what that run read: " in command("rerun student/run.json --out again").out


def test_code_that_a_run_names_is_run_on_trust_alone(command, here):
    ran = here / "ran"
    (here / "theirs.py").write_text(f"import pathlib\npathlib.Path({str(ran)!r}).touch()\nfrom own import build\n")
    for word in ("theirs.py:build", "--code=theirs.py:build"):
        argv = ["train", word, "--data", "digits", "--epochs", "1", "--quiet", "--out", "made"]
        (here / "run.json").write_text(json.dumps({"format": 1, "argv": argv}))
        done = command("rerun run.json")
        assert done.code == 2 and "theirs.py:build" in done.err and "--trust" in done.err
        assert not ran.exists() and not (here / "made").exists()
    argv[1] = "theirs.py:build"
    (here / "run.json").write_text(json.dumps({"format": 1, "argv": argv}))
    assert command("rerun run.json --trust").code == 0
    assert ran.exists() and (here / "made" / "model.safetensors").exists()


def test_a_finished_command_can_be_given_again(command, here):
    before = weights(here / "other")
    assert command("train hinton16 --data digits --epochs 1 --seed 1 --out other").code == 0
    assert weights(here / "other") == before


def test_a_zoo_model_own_code_and_a_module_name_a_model(command, here):
    assert command("train own.py:build --data digits --epochs 1 --out custom --quiet").code == 0
    text = command("evaluate custom --data digits").line
    assert text.startswith("custom is a custom network ('custom:build'); name it with --code FILE.py")
    assert command("evaluate custom --data digits --code own.py:build").code == 0
    assert command("evaluate custom --data digits --code own:build").code == 0
    assert command("record custom --code own.py:build --data digits --preset small --quiet").code == 0
    assert command("synthesize top custom --code own.py:build --steps 2 --images 8 --out s --quiet").code == 0
    assert command("distill custom own.py:build --code own.py:build --set s --epochs 1 --out st --quiet").code == 0
    assert command("inspect custom --code own.py:build").code == 0
    assert len(log(here / "s")["inputs"]["code of model"]) == 64


def test_weights_alone_are_packed_into_a_release(command, here):
    line = "pack hinton16 --weights teacher/model.safetensors --shape 1 8 8 --classes 10 --mean 0.5 --std 0.25 --out p"
    done = command(line)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("hinton16: 1,482 parameters; release in p, fingerprint ")
    spec = read_json("p/config.json")["spec"]
    assert spec["shape"] == [1, 8, 8] and spec["mean"] == [0.5] and spec["std"] == [0.25]
    assert spec["classes"] == [str(digit) for digit in range(10)]
    assert command(line).code == 0
    assert log(here / "p")["inputs"].keys() == {"weights"}
    assert command("evaluate p --data digits").code == 0
    names = " ".join("abcdefghij")
    assert command(f"pack hinton16 --weights p/model.safetensors --shape 1 8 8 --classes {names} --out q").code == 0
    assert read_json("q/config.json")["spec"]["classes"] == names.split()


@pytest.mark.usefixtures("here")
def test_a_border_that_is_stated_is_packed_and_printed(command):
    line = "pack hinton16 --weights teacher/model.safetensors --shape 1 8 8 --classes 10 --mean 0.5 --std 0.25 --out p"
    assert "(--border mean)" in command(f"{line} --border mean").out
    assert "shifted in training on 0.5" in command("inspect p").out
    assert "already complete" in command(f"{line} --border mean").out
    assert "p was made with --border mean, not black" in command(f"{line} --border black").err


def test_weights_are_recorded_with_data_and_need_no_pack(command, here):
    line = "record hinton16 --weights teacher/model.safetensors --data digits --preset small --out r --quiet"
    assert command(line).code == 0
    assert weights(here / "r") == weights(here / "teacher")
    assert command("synthesize top r --steps 1 --images 4 --out s --quiet").code == 0


@pytest.mark.usefixtures("here")
def test_a_converted_state_dict_makes_the_same_release(command):
    from datafree.releases.load import load_model

    torch.save(load_model("teacher").module.state_dict(), "weights.pt")
    assert command("convert weights.pt --out converted.safetensors").out == "converted.safetensors: 6 tensors\n"
    assert command("pack hinton16 --weights converted.safetensors --shape 1 8 8 --classes 10 --out p").code == 0
    assert load_model("p").module.fc1.weight.equal(load_model("teacher").module.fc1.weight)


def test_a_folder_that_happens_to_have_a_zoo_name_hides_nothing(command, here):
    (here / "hinton16").mkdir()
    (here / "hinton16" / "notes.txt").write_text("mine")
    assert command("train hinton16 --data digits --epochs 1 --out fresh --quiet").code == 0


def test_a_damaged_record_can_be_recorded_again_and_hinders_no_evaluation(command, here):
    (here / "teacher" / "record.safetensors").write_bytes(b"broken")
    assert command("evaluate teacher --data digits").code == 0
    assert command("record teacher --replace --data digits --preset small --quiet").code == 0
    assert command("inspect teacher").code == 0


def test_a_data_folder_can_be_named(command, here):
    done = command(f"train hinton8 --data digits --data-dir {here} --epochs 1 --out own --quiet")
    assert done.code == 0 and "data_dir" not in log(here / "own")["settings"]
    assert command("synthesize teacher --record teacher/record.safetensors --images 4 --out s --quiet").code == 0


@pytest.mark.parametrize("every", [len(demo.METHODS) - 1, pytest.param(1, marks=pytest.mark.slow)], ids=["two", "all"])
def test_the_demo_shows_every_method_on_one_page(command, here, monkeypatch, every):
    monkeypatch.setattr(demo, "METHODS", demo.METHODS[::every])  # the last is the default, which the summary names
    monkeypatch.setattr(demo, "TRAINING", Schedule(epochs=2))
    monkeypatch.setattr(demo, "LEARNING", Distillation(epochs=1))
    done = command("demo --images 20 --out shown --quiet")
    assert (done.code, done.err) == (0, "")
    page = (here / "shown" / "report.html").read_text()
    for name in ("teacher", "student on the data", "distilled on the data", *demo.METHODS):
        assert name in done.out and name in page


@pytest.mark.usefixtures("here")
def test_a_bar_goes_to_standard_error_alone(command):
    done = command("train hinton64 --data digits --epochs 5 --learning-rate 0.003 --out own")
    assert done.out.startswith("hinton64: accuracy") and done.out.count("\n") == 1
    assert "train hinton64" in done.err and "105/105" not in done.out


def test_an_evaluation_is_kept_where_a_folder_is_named(command, here):
    done = command("evaluate student --data digits --teacher teacher --out found --quiet")
    assert done.code == 0
    own = log(here / "found")
    assert own["inputs"].keys() == {"model", "teacher", "digits (test)", "class names of digits (test)"}
    found = own["result"]["evaluation"]
    assert f"accuracy {found['accuracy']:.2f} % on 500 images" in done.out
    assert f"agreement with teacher: {found['agreement']:.2f} %" in done.out
    assert command("rerun found --out again").code == 0
    assert log(here / "again")["result"] == own["result"]
    assert "holds 'release'; expected 'evaluation'" in command("evaluate student --data digits --out teacher").line


def test_a_report_leaves_its_numbers_beside_the_page_and_picks_no_best(command, here):
    assert command("report teacher student --data digits --out page.html").code == 0
    own = read_json(here / "page.html.run.json")
    assert [row["name"] for row in own["result"]["networks"]] == ["teacher", "student"]
    shown = (here / "page.html").read_text()
    accuracy = own["result"]["networks"][1]["accuracy"]
    assert f"Without data: student {accuracy:.2f} %. Teacher: teacher" in shown


def test_a_report_measures_on_the_data_it_is_given_and_not_on_what_the_logs_say(command, here):
    images, labels = np.full((40, 8, 8), 255, np.uint8), np.arange(40) % 10
    np.savez(here / "white.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    assert command("report teacher student --data white.npz --out page.html").code == 0
    rows = read_json(here / "page.html.run.json")["result"]["networks"]
    assert [row["accuracy"] for row in rows] == [10.0, 10.0]
    assert rows[1]["agreement"] in (0.0, 100.0) and rows[1]["images"] == 48 and rows[0]["agreement"] is None
    assert [row["group"] for row in rows] == ["teacher", "without data"]


def test_a_report_doubts_an_accuracy_near_chance_as_evaluate_does(command, here):
    images, labels = np.full((40, 8, 8), 255, np.uint8), np.arange(40) % 10  # all alike: one in ten is right
    np.savez(here / "white.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    doubt = "near chance (10.0 %): is this the data that the network was trained for"
    assert f"warning: {doubt}" in command("evaluate student --data white.npz --quiet").out
    done = command("report teacher student --data white.npz --out page.html")
    for name in ("teacher", "student"):
        assert f"  {name}: accuracy 10.00 % is {doubt}" in done.out
        assert f"{name}: accuracy 10.00 % is {doubt}" in (here / "page.html").read_text()


def test_a_report_doubts_an_accuracy_that_a_log_says(command, here):
    shutil.copytree(here / "student", here / "s")
    log = json.loads((here / "s" / "run.json").read_text())
    for accuracy, doubted in ((10.8, True), (97.0, False)):
        log["result"]["evaluation"] = {"images": 500, "accuracy": accuracy, "by_class": [], "agreement": None}
        (here / "s" / "run.json").write_text(json.dumps(log))
        done = command("report s --out page.html")
        assert ("  s: accuracy 10.80 % is near chance (10.0 %)" in done.out, "chance" in done.out) == (doubted, doubted)


def test_a_report_knows_the_teacher_where_the_folders_have_moved(command, here):
    (here / "moved").mkdir()
    for name in ("teacher", "student"):
        shutil.copytree(here / name, here / "moved" / name)
    assert command("report moved/teacher moved/student --data digits --out page.html").code == 0
    rows = read_json(here / "page.html.run.json")["result"]["networks"]
    assert [row["group"] for row in rows] == ["teacher", "without data"] and rows[1]["agreement"] is not None


def test_a_report_measures_what_a_quantized_network_shares_with_the_one_it_was_made_from(command, here):
    assert command("quantize teacher --calibrate noise --images 20 --out int8 --quiet").code == 0
    assert command("report int8 teacher --data digits --out page.html --quiet").code == 0
    rows = {row["name"]: row for row in read_json(here / "page.html.run.json")["result"]["networks"]}
    assert rows["teacher"]["agreement"] is None and rows["int8"]["agreement"] > 90


def test_a_report_without_data_says_that_its_numbers_are_the_logs(command, here):
    assert command("report teacher --out page.html").code == 0
    assert "accuracies are those in the runs&#39; logs" in (here / "page.html").read_text()


@pytest.mark.parametrize(
    "log",
    [
        {"result": []}, {"verb": 5, "settings": []}, {"result": {"evaluation": {"accuracy": "high"}}},
        {"result": {"evaluation": {"accuracy": 150}}}, {"result": {"curve": {"loss": ["a"]}}}, {"seconds": "x"},
    ],
)  # fmt: skip
def test_a_log_that_is_none_is_refused_in_one_line(command, here, log):
    (here / "student" / "run.json").write_text(json.dumps(log))
    assert "run.json is no log of a run" in command("report teacher student --out page.html").line
    assert not (here / "page.html").exists()


def test_a_shard_of_another_method_is_made_again(command, here):
    (here / "set" / "set.json").unlink()
    assert command("synthesize top teacher --steps 1 --images 48 --chunk 16 --out set --quiet").code == 0
    assert command("synthesize top teacher --steps 1 --images 48 --chunk 16 --out new --quiet").code == 0
    name = "unit-000001.safetensors"
    assert (here / "set" / name).read_bytes() == (here / "new" / name).read_bytes()


def test_a_release_that_is_made_again_is_complete_and_keeps_its_record_its_card_and_its_log(command, here):
    before = tree(here)
    done = command("train hinton16 --data digits --epochs 3 --out teacher --quiet")
    assert (done.code, done.out) == (
        0, "already complete: release in teacher, of the same settings; nothing was changed\n"
    )  # fmt: skip
    assert tree(here) == before


def test_data_that_was_made_to_fit_is_said_to_be(command, here):
    images = np.random.default_rng(0).integers(0, 255, (40, 10, 10), np.uint8)
    np.savez(here / "wide.npz", x_train=images, y_train=np.arange(40) % 10, x_test=images, y_test=np.arange(40) % 10)
    for line in (
        "record teacher --replace --data wide.npz --quiet --preset small",
        "evaluate teacher --data wide.npz --quiet",
    ):
        assert "images of 10 x 10 were resized to the 8 x 8 that hinton16 takes" in command(line).out
    assert "resized" not in command("evaluate teacher --data digits --quiet").out


@pytest.mark.parametrize(
    ("how", "use"),
    [
        ("--preset sharp", "datafree distill fresh distribution teacher hinton8 --out s --epochs 1"),
        ("--preset small", "datafree synthesize top teacher --images 20 --out s"),
        ("--kind moments", "datafree synthesize all teacher --images 20 --out s"),
        ("--kind spectral-pairs", "datafree synthesize spectral-pairs teacher --images 20 --out s"),
        ("--kind input", None),
    ],
)
def test_the_model_card_says_what_its_record_is_good_for(command, here, how, use):
    assert command(f"record teacher --replace --data digits {how} --quiet").code == 0
    card = (here / "teacher" / "README.md").read_text()
    if use is None:
        assert "No method makes images from these entries alone." in card and "distill" not in card
        return
    written = use.replace("teacher", "THIS_FOLDER").replace("hinton8", "STUDENT")
    assert written.split(" --images")[0].split(" --out")[0] in card
    assert command(f"{use.removeprefix('datafree ')} --quiet").code == 0


def test_a_report_shows_similarities_apart_that_cannot_be_compared(command, here):
    for out, options in [("one", ""), ("two", "--images 300"), ("three", "--form l2"), ("four", "--shift 2 --flip")]:
        assert command(f"similarity teacher digits noise --out {out} --quiet {options}").code == 0
    assert command("record other --data digits --quiet --preset paper").code == 0
    assert command("similarity other digits --out five --quiet").code == 0
    assert command("report teacher one two three four five --out page.html").code == 0
    page = (here / "page.html").read_text()
    assert page.count("Plot of divergences") == 4
    for caption in (
        "teacher: forward, in nats; 300 to 1,000 images; shown as they are; from one, two",
        "teacher: l2, without a unit; 500 to 1,000 images; shown as they are; from three",
        "teacher: forward, in nats; 500 to 1,000 images; shown as in training (moved by up to 2 pixels, "
        "mirrored half of the time); from four",
        ": forward, in nats; 500 images each; shown as they are; from five",
    ):
        assert caption in page
    assert "digits (one)" in page and "digits (two)" in page


def test_a_report_shows_what_sets_match_of_their_teachers_statistics(command, here):
    assert command("synthesize gaussian teacher --no-box --images 20 --out plain --quiet").code == 0
    assert command("synthesize gaussian other --images 20 --out another --quiet").code == 0
    assert command("report student teacher set plain another --out page.html").code == 0
    page = (here / "page.html").read_text()
    assert page.count("Plot of the match of statistics") == 1
    assert "teacher: at most 512 images of each set, shown as they are; noise in grey" in page
    label = page.split("Match of statistics, mean over layers. ")[1].split('"')[0]
    assert [own.split(":")[0] for own in label.split("; ")] == ["set", "plain", "noise"]
    assert command("report student set --out other.html").code == 0
    assert "Match of statistics" not in (here / "other.html").read_text()


@pytest.mark.usefixtures("here")
def test_a_report_says_which_network_was_made_from_another_than_the_teacher_on_it(command):
    assert command("train hinton8 --data digits --epochs 2 --seed 5 --out stranger --quiet").code == 0
    assert command("quantize stranger --calibrate noise --images 20 --out small --quiet").code == 0
    done = command("report teacher student small --data digits --out page.html")
    assert done.code == 0
    assert "small was made from another network; its agreement here is with teacher" in done.out
    assert "student was made from" not in done.out
    done = command("report teacher student stranger small --data digits --out page2.html")
    assert "small was made from stranger; its agreement here is with teacher" in done.out


def test_students_of_condensed_images_are_no_students_without_data(command, here):
    assert command("condense random --data digits --per-class 1 --out reals --quiet").code == 0
    assert command("distill teacher --condensed reals --epochs 1 --epoch-images 64 --out of-reals --quiet").code == 0
    done = command("expand teacher reals --images 10 --chunk 10 --steps 1 --workers 1 --out bent --quiet")
    assert done.code == 0 and command("distill teacher --set bent --epochs 1 --out of-bent --quiet").code == 0
    assert command("report teacher student of-reals of-bent --data digits --out page.html").code == 0
    rows = {row["name"]: row["group"] for row in read_json(here / "page.html.run.json")["result"]["networks"]}
    assert rows == {
        "teacher": "teacher",
        "student": "without data",
        "of-reals": "from a few images",
        "of-bent": "from a few images",
    }


def test_without_labels_a_report_claims_no_accuracy(command, here):
    line = "pack hinton16 --weights teacher/model.safetensors --shape 1 8 8 --classes 10 --out packed"
    assert command(line).code == 0
    assert command("report packed --out plain.html").code == 0
    page = (here / "plain.html").read_text()
    assert "No accuracy was measured, because no labelled data was given." in page
    assert "Accuracy on" not in page


def test_classes_without_names_are_shown_with_the_names_of_the_data(command, here):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (here / "photos" / name).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(here / "photos" / name / f"{number}.png")
    spec = InputSpec(shape=(1, 8, 8), classes=("0", "1"))
    write_release(here / "bare", new_model("hinton4", spec, seed=0))
    done = command("evaluate bare --data photos --split all")
    assert done.code == 0
    assert re.search(r"on 6 images of photos \(all\), 95 % interval \d+\.\d to \d+\.\d$", done.out, re.MULTILINE)
    assert re.search(r"^  cat: [\d.]+ %$", done.out, re.MULTILINE) and re.search(r"^  dog: ", done.out, re.MULTILINE)
