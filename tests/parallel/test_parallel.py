"""Two processes of torchrun are one run: what they agree on, how they end, and that they come to what one comes to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import datafree
from datafree._core.distributed import World, average_gradients, first, gathered, started, summed, together, world
from datafree._core.errors import UserError
from datafree._core.files import read_weights
from datafree.cli.main import run

if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this torch has no gloo, so torchrun cannot start", allow_module_level=True)

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
HERE = Path(__file__).parent
COMMAND = """
import os, pathlib, sys
pathlib.Path(f"pid-{os.environ['RANK']}-of-{os.environ['WORLD_SIZE']}").write_text(str(os.getpid()))
from datafree.cli.main import main
main()
"""
"""As `-m datafree`, and leaves the number of its process."""


def environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "MASTER_ADDR")}
    return {**own, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONFAULTHANDLER": "1"}


def start(folder: Path, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TORCHRUN, *argv], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


FORKED = """
import os, runpy, sys
import torch.distributed.run as torchrun

def work(_, script, *argv):
    sys.argv[:] = [script, *argv]
    sys.path.insert(0, os.path.dirname(script))
    runpy.run_path(script, run_name="__main__")

def forking(config, entrypoint):
    config.start_method = "fork"
    return launch(config, work)

launch, torchrun.elastic_launch = torchrun.elastic_launch, forking
torchrun.main()
"""
"""As torchrun, whose processes are forked, so that none imports torch again."""


def both(folder: Path, *argv: str) -> tuple[int, str, str]:
    """Exit code, standard output and error of the same command in two processes."""
    with start(folder, *argv) as process:
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err


def lines(text: str) -> list[str]:
    """What datafree itself has said."""
    return [line for line in text.splitlines() if line.startswith("datafree: ")]


# -- in one process -----------------------------------------------------------------------------------------------


def test_without_torchrun_there_is_one_process_and_nothing_happens(tiny):
    with together() as own:
        assert own == world() == World(0, 1)
    module = tiny("linear").module
    module(torch.ones(1, 1, 4, 4)).sum().backward()
    before = [parameter.grad.clone() for parameter in module.parameters()]
    average_gradients(module.parameters(), 7.0)
    assert all(torch.equal(parameter.grad, own) for parameter, own in zip(module.parameters(), before))
    assert first(lambda: 3) == 3 and gathered(4) == [4] and float(summed(torch.tensor(2.0))) == 2.0


@pytest.mark.parametrize(("count", "size"), [(2, 2), (7, 2), (128, 3), (5, 5)])
def test_the_parts_of_a_batch_are_the_batch_once_and_differ_by_one_at_most(count, size):
    parts = [list(range(count))[World(rank, size).part(count)] for rank in range(size)]
    assert [index for part in parts for index in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_batch_with_fewer_images_than_processes_is_one_line():
    with pytest.raises(UserError, match="batch: got 1 images per step for 2 processes, expected one for each"):
        World(0, 2).part(1)


def test_processes_that_torchrun_has_not_started_are_one_line(monkeypatch):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name, value, line in (
        ("RANK", "0", "WORLD_SIZE is 2, but there is no RANK or MASTER_ADDR or MASTER_PORT; start with torchrun"),
        ("MASTER_ADDR", "localhost", "there is no MASTER_ADDR or MASTER_PORT; start"),
        ("MASTER_PORT", "port", "there is no MASTER_PORT; start with torchrun, or unset WORLD_SIZE"),
        ("MASTER_PORT", "1", "MASTER_PORT: got 'port', expected a whole number from 1 to 65535; start with torchrun"),
    ):
        with pytest.raises(UserError, match=line), together():
            pass
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("line", ["record teacher --data digits", "quantize teacher --out q", "report teacher --out r"])
def test_a_command_that_is_not_shared_out_does_not_run_many_times_over(line, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert run(line.split()) == 2
    said = f"datafree: {line.split()[0]} runs in one process, got 2; start it without torchrun\n"
    assert capsys.readouterr() == ("", said)


# -- in two -------------------------------------------------------------------------------------------------------


def test_the_result_as_json_and_the_log_are_of_the_first_process_alone(done_in_turn):
    folder, out = done_in_turn
    assert [json.loads(line)["command"].split()[0] for line in out.splitlines()[:2]] == ["synthesize", "train"]
    assert out.count('"command"') == 2
    assert (folder / "all.txt").read_text().count(": synthesize gaussian t") == 1


def test_two_processes_agree_on_gradients_weights_statistics_and_errors(done_in_turn):
    found = [json.loads((done_in_turn[0] / "agreeing" / f"{rank}.json").read_text()) for rank in range(2)]
    assert [own.pop("rank") for own in found] == [0, 1]
    assert [own.pop("part") for own in found] == [[0, 1], [2, 3, 4]]
    seen = [own.pop("dropout") for own in found]
    assert seen[0] != seen[1], "the same dropout masks on other images"
    assert found[0] == found[1]
    assert found[0]["size"] == 2 and found[0]["groups"] == [2, 1, 2], "a second group starts after the first"
    assert found[0]["gradient"] == pytest.approx(found[0]["gradient of one process"], abs=1e-6)
    assert found[0]["nobody's"] is None and found[0]["one's"] == pytest.approx(0.6)  # 1.0 in the process with 3 of 5
    assert found[0]["broadcast"] == [0.0, 0.0]
    assert found[0]["running mean"] == pytest.approx([0.5]) and found[0]["number of batches"] == 7
    assert found[0]["gathered"] == [{"rank": 0}, {"rank": 1}]
    assert found[0]["first"] == "from 0" and found[0]["refused"] == "no luck in 0"
    assert found[0]["epochs gone on"] == 2 and found[0]["scores"] == [1.0, 2.0, 3.0]


DISTILL = (
    "distill teacher hinton16 --data digits --batch 64 --epochs 12 --learning-rate 5e-3 --threads 1 --quiet --out {}"
)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_weights(folder / "model.safetensors")


@pytest.fixture
def two(alone, done_in_turn) -> tuple[Path, str]:
    """The same by two processes, and what they printed."""
    return alone / "two", "\n".join(line for line in done_in_turn[1].splitlines() if not line.startswith("{"))


def test_two_processes_distil_what_one_does_up_to_rounding_and_say_it_once(alone, two):
    folder, out = two
    assert out.count("parameters") == out.count("accuracy") == 1
    log, other = (json.loads((own / "run.json").read_text())["result"] for own in (folder, alone / "student"))
    assert log["processes"] == 2 and other["processes"] == 1
    assert log["curve"]["loss"] == pytest.approx(other["curve"]["loss"], rel=1e-4)
    assert log["evaluation"]["accuracy"] > 50, "nothing was learnt"
    assert log["evaluation"]["accuracy"] == pytest.approx(other["evaluation"]["accuracy"], abs=0.5)
    found, wanted = weights(folder), weights(alone / "student")
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert torch.allclose(found[name], wanted[name], atol=1e-4), name
    assert {path.name for path in folder.iterdir()} == {path.name for path in (alone / "student").iterdir()}


@pytest.mark.slow
def test_a_run_of_which_one_process_is_killed_ends_and_goes_on_to_the_same_bytes(alone, two):
    words, state = DISTILL.format("killed").split(), alone / "killed" / "training.safetensors"
    with start(alone, "start.py", *words) as process:
        end = time.monotonic() + 60
        while not state.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        os.kill(int((alone / "pid-1-of-2").read_text()), signal.SIGKILL)
        sent = time.monotonic()
        _, err = process.communicate(timeout=60)
        assert process.returncode != 0 and time.monotonic() - sent < 20
    assert len(lines(err)) == 1 and "the part that is complete is kept" in lines(err)[0], err
    names = {path.name for path in state.parent.iterdir()}
    assert state.name in names and "model.safetensors" not in names, "killed too late to mean anything"
    assert not [name for name in names if ".tmp-" in name]
    code, _, err = both(alone, "start.py", *words)
    assert code == 0, err
    assert (alone / "killed" / "model.safetensors").read_bytes() == (two[0] / "model.safetensors").read_bytes()
    assert not state.exists()


@pytest.mark.slow  # as test_playing.py, through the command line
def test_two_processes_play_a_generator_against_one_student(alone):
    line = "distill online teacher hinton8 --data digits --epochs 2 --iterations 3 --batch 33 --latent 8"
    code, out, err = both(alone, "start.py", *line.split(), "--threads", "1", "--quiet", "--out", "played")
    assert code == 0, err
    assert out.count("images made and learned from") == out.count("parameters") == 1
    log = json.loads((alone / "played" / "run.json").read_text())["result"]
    assert log["processes"] == 2 and log["online"]["images"] == 2 * 3 * 10 * 33 and len(log["online"]["scores"]) == 2
    assert run(["evaluate", str(alone / "played"), "--data", "digits"]) == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param(
            "train hinton16 --data digits --epochs 1 --batch 1 --out bad",
            "--batch: got 1 images per step for 2 processes",
            marks=pytest.mark.slow,
        ),
        pytest.param(  # of the first alone
            "distill teacher --data digits --out teacher",
            "--out teacher is what this run reads",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_a_user_can_fix_is_one_line_once_and_exit_code_2(alone, line, said):
    before = {path: path.stat().st_mtime_ns for path in alone.rglob("*") if path.is_file()}
    code, out, err = both(alone, "-m", "datafree", *line.split(), "--quiet")
    assert code != 0 and str(Path(datafree.__file__).parent) not in err, "torchrun's traceback is its own, not ours"
    assert len(lines(err)) == 1 and said in lines(err)[0], err
    assert "exitcode  : 2" in err and "parameters" not in out
    assert {path: path.stat().st_mtime_ns for path in alone.rglob("*") if path.is_file()} == before
    assert not (alone / "bad").exists()


@pytest.mark.parametrize(
    ("size", "rank", "expected"),
    [
        (None, None, World()), (None, "1", World()), ("1", "x", World()), ("2", "1", World(1, 2)),
        ("", None, "WORLD_SIZE: got ''"), ("abc", None, "WORLD_SIZE: got 'abc'"), ("0", None, "WORLD_SIZE: got '0'"),
        ("2", "x", "RANK: got 'x', expected a whole number from 0 to 1; start"), ("2", "2", "RANK: got '2'"),
    ],
)  # fmt: skip
def test_what_the_environment_says_of_processes_is_taken_or_refused_in_a_line(monkeypatch, size, rank, expected):
    for name, value in (("WORLD_SIZE", size), ("RANK", rank)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    if isinstance(expected, World):
        assert started() == expected
    else:
        with pytest.raises(UserError, match=expected):
            started()


# -- an environment that torchrun has not made ------------------------------------------------------------

ENVIRONMENTS = [
    (
        {"WORLD_SIZE": "2", "RANK": "0"},
        "WORLD_SIZE is 2, but there is no MASTER_ADDR or MASTER_PORT; start with torchrun",
    ),
    ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but there is no RANK or MASTER_ADDR or MASTER_PORT"),
    ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost"}, "WORLD_SIZE is 2, but there is no MASTER_PORT"),
    ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE: got 'two', expected a whole number from 1 to"),
    ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK: got '2', expected a whole number from 0 to 1"),
    ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK: got '-1', expected a whole number from 0 to 1"),
]


@pytest.fixture
def environ(monkeypatch):
    def put(values: dict[str, str]) -> None:
        for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"):
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.mark.parametrize(("values", "text"), ENVIRONMENTS)
def test_every_verb_refuses_an_incomplete_environment_before_any_work(
    values, text, environ, tmp_path, monkeypatch, capsys, release, teacher, digits
):
    monkeypatch.chdir(tmp_path)
    few = datafree.condense("random", data=digits, per_class=1, teacher=teacher)
    few.save("few")
    (tmp_path / "teacher").symlink_to(release, target_is_directory=True)
    before = teacher.fingerprint()
    environ(values)
    source = datafree.StoredImages(teacher.spec, few.pixels, teacher.predict(few.clamped()))
    student = datafree.new_model("hinton8", teacher.spec, seed=0)
    for call in (
        lambda: datafree.synthesize(teacher, None, "gaussian", "set", images=600),
        lambda: datafree.expand(teacher, few, "set", {"steps": 1}, images=600),
        lambda: datafree.distill(teacher, method="gaussian"),
        lambda: datafree.distill(teacher, student, source, datafree.Distillation(epochs=1)),
        lambda: datafree.distill_online(teacher, epochs=1),
        lambda: datafree.train(student, digits, datafree.Schedule(epochs=1)),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert text in str(caught.value) and "\n" not in str(caught.value)
    for line in (
        "synthesize gaussian teacher --images 600 --out set",
        "expand teacher few --images 600 --steps 1 --out set",
        "distill teacher --data digits --out student",
        "train hinton16 --data digits --out trained",
    ):
        assert run(line.split()) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("datafree: ") and err.count("\n") == 1 and text in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few", "teacher"] and teacher.fingerprint() == before


@pytest.mark.parametrize(
    "values", [{"RANK": "0"}, {"RANK": "3"}, {"WORLD_SIZE": "1", "RANK": "0"}, {"MASTER_PORT": "x"}]
)
def test_one_process_alone_needs_no_other_variable(values, environ, tmp_path, teacher):
    environ(values)
    assert len(datafree.synthesize(teacher, None, "gaussian", tmp_path / "set", images=6, chunk=3)) == 6


def test_two_processes_of_a_python_program_make_the_set_of_one(done_in_turn, tmp_path):
    teacher = datafree.load_model(str(done_in_turn[0] / "t"))
    datafree.synthesize(teacher, None, "gaussian", tmp_path / "single", images=50, chunk=10, workers=1)
    single, shared = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (tmp_path / "single", done_in_turn[0] / "shared")
    )
    logs = [json.loads(files.pop("run.json")) for files in (single, shared)]
    assert single == shared and logs[0]["settings"] == logs[1]["settings"]
