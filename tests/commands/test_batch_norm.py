"""A network with batch norm carries a record within itself: no data is needed to write it down."""

from __future__ import annotations

import torch

from datafree.cli.main import run
from datafree.models.input_spec import InputSpec
from datafree.records.record import Record
from datafree.releases.load import new_model
from datafree.releases.release import write_release


def test_a_batch_norm_record_needs_no_data(tmp_path, capsys):
    network = new_model("resnet8", InputSpec(shape=(3, 8, 8), classes=("a", "b")), seed=0)
    write_release(tmp_path / "net", network)
    assert run(["record", str(tmp_path / "net"), "--kind", "batch-norm", "--quiet"]) == 0
    assert "forecast AUC 0.500" in capsys.readouterr().out
    known = Record.load(tmp_path / "net" / "record.safetensors", network)
    buffers = dict(network.module.named_buffers())
    assert torch.equal(known.entries["bn1"].summary["variance"], buffers["bn1.running_var"])
    assert len(known.entries) == 7


def test_other_kinds_without_data_are_one_line(tmp_path, capsys):
    network = new_model("resnet8", InputSpec(shape=(3, 8, 8), classes=("a", "b")), seed=0)
    write_release(tmp_path / "net", network)
    assert run(["record", str(tmp_path / "net"), "--kind", "moments", "--quiet"]) == 2
    assert "no data named, wanted --data" in capsys.readouterr().err
