"""benchmarks/peers: the collector's arithmetic, the error lines, and the CPU limit of code that knows nothing of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from tests.forked import forked

import datafree
from benchmarks.peers.adapters import METHODS, adapter, settings_of
from benchmarks.peers.budget import Budget, BudgetSpent
from benchmarks.peers.run import main
from benchmarks.peers.stand_ins import library_hidden
from benchmarks.peers.table import collected, rendered
from benchmarks.peers.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
FIELDS = {
    "teacher_accuracy": 99.0,
    "device": "CPU",
    "versions": {"torch": "2.13"},
    "commit": "abc",
    "peer_commit": None,
}

TEN_EPOCHS = {"images": 0, "epochs": 10}
"""Settings of the row that MNIST's paired differences are taken to."""


def write_cell(work: Path, method: str, seed: int, curve: list[tuple[float, float]], **changes: object) -> None:
    cell = {
        "data": "mnist", "method": method, "seed": seed, "seconds": 180.0, "settings": settings_of(method, {}),
        "curve": curve, "cpu_seconds": curve[-1][0] if curve else 0.0, **FIELDS, **changes,
    }  # fmt: skip
    path = work / "mnist-180s" / method / "default" / f"seed-{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(cell), encoding="utf-8")


def rows_of(work: Path) -> dict[str, dict]:
    table = next(table for table in collected(work)["tables"] if table["data"] == "mnist")
    return {row["method"]: row for row in table["rows"]}


def test_last_best_and_paired_differences_are_separate_columns(tmp_path):
    for seed, (last, best) in enumerate([(70.0, 80.0), (74.0, 75.0), (72.0, 72.0)]):
        write_cell(tmp_path, "dfad", seed, [(90.0, best), (181.0, last)])
    write_cell(tmp_path, "ours-online-random", 0, [(100.0, 96.0)], settings=TEN_EPOCHS)
    write_cell(tmp_path, "ours-online-random", 2, [(100.0, 97.0)], settings=TEN_EPOCHS)
    row = rows_of(tmp_path)["dfad"]
    assert row["last"] == {"mean": 72.0, "sd": 2.0, "n": 3, "by_seed": {"0": 70.0, "1": 74.0, "2": 72.0}}
    assert row["best"] == {"mean": 75.67, "sd": 4.04, "n": 3, "by_seed": {"0": 80.0, "1": 75.0, "2": 72.0}}
    assert row["difference"] == {"mean": -25.5, "sd": 0.71, "n": 2, "by_seed": {"0": -26.0, "2": -25.0}}
    assert (
        "| dfad | default | 72.00 ± 2.00 (3) | 72.00 ± 2.00 (3) | 75.67 ± 4.04 (3) | -25.50 ± 0.71 (2) | 181 | 0 1 2 |"
        in rendered(collected(tmp_path))
    )


def test_a_row_that_ran_longer_has_its_accuracy_at_the_limit_too(tmp_path):
    write_cell(tmp_path, "ours-set", 0, [(100.0, 60.0), (188.0, 70.0), (190.0, 80.0), (300.0, 75.0)])
    row = rows_of(tmp_path)["ours-set"]
    assert [row[name]["mean"] for name in ("last", "at_limit", "best")] == [75.0, 70.0, 80.0]


def test_one_seed_has_no_standard_deviation(tmp_path):
    write_cell(tmp_path, "dafl", 0, [(180.0, 50.0)])
    row = rows_of(tmp_path)["dafl"]
    assert row["last"] == {"mean": 50.0, "sd": None, "n": 1, "by_seed": {"0": 50.0}}
    assert row["difference"] is None


def test_failures_and_absent_rows_are_listed(tmp_path):
    write_cell(tmp_path, "dafl", 0, [(180.0, 50.0)])
    write_cell(tmp_path, "dfad", 0, [], failed="KeyError: 'x'")
    text = rendered(collected(tmp_path))
    assert "| dfad | default | failed: KeyError: 'x' |" in text
    assert "| kegnet | default | not run: no run was finished |" in text


