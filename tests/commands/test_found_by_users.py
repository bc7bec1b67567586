"""Faults that users of the command line met: data changed between two runs, code that exits, records that are added to."""

from __future__ import annotations

import json

import numpy as np
import pytest

from datafree.records.divergence import stored_statistics
from datafree.records.record import Record
from datafree.releases.load import load_model

pytestmark = pytest.mark.usefixtures("here")


def arrays(path, changed: bool) -> None:
    """1,500 images; with `changed`, one of them differs, which an evenly spaced sample of 1,000 leaves out."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (1500, 8, 8)).astype(np.uint8), np.arange(1500) % 10
    if changed:
        images[2] = 255 - images[2]
    np.savez(path, x_train=images, y_train=labels, x_test=images[:50], y_test=labels[:50])


def test_one_changed_image_is_another_run_and_never_already_complete(here, command):
    arrays(here / "d.npz", changed=False)
    line = "train hinton8 --data d.npz --epochs 1 --out one --quiet"
    assert command(line).code == 0
    assert command(line).out.startswith("already complete")
    assert command("record one --data d.npz --quiet --preset small").code == 0
    arrays(here / "d.npz", changed=True)
    assert "one was made with other content of an .npz file" in command(line).line
    assert "content of an .npz file" in command("record one --data d.npz --quiet --preset small").line


def test_a_page_names_no_path_of_its_data(here, command):
    (here / "secretplace").mkdir()
    arrays(here / "secretplace" / "d.npz", changed=False)
    assert command("report teacher --data secretplace/d.npz --out page.html --quiet").code == 0
    assert "secretplace" not in (here / "page.html").read_text()


def test_code_that_exits_is_one_line(here, command):
    (here / "exits.py").write_text("def build():\n    raise SystemExit(3)\n")
    line = "pack exits.py:build --weights teacher/model.safetensors --shape 1 8 8 --classes 10 --out new"
    assert "the code of model 'exits.py:build' fails with SystemExit: 3" in command(line).line


def test_a_network_with_sparse_weights_is_one_line(here, command):
    (here / "sparse.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
        "    net[1].weight = nn.Parameter(net[1].weight.detach().to_sparse())\n"
        "    return net\n"
    )
    line = "pack sparse.py:build --weights teacher/model.safetensors --shape 1 8 8 --classes 10 --out new"
    assert "expected a dense tensor" in command(line).line


def test_entries_with_other_settings_are_not_replaced_by_adding(here, command):
    assert command("record teacher --data digits --preset sharp --replace --quiet").code == 0
    before = (here / "teacher" / "record.safetensors").read_bytes()
    for taps in ("--taps fc3", "--taps fc2 --taps fc3"):
        text = command(f"record moments teacher --data digits --add --conv units {taps} --quiet").line
        assert "has an entry 'fc3' with other settings, which would be lost" in text
        assert (here / "teacher" / "record.safetensors").read_bytes() == before


def test_moments_of_the_layers_that_a_record_lacks_can_be_added_as_bns_advises(here, command):
    assert command("record teacher --data digits --preset sharp --replace --quiet").code == 0
    network = load_model(str(here / "teacher"))
    sharp = Record.load(here / "teacher" / "record.safetensors", network)
    found = command("record moments teacher --data digits --add --conv units --quiet")
    assert found.code == 0 and "kept as the record has them, with other settings: fc3;" in found.err
    both = Record.load(here / "teacher" / "record.safetensors", network)
    assert set(both.entries) == {*sharp.entries, "fc1", "fc2"}
    assert all(both.entries[name].statistic == entry.statistic for name, entry in sharp.entries.items())
    assert [own.tap for own in stored_statistics(network, both)] == ["fc3", "fc1", "fc2"]


def test_a_folder_that_was_moved_says_where_its_command_line_is(here, command):
    (here / "moved").mkdir()
    (here / "moved" / "run.json").write_text(json.dumps({"format": 2, "verb": "train", "settings": {}}))
    assert "moved.run.json does, which lies beside the folder where the run was made" in command("rerun moved").line
