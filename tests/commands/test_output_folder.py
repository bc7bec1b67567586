"""What every verb does with its folder: one run at a time, nothing of another run lost, whole after a kill at any moment."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import time
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image
from tests.forked import DATAFREE, Forked

from datafree._core.errors import UserError
from datafree._core.files import locked, read_json
from datafree._core.files.lock import LOCK
from datafree.records.record import Record
from datafree.releases.release import BEING_REPLACED
from datafree.runs.output_folder import DEMO_FOLDER, output_folder
from datafree.runs.run_log import RunLog

from .conftest import tree

PACK = "pack hinton16 --weights teacher/model.safetensors --shape 1 8 8 --classes 10 --out {}"
QUICK = {
    "train": "train hinton8 --data digits --epochs 1 --out {} --quiet",
    "record": "record hinton16 --weights teacher/model.safetensors --data digits --preset small --out {} --quiet",
    "distill": "distill teacher hinton8 --set set --epochs 1 --out {} --quiet",
    "condense": "condense random --data digits --per-class 1 --out {} --quiet",
    "synthesize": "synthesize gaussian teacher --images 8 --chunk 4 --workers 1 --out {} --quiet",
    "pack": PACK,
    "evaluate": "evaluate teacher --data digits --out {} --quiet",
    "similarity": "similarity teacher digits noise --images 50 --out {} --quiet",
}
OTHER = {
    "train": "--seed 1", "record": "--limit 900", "distill": "--batch 32", "condense": "--seed 1",
    "synthesize": "--seed 1", "pack": "--mean 0.5", "evaluate": "--split train", "similarity": "--form l2",
}  # fmt: skip
WORDS = {
    "train": "with --seed 0, not 1", "record": "without --limit, not with --limit 900",
    "distill": "with --batch 128, not 32", "condense": "with --seed 0, not 1", "synthesize": "with --seed 0, not 1",
    "pack": "with --mean 0.0, not 0.5", "evaluate": "with --split test, not train",
    "similarity": "with --form forward, not l2",
}  # fmt: skip
AGAIN = {
    "import-condensed": (
        "import-condensed few.npz teacher --pixels 0-1 --anyway --out o", "--resize", "without --resize, not with it"
    ),
    "expand": (
        "expand teacher few --images 10 --chunk 10 --steps 1 --workers 1 --out o --quiet", "--seed 1", "with --seed 0, not 1"
    ),
    "online": (
        "distill online teacher hinton8 --epochs 1 --iterations 1 --batch 8 --latent 8 --out o --quiet",
        "--balance 4", "with --balance 5.0, not 4.0",
    ),
    "demo": ("demo --images 20 --out o --quiet", "--seed 1", "with --seed 0, not 1"),
    "rerun": ("rerun set --out o", "", ""),
    "report": ("report teacher set --out o", "--title Other", "with --title datafree report, not Other"),
    "convert": ("convert weights.pt --out o", "", ""),
    "record --add": ("record input teacher --data digits --add --quiet", "", ""),
}  # fmt: skip
"""Command, another setting, and how the refusal names what made the result."""
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
    with Forked(DATAFREE, slow.split()) as process:
        while not (here / "o" / "training.safetensors").exists():
            assert process.poll() is None
            time.sleep(0.02)
        line = command(slow).line
        assert f"is in use by process {process.pid} on " in line
        process.send_signal(signal.SIGKILL)
    assert (here / "o" / LOCK).exists()
    assert "o holds an unfinished run with --epochs 100000, not 1: give that run's command again to finish it, " in (
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
    assert text == f"o was made {WORDS[verb]}: name another --out, or remove that folder first"
    assert tree(here) == before


@pytest.fixture
def material(here, command, monkeypatch):
    """What the further commands read; a demo of one method and one epoch."""
    from datafree.cli import demo
    from datafree.synthesis import methods

    rng = np.random.default_rng(0)
    np.savez("few.npz", images=rng.random((20, 8, 8)).astype(np.float32), labels=np.arange(20) % 10)
    torch.save({"w": torch.zeros(2)}, "weights.pt")
    torch.save({"w": torch.ones(2)}, "other.pt")
    assert command("condense random --data digits --per-class 1 --out few --quiet").code == 0
    assert (here / "few").is_dir()
    monkeypatch.setattr(demo, "METHODS", (methods.DEFAULT,))
    for name in ("TRAINING", "LEARNING"):
        monkeypatch.setattr(demo, name, getattr(demo, name).model_copy(update={"epochs": 1}))


@pytest.mark.usefixtures("material")
@pytest.mark.parametrize("verb", AGAIN)
def test_every_other_command_given_again_is_complete_and_with_other_settings_it_is_refused(command, here, verb):
    line, flag, words = AGAIN[verb]
    assert command(line).code == 0
    before = tree(here)
    done = command(line)
    assert (done.code, done.err) == (0, "") and "already complete: " in done.out and tree(here) == before
    if flag:
        text = command(f"{line} {flag}").err
        way_out = "give --replace to overwrite it, or" if verb == "report" else "name another --out, or remove that"
        assert text.startswith(f"datafree: o was made {words}: {way_out} "), text
        assert tree(here) == before


@pytest.mark.usefixtures("material")
def test_a_converted_file_is_not_lost_to_other_weights(command, refused):
    assert command("convert weights.pt --out o").code == 0
    assert refused("convert other.pt --out o") == (
        "o already exists and holds other weights or another file, which would be lost: name another file, or remove it "
        "first"
    )
    assert "model.safetensors already exists and holds other" in refused(
        "convert other.pt --out teacher/model.safetensors"
    )
    torch.save({"w": torch.zeros(2)}, "renamed.pt")
    assert (
        command("convert renamed.pt --out o").out
        == "already complete: o holds the tensors of renamed.pt; nothing was changed\n"
    )


def test_a_page_is_made_again_where_a_run_on_it_was_stopped_and_refused_where_its_runs_have_changed(command, here):
    line = "report teacher --out page.html"
    assert command(line).code == 0
    page, log = here / "page.html", here / "page.html.run.json"
    content = page.read_bytes()
    log.unlink()  # as a run leaves it that is killed before its log
    assert command(line).out.startswith("page.html: ") and page.read_bytes() == content
    page.write_bytes(content[:-1])
    assert command(line).out.startswith("page.html: ") and page.read_bytes() == content
    page.unlink()
    assert command(f"{line} --title Other").out.startswith("page.html: ")
    (here / "teacher" / "run.json").write_text((here / "teacher" / "run.json").read_text() + " ")
    text = command(f"{line} --title Other").line
    assert text.startswith("page.html was made with other content of teacher/run.json: sha256 ")


UNFINISHED = "o holds an unfinished run of `datafree {}`, and no result yet: give the same command again to finish it"


@pytest.mark.parametrize("verb", ["train", "distill", "synthesize"])
def test_an_unfinished_folder_says_what_it_is_and_what_to_do(command, here, refused, monkeypatch, verb):
    with monkeypatch.context() as inside:
        inside.setattr(RunLog, "write", stop)
        assert command(QUICK[verb].format("o")).code == 130
    for name in ("config.json", "model.safetensors"):
        (here / "o" / name).unlink(missing_ok=True)  # as a kill leaves it before they are written
    for line in ("inspect o", "rerun o", "evaluate o --data digits", "distill o --set set --out p"):
        if (verb, line) != ("synthesize", "inspect o"):
            assert refused(line) == UNFINISHED.format(verb), line
    with locked(here / "o"):
        line = f"o has no result yet: `datafree {verb}` is at work in it (another run of this process ({os.getpid()}))"
        assert refused("evaluate o --data digits") == f"{line}; wait until it ends"
    assert command(QUICK[verb].format("o")).code == 0


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("line", "kept"),
    [
        (QUICK["train"], "no part is complete. Start again"),
        (f"{QUICK['train']} --epochs=2", "the part that is complete is kept. Go on"),
        (QUICK["condense"], "no part is complete. Start again"),
        ("record input teacher --data digits --add --quiet", "no part is complete. Start again"),
    ],
)
def test_a_stopped_command_says_whether_it_goes_on(command, monkeypatch, line, kept):
    from datafree.distillation import training_loop
    from datafree.records import record as records

    epoch, line = (
        training_loop._epoch,
        line.replace("--epochs 1", "" if "--epochs=2" in line else "--epochs 1").format("o"),
    )

    def one(*args):
        return epoch(*args) if args[6] == 0 and "--epochs=2" in line else stop()

    monkeypatch.setattr(training_loop, "_epoch", one)
    monkeypatch.setattr(records, "_forward", stop)
    monkeypatch.setattr("datafree.data.condensed.methods.condense", stop)
    done = command(line)
    assert (done.code, done.err) == (130, f"datafree: stopped; {kept} with: datafree {' '.join(line.split())}\n")


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


@pytest.mark.parametrize(
    "verb", [pytest.param(verb, marks=[pytest.mark.slow] * (verb in ("distill", "similarity"))) for verb in QUICK]
)
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
    assert text == (
        "teacher holds another record, made with --preset full, not small: give --replace to lose it, --add to keep it and "
        "add to it, or name another --out"
    )
    text = refused("record teacher --data digits --limit 900 --preset full --quiet")
    assert text.startswith("teacher holds another record, made without --limit, not with --limit 900: give --replace")
    assert command(IN_PLACE).code == 0


def test_a_log_of_another_record_than_the_one_that_is_there_is_not_taken_for_it(command, here, refused, monkeypatch):
    safe = "record other --data digits --quiet"
    assert command(safe).code == 0
    with monkeypatch.context() as inside:
        inside.setattr(RunLog, "write", stop)
        assert command(f"{safe} --preset full --replace").code == 130
    text = refused(safe)
    assert text.startswith("other holds a record of other data or entries (") and "give --replace" in text
    log = read_json(here / "other" / "run.json")
    del log["result"]["sha256"]
    (here / "other" / "run.json").write_text(json.dumps(log))  # as an earlier version wrote it
    assert refused(safe) == text
    assert command(f"{safe} --replace").code == 0
    log = read_json(here / "other" / "run.json")
    assert log["result"].pop("sha256") == tree(here)["other/record.safetensors"]
    (here / "other" / "run.json").write_text(json.dumps(log))
    assert command(safe).out.endswith("of the same settings; nothing was changed\n")


def test_a_record_that_cannot_be_replaced_keeps_its_card_and_a_wrong_card_is_written_again(command, here, monkeypatch):
    line = "record other --data digits --preset small --quiet"
    assert command(line).code == 0
    before = tree(here / "other")

    def full(*_):
        raise UserError("No space left on device")

    with monkeypatch.context() as inside:
        inside.setattr(Record, "save", full)
        assert "No space left" in command(f"{line} --limit 500 --replace").err
    assert tree(here / "other") == before
    card = here / "other" / "README.md"
    card.write_text(card.read_text().partition("## Activation")[0] + BEING_REPLACED)
    assert command(line).out.endswith("of the same settings; the card alone was written again\n")
    assert tree(here / "other") == before


@pytest.mark.parametrize("damage", ["gone", "cut", "another"])
def test_a_release_that_was_made_to_record_is_not_complete_without_its_record(command, here, damage):
    line = "record teacher --data digits --preset small --out o --quiet"
    assert command(line).code == 0
    path, before = here / "o" / "record.safetensors", tree(here / "o")["record.safetensors"]
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        shutil.copy(here / "teacher" / "record.safetensors", path)
        assert command(line).err.startswith("datafree: o holds a record of other data or entries (")
        line += " --replace"
    assert command(line).code == 0
    assert tree(here / "o")["record.safetensors"] == before
    assert command(line).out.startswith("already complete: ")


def test_a_larger_count_that_is_stopped_leaves_the_set_that_was_there_whole(command, here, monkeypatch):
    line = "synthesize teacher --images {} --chunk 16 --workers 2 --out set --quiet"
    before = tree(here / "set")
    with monkeypatch.context() as inside:
        inside.setattr(RunLog, "write", stop)
        inside.setattr("datafree.synthesis.synthetic_set.sha256_file", stop)
        assert command(line.format(64)).code == 130
    assert {name: tree(here / "set")[name] for name in before if name != ".datafree.json"} == {
        name: text for name, text in before.items() if name != ".datafree.json"
    }
    assert command("distill teacher hinton8 --set set --epochs 1 --out s --quiet").code == 0
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
        "datafree: the file system of o has no locks (No locks available): do not start a second run in it\n"
    )
    assert not (here / "o" / LOCK).exists()


def test_recording_says_how_well_the_teacher_knows_the_data_and_warns_of_other_data(command, here):
    import numpy as np

    from datafree.data import load

    assert command("train hinton32 --data digits --epochs 8 --out good --quiet").code == 0
    done = command("record good --data digits --preset small --quiet")
    found = float(done.out.split("recorded images: ")[1].split(" %")[0])
    assert found > 60 and "1,297 recorded images" in done.out and "warning" not in done.out
    assert abs(read_json(here / "good" / "run.json")["result"]["accuracy_on_the_data"] - found) < 0.01
    digits = load("digits", "train")
    images = (255 * digits.pixels(np.arange(300))[:, 0]).round().byte().numpy()
    for name, labels, text in (
        ("shuffled", np.random.default_rng(0).permutation(digits.labels[:300].numpy()), "near chance (10.0 %)"),
        ("half", np.where(np.arange(300) % 2, digits.labels[:300], (digits.labels[:300] + 1) % 10), "its own log says"),
    ):
        np.savez(f"{name}.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        done = command(f"record good --data {name}.npz --preset small --replace --quiet")
        assert done.code == 0 and done.out.count("warning: ") == 1 and text in done.out


def test_a_demo_that_fails_in_a_folder_of_its_own_is_made_again_by_the_same_command(here):
    log = RunLog("demo", {"images": 20, "seed": 0}, {})
    for _ in range(2):
        with suppress(FileNotFoundError), output_folder(here / "failed", DEMO_FOLDER, log) as folder:
            (folder / "teacher").mkdir(exist_ok=True)
            (folder / "missing").read_bytes()
    with output_folder(here / "failed", DEMO_FOLDER, log) as folder:
        (folder / "report.html").write_text("<!doctype html>")
        log.write(folder, {})
    assert not list(here.glob("failed/.*lock"))


def test_the_locks_in_a_finished_demos_folders_go(command, here):
    demo = here / "finished"
    log = RunLog("demo", {"images": 20, "seed": 0}, {})
    with output_folder(demo, DEMO_FOLDER, log) as folder:
        (folder / "set-top").mkdir()
        (folder / "set-top" / LOCK).touch()
        (folder / "report.html").write_text("<!doctype html>")
        log.write(folder, {})
    assert command("demo --images 20 --out finished --quiet").out.startswith("already complete")
    assert not (demo / "set-top" / LOCK).exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.parametrize("kind", ["pipe", "socket", "link", "page", "text"])
def test_a_report_takes_no_other_things_place(here, refused, kind):
    out = here / "x.html"
    (here / "mine").write_text("<!doctype html><p>my own page")
    if kind == "pipe":
        os.mkfifo(out)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as own:
            own.bind("x.html")
    elif kind == "link":
        out.symlink_to("mine")
    else:
        out.write_text("<!doctype html><p>my own page" if kind == "page" else "text")
    before = os.lstat(out)
    assert "x.html exists, is no page of datafree's and would be lost" in refused("report teacher --out x.html")
    assert os.lstat(out) == before and (here / "mine").read_text() == "<!doctype html><p>my own page"


def test_a_page_of_an_earlier_version_is_known_by_its_log(command, here):
    assert command("report teacher --out x.html").code == 0
    page, log = here / "x.html", here / "x.html.run.json"
    page.write_text(page.read_text().replace('<meta name="generator" content="datafree">', ""))
    log.write_text(log.read_text().replace('"page": "', '"page": "0'))
    assert command("report teacher --out x.html").code == 0
    assert 'content="datafree"' in page.read_text()


@pytest.mark.parametrize("verb", QUICK)
@pytest.mark.parametrize("content", ['{"mine": 1}', '{"verb": "train"}', "mine"], ids=["json", "verb", "text"])
def test_a_users_own_file_beside_the_folder_is_not_replaced_by_the_log(here, refused, verb, content):
    (here / "o.run.json").write_text(content)
    refused(QUICK[verb].format("o"))
    assert (here / "o.run.json").read_text() == content and not (here / "o").exists()


def test_a_finished_set_grows_and_does_not_shrink(command, here, refused):
    line = "synthesize gaussian teacher --images {} --chunk 4 --workers 1 --out s --quiet"
    assert command(line.format(8)).code == 0
    before = tree(here / "s")
    assert "images: got 6, but the set in s already has 8" in refused(line.format(6))
    assert tree(here / "s") == before
    assert command(line.format(12)).code == 0
    assert len(list((here / "s").glob("unit-*"))) == 3 and "already complete" in command(line.format(12)).out


@pytest.mark.parametrize("verb", [*QUICK])
@pytest.mark.parametrize("length", [214, 240, 300])
def test_a_name_that_is_too_long_for_the_files_beside_it_is_refused_before_the_work(here, refused, verb, length):
    names = set(os.listdir(here))
    assert "name" in refused(QUICK[verb].format("n" * length)).lower()
    assert set(os.listdir(here)) == names


@pytest.mark.usefixtures("here")
def test_a_page_of_too_long_a_name_is_refused_before_the_work(refused):
    assert "give a shorter --out" in refused(f"report teacher --out {'n' * 240}.html --quiet")


@pytest.mark.parametrize("place", ["pics/o", "pics/train/o", "pics/train/a/o", "./pics/../pics/o"])
def test_a_folder_inside_the_images_that_a_run_reads_is_refused(here, refused, place):
    for split in ("train", "test"):
        for label in "ab":
            (here / "pics" / split / label).mkdir(parents=True)
            for index in range(4):
                pixels = np.random.default_rng(index).integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(here / "pics" / split / label / f"{index}.png")
    before = tree(here / "pics")
    for line in ("train hinton8 --data pics --epochs 1", "condense random --data pics --per-class 1"):
        assert " is inside pics, which this run reads as images" in refused(f"{line} --out {place} --quiet")
    assert tree(here / "pics") == before


@pytest.mark.usefixtures("here")
def test_a_folder_that_is_called_as_a_word_of_the_product_is_no_folder_of_images(command):
    for place in ("digits", "hinton8", "gaussian"):
        for seed in (0, 1, 0):
            line = f"train hinton8 --data digits --limit 50 --epochs 1 --seed {seed} --out {place}/{seed} --quiet"
            assert command(line).code == 0
    assert command("synthesize gaussian teacher --images 8 --out gaussian/s --quiet").code == 0
    assert command("quantize teacher --calibrate gaussian --images 16 --out gaussian/q --quiet").code == 0
