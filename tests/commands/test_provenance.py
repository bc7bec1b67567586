"""A folder that is handed over names data and hashes; the command line and paths stay beside it, with the publisher."""

from __future__ import annotations

import getpass
import json
import os
import platform
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datafree._core.files import read_json
from datafree._core.optional_packages import quiet
from datafree.data import load
from datafree.runs import run_log
from datafree.runs.provenance import METHODS
from datafree.synthesis.methods import methods

from .conftest import tree

CODE = """
from torch import nn

class SecretNet(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 36, len(spec.classes))

    def forward(self, x):
        return self.fc(self.bn(self.conv(x)).relu().flatten(1))

def build(spec):
    return SecretNet(spec)
"""
LINES = (
    "train secretcode.py:build --data secretdata.npz --epochs 2 --out secretnet --quiet",
    "record secretnet --code secretcode.py:build --data secretdata.npz --preset small --quiet",
    "train hinton8 --data secretfolder --epochs 1 --out secretteacher --quiet",
    "record hinton8 --weights secretteacher/model.safetensors --data secretfolder --preset sharp --out out-record --quiet",
    "condense random --data secretfolder --per-class 1 --teacher secretteacher --out secretfew --quiet",
    "import-condensed secretpublished secretteacher --anyway --out out-imported",
    "synthesize top out-record --steps 1 --images 8 --chunk 8 --out out-set --quiet",
    "expand secretteacher secretfew --images 8 --chunk 8 --steps 1 --out out-expand --quiet",
    "distill secretteacher hinton4 --data secretfolder --epochs 1 --out out-distill --quiet",
    "distill secretnet secretcode.py:build --code secretcode.py:build --data secretdata.npz --epochs 1 --out out-own "
    "--quiet",
    "distill online secretteacher hinton4 --condensed secretfew --epochs 1 --iterations 2 --batch 32 "
    "--latent 4 --data secretfolder --out out-online --quiet",
    "pack secretcode.py:build --weights secretnet/model.safetensors --shape 1 8 8 --classes 10 --out out-pack",
    "evaluate secretnet --code secretcode.py:build --data secretfolder --out out-evaluate --quiet",
    "similarity secretnet secretdata.npz secretfolder out-expand noise --code secretcode.py:build --images 20 "
    "--out out-similarity --quiet",
)
QUANTIZE = (
    "quantize secretnet --code secretcode.py:build --calibrate secretfolder --finetune secretdata.npz --epochs 1 "
    "--data secretdata.npz --out out-quantized --quiet"
)


@pytest.fixture
def secret(tmp_path, monkeypatch) -> Path:
    """A working folder, data, code, user and machine whose names all hold `secret`."""
    folder = tmp_path / "secretuser" / "home"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    for name in ("USER", "LOGNAME", "HOME", "USERNAME"):
        monkeypatch.setenv(name, str(folder.parent))
    monkeypatch.setattr(platform, "node", lambda: "secrethost")
    monkeypatch.setattr(run_log, "_processor", lambda: "secretprocessor")
    monkeypatch.setattr(getpass, "getuser", lambda: "secretuser")
    digits = load("digits", "train")
    images = (255 * digits.pixels(np.arange(80))[:, 0]).round().byte().numpy()
    labels = digits.labels[:80].numpy()
    np.savez("secretdata.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    for part in ("secretfolder/train", "secretfolder/test", "secretpublished"):
        for index, (image, label) in enumerate(zip(images[:60], labels, strict=False)):
            place = folder / part / str(label)
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"secret{index}.png")
    (folder / "secretcode.py").write_text(CODE)
    return folder


def everything(path: Path) -> bytes:
    """The bytes of a file, and of what a zip file has in it."""
    found = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            found += b"".join(packed.read(name) for name in packed.namelist())
    return found


def told(folder: Path) -> dict[str, bytes]:
    """By file, what is around every mark in an output folder."""
    marks = (b"secret", os.fsencode(str(Path.home())), os.fsencode(Path(run_log.__file__).parents[2]))
    found = {}
    for path in folder.rglob("*"):
        content = everything(path) if path.is_file() else b""
        for mark in marks:
            at = content.lower().find(mark)
            if at >= 0:
                found[path.name] = content[max(0, at - 80) : at + 80]
    return found


