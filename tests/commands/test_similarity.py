"""datafree similarity: the table, the picture, what is wrong with what was asked."""

from __future__ import annotations

import re

import numpy as np
import pytest

from datafree._core.files import read_json

NET = "net --code normed.py:build"


@pytest.fixture(scope="module")
def made(made_normed):
    return made_normed


def rows(text: str) -> list[tuple[str, int, float]]:
    """(name, images, divergence) of every set, in the order of the table."""
    found = [re.fullmatch(r"(\S+) +([\d,]+) +[\d.-]+  (\S+)", line) for line in text.splitlines()[1:]]
    return [(row[1], int(row[2].replace(",", "")), float(row[3])) for row in found if row]


def test_sets_are_ranked_the_most_alike_first(command, here):
    before = sorted(path.name for path in here.iterdir() if path.name != "__pycache__")
    done = command(f"similarity {NET} noise shown digits digits:train --images 64 --quiet")
    assert (done.code, done.err) == (0, "")
    table = rows(done.out)
    assert {name for name, _, _ in table} == {"noise", "shown", "digits", "digits:train"}
    assert table[-1][0] == "noise"
    assert [value for _, _, value in table] == sorted(value for _, _, value in table)
    assert {count for _, count, _ in table} == {64}
    assert sorted(path.name for path in here.iterdir() if path.name != "__pycache__") == before


@pytest.mark.usefixtures("here")
def test_all_images_are_taken_where_no_number_is_named_and_another_split_by_its_name(command):
    done = command(f"similarity {NET} digits digits:train --split test --quiet")
    assert {(name, count) for name, count, _ in rows(done.out)} == {("digits", 500), ("digits:train", 1297)}
    done = command(f"similarity {NET} digits digits:test --split train --quiet")
    assert {(name, count) for name, count, _ in rows(done.out)} == {("digits", 1297), ("digits:test", 500)}


@pytest.mark.usefixtures("here")
def test_layers_are_shown_where_asked_for_and_add_up(command):
    done = command(f"similarity {NET} digits --layers --quiet")
    lines = done.out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["digits", "1", "4", "Images"]
    assert "add --shift 4 --flip" in lines[-1]
    assert "--shift" not in command(f"similarity {NET} digits --shift 1 --quiet").out
    total, *parts = (float(line.split()[-1]) for line in lines[:-1])
    assert total == pytest.approx(sum(parts), rel=1e-3)
    assert command(f"similarity {NET} digits --quiet").out.count("\n") == 3


def test_a_folder_holds_the_numbers_and_the_picture_and_the_run_can_be_repeated(command, here):
    assert command(f"similarity {NET} digits noise --form l2 --images 100 --out found --quiet").code == 0
    assert sorted(path.name for path in (here / "found").iterdir()) == [
        ".datafree.json", "run.json", "similarity.svg"
    ]  # fmt: skip
    own = read_json(here / "found" / "run.json")
    assert own["settings"]["form"] == "l2" and own["inputs"].keys() >= {"model"}
    assert [row["name"] for row in own["result"]["similarity"]] == ["digits", "noise"]
    for row in own["result"]["similarity"]:
        assert row["images"] == 100 and row["total"] == pytest.approx(sum(row["by_layer"].values()))
    picture = (here / "found" / "similarity.svg").read_text()
    assert picture.startswith("<svg") and "noise" in picture
    assert command("rerun found --out again --trust").code == 0
    assert read_json(here / "again" / "run.json")["result"] == own["result"]


@pytest.mark.usefixtures("here")
def test_forms_give_other_numbers(command):
    totals = [
        rows(command(f"similarity {NET} digits --form {form} --quiet").out)[0][2]
        for form in ("forward", "reverse", "l2")
    ]
    assert len(set(totals)) == 3


@pytest.mark.usefixtures("here")
def test_a_network_without_batch_norm_goes_by_its_record(command):
    done = command("similarity teacher digits noise --images 200 --quiet")
    assert (done.code, done.err) == (0, "")
    assert [name for name, _, _ in rows(done.out)] == ["digits", "noise"]


def test_images_of_another_size_are_resized_and_that_is_said(command, here):
    np.savez(here / "large.npz", images=np.random.default_rng(0).random((40, 12, 10)), labels=np.arange(40) % 10)
    done = command(f"similarity {NET} digits large.npz --images 8 --quiet")
    assert done.out.splitlines()[-1] == "  large.npz: images of 12 x 10 were resized to the 8 x 8 of normed.py:build"
    assert "resized" not in command(f"similarity {NET} digits noise --quiet").out


