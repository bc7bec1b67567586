"""df.report: a page from run folders, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

import datafree as df
from datafree._core.files import read_json
from datafree._core.optional_packages import quiet


@pytest.fixture(scope="module")
def runs(teacher, tmp_path_factory):
    """A teacher and another network of the zoo, as releases that no command made."""
    folder = tmp_path_factory.mktemp("runs")
    df.write_release(folder / "teacher", teacher)
    df.write_release(folder / "other", df.new_model("hinton8", teacher.spec, seed=1))
    return folder


def test_networks_are_measured_on_data_and_the_page_is_logged(runs, digits, tmp_path):
    page = df.report([runs / "teacher", runs / "other"], tmp_path / "page.html", digits, title="Two networks")
    assert (page.networks, page.sets, page.unchanged) == (2, 1, False)
    text = page.path.read_text()
    assert "Two networks" in text and "real: digits" in text
    log = read_json(tmp_path / "page.html.run.json")
    assert (log["verb"], log["argv"], log["settings"]["data"]) == ("report", [], "digits")
    rows = {row["name"]: row for row in log["result"]["networks"]}
    for name in ("teacher", "other"):
        assert rows[name]["accuracy"] == df.evaluate(df.load_model(str(runs / name)), digits).accuracy


def test_the_same_report_again_changes_nothing_and_another_one_is_refused(runs, tmp_path):
    out = tmp_path / "page.html"
    df.report([runs / "teacher"], out)
    before = out.read_bytes()
    assert df.report([runs / "teacher"], out).unchanged and out.read_bytes() == before
    with pytest.raises(
        df.UserError,
        match="was made with `title=datafree report`, not other: give `replace=True` to overwrite it, or name another `out`",
    ):
        df.report([runs / "teacher"], out, title="other")
    assert out.read_bytes() == before


def test_a_network_quantized_in_python_is_compared_with_the_release_that_it_was_made_from(runs, digits, tmp_path):
    with quiet():
        pytest.importorskip("torchao")
        pytest.importorskip("onnxruntime")
    opened = df.load_model(str(runs / "teacher"))
    df.quantize(opened, calibrate=digits, images=64).save(tmp_path / "int8")
    page = df.report([runs / "other", runs / "teacher", tmp_path / "int8"], tmp_path / "page.html", digits)
    rows = {row["name"]: row for row in read_json(tmp_path / "page.html.run.json")["result"]["networks"]}
    assert rows["int8"]["group"] == "quantized" and rows["int8"]["agreement"] > 90
    assert rows["teacher"]["agreement"] is None and rows["other"]["agreement"] < 50
    assert not [line for line in page.warnings if "another network" in line]


def refused(*args, **kwargs) -> str:
    with pytest.raises(df.UserError) as raised:
        df.report(*args, **kwargs)
    assert "\n" not in str(raised.value) and "--" not in str(raised.value)
    return str(raised.value)


def test_mistakes_are_one_line_and_nothing_is_written(runs, tmp_path):
    (tmp_path / "notes.html").write_text("mine")
    teacher = [runs / "teacher"]
    assert refused([], tmp_path / "a.html").startswith("runs: got none, expected ")
    assert refused(teacher, tmp_path).startswith(f"out: got {tmp_path}, a folder, expected a file")
    assert "exists, is no page of datafree's" in refused(teacher, tmp_path / "notes.html")
    assert refused([tmp_path / "gone"], tmp_path / "a.html").startswith(
        f"no folder {tmp_path / 'gone'}, expected a release"
    )
    assert refused(teacher, tmp_path / "a.html", code=["a.py:f"]).startswith(
        "code: got 'a.py:f', which fits 0 of the custom networks among the runs"
    )
    assert refused(teacher, tmp_path / "a.html", 3).startswith("data: got 3, expected a")
    assert refused("teacher", tmp_path / "a.html").startswith("runs: got 'teacher', expected a list")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.html"]
    assert (tmp_path / "notes.html").read_text() == "mine"


def test_a_network_of_somebodys_own_is_measured_when_it_is_handed_over(runs, digits, tmp_path):
    spec = df.load_model(str(runs / "teacher")).spec
    network, other = (df.Network(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval(), spec, "mine") for _ in range(2))
    folder = str(df.write_release(tmp_path / "mine", network))
    assert [line for line in df.report([folder], tmp_path / "a.html", digits).warnings if "was not measured" in line]
    page = df.report([folder], tmp_path / "b.html", digits, networks={folder: network})
    assert not [line for line in page.warnings if "was not measured" in line]
    assert refused([folder], tmp_path / "c.html", digits, networks={folder: other}).startswith(
        f"networks: got a network with other weights than those in {folder}, expected its own"
    )
    assert refused([folder], tmp_path / "c.html", networks={"x": other}).startswith("networks: got one for x, expected")
    assert not (tmp_path / "c.html").exists()


def test_a_page_says_how_a_network_of_somebodys_own_is_opened_and_that_works(teacher, digits, tmp_path):
    normed = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)).eval()
    network = df.Network(normed, teacher.spec, "mine")
    folder = df.write_release(tmp_path / "mine", network)
    df.synthesize(network, None, {"method": "bns", "steps": 1}, tmp_path / "set", images=20, chunk=20)
    runs = [folder, tmp_path / "set"]
    do = "give it: datafree report ... --code mine=file.py:function, or from Python report(..., networks={'mine': network})"
    for name, data in (("with", digits), ("without", None)):
        warnings = df.report(runs, tmp_path / f"{name}.html", data).warnings
        assert [line for line in warnings if "images of set were not compared" in line and line.endswith(do)]
        assert bool([line for line in warnings if "was not measured" in line and line.endswith(do)]) == (data is digits)
    page = df.report(runs, tmp_path / "page.html", digits, networks={"mine": network})
    assert not [line for line in page.warnings if "code" in line]
    (tmp_path / "b").mkdir()
    other = df.write_release(tmp_path / "b" / "mine", network)
    assert refused([folder, other], tmp_path / "c.html", networks={"mine": network}).startswith(
        "networks: got one for mine, expected a folder among the runs, of which 2 have that name; give its path"
    )


def test_a_report_is_replaced_on_request_and_another_file_is_not(runs, tmp_path):
    out, log = tmp_path / "page.html", tmp_path / "page.html.run.json"
    df.report([runs / "teacher"], out)
    page = df.report([runs / "teacher", runs / "other"], out, replace=True)
    assert (page.networks, page.unchanged) == (2, False)
    assert len(read_json(log)["result"]["networks"]) == 2 and ">other<" in out.read_text()
    assert df.report([runs / "teacher", runs / "other"], out, replace=True).unchanged
    out.write_text("<!doctype html>\nmine")
    log.unlink()
    assert "exists, is no page of datafree's" in refused([runs / "teacher"], out, replace=True)
    assert out.read_text() == "<!doctype html>\nmine" and not log.exists()


def test_a_report_that_cannot_be_made_leaves_the_one_that_it_would_replace(runs, digits, tmp_path, monkeypatch):
    out = tmp_path / "page.html"
    df.report([runs / "teacher"], out)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise df.UserError("no space")

    monkeypatch.setattr("datafree.evaluation.report.collect.write", full)
    assert refused([runs / "teacher"], out, digits, replace=True) == "no space"
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_page_says_how_many_images_were_measured_and_how_the_data_was_split(runs, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = (digits.pixels(range(100)) * 255).byte().numpy()
    np.savez(tmp_path / "held.npz", images=pixels, labels=digits.labels[:100].numpy())
    text = df.report([runs / "teacher"], "a.html", df.load_data("held.npz", "test")).path.read_text()
    assert "Accuracy on 20 test images of an .npz file." in text and "share of the 20 test images" in text
    assert "An .npz file has no x_train and x_test: a fixed fifth of each class, 20 of 100 images, is the test" in text
    text = df.report([runs / "teacher"], "b.html", df.load_data("held.npz", "all")).path.read_text()
    assert "Accuracy on 100 images of an .npz file." in text and "<span>images</span>" in text
    assert "held" not in text
    (tmp_path / "held.npz").rename(tmp_path / "a.npz")
    text = df.report([runs / "teacher"], "d.html", df.load_data("./a.npz", "test")).path.read_text()
    assert "An .npz file has no x_train" in text and "a.npz" not in text
    text = df.report([runs / "teacher"], "c.html", (digits.pixels(range(9)), digits.labels[:9])).path.read_text()
    assert "Accuracy on 9 images, passed as arrays." in text
