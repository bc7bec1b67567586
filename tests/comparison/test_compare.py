"""df.compare: cells that are measured once, one protocol for all methods, and a table over seeds."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import pytest
import torch

import datafree as df
from datafree._core.files.lock import InUse
from datafree.distillation.online.trainer import OnlineTrainer
from datafree.distillation.sources import StoredImages
from datafree.evaluation.comparison import measure, plan_comparison
from datafree.evaluation.comparison.methods import compared_methods, default_methods
from datafree.evaluation.comparison.notes import notes_of
from datafree.evaluation.comparison.passes import Passes
from datafree.evaluation.comparison.protocol import MOST_EPOCHS, epoch_shape
from datafree.evaluation.comparison.result import comparison_rows
from datafree.evaluation.comparison.workplace import Workplace
from datafree.synthesis.methods import Batch, chunk_labels

TINY = {"images": 32, "steps": 20, "settings": {"batch": 16}, "students": "hinton8", "seeds": 1}


class Stripes(df.Settings):
    """Random images: a method of the user's own."""

    method: Literal["stripes"] = "stripes"
    summary: ClassVar[str] = "random images"
    in_range: ClassVar[bool] = True

    def bind(self, teacher, record):  # noqa: ARG002
        return BoundStripes(self, teacher)


@dataclass(frozen=True)
class BoundStripes:
    settings: Stripes
    teacher: df.Network

    def chunk(self, index, seed, size):
        rng = torch.Generator().manual_seed(1000 * seed + index)
        pixels = torch.rand((size, *self.teacher.spec.shape), generator=rng)
        return Batch(pixels, chunk_labels(index, size, len(self.teacher.spec.classes)))


class Stopped(Exception):
    pass


def accuracies(comparison: df.Comparison) -> dict[str, list[float]]:
    return {cell.id: [value for _, value in cell.curve] for cell in comparison.cells}


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    return {**TINY, "methods": [Stripes(), "online"], "out": tmp_path_factory.mktemp("compare") / "out", "seeds": 2}


@pytest.fixture(scope="module")
def comparison(teacher, options) -> df.Comparison:
    return df.compare(teacher, "digits", **options)


def test_every_method_student_and_seed_is_a_cell_and_controls_are_not_ranked(comparison, teacher):
    assert [(row.method, row.control, row.n) for row in comparison.rows if row.control] == [
        ("real", True, 2), ("noise", True, 2)
    ]  # fmt: skip
    free = [row for row in comparison.rows if not row.control]
    assert {row.method for row in free} == {"stripes", "online"} and comparison.rows[:2] == tuple(free)
    assert free[0].accuracy.mean >= free[1].accuracy.mean and free[0].to_best is None
    assert len(comparison.cells) == 8 and not comparison.unfinished
    assert comparison.teacher_accuracy == df.evaluate(teacher, df.load_data("digits", "test")).accuracy


def test_differences_are_paired_by_seed(comparison):
    best, other = comparison.rows[0].method, comparison.rows[1]
    by_seed = {(cell.method, cell.seed): cell.accuracy for cell in comparison.cells}
    pairs = [by_seed[other.method, seed] - by_seed[best, seed] for seed in (0, 1)]
    assert other.to_best.to == best
    assert other.to_best.spread.mean == pytest.approx(sum(pairs) / 2)
    assert other.to_best.spread.sd == pytest.approx(abs(pairs[0] - pairs[1]) / 2**0.5)


def test_the_last_epoch_is_the_accuracy_and_the_best_is_apart(comparison):
    for cell in comparison.cells:
        values = [value for _, value in cell.curve]
        assert cell.accuracy == values[-1] and cell.best_accuracy == max(values) == values[cell.best_epoch - 1]
        assert len(values) == cell.epochs
        assert [time for time, _ in cell.curve] == sorted(time for time, _ in cell.curve)
        assert cell.curve[-1][0] == pytest.approx(cell.seconds, abs=1e-3)
    heads = comparison.markdown().splitlines()[4]
    assert "best epoch, % (needs test data; not attainable without it)" in heads
    assert "agreement, % (with the teacher; no accuracy)" in heads


