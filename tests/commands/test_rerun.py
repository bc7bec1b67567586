"""`datafree rerun` of a stranger's run.json: no code and no write outside without --trust, whatever the words are."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from datafree._core.code_names import code_name, without_code
from datafree._core.errors import UserError
from datafree.cli import VERBS
from datafree.cli.rerun import _defaults_then
from datafree.models.input_spec import InputSpec
from datafree.releases.load import new_model

EVIL = "import pathlib\npathlib.Path({flag!r}).touch()\ndef build(spec):\n    raise ValueError\n"
NAMES = [
    "evil.py:build", "evil.py:1", "evil.py:", "evil.py: build", "evil.py:build ", "evil.py:\tbuild", "evil.py:é",
    "evil.py:\u00b2", "evil.py:\u0661", "./evil.py:build", "a b.py:build", "evil:build", "evil:1", "evil:",
    "pack.evil:build",
    "cifar10:train.py:build", "digits:train", "evil.py:build:train", "cuda:1", "x:evil.py:build", "C:evil.py:build", ":evil",
]  # fmt: skip
FORMS = [
    ["train", "NAME", "--data", "digits", "--out", "made"],
    ["train", "--data=digits", "--out=made", "--", "NAME"],
    ["train", "--data", "digits", "NAME", "--out", "made"],
    ["pack", "NAME", "--weights", "teacher/model.safetensors", "--shape", "1", "8", "8", "--classes", "10", "--out", "made"],
    ["record", "NAME", "--weights", "teacher/model.safetensors", "--data", "digits", "--out", "made"],
    ["record", "custom", "--code", "NAME", "--data", "digits", "--quiet"],
    ["record", "custom", "--kind", "moments", "--code=NAME", "--data", "digits"],
    ["distill", "teacher", "NAME", "--images", "set", "--out", "made"],
    ["distill", "teacher", "NAME", "--online", "generator", "--epochs", "1", "--out", "made"],
    ["distill", "custom", "hinton4", "--images", "set", "--code", "NAME", "--out", "made"],
    ["synthesize", "custom", "--code=NAME", "--out", "made"],
    ["expand", "custom", "few", "--code=NAME", "--out", "made"],
    ["quantize", "custom", "--code", "NAME", "--out", "made"],
    ["evaluate", "custom", "--code", "NAME", "--data", "digits"],
    ["evaluate", "teacher", "--teacher", "NAME", "--data", "digits"],
    ["evaluate", "teacher", "--teacher", "custom", "--teacher-code", "NAME", "--data", "digits"],
    ["report", "teacher", "custom", "--data", "digits", "--code", "NAME", "--out", "page.html"],
    ["report", "custom", "--data", "digits", "--code=custom=NAME", "--out", "page.html"],
    ["similarity", "custom", "digits", "--code", "NAME"],
    ["condense", "--data", "digits", "--per-class", "1", "--teacher", "custom", "--code", "NAME", "--out", "made"],
    ["import-condensed", "few.pt", "custom", "--code", "NAME", "--pixels", "0-1", "--out", "made"],
    ["inspect", "custom", "--code", "NAME"],
]  # fmt: skip
"""Every way in which a command line can name a model."""


@pytest.fixture
def hostile(here, monkeypatch):
    """The working directory with code that leaves a flag when it runs, and a release that needs such code."""
    flag = here / "ran"
    (here / "pack").mkdir()
    for place in (
        "evil.py",
        "a b.py",
        "pack/evil.py",
        "pack/__init__.py",
        "cifar10:train.py",
        "x:evil.py",
        "C:evil.py",
    ):
        (here / place).write_text(EVIL.format(flag=str(flag)))
    config = json.loads((here / "teacher" / "config.json").read_text())
    shutil.copytree(here / "teacher", here / "custom", ignore=shutil.ignore_patterns("record*", "run.json"))
    kept = {
        key: value for key, value in config.items() if key not in ("checksum", "sha256", "notes")
    }  # of another content
    (here / "custom" / "config.json").write_text(json.dumps(kept | {"architecture": "custom:build"}))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield flag
    for name in ("evil", "pack", "pack.evil"):
        sys.modules.pop(name, None)


def write_log(argv: object, **more: object) -> None:
    Path("run.json").write_text(json.dumps({"format": 1, "argv": argv, **more}))


def test_no_name_in_any_place_of_any_command_runs_code_without_trust(command, hostile):
    executed: list[str] = []
    watching = [True]

    def hook(event: str, args: tuple) -> None:
        if watching[0] and event == "exec" and str(hostile.parent) in str(getattr(args[0], "co_filename", "")):
            executed.append(args[0].co_filename)

    sys.addaudithook(hook)
    try:
        for index, form in enumerate(FORMS):
            for name in NAMES if index < 3 else NAMES[index % 4 :: 4]:
                write_log([word.replace("NAME", name) for word in form])
                done = command("rerun run.json")
                assert done.code == 2, (form, name, done)
                assert "Traceback" not in done.err and done.err.count("\n") == 1
                if code_name(name) is not None:
                    assert "--trust" in done.err, (form, name, done.err)
                assert not hostile.exists() and not executed and not Path("made").exists(), (form, name)
    finally:
        watching[0] = False


@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_every_form_would_run_the_code_with_trust(command, hostile, form):
    """So the test above asks what it says: each form does reach the loader."""
    if form[0] == "evaluate" and "--teacher" in form:
        pytest.skip("a second network cannot be named by code there")
    write_log([word.replace("NAME", "evil.py:build") for word in form])
    done = command("rerun run.json --trust")
    assert hostile.exists(), done


def test_whatever_the_loader_would_execute_is_named_as_code(hostile):
    """Random words: where loading one runs a file, `code_name` says so and the barrier holds."""
    seed = int(os.environ.get("DATAFREE_TEST_SEED", "0"))
    print(f"seed {seed}")
    rng, spec, ran = random.Random(seed), InputSpec(shape=(1, 8, 8), classes=("a", "b")), 0
    parts = [
        *["evil", "evil.py", "pack", ".", ":", "build", "1", "١", "²", "_", "é", "/", "\\", "train", "C"],
        " ",
        "\n",
    ]
    for _ in range(700):
        word = "".join(rng.choices(parts, k=rng.randint(2, 5)))
        word = rng.choice([word, f"evil.py:{word}", f"{word}:build"])
        with without_code(), pytest.raises(UserError):
            new_model(word, spec, seed=0)
        assert not hostile.exists(), (seed, word)
        with suppress(UserError):
            new_model(word, spec, seed=0)
        for name in ("evil", "pack", "pack.evil"):
            sys.modules.pop(name, None)
        if hostile.exists():
            ran += 1
            hostile.unlink()
            assert code_name(word) is not None, (seed, word)
    assert ran > 10


def test_a_name_that_can_be_no_function_is_refused_before_its_file_runs(hostile):
    spec = InputSpec(shape=(1, 8, 8), classes=("a", "b"))
    for word in ("evil.py:1", "evil.py:", "evil.py: build", "evil.py:a.b", "..evil:build", ":build", "a-b:build"):
        with pytest.raises(UserError, match="names no function"):
            new_model(word, spec, seed=0)
    assert not hostile.exists()


@pytest.mark.parametrize("argv", [
    ["rerun", "run.json"], ["--", "rerun", "run.json"], ["--help"], ["--version"], [], ["train", "a\0b"],
    ["train", "\ud800"], "train x", [1], [["train"]], None, ["datafree.cli.train"], ["train\n"], ["@run.json"],
])  # fmt: skip
@pytest.mark.usefixtures("here")
def test_words_that_no_user_can_have_typed_are_refused(command, argv):
    write_log(argv)
    assert "command line" in command("rerun run.json").line


@pytest.mark.parametrize("inputs", [["x"], "x", 1, {"a\0b": "0"}, {"teacher": 7}, {"x" * 5000: "0"}])
@pytest.mark.usefixtures("here")
def test_inputs_of_any_form_are_no_traceback(command, inputs):
    write_log(["evaluate", "teacher", "--data", "digits", "--quiet"], inputs=inputs)
    assert command("rerun run.json").code == 0


@pytest.mark.usefixtures("here")
def test_a_whole_disk_among_the_inputs_is_not_walked(command, monkeypatch):
    """Only files, and folders of ours, have hashes that a log could hold."""
    monkeypatch.setattr(Path, "rglob", lambda *_: pytest.fail("walked"))
    write_log(["evaluate", "teacher", "--data", "digits", "--quiet"], inputs={"/": "0" * 64, "..": "0" * 64})
    assert command("rerun run.json").code == 0


def test_a_command_that_writes_elsewhere_needs_trust_or_a_place(command, here, tmp_path):
    away = tmp_path / "away"
    for out in (str(away), "../away", "made/../../away"):
        for argv in (
            ["train", "hinton4", "--data", "digits", "--epochs", "1", "--quiet", "--out", out],
            ["convert", "teacher/model.safetensors", f"--out={out}"],
            ["demo", "--out", out],
        ):
            write_log(argv)
            done = command("rerun run.json")
            assert done.code == 2 and "outside of the working directory" in done.err and not away.exists()
    (here.parent / "theirs").mkdir()
    write_log(["record", "../theirs", "--data", "digits"])
    assert "outside of the working directory" in command("rerun run.json").err
    write_log(["train", "hinton4", "--data", "digits", "--epochs", "1", "--quiet", "--out", str(away)])
    assert command("rerun run.json --out made").code == 0 and (here / "made").is_dir() and not away.exists()
    assert command("rerun run.json --trust").code == 0 and away.is_dir()


@pytest.mark.usefixtures("here")
def test_a_run_is_repeated_where_its_own_log_lies(command, tmp_path, monkeypatch):
    away = tmp_path / "away"
    line = f"train hinton4 --data digits --epochs 1 --quiet --out {away}"
    assert command(line).code == 0
    monkeypatch.chdir(tmp_path / "here" / "set")
    assert command(f"rerun {away}").code == 0


def test_the_command_line_may_stand_beside_the_folder(command, here):
    """What is handed over names no command line; the publisher's full log does."""
    assert "argv" not in json.loads((here / "other" / "run.json").read_text())
    expected = (here / "other" / "model.safetensors").read_bytes()
    for index, source in enumerate(("other", "other/", "other/run.json", "other.run.json", "./other/../other")):
        done = command(f"rerun {source} --out again{index}")
        assert done.code == 0, done
        assert (here / f"again{index}" / "model.safetensors").read_bytes() == expected
    (here / "other.run.json").unlink()
    assert "names no command line" in command("rerun other").line
    assert set(VERBS) >= {"rerun"}


