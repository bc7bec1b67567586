"""Networks of somebody's own on the command line: two in one command, names that are off, tied and prefixed weights."""

from __future__ import annotations

import html
import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import nn

import datafree as df

NETS = """
import torch
from torch import nn
import pathlib; pathlib.Path("ran").write_text("x")
def build(spec): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
def _hidden(): return None
class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.out = nn.Linear(width, 10)
    def forward(self, x): return self.out(x.flatten(1))
class Settings: width = 3
built = nn.Flatten()
"""
OTHER = """
from torch import nn
def wide(spec): return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
"""
TIED = """
from torch import nn
def build(spec):
    m = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    m[3].weight = m[1].weight
    return m
"""
PACK = "--shape 1 8 8 --classes 10"

FIRST_NORMED = """
from torch import nn


class FirstNormed(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 10))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in (("nets.py", NETS), ("other.py", OTHER), ("tied.py", TIED)):
        (tmp_path / name).write_text(text)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        one = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        two = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
    save_file(one.state_dict(), "one.safetensors")
    save_file(two.state_dict(), "two.safetensors")
    for prefix in ("module.", "_orig_mod.", "_orig_mod.module."):
        save_file({prefix + name: own for name, own in one.state_dict().items()}, f"{prefix}safetensors")
    return tmp_path


@pytest.fixture
def pair(here, command):
    assert command(f"pack nets.py:build --weights one.safetensors {PACK} --out one").code == 0
    assert command(f"pack other.py:wide --weights two.safetensors {PACK} --out two").code == 0
    return here


def test_a_network_agrees_with_a_teacher_of_other_code(pair, command):
    line = "evaluate one --data digits --quiet --code nets.py:build --teacher two"
    refused = command(line)
    assert refused.code == 2
    assert refused.line.endswith("two is a custom network ('custom:wide'); name it with --teacher-code")
    done = command(f"{line} --teacher-code other.py:wide --out said")
    assert done.code == 0 and "agreement with two:" in done.out
    log = json.loads((pair / "said" / "run.json").read_text())
    assert log["settings"]["teacher_code"] == "custom:wide" and len(log["inputs"]["code of teacher"]) == 64
    beside = json.loads((pair / "said.run.json").read_text())
    assert beside["settings"]["teacher_code"] == "other.py:wide" and "other.py" in str(beside["inputs"])


def test_a_report_measures_networks_of_different_code(pair, command):
    line = "report one two --data digits --quiet"
    assert command(f"{line} --out page.html").code == 0
    page = (pair / "page.html").read_text()
    for name in ("one", "two"):
        assert (
            f"{name} is a custom network and was not measured, because its code was not given; give it: datafree report ... "
            f"--code {name}=file.py:function, or from Python report(..., networks={{'{name}': network}})"
        ) in html.unescape(page)
    for name, codes in (
        ("listed", "--code nets.py:build --code other.py:wide"),
        ("named", "--code two=other.py:wide --code nets.py:build"),
    ):
        assert command(f"{line} {codes} --out {name}.html").code == 0
        rows = json.loads((pair / f"{name}.html.run.json").read_text())["result"]["networks"]
        assert [row["name"] for row in rows] == ["one", "two"]
        assert all(row["accuracy"] is not None for row in rows)
    for code in (
        "three=other.py:wide",
        "two=other.py:wide --code two=other.py:wide --code nets.py:build --code x.py:y",
    ):
        refused = command(f"{line} --out page.html --code {code}")
        assert refused.code == 2 and "--code: got" in refused.line


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nets.py", "nets.py names no function or class that builds the model; give nets.py:build or nets.py:Net"),
        ("nets", "nets names no function or class that builds the model; give nets.py:build or nets.py:Net"),
        ("empty.py", "empty.py has no function or network class at its top level"),
        ("broken.py", "broken.py is not readable Python: "),
        ("gone.py", "no file gone.py, expected the Python file that builds the model, as gone.py:FUNCTION"),
        ("one.safetensors", "one.safetensors is a file of weights or a program, expected the Python code"),
        (
            "nets.py:built",
            "nets.py:built is a network that is built already, expected the function or class that builds it",
        ),
        ("nets.py:Net", "nets.py:Net needs the argument 'width', expected a value for it"),
    ],
)
def test_a_name_that_builds_nothing_is_told_what_would_and_runs_nothing_for_it(name, text, here, command):
    (here / "empty.py").write_text("x = 3\n")
    (here / "broken.py").write_text("def build(:\n")
    for line in (
        f"pack {name} --weights one.safetensors {PACK} --out out",
        f"train {name} --data digits --epochs 1 --out out --quiet",
    ):
        refused = command(line)
        assert refused.code == 2 and text in refused.line, refused
    assert (here / "ran").exists() == (":" in name) and not (here / "out").exists()


def test_a_folder_of_the_zoo_s_name_with_code_beside_it_is_still_the_zoo(here, command):
    (here / "hinton16.py").write_text("def build(): pass\n")
    assert command("train hinton16 --data digits --limit 40 --epochs 1 --out out --quiet").code == 0


def test_weights_with_the_prefix_of_a_wrapper_are_read(here, command):
    prints = set()
    for index, name in enumerate(
        ("one.safetensors", "module.safetensors", "_orig_mod.safetensors", "_orig_mod.module.safetensors")
    ):
        done = command(f"pack nets.py:build --weights {name} {PACK} --out out{index}")
        assert done.code == 0
        prints.add(done.out.rpartition("fingerprint ")[2])
    assert len(prints) == 1 and here.exists()


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
def test_a_checkpoint_of_a_training_script_is_packed_without_conversion(here, command, old):
    state, other = load_file("one.safetensors"), {name: own + 1 for name, own in load_file("one.safetensors").items()}
    content = {
        "epoch": 3,
        "model": {f"module.{name}": own.double() for name, own in state.items()},
        "ema": {"module": other},
    }
    torch.save(content, "w.pth", _use_new_zipfile_serialization=not old)
    plain = command(f"pack nets.py:build --weights one.safetensors {PACK} --out plain").out.rpartition("fingerprint ")[
        2
    ]
    done = command(f"pack nets.py:build --weights w.pth {PACK} --out packed")
    assert done.code == 0 and done.out.rpartition("fingerprint ")[2] == plain
    assert "the weights under 'model' are used, not 'ema/module'; --key chooses another one" in done.err
    average = command(f"pack nets.py:build --weights w.pth --key ema/module {PACK} --out average")
    assert average.code == 0 and average.err == "" and average.out.rpartition("fingerprint ")[2] != plain
    assert json.loads((here / "average" / "run.json").read_text())["settings"]["key"] == "ema/module"
    assert "key" not in json.loads((here / "packed" / "run.json").read_text())["settings"]
    assert "--weights w.pth --key ema/module" in command("rerun average --out again").out
    assert (
        "made with --key ema/module, not without"
        in command(f"pack nets.py:build --weights w.pth {PACK} --out average").err
    )
    assert command("convert w.pth --key ema/module --out ema.safetensors").code == 0
    assert all(torch.equal(load_file("ema.safetensors")[name], own) for name, own in other.items())
    assert command("evaluate plain --code nets.py:build --weights w.pth --key ema/module --data digits").code == 0
    refused = command(f"pack nets.py:build --weights w.pth --key emma {PACK} --out no")
    assert refused.code == 2 and refused.line.startswith("no key 'emma' in 'w.pth'; nearest: ")
    refused = command("evaluate plain --code nets.py:build --key ema --data digits")
    assert refused.code == 2 and refused.line.startswith("--key: got it without --weights")


def test_tied_weights_are_read_under_either_name_and_two_values_for_one_are_refused(here, command):
    namespace: dict = {}
    exec(TIED, namespace)
    module = namespace["build"](None)
    save_model(module, "tied.safetensors")
    state = {name: own.clone() for name, own in module.state_dict().items()}
    save_file({name: own for name, own in state.items() if name != "1.weight"}, "second.safetensors")
    save_file(state, "both.safetensors")
    prints = set()
    for name in ("tied", "second", "both"):
        done = command(f"pack tied.py:build --weights {name}.safetensors {PACK} --out {name}")
        assert done.code == 0
        prints.add(done.out.rpartition("fingerprint ")[2])
        assert command(f"evaluate {name} --code tied.py:build --data digits --quiet").code == 0
    assert len(prints) == 1
    save_file(state | {"3.weight": state["3.weight"] + 1}, "apart.safetensors")
    refused = command(f"pack tied.py:build --weights apart.safetensors {PACK} --out apart")
    assert refused.code == 2 and "'3.weight' and '1.weight' are one tensor in tied.py:build" in refused.line
    assert not (here / "apart").exists()


def test_a_set_near_chance_is_flagged_on_the_screen_in_the_student_and_in_the_report(
    made, tmp_path, monkeypatch, command
):
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    text = "near chance (10.0 %): its images do not show their classes"
    done = command(
        "synthesize inception teacher --steps 1 --learning-rate 1e-6 --images 64 --chunk 64 --out poor --quiet"
    )
    assert done.code == 0 and text in done.out
    done = command("distill teacher --set poor --epochs 1 --out pupil --quiet")
    assert done.code == 0 and text in done.out
    card = (tmp_path / "copy" / "pupil" / "README.md").read_text()
    assert "whose target class the teacher predicts near chance" in card
    assert command("report teacher pupil poor --out page.html --quiet").code == 0
    assert "near chance (10.0 %)" in (tmp_path / "copy" / "page.html").read_text()


NORMED = """
from torch import nn
class Normed(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Linear(36 * width, 10)
    def forward(self, x): return self.out(self.norm(self.conv(x)).relu().flatten(1))
"""


@pytest.mark.parametrize("name", [None, pytest.param("mine", marks=pytest.mark.slow), "normed.py:Normed"])
def test_the_commands_on_the_card_of_a_network_from_python_work(name, here, digits, run_card):
    (here / "normed.py").write_text(NORMED)
    scope: dict = {}
    exec(NORMED, scope)
    network = df.Network(scope["Normed"](), input_shape=(1, 8, 8), classes=10, name=name)
    student = df.distill(network, df.Network(scope["Normed"](), network.spec, name), images=digits.subset(64), epochs=1)
    df.write_release("small", network, df.record(network, digits, "small"))
    df.write_release("sharp", network, df.record(network, digits, "sharp"))
    df.save_student("student", student)
    function = "Normed" if name and ":" in name else "FUNCTION"
    for folder, count in (("small", 4), ("sharp", 5), ("student", 2)):
        card = (here / folder / "README.md").read_text()
        commands = re.findall(r"`datafree ([a-z]+ .*?)`", card)
        assert len(commands) == count and all(line.endswith(f" --code FILE.py:{function}") for line in commands), card
        words = {
            "THIS_FOLDER": folder, "STUDENT": "hinton8", "DATA": "digits", f"FILE.py:{function}": "normed.py:Normed",
            "--images 20000": "--images 20", "--out set": f"--out set-{folder}", "--set set": f"--set set-{folder}",
        }  # fmt: skip
        run_card(commands, words, f"student-{folder}")


def test_a_card_of_the_zoo_names_no_code(here, digits):
    network = df.new_model("hinton8", df.InputSpec(shape=digits.shape, classes=digits.classes), seed=0)
    df.write_release("zoo", network, df.record(network, digits, "small"))
    assert "--code" not in (here / "zoo" / "README.md").read_text()


def test_inspect_describes_a_network_of_somebodys_own_without_its_code(here, digits, command):
    (here / "normed.py").write_text(NORMED)
    scope: dict = {}
    exec(NORMED, scope)
    network = df.Network(
        scope["Normed"](), input_shape=(1, 8, 8), classes=digits.classes, mean=0.5, name="normed.py:Normed"
    )
    df.write_release("bare", network, notes="made for a test")
    df.write_release("net", network, df.record(network, digits, "sharp"))
    said = command("inspect net").out.splitlines()
    assert said[:8] == [
        f"net: release of its publisher's own network Normed, {network.parameters:,} parameters, {network.nbytes():,} bytes",
        "  input 1 x 8 x 8, pixels in [0, 1], mean 0.5, std 1",
        "  10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        "  3 layers with weights:",
        "    conv: bias 4, weight 4 x 1 x 3 x 3",
        "    norm: bias 4, num_batches_tracked one number, running_mean 4, running_var 4, weight 4",
        "    out: bias 10, weight 10 x 144",
        f"  record: {df.Record.load('net/record.safetensors', network).nbytes():,} bytes, of 1,297 images of digits (train "
        f"split), sha256 {df.Record.load('net/record.safetensors', network).made['sha256']}",
    ]
    assert said[-1].startswith("  --code FILE.py:FUNCTION, the code of its publisher, builds the network")
    assert "tensor" not in "".join(said) and "float32" not in "".join(said)
    opened = command("inspect net --code normed.py:Normed").out.splitlines()
    entries = [line.split(":")[0] for line in opened if line.startswith("    ")]
    assert entries and [line.split(":")[0] for line in said[9:-1]] == entries
    bare = command("inspect bare").out
    assert "\n  made for a test\n" in bare and "\n  no record\n" in bare
    measured = json.loads(command("inspect net --json").out)["result"]
    assert measured["kind"] == "release" and measured["layers"]["conv"] == {"bias": [4], "weight": [4, 1, 3, 3]}
    assert set(measured["record"]["entries"]) == {name.strip() for name in entries}


def test_pack_warns_of_a_normalisation_that_the_batch_norm_does_not_match_and_measures_the_accuracy(here, command):
    (here / "normed.py").write_text(FIRST_NORMED)
    namespace: dict = {}
    exec(FIRST_NORMED, namespace)
    module = namespace["FirstNormed"]()
    module[1].running_var.fill_(1e4)
    torch.save(module.state_dict(), "normed.pth")
    pack = "pack normed.py:FirstNormed --weights normed.pth --shape 1 8 8 --classes 10"
    done = command(f"{pack} --out plain")
    assert done.code == 0 and "warning: the mean and std look wrong: photos " in done.out
    assert "from 0 to 255 fit the first batch norm " in done.out
    described = command("pack normed.py:FirstNormed --weights normed.pth --data digits --limit 100 --out described")
    assert described.code == 0 and df.Release.open(here / "described").spec.shape == (1, 8, 8)
    assert df.Release.open(here / "described").spec.classes == tuple("0123456789")
    doubted = command(f"{pack} --data digits --limit 100 --out doubted")
    assert re.search(r"with these, accuracy on the same images is [\d.]+ % instead of [\d.]+ %", doubted.out)
    module[1].running_var.fill_(0.05)
    torch.save(module.state_dict(), "normed.pth")
    done = command(f"{pack} --data digits --limit 100 --out measured")
    assert done.code == 0 and "% on 100 test images of digits" in done.out
    assert "% on 100 test images of digits" in (here / "measured" / "README.md").read_text()
    assert json.loads((here / "measured" / "run.json").read_text())["result"]["evaluation"]["images"] == 100
    assert "--data digits --limit 100" in command("rerun measured --out again").out
    refused = command(f"{pack} --limit 100 --out no")
    assert refused.code == 2 and refused.line.startswith("--limit: got 100 without --data")