def test_few_seeds_and_what_is_not_equal_are_noted(comparison):
    text = " ".join(comparison.notes)
    assert text.startswith("2 seeds only: differences may be chance")
    assert "online: new images in every step; each step has 2 replayed images beside the batch of 16" in text


def test_the_same_call_measures_nothing_again(comparison, teacher, options, monkeypatch):
    files = {path: path.read_bytes() for path in comparison.folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(Workplace, "run", lambda *_: pytest.fail("measured again"))
    again = df.compare(teacher, "digits", **options)
    assert again.cells == comparison.cells and again.rows == comparison.rows
    assert {path: path.read_bytes() for path in comparison.folder.rglob("*") if path.is_file()} == files


def test_the_three_files_have_the_same_numbers_and_the_page_needs_no_network(comparison):
    stored = json.loads((comparison.folder / "comparison.json").read_text())
    assert stored["teacher_accuracy"] == comparison.teacher_accuracy
    assert [row["accuracy"]["mean"] for row in stored["rows"]] == [row.accuracy.mean for row in comparison.rows]
    assert (comparison.folder / "comparison.md").read_text() == comparison.markdown()
    page = (comparison.folder / "comparison.html").read_text()
    links = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", page)
    assert links and all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert "<script" not in page and "@import" not in page
    for row in comparison.rows:
        assert f"{row.accuracy.mean:.2f} ± {row.accuracy.sd:.2f}" in page


@pytest.mark.parametrize("after", [3, pytest.param(9, marks=pytest.mark.slow), 26])
def test_a_comparison_that_is_stopped_anywhere_gives_the_same_result(teacher, tmp_path, comparison, options, after):
    calls = 0

    def stop(done, total):  # noqa: ARG001
        nonlocal calls
        calls += 1
        if calls == after:
            raise Stopped

    changed = {**options, "out": tmp_path / "out", "seeds": 1}
    with pytest.raises(Stopped):
        df.compare(teacher, "digits", progress=stop, **changed)
    whole = {name: values for name, values in accuracies(comparison).items() if name.endswith("/0")}
    assert accuracies(df.compare(teacher, "digits", **changed)) == whole


def test_all_students_of_a_seed_start_alike_and_take_as_many_steps(teacher, tmp_path, monkeypatch):
    from datafree.distillation import training_loop
    from datafree.evaluation.comparison import training as cells

    starts, steps, peaks = [], {"stored": 0, "online": 0}, set()
    stored_epoch, online_step = training_loop._epoch, OnlineTrainer._student_step
    new_online, new_stored = cells.plan_online, cells.plan_distillation

    def planned(plan):
        starts.append(plan.student.fingerprint())
        return plan

    def epoch(network, source, loss, schedule, *rest):
        steps["stored"] += rest[3]
        peaks.add(("stored", schedule.learning_rate, schedule.batch, schedule.optimizer, schedule.decay))
        return stored_epoch(network, source, loss, schedule, *rest)

    def step(trainer, *args, **changes):
        settings = trainer.settings
        steps["online"] += 1
        peaks.add(("online", settings.student_rate, settings.batch, settings.optimizer, settings.decay))
        return online_step(trainer, *args, **changes)

    monkeypatch.setattr(training_loop, "_epoch", epoch)
    monkeypatch.setattr(OnlineTrainer, "_student_step", step)
    monkeypatch.setattr(cells, "plan_online", lambda *args, **changes: planned(new_online(*args, **changes)))
    monkeypatch.setattr(cells, "plan_distillation", lambda *args, **changes: planned(new_stored(*args, **changes)))
    comparison = df.compare(
        teacher, "digits", **{**TINY, "methods": [Stripes(), "online:dafl"], "out": tmp_path / "out", "steps": 33}
    )
    assert len(starts) == 4 and len(set(starts)) == 1
    assert steps["stored"] == 3 * steps["online"]
    assert {cell.steps for cell in comparison.cells} == {steps["online"]} == {40}
    assert peaks == {(kind, 0.02, 16, "muon", "cosine") for kind in ("stored", "online")}


def test_a_result_of_other_settings_is_refused_and_replaced_on_request(comparison, teacher, options, tmp_path):
    with pytest.raises(df.UserError, match=r"seed-0 was made with `steps=20`, not 30: give `replace=True`"):
        df.compare(teacher, "digits", **{**options, "steps": 30})
    assert df.compare(teacher, "digits", **options).cells == comparison.cells
    small = {**TINY, "methods": [Stripes()], "controls": False, "out": tmp_path / "out"}
    df.compare(teacher, "digits", **small)
    with pytest.raises(df.UserError, match="with `images=32`, not 48"):
        df.compare(teacher, "digits", **{**small, "images": 48})
    replaced = df.compare(teacher, "digits", **{**small, "images": 48}, replace=True)
    assert [cell.images for cell in replaced.cells] == [48]


def test_a_failed_cell_stops_no_other_and_is_listed_with_its_reason(teacher, tmp_path):
    outcomes = []
    comparison = df.compare(
        teacher, "digits", **{**TINY, "methods": ["bns", Stripes()], "controls": False, "out": tmp_path / "out"},
        on_cell=lambda cell, outcome: outcomes.append((cell.id, outcome)),
    )  # fmt: skip
    (failed,) = comparison.failed
    assert failed.cell == "bns/hinton8/0" and "no batch norm" in failed.reason
    assert [row.n for row in comparison.rows] == [1, 0]
    assert "bns/hinton8/0: hinton32 has no batch norm" in comparison.markdown()
    assert [(name, type(outcome).__name__) for name, outcome in outcomes] == [
        ("bns/hinton8/0", "str"), ("stripes/hinton8/0", "CellResult")
    ]  # fmt: skip
    with pytest.raises(
        df.UserError, match=r"hinton32 has no batch norm.* \(bns/hinton8/0; no cell could be measured\)"
    ):
        df.compare(teacher, "digits", **{**TINY, "methods": ["bns"], "controls": False, "out": tmp_path / "b"})


def test_a_start_that_was_not_possible_and_images_without_their_classes_are_noted(teacher, tmp_path):
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    options = {**TINY, "methods": [Stripes()], "students": ["hinton8", linear], "controls": False, "start": "teacher"}
    comparison = df.compare(teacher, "digits", **options, out=tmp_path / "out")
    assert [cell.from_teacher for cell in comparison.cells] == [True, False]
    text = " ".join(comparison.notes)
    assert "Sequential started from random weights: its layers do not match the teacher's" in text
    assert "stripes: the teacher predicts the target class for" in text and "near chance (10.0 %)" in text


def test_students_of_a_seed_share_its_images(teacher, tmp_path):
    comparison = df.compare(
        teacher, "digits",
        **{**TINY, "methods": [Stripes()], "students": ["hinton8", "hinton4"], "controls": False, "out": tmp_path / "out"},
    )  # fmt: skip
    assert [path.name for path in (tmp_path / "out" / "sets").rglob("set.json")] == ["set.json"]
    assert len({cell.image_seconds for cell in comparison.cells}) == 1
    assert [row.student for row in comparison.rows] == ["hinton8", "hinton4"]


def test_a_budget_fixes_the_counts_before_the_training_and_a_stopped_cell_keeps_them(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "_step_seconds", lambda *_: 0.02)
    options = {
        **TINY,
        "steps": None,
        "budget": "1s",
        "methods": [Stripes()],
        "controls": False,
        "out": tmp_path / "out",
    }
    cell = next(iter(plan_comparison(teacher, "digits", **options).cells))
    plan_file = tmp_path / "out" / "cells" / "stripes" / "hinton8" / "seed-0" / "plan.json"
    calls = 0

    def stop(done, total):
        nonlocal calls
        calls += done > 1.7 * total / 2
        if calls:
            raise Stopped

    with pytest.raises(Stopped):
        plan_comparison(teacher, "digits", **options).run_cell(cell, stop)
    counts = json.loads(plan_file.read_text())["counts"]
    assert counts["images"] == 32 and 40 <= counts["epochs"] * counts["epoch_steps"] <= 50
    monkeypatch.setattr(measure, "_step_seconds", lambda *_: pytest.fail("measured again"))
    result = plan_comparison(teacher, "digits", **options).run_cell(cell)
    assert (result.steps, result.images) == (counts["epochs"] * counts["epoch_steps"], 32)
    assert not plan_file.exists()


def test_a_budget_that_is_too_small_is_one_line(teacher, tmp_path, monkeypatch):
    options = {**TINY, "steps": None, "methods": [Stripes()], "controls": False, "out": tmp_path / "out"}
    with pytest.raises(
        df.UserError, match=re.escape("budget: got '0.5s', expected at least a second, such as 90s, 10m or 2h")
    ):
        df.compare(teacher, "digits", **options, budget="0.5s")
    monkeypatch.setattr(measure, "_step_seconds", lambda *_: 0.5)
    with pytest.raises(df.UserError, match=r"budget: got 1 s, expected at least \d+ s for stripes and one epoch of"):
        df.compare(teacher, "digits", **options, budget="1s")
    monkeypatch.setattr(measure, "_chunk_seconds", lambda *_: [(8, 8.0), (16, 16.0)])
    with pytest.raises(
        df.UserError, match=r"expected at least 3[23] s, half of it for a batch of 16 images of stripes; give"
    ):
        df.compare(teacher, "digits", **{**options, "out": tmp_path / "b"}, budget="1s")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"methods": ["bnz"]}, "no method 'bnz'; nearest: 'bns'"),
        ({"methods": ["online:vea"]}, "no method 'online:vea'; nearest: 'online:vae'"),
        ({"methods": ["bns", "bns"]}, "methods: got 'bns' twice, expected each once"),
        ({"methods": []}, "methods: got none, expected at least one"),
        ({"seeds": 0}, "seeds: got 0, expected at least 1"),
        ({"images": 8}, "images: got 8, expected at least 16"),
        ({"seeds": 99_999_999_999}, "seeds: got 99999999999, expected at most 10,000"),
        ({"workers": 0}, "workers: got 0, expected at least 1"),
        ({"settings": {"batch": 16, "shift": 8}}, "shift: got 8, expected below 8, the images' smaller side"),
        (
            {"settings": {"batch": 16, "learning_rate": 1e30}, "methods": ["online"]},
            "learning_rate: got 1e+30, expected at most 10, with the method 'online'; give such a value, or leave that",
        ),
        (
            {"settings": {"batch": 1}, "methods": ["online"]},
            "batch: got 1, expected at least 2, with the method 'online'",
        ),
        ({"budget": "1m"}, "budget: got it with `steps`, expected one of them"),
        ({"settings": {"epochs": 3}}, "epochs: got 3, expected `steps`, which are the same for every method"),
        ({"settings": {"loss": "mse", "temperature": 2.0}}, "temperature: got it with `loss='mse'`, which has none"),
        ({"students": ["hinton8", "hinton8"]}, "students: got 'hinton8' twice"),
        ({"students": "hinton8x"}, "no model 'hinton8x'"),
        ({"methods": {3: "online"}}, "methods: name of a method: got 3, expected text"),
        ({"methods": {"": "online"}}, "name '' cannot be used: it has 0 characters"),
        ({"methods": {"": "inception"}}, "name '' cannot be used: it has 0 characters"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_is_written(teacher, tmp_path, changes, text):
    with pytest.raises(df.UserError, match=re.escape(text)):
        df.compare(teacher, "digits", **{**TINY, "methods": [Stripes()], "out": tmp_path / "out", **changes})
    assert not (tmp_path / "out").exists()


def test_training_images_that_are_the_test_images_are_refused(teacher, digits, tmp_path):
    with pytest.raises(df.UserError, match="train: got the test images, expected other images"):
        df.compare(teacher, digits, train=digits, methods=[Stripes()], out=tmp_path / "out")


def test_a_teacher_near_chance_on_the_data_is_refused(teacher, digits, tmp_path):
    labels = digits.labels.roll(1)
    with pytest.raises(df.UserError, match=r"teacher: got .* % on .*near chance \(10.0 %\)"):
        df.compare(teacher, (digits.pixels(range(len(digits))), labels), methods=[Stripes()], out=tmp_path / "out")


def test_a_student_of_other_classes_is_refused(teacher, tmp_path):
    with pytest.raises(df.UserError, match=r"expected \(images, 10 classes\)"):
        df.compare(
            teacher, "digits", students=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 7)), methods=["bns"],
            out=tmp_path / "out",
        )  # fmt: skip