@pytest.mark.usefixtures("here")
def test_what_a_command_read_and_is_not_here_is_named_with_the_folder_where_it_was(command, tmp_path):
    write_log(["evaluate", "gone", "--data", "digits"], folder="/far/away", inputs={"gone": "0", "digits (test)": "0"})
    done = command("rerun run.json")
    assert done.code == 2
    assert done.err.startswith("datafree: that command was given in /far/away and reads 'gone', which is not in ")
    assert done.err.endswith("; change to that folder, or to one that holds the same files, and rerun it there\n")
    assert not (tmp_path / "gone").exists()


@pytest.mark.usefixtures("here")
def test_where_everything_is_here_too_a_note_says_from_where_names_are_taken(command, here):
    argv = ["evaluate", "teacher", "--data", "digits", "--quiet"]
    write_log(argv, folder="/far/away", inputs={"teacher": "0", "digits (test)": "0"})
    done = command("rerun run.json")
    assert done.code == 0
    assert (
        f"note: that command was given in /far/away; relative paths, output included, are resolved in {here}"
        in done.out
    )


@pytest.mark.parametrize("version", [1, 2])
def test_a_folder_is_said_to_have_changed_only_where_its_hash_was_taken_as_now(command, here, version):
    argv = ["evaluate", "teacher", "--data", "digits", "--quiet"]
    (here / "w.bin").write_bytes(b"x")
    write_log(argv, format=version, inputs={"teacher": "0", "w.bin": "0"})
    out = command("rerun run.json").out
    assert ("note: teacher is not what that run read" in out) == (version == 2)
    assert "note: w.bin is not what that run read: " in out


