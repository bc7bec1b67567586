"""A network with batch norm carries its statistics within itself: no new record repeats them, and earlier ones are read."""

from __future__ import annotations

import torch

from datafree.cli.main import run
from datafree.models.input_spec import InputSpec
from datafree.records.record import Record, record
from datafree.records.statistics.batchnorm import BatchNorm
from datafree.releases.load import new_model
from datafree.releases.release import write_release


def test_a_batch_norm_record_of_an_earlier_version_is_shown_and_not_offered(tmp_path, capsys):
    network = new_model("resnet8", InputSpec(shape=(3, 8, 8), classes=("a", "b")), seed=0)
    write_release(tmp_path / "net", network, record(network, None, [BatchNorm()]))
    known = Record.load(tmp_path / "net" / "record.safetensors", network)
    buffers = dict(network.module.named_buffers())
    assert torch.equal(known.entries["bn1"].summary["variance"], buffers["bn1.running_var"])
    assert len(known.entries) == 7
    assert run(["inspect", str(tmp_path / "net")]) == 0
    assert "batch-norm" in capsys.readouterr().out
    assert run(["record", str(tmp_path / "net"), "--kind", "batch-norm", "--quiet"]) == 2
    assert "which is no longer recorded: its numbers are in the network itself" in capsys.readouterr().err


def test_a_record_without_data_is_one_line(tmp_path, capsys):
    network = new_model("resnet8", InputSpec(shape=(3, 8, 8), classes=("a", "b")), seed=0)
    write_release(tmp_path / "net", network)
    assert run(["record", str(tmp_path / "net"), "--kind", "moments", "--quiet"]) == 2
    assert "no data named, expected --data" in capsys.readouterr().err
