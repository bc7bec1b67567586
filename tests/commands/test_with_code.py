"""`--with-code` puts the publisher's code into a release, and `--trust` opens it, in every command."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import datafree as df
from datafree import UserError
from datafree._core.files import sha256_file
from datafree.releases.release import Release
from datafree.releases.shipped_code import check_shippable

NET = """
import pathlib
from torch import nn
from blocks import layer
pathlib.Path("ran").touch()
def build(spec, width=8):
    from parts.last import Last
    layers = [layer(spec.pixels, width), nn.BatchNorm1d(width), nn.ReLU(), Last(width, len(spec.classes))]
    return nn.Sequential(nn.Flatten(), *layers)
"""
FILES = {
    "net.py": NET,
    "blocks.py": "from torch import nn\ndef layer(inputs, outputs): return nn.Linear(inputs, outputs)\n",
    "parts/last.py": "from torch import nn\nfrom .names import NAME\nclass Last(nn.Linear): name = NAME\n",
    "parts/names.py": "NAME = 'last'\n",
    "unused.py": "import pathlib\npathlib.Path('evil').touch()\n",
}
PACK = "--shape 1 8 8 --classes 10"
TRAIN = "--data digits --limit 200 --epochs 1 --quiet"


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Path:
    """net: a release with code, trained and recorded; never written to."""
    from datafree.cli.main import run

    folder = tmp_path_factory.mktemp("published")
    write(folder / "mine", FILES)
    patch = pytest.MonkeyPatch()
    with patch.context() as inside:
        inside.chdir(folder)
        for line in (
            "train mine/net.py:build --out net --with-code --data digits --epochs 3 --batch 32 --quiet",
            "record net --trust --data digits --quiet",
        ):
            assert run(line.split()) == 0
    (folder / "ran").unlink()
    shutil.rmtree(folder / "mine")
    return folder


@pytest.fixture
def here(published, tmp_path, monkeypatch) -> Path:
    """A deployer's folder: the release alone."""
    shutil.copytree(published, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_a_release_holds_the_files_that_the_network_is_built_from(here):
    files = {path.relative_to("net/code").as_posix() for path in Path("net/code").rglob("*") if path.is_file()}
    assert files == set(FILES) - {"unused.py"}
    assert all((here / "net/code" / name).read_text() == FILES[name] for name in files)
    config = json.loads(Path("net/config.json").read_text())
    assert config["code"] == {
        "call": "net.py:build", "files": {name: sha256_file(Path("net/code", name)) for name in files},
    }  # fmt: skip


def test_the_card_states_call_hashes_accuracy_input_record_and_leak_and_its_commands_run(here, run_card):
    card = Path("net/README.md").read_text()
    for text in (
        "`net.py:build` builds the network.", "it runs only with `--trust`", "accuracy ", "- input: 1 x 8 x 8 pixels",
        "## Activation record", "Forecast of a membership attack", 'datafree.load_model("THIS_FOLDER", trust=True)',
        f"| `code/net.py` | `{sha256_file('net/code/net.py')}` |",
    ):  # fmt: skip
        assert text in card, text
    commands = re.findall(r"`datafree ([a-z]+ .*?)`", card)
    assert len(commands) >= 4
    write(here / "own", FILES)
    words = {
        "THIS_FOLDER": "net", "STUDENT": "hinton8", "DATA": "digits", "FILE.py": "own/net.py",
        "--images 20000": "--images 20",
    }  # fmt: skip
    run_card(commands, words, "student")


@pytest.mark.usefixtures("here")
def test_inspect_shows_call_and_hashes_and_runs_nothing(command):
    done = command("inspect net")
    assert done.code == 0
    assert "  net.py:build builds the network; the release holds its code:\n" in done.out
    for name in set(FILES) - {"unused.py"}:
        size, lines = len(FILES[name]), FILES[name].count("\n")
        digest = sha256_file(Path("net/code", name))
        assert f"    {Path('net/code', name)}: {lines} lines, {size:,} bytes, sha256 {digest}\n" in done.out
    assert "--trust, or --code FILE.py:FUNCTION, the code of its publisher, builds the network" in done.out
    assert json.loads(command("inspect net --json").out)["result"]["code"]["call"] == "net.py:build"
    assert not Path("ran").exists()
    assert "fingerprint" in command("inspect net --trust").out
    assert Path("ran").exists()
    Path("net/code/net.py").write_text(NET + "\n")
    assert "has other content than its sha256 in config.json states" in command("inspect net").line


COMMANDS = {
    "evaluate": "evaluate net --data digits --quiet",
    "record": "record net --data digits --replace --preset small --quiet",
    "record elsewhere": "record net --data digits --quiet --out copy",
    "synthesize": "synthesize bns net --steps 2 --images 8 --chunk 8 --out set --quiet",
    "distill": "distill net hinton8 --data digits --limit 50 --epochs 1 --out student --quiet",
    "fresh": "distill fresh gaussian net hinton8 --epoch-images 20 --epochs 1 --out student --quiet",
    "online": "distill online net hinton8 --epochs 1 --iterations 1 --batch 8 --width 8 --out student --quiet",
    "similarity": "similarity net noise --images 20 --quiet",
    "quantize": "quantize net --calibrate noise --images 8 --out int8 --quiet",
    "inspect": "inspect net --trust",
    "compare": "compare net --data digits --methods gaussian --students hinton8 --seeds 1 --steps 2 "
    "--images 128 --no-controls --out comparison --quiet",
}  # fmt: skip


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("line", COMMANDS.values(), ids=COMMANDS)
def test_every_command_refuses_without_trust_and_runs_with_it(line, command):
    if not line.startswith("inspect"):
        text = command(line).line
        assert text == (
            f"net is a custom network that net.py:build builds, and the code runs only if you trust it: read "
            f"{Path('net/code/net.py')} and give --trust, name your own copy with --code FILE.py:FUNCTION, or, from Python, "
            "give `module`"
        )
        assert not Path("ran").exists()
        line += " --trust"
    done = command(line)
    assert done.code == 0, done


@pytest.mark.usefixtures("here")
def test_a_report_measures_trusted_networks_alone(command):
    assert command("report net --data digits --out page.html --quiet").code == 0
    page = Path("page.html").read_text()
    assert (
        "net is a custom network and was not measured, because its code was not given; read what is in its folder code"
        in page
    )
    assert not Path("ran").exists()
    line = "report net --data digits --out trusted.html --quiet --trust"
    assert command(line).code == 0
    log = json.loads(Path("trusted.html.run.json").read_text())
    assert log["result"]["networks"][0]["accuracy"] is not None
    assert log["settings"]["trust"] is True and str(Path("net/code/net.py")) in log["inputs"]
    assert "already complete" in command(line).out


@pytest.mark.usefixtures("here")
def test_the_log_of_a_trusted_run_has_the_code_s_hashes(command):
    assert command("evaluate net --data digits --limit 50 --quiet --trust --out said").code == 0
    log = json.loads(Path("said/run.json").read_text())
    assert log["settings"]["trust"] is True
    assert log["inputs"]["code of model"] == sha256_file("net/code/net.py")
    assert len(log["inputs"]["content of modules of model"]) == 64
    assert str(Path("net/code/parts/last.py")) in json.loads(Path("said.run.json").read_text())["inputs"]
    assert command("evaluate net --data digits --limit 50 --quiet --code net/code/net.py:build --out other").code == 0
    assert "trust" not in json.loads(Path("other/run.json").read_text())["settings"]


@pytest.mark.usefixtures("here")
def test_a_record_in_place_keeps_the_code_and_a_copy_takes_it_along(command):
    before = {path: path.read_bytes() for path in Path("net/code").rglob("*.py")}
    config = Path("net/config.json").read_bytes()
    assert command("record net --trust --data digits --preset small --replace --quiet").code == 0
    assert {path: path.read_bytes() for path in Path("net/code").rglob("*.py")} == before
    assert Path("net/config.json").read_bytes() == config
    assert "`net.py:build` builds the network." in Path("net/README.md").read_text()
    assert command("record net --trust --data digits --preset small --out copy --quiet").code == 0
    assert Release.open("copy").listed_code == Release.open("net").listed_code
    assert command("evaluate copy --data digits --quiet --trust").code == 0


def test_teacher_and_student_may_both_have_a_net_py(here, command):
    student = NET.replace('pathlib.Path("ran").touch()', "").replace("nn.ReLU()", "nn.Tanh()")
    write(here / "theirs", {**FILES, "net.py": student})
    line = (
        "distill net theirs/net.py:build --data digits --limit 50 --epochs 1 --out student --with-code --trust --quiet"
    )
    done = command(line)
    assert done.code == 0, done
    shutil.rmtree("theirs")
    one, two = df.load_model("net", trust=True), df.load_model("student", trust=True)
    again = df.load_model("net", trust=True)
    assert torch.equal(one.answers(), again.answers())
    assert type(one.module[-1]).__module__ == type(two.module[-1]).__module__ == "parts.last"
    assert type(one.module[-1]) is not type(two.module[-1]) is not type(again.module[-1])
    assert not {"net", "blocks", "parts.last"} & sys.modules.keys()
    done = command("evaluate student --teacher net --data digits --quiet --trust --out said")
    assert done.code == 0 and "agreement with net:" in done.out
    inputs = json.loads(Path("said/run.json").read_text())["inputs"]
    assert inputs["code of model"] == sha256_file("student/code/net.py")
    assert inputs["code of teacher"] == sha256_file("net/code/net.py")
    refused = command("evaluate student --teacher net --data digits --quiet --code student/code/net.py:build").line
    assert "or name your own copy with --teacher-code" in refused
    line = "evaluate student --teacher net --data digits --quiet --code student/code/net.py:build --trust"
    assert command(line).code == 0


@pytest.mark.usefixtures("here")
def test_half_of_a_teacher_is_built_by_its_teachers_code(command):
    done = command("distill net --data digits --limit 50 --epochs 1 --out small --with-code --trust --quiet")
    assert done.code == 0, done
    assert re.search(r"net.py:build, reduced: [\d,]+ parameters, [\d.]+ times fewer than", done.out)
    teacher, student = df.load_model("net", trust=True), df.load_model("small", trust=True)
    assert student.reduced and student.module[1].out_features == teacher.module[1].out_features // 2
    assert Release.open("small").code().contents == Release.open("net").code().contents
    assert torch.equal(df.load_model("small", code="net/code/net.py:build").answers(), student.answers())
    assert "release of net.py:build, reduced" in command("inspect small --trust").out
    done = command(
        "distill net half --data digits --limit 50 --epochs 1 --out bare --code net/code/net.py:build --quiet"
    )
    assert done.code == 0 and not Path("bare/code").exists()
    assert command("evaluate bare --data digits --quiet --code net/code/net.py:build").code == 0


def test_modules_of_the_user_s_own_stay_what_they_are(here, monkeypatch):
    write(here / "user", {"blocks.py": "mine = True\n"})
    monkeypatch.syspath_prepend(str(here / "user"))
    import blocks  # pyright: ignore[reportMissingImports]

    df.load_model("net", trust=True)
    assert sys.modules["blocks"] is blocks and blocks.mine
    del sys.modules["blocks"]


def test_an_import_in_a_forward_pass_finds_the_release_s_file_later(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "from torch import nn\nclass Net(nn.Linear):\n    def __init__(self): super().__init__(64, 10)\n"
    text += (
        "    def forward(self, x):\n        import later\n        return later.change(super().forward(x.flatten(1)))\n"
    )
    write(tmp_path / "mine", {"net.py": text, "later.py": "def change(x): return x + 1\n"})
    spec = df.InputSpec(shape=(1, 8, 8), classes=tuple("0123456789"))
    df.write_release("net", df.new_model("mine/net.py:Net", spec, seed=0), code="mine/net.py:Net")
    assert set(Release.open("net").listed_code.files) == {"net.py", "later.py"}
    shutil.rmtree("mine")
    sys.modules.pop("later")
    network = df.load_model("net", trust=True)
    assert "later" not in sys.modules
    assert (
        network.copy().answers().shape == (16, 10) if hasattr(network, "copy") else network.answers().shape == (16, 10)
    )


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """A publisher's folder: mine/, w.safetensors of mine/net.py:build(width=6), zoo.safetensors."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine", FILES)
    spec = df.InputSpec(shape=(1, 8, 8), classes=tuple("0123456789"))
    save_file(df.new_model("mine/net.py:build(width=6)", spec, seed=0).module.state_dict(), "w.safetensors")
    save_file(df.new_model("hinton8", spec, seed=0).module.state_dict(), "zoo.safetensors")
    return tmp_path


@pytest.mark.usefixtures("weights")
def test_pack_and_record_with_code_and_rerun(command):
    line = "mine/net.py:build --arg width=6 --weights w.safetensors"
    done = command(f"pack {line} {PACK} --out net --with-code")
    assert done.code == 0
    assert (
        "the release holds the network's code, net.py, blocks.py, parts/last.py, parts/names.py: who has read it"
        in done.out
    )
    assert Release.open("net").listed_code.call == "net.py:build(width=6)"
    refused = command(f"pack {line} {PACK} --out net").line
    assert "net was made with --with-code, not without" in refused
    assert "that command runs the code" in command("rerun net --out again").err
    assert command("rerun net --out again --trust").code == 0
    assert Release.open("again").listed_code == Release.open("net").listed_code
    line = (
        line.replace("--arg width=6", "").replace("build", "'build(width=6)'").replace("mine/net.py:'", "'mine/net.py:")
    )
    done = command(f"record {line} --data digits --limit 100 --out recorded --with-code --quiet")
    assert done.code == 0, done
    assert Release.open("recorded").listed_code == Release.open("net").listed_code
    refused = command("record net --data digits --code mine/net.py:build --with-code --quiet").line
    assert refused.startswith("--with-code: got it with net, whose record alone is written, expected --out")


@pytest.mark.usefixtures("here")
def test_rerun_of_a_trusted_run_needs_trust_of_its_own(command):
    assert command("evaluate net --data digits --limit 50 --quiet --trust --out said").code == 0
    Path("ran").unlink()
    assert command("rerun said --out again").err == (
        "datafree: that command runs the code that a release holds (--trust); if you have read that code, add --trust here "
        "too, or type the command yourself\n"
    )
    assert not Path("ran").exists()
    assert command("rerun said --out again --trust").code == 0
    assert command("evaluate net --data digits --limit 50 --quiet --code net/code/net.py:build --out typed").code == 0
    log = json.loads(Path("typed.run.json").read_text())
    words = log["argv"]
    at = words.index("--code")
    Path("typed.run.json").write_text(json.dumps({**log, "argv": words[:at] + words[at + 2 :]}))
    assert "and the code runs only if you trust it" in command("rerun typed --out third --trust").err


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hinton8", "--with-code: got it with 'hinton8', which names no file, expected file.py:function; leave it out"),
        (
            "mine.hidden:build",
            "--with-code: got it with 'mine.hidden:build', which names a module, expected file.py:function; leave it out, "
            "or name the file",
        ),
        (
            "'mine/net.py:pathed(path=\"/home\")'",
            'code: got the arguments (path="/home"), expected none with a path, which is of this machine alone; put the '
            "value into the file",
        ),
        (
            "mine/json.py:build",
            "code: got the file 'json.py', whose module 'json' is one of Python or of a package that datafree uses, "
            "expected another name; change that, or leave the code out",
        ),
        (
            "mine/foreign.py:build --arg name=hinton8",
            "code: got foreign.py:build(name='hinton8'), whose build is defined elsewhere, expected a function or class of "
            "foreign.py; write a function there that returns the network",
        ),
        ("mine/hidden.py:build", "mine/hidden.py, line 2: got the invisible character '\\u202e', expected plain text"),
    ],
)
def test_what_no_release_may_hold_is_refused_before_anything_is_written(name, reason, weights, command):
    text = "from torch import nn\ndef build(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    write(weights / "mine", {
        "json.py": text, "hidden.py": text.replace("\ndef", "\n# \u202e\ndef"),
        "foreign.py": "from datafree.models.zoo import build\n",
        "net.py": NET + "def pathed(spec, path): return build(spec, 6)\n",
    })  # fmt: skip
    save_file({"1.weight": torch.zeros(10, 64), "1.bias": torch.zeros(10)}, "flat.safetensors")
    file = "zoo" if "hinton8" in name else "w" if "net.py" in name else "flat"
    done = command(f"pack {name} --weights {file}.safetensors {PACK} --out out --with-code")
    assert done.code == 2 and done.err.removeprefix("datafree: ").startswith(reason), done
    assert not Path("out").exists()


def test_code_that_builds_another_network_is_refused(weights):
    spec = df.InputSpec(shape=(1, 8, 8), classes=tuple("0123456789"))
    network = df.new_model("mine/net.py:build(width=6)", spec, seed=0)
    with pytest.raises(df.UserError, match="expected"):
        df.write_release("out", network, code="mine/net.py:build")
    write(weights / "mine", {"other.py": NET.replace("nn.ReLU()", "nn.Tanh()")})
    with pytest.raises(df.UserError, match="takes the weights but gives other logits than the network"):
        df.write_release("out", network, code="mine/other.py:build(width=6)")
    zoo = df.new_model("hinton8", spec, seed=0)
    with pytest.raises(df.UserError, match="with hinton8, a network of the zoo, expected a custom one; leave it out"):
        df.write_release("out", zoo, code="mine/net.py:build")
    assert not Path("out").exists()


def test_a_module_that_lies_in_another_folder_is_named(weights, monkeypatch):
    write(weights / "elsewhere", {"shared.py": "width = 6\n"})
    monkeypatch.syspath_prepend(str(weights / "elsewhere"))
    write(weights / "mine", {"net.py": "import shared\n" + NET})
    spec = df.InputSpec(shape=(1, 8, 8), classes=tuple("0123456789"))
    network = df.new_model("mine/net.py:build(width=6)", spec, seed=0)
    with pytest.warns(match="net.py imports shared.py from another folder, which the release does not hold"):
        df.write_release("net", network, code="mine/net.py:build(width=6)")
    assert "shared.py" not in Release.open("net").listed_code.files


@pytest.mark.usefixtures("weights")
def test_a_release_that_is_written_again_has_no_stale_code_and_keeps_other_files():
    spec = df.InputSpec(shape=(1, 8, 8), classes=tuple("0123456789"))
    network = df.new_model("mine/net.py:build(width=6)", spec, seed=0)
    df.write_release("net", network, code="mine/net.py:build(width=6)")
    Path("net/code/notes.txt").write_text("mine")
    Path("net/code/parts/last.py").write_text("# changed by me\n")
    df.write_release("net", network)
    left = {path.relative_to("net/code").as_posix() for path in Path("net/code").rglob("*") if path.is_file()}
    assert left == {"notes.txt", "parts/last.py"}
    assert "code" not in json.loads(Path("net/config.json").read_text())
    assert "does not contain the code of the network" in Path("net/README.md").read_text()
    with pytest.raises(df.UserError, match=r"last\.py' is a file that no release of datafree is known to have written"):
        df.write_release("net", network, code="mine/net.py:build(width=6)")
    Path("net/code/parts/last.py").unlink()
    df.write_release("net", network, code="mine/net.py:build(width=6)")
    assert df.load_model("net", trust=True).fingerprint() == network.fingerprint()
    Path("net/code/notes.txt").unlink()
    df.write_release("net", network)
    assert not Path("net/code").exists()


@pytest.mark.usefixtures("weights")
def test_a_student_from_python_is_saved_with_its_code(digits):
    spec = df.InputSpec(shape=(1, 8, 8), classes=tuple("0123456789"))
    teacher = df.new_model("hinton8", spec, seed=0)
    student = df.distill(teacher, "mine/net.py:build(width=6)", images=digits.subset(64), epochs=1)
    df.save_student("student", student, code="mine/net.py:build(width=6)")
    assert df.load_model("student", trust=True).fingerprint() == student.fingerprint()


@pytest.mark.parametrize(
    "argv",
    [
        ["evaluate", "net", "--trust", "--data", "digits"],
        ["evaluate", "net", "--trust=true", "--data", "digits"],
        ["evaluate", "--data=digits", "--trust", "--", "net"],
        ["evaluate", "zoo", "--teacher", "net", "--trust", "--data", "digits"],
        ["inspect", "net", "--trust"],
        ["report", "net", "--trust", "--data", "digits"],
        ["quantize", "net", "--trust", "--out", "made"],
        ["record", "net", "--trust", "--data", "digits", "--replace"],
        ["distill", "fresh", "gaussian", "net", "hinton4", "--trust", "--out", "made"],
        ["condense", "--teacher", "net", "--trust", "--data", "digits", "--per-class", "1", "--out", "made"],
        ["similarity", "net", "noise", "--trust"],
    ],
    ids=" ".join,
)
def test_a_stranger_s_log_does_not_trust_for_the_user(argv, here, command):
    spec = df.InputSpec(shape=(1, 8, 8), classes=tuple("0123456789"))
    df.write_release("zoo", df.new_model("hinton8", spec, seed=0))
    (here / "run.json").write_text(json.dumps({"format": 1, "argv": argv}))
    done = command("rerun run.json")
    assert done.code == 2, done
    assert "add --trust here too" in done.err
    assert not Path("ran").exists()
    assert not Path("made").exists()


def test_the_code_of_an_onnx_file_is_refused_as_data():
    with pytest.raises(UserError, match=r"'a\.onnx', which is data and holds no code"):
        check_shippable("a.onnx")