@pytest.mark.parametrize(
    ("settings", "argv", "more"),
    [
        ({"calibrate": "bns"}, ["quantize", "net"], ["--target-cpu", "vnni"]),
        ({"calibrate": "bns"}, ["quantize", "net", "--target-cpu", "any"], []),
        ({"calibrate": "bns"}, ["quantize", "net", "--target-cpu=any"], []),
        ({"target_cpu": "any"}, ["quantize", "net"], []),
        ({"target_cpu": "vnni"}, ["quantize", "net"], []),
        ({}, ["train", "net"], []),
        (None, ["quantize", "net"], []),
    ],
)
def test_a_quantization_of_an_earlier_version_is_repeated_with_all_8_bits(settings, argv, more):
    assert _defaults_then({"settings": settings}, argv) == more


def test_a_run_that_was_made_from_python_is_said_to_be_and_not_repeated(command, here):
    from datafree.runs.output_folder import EVALUATION_FOLDER, output_folder
    from datafree.runs.run_log import RunLog

    log = RunLog("evaluate", {"seed": 0}, {})
    with output_folder(here / "scores", EVALUATION_FOLDER, log) as out:
        log.write(out, {"evaluation": {}})
    assert command("rerun scores").line == (
        f"{here / 'scores.run.json'} names no command line: that run was made from Python, and no command can repeat "
        "it; run that Python code again"
    ).replace(f"{here}/", "")


@pytest.mark.usefixtures("here")
def test_a_student_with_the_code_of_a_trusted_release_needs_trust(command):
    write_log(["distill", "teacher", "half", "--trust", "--with-code", "--data", "digits", "--out", "student"])
    assert "runs the code that a release holds (--trust)" in command("rerun run.json").err