def test_defaults_are_the_methods_that_fit_the_teacher(teacher, normed, whole_record):
    assert default_methods(teacher, None) == ["inception", "online"]
    assert default_methods(teacher, whole_record) == ["distribution", "online"]
    assert default_methods(normed, None) == ["bns", "meta-generator", "online"]
    chosen = compared_methods(None, teacher, None, controls=True, has_training_data=False)
    assert [(method.name, method.control) for method in chosen] == [
        ("inception", False), ("online", False), ("noise", True)
    ]  # fmt: skip


def test_memories_presets_and_settings_have_names_of_their_own(teacher):
    methods = {"short": df.method("inception", steps=2), "o": "online:none"}
    chosen = compared_methods(methods, teacher, None, controls=False, has_training_data=False)
    assert [(method.name, method.kind) for method in chosen] == [("short", "images"), ("o", "online")]
    names = ["online", "online:vae", "online:mb-dfkd"]
    chosen = compared_methods(names, teacher, None, controls=False, has_training_data=False)
    assert [(m.label, m.settings.replay, m.preset) for m in chosen] == [
        ("online", "bank", None), ("online-vae", "vae", None), ("online-mb-dfkd", "bank", "mb-dfkd")
    ]  # fmt: skip


def test_passes_use_every_image_once_before_any_again(teacher):
    pixels = torch.arange(12).repeat_interleave(64).reshape(12, 1, 8, 8) / 12
    source = Passes(StoredImages(teacher.spec, pixels, torch.zeros(12, 10)), 5, 4)
    batches = [x for epoch in range(3) for x, _ in source.epoch(0, epoch, 4)]
    assert len(batches) == 15 and len(source) == 20
    for start in range(0, 15, 3):
        assert sorted((torch.cat(batches[start : start + 3])[:, 0, 0, 0] * 12).round().tolist()) == list(range(12))


