"""What every verb does with its folder: one run at a time, nothing of another run lost, whole after a kill at any moment."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys

import pytest

from datafree.files import read_json
from datafree.files.lock import LOCK
from datafree.runlog import RunLog

from .conftest import tree

PACK = "pack hinton16 --weights teacher/model.safetensors --shape 1 8 8 --classes 10 --out {}"
QUICK = {
    "train": "train hinton8 --data digits --epochs 1 --out {} --quiet",
    "record": "record hinton16 --weights teacher/model.safetensors --data digits --preset small --out {} --quiet",
    "distill": "distill teacher hinton8 --images set --epochs 1 --out {} --quiet",
    "condense": "condense --data digits --method random --per-class 1 --out {} --quiet",
    "synthesize": "synthesize teacher --method gaussian --images 8 --unit 4 --workers 1 --out {} --quiet",
    "pack": PACK,
    "evaluate": "evaluate teacher --data digits --out {} --quiet",
    "similarity": "similarity teacher digits noise --images 50 --out {} --quiet",
}
OTHER = {
    "train": "--seed 1", "record": "--limit 900", "distill": "--batch 32", "condense": "--seed 1",
    "synthesize": "--seed 1", "pack": "--mean 0.5", "evaluate": "--split train", "similarity": "--form l2",
}  # fmt: skip
IN_PLACE = "record teacher --data digits --preset small --replace --quiet"


class Stopped(KeyboardInterrupt):
    pass


def stop(*_) -> None:
    raise Stopped


@pytest.fixture
def held():
    """Locks a folder as another process would."""
    opened = []

    def hold(folder) -> None:
        folder.mkdir(exist_ok=True)
        number = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
        fcntl.flock(number, fcntl.LOCK_EX)
        opened.append(number)

    yield hold
    for number in opened:
        os.close(number)


@pytest.mark.parametrize("verb", QUICK)
def test_a_folder_that_another_run_writes_to_is_refused_untouched(refused, here, held, verb):
    held(here / "o")
    assert refused(QUICK[verb].format("o")).startswith(f"folder {str(here / 'o')!r} is in use by ")


def test_a_release_that_another_run_writes_to_is_not_recorded(refused, here, held):
    held(here / "teacher")
    assert "is in use by " in refused(IN_PLACE)


def test_two_runs_end_with_one_result_and_one_refusal_and_a_killed_one_leaves_the_folder_free(command, here):
    slow = "train hinton16 --data digits --epochs 100000 --threads 1 --out o --quiet"
    words = [sys.executable, "-m", "datafree", *slow.split()]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (here / "o" / "training.safetensors").exists():
            assert process.poll() is None
        line = command(slow).line
        assert f"is in use by process {process.pid} on " in line
        process.send_signal(signal.SIGKILL)
    assert (here / "o" / LOCK).exists()
    assert "o holds an unfinished release of another run: --epochs: got 1" in (
        command(slow.replace("--epochs 100000", "--epochs 1")).line
    )
    assert not (here / "o" / LOCK).exists()


@pytest.mark.parametrize("verb", QUICK)
def test_a_finished_command_given_again_is_complete_and_with_other_settings_it_is_refused(command, here, verb):
    line = QUICK[verb].format("o")
    assert command(line).code == 0
    assert not (here / "o" / LOCK).exists() and "unfinished" not in read_json(here / "o" / ".datafree.json")
    before = tree(here)
    done = command(line)
    assert (done.code, done.err) == (0, "") and done.out.startswith("already complete: ")
    assert done.out.count("\n") == 1 and tree(here) == before
    text = command(f"{line} {OTHER[verb]}").line
    assert text.startswith("o holds the finished ") and ": got " in text and ", expected " in text
    assert tree(here) == before


@pytest.mark.parametrize("verb", QUICK)
def test_a_run_that_is_stopped_at_its_end_removes_what_it_made_and_nothing_else(command, here, monkeypatch, verb):
    (here / "o").mkdir()
    before = tree(here)
    monkeypatch.setattr(RunLog, "write", stop)
    assert command(QUICK[verb].format("o")).code == 130
    left = {name: text for name, text in tree(here).items() if name not in before}
    resumed = {"train": "training.safetensors", "distill": "training.safetensors", "synthesize": "unit-"}
    if verb in resumed:
        assert any(resumed[verb] in name for name in left)
    else:
        assert not left
    assert not (here / "o" / LOCK).exists()


@pytest.fixture
def every_moment(command, here, monkeypatch, tmp_path):
    """Runs a command, and copies the working folder after every rename and removal: what a kill there leaves."""

    def copies(line: str) -> list:
        found = []

        def copied(real):
            def call(*args, **more):
                done = real(*args, **more)
                if not found or tree(here) != tree(found[-1]):
                    found.append(tmp_path / f"at-{len(found)}")
                    shutil.copytree(here, found[-1])
                return done

            return call

        with monkeypatch.context() as inside:
            for name in ("replace", "unlink"):
                inside.setattr(os, name, copied(getattr(os, name)))
            assert command(line).code == 0
        return found

    return copies


RESULT = {
    "train": "model.safetensors", "record": "record.safetensors", "distill": "model.safetensors",
    "condense": "condensed.safetensors", "synthesize": "unit-000001.safetensors", "pack": "model.safetensors",
    "evaluate": "run.json", "similarity": "similarity.svg",
}  # fmt: skip


@pytest.mark.parametrize("verb", QUICK)
def test_a_run_killed_at_any_moment_is_finished_by_the_same_command(command, here, every_moment, monkeypatch, verb):
    line = QUICK[verb].format("o")
    moments = every_moment(line)
    expected, names = (here / "o" / RESULT[verb]).read_bytes(), set(os.listdir(here / "o"))
    assert len(moments) >= 3
    for folder in moments:
        monkeypatch.chdir(folder)
        assert command(line).code == 0, folder
        assert set(os.listdir(folder / "o")) == names
        if verb != "evaluate":  # whose one file holds the seconds it took
            assert (folder / "o" / RESULT[verb]).read_bytes() == expected


def test_a_recording_killed_at_any_moment_leaves_no_card_of_another_record(command, here, every_moment, monkeypatch):
    old = (here / "teacher" / "README.md").read_text()
    before = (here / "teacher" / "record.safetensors").read_bytes()
    moments = every_moment(IN_PLACE)
    new, after = (here / "teacher" / "README.md").read_text(), (here / "teacher" / "record.safetensors").read_bytes()
    assert old != new and before != after
    for folder in moments:
        card, record = ((folder / "teacher" / name).read_bytes() for name in ("README.md", "record.safetensors"))
        assert "AUC" not in card.decode() or (card.decode(), record) in ((old, before), (new, after))
        assert set(os.listdir(folder / "teacher")) - {LOCK} == set(os.listdir(here / "teacher"))
        monkeypatch.chdir(folder)
        assert command(IN_PLACE).code == 0
        assert (folder / "teacher" / "README.md").read_text() == new
        assert tree(folder).keys() == tree(here).keys()


def test_another_record_is_not_lost_unless_that_is_asked_for(command, refused):
    assert command("record teacher --data digits --preset full --quiet").out == (
        "already complete: record in teacher/record.safetensors, of the same settings; nothing was changed\n"
    )
    text = refused("record teacher --data digits --preset small --quiet")
    assert text.startswith("teacher holds another record (statistics: got ") and "give --replace to lose it" in text
    text = refused("record teacher --data digits --limit 900 --preset full --quiet")
    assert "--limit: got 900, expected None" in text
    assert command(IN_PLACE).code == 0


def test_a_larger_count_that_is_stopped_leaves_the_set_that_was_there_whole(command, here, monkeypatch):
    line = "synthesize teacher --images {} --unit 16 --workers 2 --out set --quiet"
    before = tree(here / "set")
    with monkeypatch.context() as inside:
        inside.setattr(RunLog, "write", stop)
        inside.setattr("datafree.syntheticset.sha256_file", stop)
        assert command(line.format(64)).code == 130
    assert {name: tree(here / "set")[name] for name in before if name != ".datafree.json"} == {
        name: text for name, text in before.items() if name != ".datafree.json"
    }
    assert command("distill teacher hinton8 --images set --epochs 1 --out s --quiet").code == 0
    assert command(line.format(48)).out.startswith("already complete: ")
    assert command(line.format(64)).out.startswith("64 images in set; ")


def test_a_read_only_finished_folder_is_complete(command, here):
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    (here / "other").chmod(0o555)
    done = command("train hinton16 --data digits --epochs 1 --seed 1 --out other --quiet")
    assert (done.code, done.out.startswith("already complete: ")) == (0, True)


def test_a_file_system_without_locks_is_said_and_used(command, here, monkeypatch):
    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    done = command(QUICK["pack"].format("o"))
    assert done.code == 0 and done.err == (
        "datafree: the file system of o takes no locks (No locks available): start no second run in it\n"
    )
    assert not (here / "o" / LOCK).exists()


def test_recording_says_how_well_the_teacher_knows_the_data_and_warns_of_other_data(command, here):
    import numpy as np

    from datafree.data import load

    assert command("train hinton32 --data digits --epochs 8 --out good --quiet").code == 0
    done = command("record good --data digits --preset small --quiet")
    found = float(done.out.split("recorded images: ")[1].split(" %")[0])
    assert found > 60 and "1,297 recorded images" in done.out and "warning" not in done.out
    assert abs(read_json(here / "good" / "run.json")["result"]["accuracy on the data"] - found) < 0.01
    digits = load("digits", "train")
    images = (255 * digits.pixels(np.arange(300))[:, 0]).round().byte().numpy()
    for name, labels, text in (
        ("shuffled", np.random.default_rng(0).permutation(digits.labels[:300].numpy()), "near chance (10.0 %)"),
        ("half", np.where(np.arange(300) % 2, digits.labels[:300], (digits.labels[:300] + 1) % 10), "its own log says"),
    ):
        np.savez(f"{name}.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        done = command(f"record good --data {name}.npz --preset small --replace --quiet")
        assert done.code == 0 and done.out.count("warning: ") == 1 and text in done.out