def test_every_row_has_an_adapter_for_its_data():
    rows = [(task.data, method) for task in TASKS.values() for method in task.methods]
    assert len(rows) == 12 and {method for _, method in rows} == set(METHODS)
    assert all(data in adapter(method).PEER.data for data, method in rows)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "dalf"], "no method 'dalf' in the benchmark; nearest: 'dafl'"),
        (["--data", "mnits"], "no data 'mnits' in the benchmark; nearest: 'mnist'"),
        (["--methods", "dafl"], "dafl: no --peers, expected the folder with DAFL, a checkout of "),
        (["--methods", "fast"], "fast: got --data mnist, expected cifar10; leave the method out"),
        (["--methods", "dafl", "--set", "dafl.lr_s=1"], "no setting 'lr_s' in dafl; nearest: 'lr_S'"),
        (["--methods", "dafl", "--set", "dafl.lr_S=x"], "dafl.lr_S: got 'x', expected float; give such a number"),
        (["--methods", "dafl", "--set", "lr_S=1"], "--set: got 'lr_S=1', expected METHOD.KEY=VALUE; write "),
    ],
)
def test_mistakes_are_one_line_and_status_2(words, message, tmp_path, capsys):
    assert main([*words, "--work", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == 1


def test_absent_and_wrong_checkouts_are_one_line_and_status_2(tmp_path, capsys):
    words = ["--methods", "dafl", "--peers", str(tmp_path), "--work", str(tmp_path / "work")]
    assert main(words) == 2
    assert f"no folder {tmp_path / 'DAFL'}, expected a checkout of" in capsys.readouterr().err
    (tmp_path / "DAFL").mkdir()
    assert main(words) == 2
    assert f"{tmp_path / 'DAFL'} has no DAFL-train.py, expected the layout of commit" in capsys.readouterr().err


def test_a_stage_ends_before_the_limit_and_the_limit_ends_the_run():
    weight = torch.zeros(1, requires_grad=True)
    weight.grad = torch.ones(1)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    budget = Budget(0.2, measure=lambda: 50.0, intervals=4)
    with budget.limit():
        with budget.stage(0.5):
            while True:
                optimizer.step()
        after_stage = budget.used()
        while True:
            optimizer.step()
    assert 0.1 <= after_stage <= budget.curve[-1][0] + 0.01
    assert budget.curve[-1][0] >= 0.2 and 1 <= len(budget.curve) <= 4
    steps = budget.steps
    optimizer.step()  # the hook is removed: neither counted nor stopped
    assert budget.steps == steps


def test_no_handler_for_exceptions_catches_the_limit():
    assert not issubclass(BudgetSpent, Exception)


def test_a_peers_package_of_our_name_is_imported_and_ours_comes_back(tmp_path, monkeypatch):
    (tmp_path / "datafree").mkdir()
    (tmp_path / "datafree" / "__init__.py").write_text("PEER = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with library_hidden():
        import datafree as theirs

        assert theirs.PEER
    assert sys.modules["datafree"] is datafree


STUB = """
import argparse, torch, network
from dataloader import get_dataloader
parser = argparse.ArgumentParser()
for name in ("batch_size", "lr_S", "lr_G", "nz", "weight_decay", "epoch_itrs", "epochs"):
    parser.add_argument(f"--{name}", type=float)
arguments = parser.parse_args()
test_loader = get_dataloader(arguments)[1]
teacher, student = network.lenet.LeNet5(), network.lenet.LeNet5Half().cuda()
teacher.load_state_dict(torch.load("absent.pt"))
optimizer = torch.optim.SGD(student.parameters(), lr=arguments.lr_S)
torch.manual_seed(1)
while True:
    inputs = torch.randn(2, 1, 32, 32, device="cuda")
    optimizer.zero_grad()
    (student(inputs) - teacher(inputs)).abs().mean().backward()
    optimizer.step()
    for images, labels in test_loader:
        student.eval()(images)
    torch.save(student, "student.pt")
"""
CHILD = """
import json, sys
from pathlib import Path
import torch
from benchmarks.peers.adapters import Job, adapter, settings_of
from benchmarks.peers.budget import Budget
from datafree.models.input_spec import InputSpec
from datafree.releases.load import new_model

torch.set_num_threads(1)
spec = InputSpec(shape=(1, 32, 32), classes=tuple("0123456789"))
teacher, student = new_model("lenet5", spec, seed=0), new_model("lenet5-half", spec, seed=1)
before = student.fingerprint()
budget = Budget(0.3, measure=lambda: 10.0)
folder, settings = Path(sys.argv[1]), settings_of("dfad", {})
adapter("dfad").run(Job("dfad", "mnist", teacher, student, "fc2", budget, settings, 0, folder, None, None))
print(json.dumps([budget.curve, budget.steps, before != student.fingerprint()]))
"""


def test_a_peer_that_never_ends_stops_at_its_limit_with_our_student_trained(tmp_path, monkeypatch):
    folder = tmp_path / "DFAD"
    (folder / "network").mkdir(parents=True)
    (folder / "DFAD_mnist.py").write_text(STUB)
    (folder / "network" / "__init__.py").write_text("from . import lenet, segmentation\n")
    (folder / "network" / "lenet.py").write_text("LeNet5 = LeNet5Half = None\n")
    before = {path.relative_to(folder) for path in folder.rglob("*.py")}
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    code, out, err = forked(CHILD, [str(folder)])
    assert code == 0, err
    curve, steps, is_trained = json.loads(out.splitlines()[-1])
    assert curve[-1][0] >= 0.3 and curve[-1][1] == 10.0
    assert steps >= 1 and is_trained
    assert {path.relative_to(folder) for path in folder.rglob("*.py")} == before
    assert not list(tmp_path.rglob("*.pt"))


def test_cells_of_another_machine_stay_in_the_results(tmp_path):
    write_cell(tmp_path / "other", "dafl", 0, [(180.0, 50.0)])
    write_cell(tmp_path / "other", "dafl", 1, [(180.0, 52.0)])
    earlier = collected(tmp_path / "other")
    write_cell(tmp_path / "here", "dafl", 1, [(180.0, 60.0)])
    results = collected(tmp_path / "here", earlier)
    assert [(cell["seed"], cell["curve"][-1][1]) for cell in results["cells"]] == [(0, 50.0), (1, 60.0)]
    assert "| dafl | default | 55.00 ± 7.07 (2) |" in rendered(results)
    assert collected(tmp_path / "empty", results) == results