@pytest.mark.parametrize("images", [1, 32, 500, 1_500, 9_999, 10_000])
@pytest.mark.parametrize("steps", [1, 7, 8, 200, 2_000, 123_456])
def test_an_epoch_is_shared_out_to_the_steps_of_a_generator(images, steps):
    epoch_steps, student_steps = epoch_shape(images, 128, steps)
    assert epoch_steps % student_steps == 0 and epoch_steps <= max(images // 128, 10, steps // MOST_EPOCHS)
    assert 8 <= student_steps <= 12 or student_steps == epoch_steps == min(steps, 7)
    assert -(-steps // epoch_steps) <= MOST_EPOCHS + 20


@pytest.mark.parametrize("name", ["real", "noise"])
def test_no_method_takes_the_name_of_a_control(teacher, tmp_path, name):
    with pytest.raises(df.UserError, match=f"methods: got '{name}' as the name of a method, which a control has"):
        df.compare(teacher, "digits", methods={name: Stripes()}, out=tmp_path / "out")


def test_the_best_method_has_the_most_finished_seeds_and_there_is_one(teacher, comparison):
    cells = plan_comparison(teacher, "digits", **{**TINY, "methods": [Stripes(), "online"], "seeds": 2}).cells
    changed = [
        cell.model_copy(update={"accuracy": 99.0 if cell.method == "online" else 50.0}) for cell in comparison.cells
    ]
    partial = [cell for cell in changed if (cell.method, cell.seed) != ("online", 1)]
    rows = comparison_rows(cells, partial, ["hinton8"])
    assert [(row.method, row.n, row.is_best) for row in rows[:2]] == [("stripes", 2, True), ("online", 1, False)]
    assert rows[1].to_best.spread.mean == 49.0
    apart = [cell for cell in changed if (cell.method, cell.seed) in (("online", 1), ("stripes", 0))]
    rows = comparison_rows(cells, apart, ["hinton8"])
    assert [row.is_best for row in rows] == [True, False, False, False]
    table = replace(comparison, rows=rows).markdown()
    assert table.count("| best |") == 1 and table.count("Best data-free method for hinton8") == 1


def test_a_method_without_all_seeds_is_noted(teacher, comparison):
    plan = plan_comparison(teacher, "digits", **{**TINY, "methods": [Stripes(), "online"], "seeds": 2})
    results = [cell for cell in comparison.cells if cell.id != "online/hinton8/1"]
    notes = notes_of(plan.methods, plan.students, results, plan.workplace.protocol, 2)
    assert "online with hinton8: 1 of 2 seeds have a result; methods with more seeds rank first" in notes
    assert not any("seeds have a result" in note for note in comparison.notes)


def test_the_note_about_real_images_has_their_number(comparison):
    assert "real: 1,297 training images, as many steps as the others" in comparison.notes


ONE_CELL = {**TINY, "methods": [Stripes()], "controls": False}


@pytest.fixture(scope="module")
def one_cell(teacher, tmp_path_factory):
    """The folder of a comparison of one cell: not to be written to."""
    folder = tmp_path_factory.mktemp("one-cell") / "o"
    df.compare(teacher, "digits", **ONE_CELL, out=folder)
    return folder


@pytest.fixture
def finished(one_cell, teacher, tmp_path):
    """A copy of that folder, and the call."""
    shutil.copytree(one_cell, tmp_path / "o")
    return tmp_path / "o", lambda: df.compare(teacher, "digits", **ONE_CELL, out=tmp_path / "o")


def test_a_comparison_whose_images_were_removed_keeps_its_table_and_makes_them_again_for_new_cells(finished):
    folder, call = finished
    first = call()
    shutil.rmtree(folder / "sets" / "stripes" / "seed-0")
    assert call().rows == first.rows
    shutil.rmtree(folder / "cells")
    again = call()
    assert accuracies(again) == accuracies(first) and (folder / "sets" / "stripes" / "seed-0" / "set.json").is_file()


@pytest.mark.parametrize(
    ("file", "change", "text"),
    [
        ("cells/stripes/hinton8/seed-0/cell.json", {"curve": []}, "curve has 0 epochs, expected 2 of 20 steps in all"),
        (
            "cells/stripes/hinton8/seed-0/cell.json",
            {"best_accuracy": 99.0},
            "best_accuracy: got 99.0, expected the highest",
        ),
        ("cells/stripes/hinton8/seed-0/cell.json", {"seed": 5}, "is of stripes/hinton8/5, expected stripes/hinton8/0"),
        (
            "sets/stripes/seed-0.json",
            {"seconds": -1},
            "seed-0.json: seconds: input should be greater than or equal to 0; remove that file",
        ),
        (
            "sets/stripes/seed-0.json",
            {"complete": None},
            "seed-0.json: complete: input should be a valid boolean; remove",
        ),
        ("cells/stripes/hinton8/seed-0/plan.json", {"identity": []}, "has no identity of a cell; remove that file"),
        ("cells/stripes/hinton8/seed-0/plan.json", {"counts": {}}, "counts: got {}, expected images, epochs"),
        (
            "sets/stripes/seed-0/unit-000000.safetensors",
            None,
            "remove FOLDER/sets/stripes/seed-0, and the same call makes",
        ),
    ],
)
def test_a_damaged_file_is_named_in_one_line_that_says_what_to_remove(finished, file, change, text):
    folder, call = finished
    place = folder / "cells" / "stripes" / "hinton8" / "seed-0"
    cell = json.loads((place / "cell.json").read_text())
    if not file.endswith("cell.json"):
        (place / "cell.json").unlink()
    identity = {"verb": "compare", "settings": cell["settings"], "inputs": cell["inputs"]}
    path = folder / file
    if change is None:
        path.write_bytes(b"damaged")
    else:
        stored = {"identity": identity} if file.endswith("plan.json") else json.loads(path.read_text())
        path.write_text(json.dumps({**stored, **change}))
    with pytest.raises(df.UserError) as caught:
        call()
    assert text.replace("FOLDER", str(folder)) in str(caught.value) and "\n" not in str(caught.value)
    assert "remove" in str(caught.value)


@pytest.mark.parametrize("content", ["", pytest.param("{", marks=pytest.mark.slow), "[]"])
@pytest.mark.parametrize(
    "file",
    [
        "teacher.json",
        "sets/stripes/seed-0.json",
        *(f"cells/stripes/hinton8/seed-0/{name}.json" for name in ("cell", "plan")),
    ],
)
def test_a_file_that_is_no_json_is_named_with_what_to_do(finished, file, content):
    folder, call = finished
    if not file.startswith("teacher"):
        (folder / "cells/stripes/hinton8/seed-0/cell.json").unlink()
    path = folder / file
    path.write_text(content)
    with pytest.raises(
        df.UserError, match=r"(is not valid: .*|holds \[\]; expected a JSON object); remove that file to "
    ):
        call()
    path.unlink()
    assert not call().unfinished


@pytest.fixture(scope="module")
def stopped_cell(teacher, tmp_path_factory):
    """The folder of a comparison that was stopped in the second half of its one cell: not to be written to."""
    folder = tmp_path_factory.mktemp("stopped-cell") / "out"

    def stop(done, total):
        if done > 0.7 * total:
            raise Stopped

    with pytest.raises(Stopped):
        df.compare(teacher, "digits", progress=stop, **ONE_CELL | {"steps": 40}, out=folder)
    return folder


@pytest.mark.parametrize("content", ["", "{}", '{"seconds": "x"}', '{"seconds": [-1.0]}'])
def test_damaged_seconds_of_a_stopped_cell_are_lost_and_the_cell_is_continued(teacher, stopped_cell, tmp_path, content):
    shutil.copytree(stopped_cell, tmp_path / "out")
    (path,) = (tmp_path / "out").rglob("seconds.json")
    path.write_text(content)
    (cell,) = df.compare(teacher, "digits", **ONE_CELL | {"steps": 40}, out=tmp_path / "out").cells
    assert len(cell.curve) == cell.epochs and cell.training_seconds > 0


def test_a_damaged_accuracy_of_the_teacher_is_measured_again(finished):
    folder, call = finished
    path = folder / "teacher.json"
    before = path.read_bytes()
    path.write_text(json.dumps({**json.loads(before), "accuracy": "x"}))
    call()
    assert path.read_bytes() == before


def test_a_cell_that_another_run_finished_meanwhile_is_in_the_table(teacher, tmp_path, monkeypatch):
    options = {**TINY, "methods": [Stripes(), "gaussian"], "controls": False, "out": tmp_path / "out"}
    measure_cell, calls = Workplace.run, []

    def busy_once(workplace, cell, progress):
        calls.append(cell.id)
        result = measure_cell(workplace, cell, progress)
        if len(calls) == 1:
            raise InUse("in use by another run")
        return result

    monkeypatch.setattr(Workplace, "run", busy_once)
    comparison = df.compare(teacher, "digits", **options)
    assert comparison.unfinished == () and sorted(row.n for row in comparison.rows) == [1, 1]


def test_a_method_that_is_no_better_than_noise_is_noted(teacher, comparison):
    plan = plan_comparison(teacher, "digits", **{**TINY, "methods": [Stripes(), "online"], "seeds": 2})
    accuracy = {"stripes": 40.0, "online": 60.0, "real": 10.0, "noise": 50.0}
    results = [cell.model_copy(update={"accuracy": accuracy[cell.method]}) for cell in comparison.cells]
    notes = notes_of(plan.methods, plan.students, results, plan.workplace.protocol, 2)
    assert [note for note in notes if "no better than noise" in note] == [
        "stripes with hinton8: no better than noise, so the images are of no use here"
    ]


def test_a_time_far_from_the_budget_is_noted(teacher, comparison):
    options = {**TINY, "methods": [Stripes(), "online"], "seeds": 2, "steps": None, "budget": "10s"}
    plan = plan_comparison(teacher, "digits", **options)
    seconds = {"stripes": 9.0, "online": 4.0, "real": 10.5, "noise": 12.0}
    results = [
        cell.model_copy(update={"image_seconds": 0.0, "training_seconds": seconds[cell.method]})
        for cell in comparison.cells
    ]
    notes = notes_of(plan.methods, plan.students, results, plan.workplace.protocol, 2)
    assert "far from the budget of 10 s: online 4 s, noise 12 s; a longer budget is met more closely" in notes
    assert not any("budget" in note for note in comparison.notes)