def test_no_verb_writes_a_path_a_user_or_a_machine_into_a_folder(command, secret):
    for line in LINES:
        done = command(line)
        assert done.code == 0, (line, done.err)
    folders = [path for path in secret.iterdir() if (path / ".datafree.json").exists()]
    assert len(folders) == len(LINES) - 1
    for folder in folders:
        assert told(folder) == {}, folder.name
        assert "argv" not in json.dumps(read_json(folder / "run.json"))
        beside = read_json(secret / f"{folder.name}.run.json")
        assert f"--out {folder.name}" in " ".join(beside["argv"]) or "record" in beside["argv"]
        assert beside["folder"] == str(secret)


@pytest.mark.usefixtures("exported_anew")
def test_quantized_files_hold_no_line_of_the_users_code_and_no_path(command, secret):
    with quiet():
        pytest.importorskip("torchao")
        pytest.importorskip("onnxruntime")
    assert command(LINES[0]).code == 0
    done = command(QUANTIZE)
    assert done.code == 0, done.err
    assert told(secret / "out-quantized") == {}
    card = (secret / "out-quantized" / "README.md").read_text()
    assert "images of a folder (train split), of unknown origin" in card


def test_a_state_that_a_stopped_run_leaves_names_no_path_either(command, secret, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_log.RunLog, "write", stop)
    assert command(LINES[0]).code == 130
    assert (secret / "secretnet" / "training.safetensors").exists()
    assert told(secret / "secretnet") == {}


def test_the_same_content_at_another_path_is_the_same_run_and_other_content_is_not(command, secret):
    line = "train hinton8 --data {} --epochs 1 --out o --quiet"
    assert command(line.format("secretdata.npz")).code == 0
    shutil.copy("secretdata.npz", "moved.npz")
    before = tree(secret)
    assert command(line.format(secret / "moved.npz")).out.startswith("already complete: ")
    assert tree(secret) == before
    with np.load("secretdata.npz") as arrays:
        np.savez("moved.npz", **{**arrays, "x_train": arrays["x_train"][::-1]})
    text = command(line.format("moved.npz")).line
    assert "o was made with other content of an .npz file (train): sha256 " in text


def test_a_run_is_repeated_from_the_log_beside_its_folder_and_from_an_old_log_in_it(command, here):
    assert command("rerun other --out again").code == 0
    assert command("rerun other/run.json --out third").code == 0
    beside = here / "other.run.json"
    old = read_json(beside)
    beside.unlink()
    assert "names no command line" in command("rerun other --out fourth").line
    (here / "other" / "run.json").write_text(json.dumps(old))
    assert command("rerun other --out fourth").code == 0
    for name in ("again", "third", "fourth"):
        assert (here / name / "model.safetensors").read_bytes() == (here / "other" / "model.safetensors").read_bytes()


def test_a_folder_of_an_earlier_version_is_complete_and_its_paths_go_when_it_is_recorded(command, here):
    old = {**read_json(here / "other.run.json"), "format": 1, "result": {}, "seconds": 1.0}
    old["inputs"] = {"/home/somebody/digits": "0" * 64}
    (here / "other" / "run.json").write_text(json.dumps(old))
    (here / "other.run.json").unlink()
    line = "train hinton16 --data digits --epochs 1 --seed 1 --out other --quiet"
    assert command(line).out.startswith("already complete: release in other")
    assert "other was made with --epochs 1, not 2: " in command(line.replace("epochs 1", "epochs 2")).line
    assert command("record other --data digits --preset small --quiet").code == 0
    text = (here / "other" / "run.json").read_text()
    assert "argv" not in text and "somebody" not in text and '"before"' in text
    assert read_json(here / "other.run.json")["before"]["argv"] == old["argv"]
    assert command(line).out.startswith("already complete: release in other")


def test_a_page_and_a_folder_of_one_name_have_logs_of_their_own(command, here):
    assert command("report other --out other.html").code == 0
    assert read_json(here / "other.run.json")["verb"] == "train"
    assert read_json(here / "other.html.run.json")["verb"] == "report"


def test_a_log_of_a_page_of_an_earlier_version_is_not_lost(command, refused, here):
    assert command("report teacher --out o.html").code == 0
    shutil.move(here / "o.html.run.json", here / "o.run.json")
    assert "o.run.json is the log of a report" in refused("train hinton8 --data digits --epochs 1 --out o --quiet")
    assert (here / "o.run.json").exists()


def test_the_commit_is_that_of_the_librarys_own_checkout_alone(tmp_path, monkeypatch):
    package = tmp_path / "venv" / "datafree"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.com", "-C", str(tmp_path)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "somebody's"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(run_log, "FOLDER", package)
    assert run_log.commit() is None


def test_the_known_names_of_methods_are_those_there_are():
    assert sorted(METHODS) == sorted(methods())
