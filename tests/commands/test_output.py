"""--json, --log, --verbose, --version, list, completion, and progress without a terminal."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from datafree._core.progress import stage
from datafree.cli import json_output, progress_bar

JSON = [
    ("train hinton8 --data digits --epochs 1 --limit 50 --out t2", "evaluation"),
    ("record teacher --data digits --preset small --replace", "forecast_auc"),
    ("synthesize gaussian teacher --images 8 --chunk 8 --out s2", "images"),
    ("distill teacher --set set --epochs 1 --out d2", "parameters"),
    ("distill online teacher --epochs 1 --iterations 2 --batch 8 --replay none --out o2", "online"),
    ("condense random --data digits --per-class 1 --out c2", "images"),
    ("expand mmd teacher few --images 8 --chunk 8 --steps 1 --out e2", "images"),
    ("evaluate student --data digits --teacher teacher", "evaluation"),
    ("similarity teacher digits noise --images 50", "similarity"),
    ("report teacher student --data digits --out page.html", "networks"),
    ("pack hinton16 --weights teacher/model.safetensors --shape 1 8 8 --classes 10 --out p2", "parameters"),
    ("inspect teacher", "fingerprint"),
    ("inspect set", "method"),
    ("inspect teacher/record.safetensors", "tensors"),
    ("list methods", "methods"),
    ("list models", "models"),
    ("list presets", "presets"),
    ("list data", "data"),
]


@pytest.mark.parametrize(("line", "key"), JSON, ids=[line[:30] for line, _ in JSON])
def test_json_is_one_object_and_nothing_else(command, here, line, key):
    assert command("condense random --data digits --per-class 1 --teacher teacher --out few --quiet").code == 0
    done = command(f"{line} --json")
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1
    content = json.loads(done.out)
    assert content["command"] == " ".join(shlex.split(line)[: len(content["command"].split())])
    assert key in content["result"]
    assert "\x1b" not in done.out and (done.err or line.startswith("inspect"))
    if "out" in content:
        assert (here / content["out"]).exists() and content["settings"]


@pytest.mark.usefixtures("here")
def test_an_error_prints_nothing_on_standard_output(command):
    done = command("evaluate nosuch --data digits --json")
    assert (done.code, done.out) == (2, "") and done.err.count("\n") == 1


def test_json_refuses_a_number_that_json_does_not_have():
    with pytest.raises(ValueError, match="Out of range float"):
        json_output.object_of(["evaluate"], {}, {"loss": float("nan")})


def test_a_log_has_all_that_was_printed_and_grows(command, here):
    done = command("evaluate student --data digits --log log.txt")
    assert done.code == 0
    text = (here / "log.txt").read_text()
    first, *rest = text.splitlines()
    assert re.match(r"datafree \S+: evaluate student --data digits$", first)
    assert sorted(rest) == sorted((done.out + done.err).splitlines())
    failed = command("evaluate student --data nosuch --log log.txt")
    assert failed.code == 2
    assert (here / "log.txt").read_text().startswith(text)
    assert (here / "log.txt").read_text().endswith(failed.err)


@pytest.mark.parametrize(
    ("path", "text"), [("own.py", "no log of datafree"), ("set", "got the folder"), ("no/log", "cannot use")]
)
def test_a_log_takes_the_place_of_no_other_file(refused, path, text):
    assert text in refused(f"evaluate student --data digits --log {path}")


def test_a_log_is_no_part_of_the_command_that_is_repeated(command, here):
    assert (
        command("synthesize gaussian teacher --images 8 --chunk 8 --out s2 --log log.txt --json --quiet -v").code == 0
    )
    argv = json.loads((here / "s2.run.json").read_text())["argv"]
    assert argv == ["synthesize", "gaussian", "teacher", "--images", "8", "--chunk", "8", "--out", "s2", "--quiet"]


def test_a_log_of_a_stranger_does_not_append_to_files_without_trust(command, here):
    argv = ["evaluate", "student", "--data", "digits", "--log", "other.txt"]
    (here / "run.json").write_text(json.dumps({"verb": "evaluate", "argv": argv, "settings": {}, "inputs": {}}))
    done = command("rerun run.json")
    assert done.code == 2 and "appends to the file 'other.txt'" in done.err and not (here / "other.txt").exists()


@pytest.mark.usefixtures("here")
def test_verbose_adds_versions_and_time(command):
    err = command("evaluate student --data digits --quiet -v").err
    assert "note: took " in err
    assert "note: took " not in command("evaluate student --data digits --quiet").err


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_the_version_is_printed(command, flag):
    assert re.fullmatch(r"\d+\.\d+\S*\n", command(flag).out)


@pytest.mark.parametrize("shell", ["bash", "zsh", pytest.param("fish", marks=pytest.mark.slow)])
def test_completion_knows_commands_methods_and_flags(command, shell):
    done = command(f"completion {shell}")
    assert done.code == 0
    assert all(word in done.out for word in ("synthesize", "bns-inception", "weight-bits", "distill", "online"))


def test_the_completion_for_bash_is_a_script_that_bash_takes(command):
    script = command("completion bash").out
    code = (
        f"{script}\nCOMP_WORDS=(datafree synthesize bn); COMP_CWORD=2; $(complete -p datafree | grep -o '_[a-z_]*')\n"
    )
    code += 'printf "%s\\n" "${COMPREPLY[@]}"\n'
    done = subprocess.run(["bash", "--norc"], input=code, capture_output=True, text=True, check=False)
    assert {"bns", "bns-inception"} <= set(done.stdout.split()), done.stderr


@pytest.mark.usefixtures("here")
def test_progress_without_a_terminal_is_a_line_for_each_epoch_with_its_loss(command):
    done = command("distill teacher --set set --epochs 3 --out d3")
    lines = [line for line in done.err.splitlines() if "epoch" in line]
    assert len(lines) == 3
    assert re.fullmatch(r"distill hinton8: epoch 1 of 3, loss [0-9.e-]+, [0-9.]+ s, about [0-9.]+ s left", lines[0])
    assert re.fullmatch(r"distill hinton8: epoch 3 of 3, loss [0-9.e-]+, [0-9.]+ s", lines[2])
    assert "\x1b" not in done.err
    online = command("distill online teacher --epochs 2 --iterations 2 --batch 8 --replay none --out o3").err
    assert len(re.findall(r"epoch \d of 2, loss ", online)) == 2


def test_work_without_epochs_has_a_line_every_few_seconds(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: clock[0])
    lines = progress_bar.Lines("synthesize bns")
    for done in range(1, 101):
        clock[0] += 0.5
        lines(done, 100)
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 10
    assert err[0] == "synthesize bns: 10 of 100, 5.0 s, about 45.0 s left"
    assert err[-1] == "synthesize bns: 100 of 100, 50.0 s"


def test_the_time_left_is_that_of_what_this_run_did(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: clock[0])
    lines = progress_bar.Lines("record teacher")
    for done in (6000, 7000, 8000, 9000):  # 5,000 were there before; the first 1,000 waited for the network
        clock[0] += 10
        lines(done, 10_000)
    assert capsys.readouterr().err.splitlines() == [
        "record teacher: 6,000 of 10,000, 10.0 s",
        "record teacher: 7,000 of 10,000, 20.0 s, about 30.0 s left",
        "record teacher: 8,000 of 10,000, 30.0 s, about 20.0 s left",
        "record teacher: 9,000 of 10,000, 40.0 s, about 10.0 s left",
    ]


def test_a_stage_has_lines_of_its_own_and_its_time_is_not_the_jobs(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: clock[0])
    lines = progress_bar.Lines("synthesize")
    with stage(lines, "fit") as shown:
        shown(0, 4)
        for done in range(1, 5):
            clock[0] += 6
            shown(done, 4)
    lines(0, 10)
    clock[0] += 5
    lines(10, 10)
    assert capsys.readouterr().err.splitlines() == [
        "fit: 1 of 4, 6.0 s, about 18.0 s left",
        "fit: 2 of 4, 12.0 s, about 12.0 s left",
        "fit: 3 of 4, 18.0 s, about 6.0 s left",
        "fit: 4 of 4, 24.0 s",
        "synthesize: 10 of 10, 5.0 s",
    ]


def test_a_bar_shows_a_stage_above_the_job_and_nothing_before_the_first_number(capsys):
    with progress_bar._bar("synthesize") as update, stage(update, "fit"):
        pass
    assert capsys.readouterr().err == ""
    with progress_bar._bar("synthesize") as update:
        with stage(update, "fit") as shown:
            shown(2, 2)
        update(3, 3)
    fit, job = [line.split() for line in capsys.readouterr().err.splitlines() if line.strip()][-2:]
    assert (fit[0], job[0]) == ("fit", "synthesize") and "2/2" in fit and "3/3" in job


@pytest.mark.parametrize("shown", ["lines", "bar"])
def test_an_opening_line_stands_above_the_first_number(capsys, shown):
    if shown == "bar":
        context = progress_bar._bar("synthesize", "estimate: long")
    else:
        context = progress_bar.bar("synthesize", quiet=False, opening="estimate: long")
    with context as progress:
        assert capsys.readouterr().err == ""
        progress(0, 2)
        progress(2, 2)
    printed = capsys.readouterr().err
    assert printed.count("estimate: long") == 1 and printed.index("estimate: long") < printed.rindex("2")


def test_progress_without_stages_is_not_called_in_one():
    with stage(lambda *_: pytest.fail("called"), "fit") as shown:
        shown(1, 2)


@pytest.mark.parametrize(("seconds", "text"), [(3.21, "3.2 s"), (250, "4 min 10 s"), (7500, "2 h 5 min")])
def test_a_duration_is_short(seconds, text):
    assert progress_bar.duration(seconds) == text


@pytest.mark.usefixtures("here")
def test_quiet_prints_no_progress(command):
    assert "epoch" not in command("distill teacher --set set --epochs 2 --out d4 --quiet").err


def test_two_commands_share_a_log_line_by_line(here):
    code = (
        "from datafree.cli.log_file import LogFile\n"
        "f = LogFile('shared.txt', 'x')\n"
        "for i in range(500): f.write(f'{i:03} ' * 20 + chr(10))"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code], env=os.environ) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    rows = [line for line in (here / "shared.txt").read_text().splitlines() if not line.startswith("datafree ")]
    assert len(rows) == 1000 and all(len(set(row.split())) == 1 for row in rows)