REFUSED = [
    (f"{NET}", "no data named, expected at least one data set, synthetic set or `noise`; name some"),
    (
        f"{NET} nosuch",
        "no data set 'nosuch' in the data sets, and no such folder or .npz file; expected one of 'digits', 'mnist',",
    ),
    (f"{NET} digits:validation", "no data set 'digits:validation'"),
    (f"{NET} digits --images 1", "--images: got 1, expected at least 2; give more"),
    (f"{NET} digits --images 0", "--images: got 0, expected at least 2"),
    (f"{NET} digits noise digits", "the data 'digits' was named twice, expected every one once; name it once"),
    (f"{NET} digits --shift 40000", "--shift: got 40000, expected at least 0 and less than the 8 pixels"),
    (f"{NET} digits --shift -1", "--shift: got -1, expected at least 0"),
    (f"{NET} digits --border mean", "--border: got mean with --shift 0, expected --shift of at least 1; give that, or"),
    (f"{NET} digits --form kl", 'Invalid value "kl" for --form'),
    (f"{NET} digits --split tset", 'Invalid value "tset" for --split'),
    (f"{NET} empty.npz", "no image in split 'test' of data set 'empty.npz'"),
    (f"{NET} nan.npz", "values from nan to nan"),
    (f"{NET} range.npz", "expected uint8 0 to 255 or float 0 to 1"),
    ("nosuch digits", "no release folder 'nosuch', and no network of that name in the zoo"),
    ("hinton16 digits", "model 'hinton16' has no weights"),
    ("net digits", "net is a custom network ('custom:build'); name it with --code"),
    ("other digits --record teacher/record.safetensors", "the record was made for another teacher"),
    (
        "other digits",
        "--record: got no record, expected statistics of the training data, since hinton16 has no batch norm; give a "
        "record,",
    ),
    (f"{NET} digits unboxed", "unboxed: pixels from"),
    (f"{NET} unboxed", "expected 0 to 1; scale the images first"),
]


@pytest.mark.parametrize(("line", "text"), REFUSED, ids=lambda value: value[:40])
def test_a_mistake_is_one_line(refused, line, text):
    assert text in refused(f"similarity {line} --quiet")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("colour.npz", "colour.npz: images of shape (3, 8, 8), expected (1, 8, 8)"),
        ("one.npz", "one.npz has 1 images, expected at least 2; give more"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line_after_what_was_chosen_of_it(command, here, name, text):
    done = command(f"similarity {NET} digits {name} --out found --quiet")
    assert (done.code, done.err.count("\n")) == (2, 1) and text in done.err
    assert done.out.startswith(f"  {name} has no x_train and x_test: a fixed fifth") and done.out.count("\n") == 1
    assert not (here / "found").exists()


@pytest.mark.parametrize(("line", "text"), REFUSED, ids=lambda value: value[:40])
def test_a_mistake_leaves_no_folder_behind(refused, line, text):
    assert text in refused(f"similarity {line} --out found --quiet")


def test_a_folder_of_something_else_is_left_alone(refused):
    assert "folder 'set' holds 'synthetic-set'; expected 'similarity'" in refused(
        f"similarity {NET} digits --out set --quiet"
    )


def test_more_data_sets_than_a_report_reads_are_not_written(refused, here):
    names = " ".join(f"d{number}" for number in range(501))
    assert refused(f"similarity teacher {names} --out many") == (
        "got 501 data sets with --out, expected at most 500; compare them in several runs"
    )
    assert not (here / "many").exists()


@pytest.mark.usefixtures("here")
def test_diversities_of_unequal_numbers_of_images_are_not_compared_without_a_word(command):
    unequal = command(f"similarity {NET} digits:test digits:train --quiet")
    assert unequal.code == 0, unequal
    assert "diversity grows with the number of images up to 64 per class" in unequal.out
    assert "the same number, such as --images 500, or at least 640" in unequal.out
    assert "diversity grows" not in command(f"similarity {NET} digits:test digits:train --images 200 --quiet").out


@pytest.mark.usefixtures("here")
def test_a_number_of_images_that_has_no_diversity_is_not_advised(command):
    few = command(f"similarity {NET} digits:test shown --quiet")
    assert "diversity grows" in few.out and "the same number, at least 640" in few.out
