"""Ctrl-C and SIGTERM in the middle of a run: a quick end, a line that says how to go on, and the same bytes after it."""

from __future__ import annotations

import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.forked import DATAFREE, Forked, forked

TRAIN = "train hinton16 --data digits --epochs 12 --threads 1 --out {} --quiet"
MADE = "synthesize top teacher --steps 20 --images 160 --chunk 8 --workers 2 --threads 1 --out {} --quiet"
DISTILL = "distill teacher --set set --epochs 120 --threads 1 --out {} --quiet"
PACED = """
import sys, time
from datafree.cli import main
from datafree.distillation import training_loop
from datafree.distillation.online.trainer import OnlineTrainer
from datafree.synthesis import synthetic_set
def paced(own, name):
    real = getattr(own, name)
    def call(*args, **more):
        done = real(*args, **more)
        time.sleep(0.5)
        return done
    setattr(own, name, call)
paced(training_loop, "_save")
paced(synthetic_set, "stored_chunk")
paced(OnlineTrainer, "epoch")
main.main(sys.argv[1:])
"""
"""As DATAFREE, with half a second's sleep after every part: a short run is still going on when the signal comes."""
SLOW = """
import pathlib, sys, time
from datafree.cli import main
from datafree.synthesis import synthetic_set
main.PATIENCE = 0.5
synthetic_set.stored_chunk = lambda *_: (pathlib.Path("begun").touch(), time.sleep(60))
main.main(sys.argv[1:])
"""
SLOW_RECORD = """
import pathlib, sys, time
from datafree.cli import main
from datafree.records import record
from datafree.records.statistics.input import InputAccumulator
chunk, reduce, batches = record._chunk, InputAccumulator.reduce, []
record._chunk = lambda *_: 256
def slow(*args):
    batches.append(1)
    if len(batches) == 3:
        pathlib.Path("begun").touch()
        time.sleep(60)
    return reduce(*args)
InputAccumulator.reduce = slow
main.main(sys.argv[1:])
"""


def stop(line: str, begun: Path, number: signal.Signals, code: str = DATAFREE) -> tuple[int, str, float]:
    """Starts the command, sends the signal once `begun` is there; exit code, standard error, seconds it took."""
    with Forked(code, line.split()) as process:
        end = time.monotonic() + 60
        while not begun.exists():
            assert process.poll() is None and time.monotonic() < end
            select.select([], [], [], 0.005)
        process.send_signal(number)
        sent = time.monotonic()
        ended = process.wait(timeout=30)
        return ended, process.communicated()[1], time.monotonic() - sent


@pytest.mark.parametrize(
    ("line", "begun", "last", "number"),
    [
        (TRAIN, "training.safetensors", "model.safetensors", signal.SIGINT),
        (MADE, "unit-000002.safetensors", "unit-000019.safetensors", signal.SIGTERM),
        pytest.param(DISTILL, "training.safetensors", "model.safetensors", signal.SIGTERM, marks=pytest.mark.slow),
    ],
    ids=["train-INT", "synthesize-TERM", "distill-TERM"],
)
def test_a_stopped_run_goes_on_to_the_same_bytes(command, here, line, begun, last, number):
    program = DATAFREE if line == DISTILL else PACED
    code, err, seconds = stop(line.format("a"), here / "a" / begun, number, program)
    assert code == 128 + number
    assert err == f"datafree: stopped; the part that is complete is kept. Go on with: datafree {line.format('a')}\n"
    assert seconds < 10
    assert (here / "a" / begun).exists() and not (here / "a" / "run.json").exists()
    assert command(line.format("a")).code == 0
    assert command(line.format("b")).code == 0
    assert (here / "a" / last).read_bytes() == (here / "b" / last).read_bytes()
    assert not (here / "a" / "training.safetensors").exists()


def test_a_thread_in_the_middle_of_a_long_unit_holds_nobody_up(here):
    line = "synthesize teacher --images 16 --chunk 8 --out c --quiet"
    code, err, seconds = stop(line, here / "begun", signal.SIGINT, SLOW)
    assert code == 130 and seconds < 10
    assert err == f"datafree: stopped; no part is complete. Start again with: datafree {line}\n"


def test_a_stopped_recording_leaves_its_sums_outside_the_release_and_goes_on(command, here):
    line = "record teacher --replace --data digits --preset paper --threads 1 --quiet"
    before = (here / "teacher" / "record.safetensors").read_bytes()
    code, err, _ = stop(line, here / "begun", signal.SIGTERM, SLOW_RECORD)
    assert (code, err) == (143, f"datafree: stopped; the part that is complete is kept. Go on with: datafree {line}\n")
    assert (here / "teacher.recording").exists()
    assert (here / "teacher" / "record.safetensors").read_bytes() == before
    assert command(line).code == 0
    assert not (here / "teacher.recording").exists()
    assert (here / "teacher" / "record.safetensors").read_bytes() != before


def test_a_thread_that_outlives_the_command_adds_no_second_line():
    code = "from datafree.cli import main as m\ndef stopped(argv, flags): raise KeyboardInterrupt\nm._run = stopped\n"
    code += "print(m.run(['inspect', 'x']), flush=True)\nm._leave(['inspect', 'x'], 130)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (130, "130\n")
    assert done.stderr == "datafree: stopped; no part is complete. Start again with: datafree inspect x\n"


def test_in_the_middle_of_an_import_the_process_ends_at_once(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import time\ntry:\n    time.sleep(30)\nexcept BaseException:\n    print('in here')\n"
    )
    code = "import signal, sys; from functools import partial; from datafree.cli.main import _stop\n"
    code += "signal.signal(signal.SIGINT, partial(_stop, ['inspect', 'x'])); print('ready', flush=True); import slow"
    started = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert started.stdout is not None and started.stdout.readline() == "ready\n"
    time.sleep(0.5)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=20)
    assert (started.returncode, out) == (130, "") and err.count("\n") == 1 and err.startswith("datafree: stopped")


LOST = """
import sys, time
from datafree.cli import main
class Slow:
    def __del__(self):
        print("ready", flush=True)
        time.sleep(30)
def work(argv, flags):
    Slow()
    time.sleep(30)
main._run = work
main.main(["inspect", "x"])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_destructor_stops_the_command_without_a_traceback(number):
    words = [sys.executable, "-c", LOST]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None and started.stdout.readline() == "ready\n"
        started.send_signal(number)
        sent = time.monotonic()
        _, err = started.communicate(timeout=20)
    assert time.monotonic() - sent < 4
    assert started.returncode == 128 + number
    assert err == "datafree: stopped; no part is complete. Start again with: datafree inspect x\n"


@pytest.mark.usefixtures("here")
def test_a_reader_that_has_gone_is_no_traceback():
    gone = "import os; reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1)"
    ended, _, err = forked(f"{gone}; {DATAFREE}", ["inspect", "teacher/record.safetensors"])
    assert (ended, err) == (141, "")


@pytest.mark.usefixtures("here")
def test_an_error_in_a_process_of_its_own_is_one_line_and_code_2():
    done = subprocess.run(
        [sys.executable, "-m", "datafree", "evaluate", "nosuch", "--data", "digits"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("datafree: no release folder 'nosuch', and no network of that name in the zoo")
