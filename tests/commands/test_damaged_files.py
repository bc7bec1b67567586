"""Files from a stranger or a bad disk: truncated, flipped, oversized, pickled, or asking for all the memory."""

from __future__ import annotations

import pickle
import re
import resource

import pytest
import torch
from safetensors.torch import save_file
from tests.forked import forked

from datafree._core.files import read_json, read_tensors, write_sealed_json, write_tensors

READERS = {
    "teacher/model.safetensors": ("evaluate teacher --data digits", "record teacher --data digits", "inspect teacher"),
    "teacher/record.safetensors": (
        "synthesize teacher --out o",
        "inspect teacher",
        "distill fresh top teacher --out o",
    ),
    "set/unit-000001.safetensors": ("distill teacher --set set --out o", "report teacher set --out o.html"),
    "teacher/config.json": (
        "evaluate teacher --data digits",
        "synthesize teacher --out o",
        "report teacher --out o.html",
    ),
    "set/set.json": ("distill teacher --set set --out o", "inspect set"),
    "student/run.json": ("rerun student/run.json", "inspect student/run.json"),
    "student.run.json": ("rerun student", "inspect student.run.json"),
}
DAMAGE = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "flipped": lambda data: data[:-40] + bytes([data[-40] ^ 1]) + data[-39:],
    "oversized header": lambda data: (1 << 60).to_bytes(8, "little") + data[8:],
    "pickled": lambda data: pickle.dumps({"a": 1}) + data,
    "garbage": lambda _: bytes(range(256)) * 4,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", READERS)
def test_a_damaged_file_is_named_in_one_line_by_every_verb_that_reads_it(refused, here, file, damage):
    if damage == "flipped" and file.endswith(".json"):
        pytest.skip("text has no checksum: a letter may change unseen")
    path = here / file
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    for line in READERS[file]:
        assert path.name in refused(line)


@pytest.mark.parametrize(
    "architecture", ["hinton99999", "resnet20", "alexnet", "hinton123456", "nosuch", "", 7, None, ["a"]]
)
def test_an_architecture_that_does_not_fit_its_weights_is_refused(refused, architecture):
    write_sealed_json("teacher/config.json", {**read_json("teacher/config.json"), "architecture": architecture})
    refused("evaluate teacher --data digits")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"shape": [1, 4096, 4096]}, "weight 'fc1.weight'"),
        ({"shape": [1, 1 << 20, 1 << 20]}, "2^24 pixels"),
        ({"shape": [1, 8]}, "shape"),
        ({"std": [0.0]}, "std above 0"),
        ({"classes": []}, "classes"),
        ({"extra": 1}, "no setting 'extra'"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(refused, change, text):
    config = read_json("teacher/config.json")
    write_sealed_json("teacher/config.json", {**config, "spec": {**config["spec"], **change}})
    assert text in refused("evaluate teacher --data digits")


@pytest.mark.usefixtures("here")
def test_a_shape_bomb_costs_no_memory():
    """Eleven letters name weights of 40 GB."""
    config = read_json("teacher/config.json")
    write_sealed_json("teacher/config.json", {**config, "architecture": "hinton99999"})
    line = (
        "import sys, resource\n"
        "from datafree.cli.main import run\n"
        "resource.setrlimit(resource.RLIMIT_AS, (30 << 30, 30 << 30))  # the tests' own process maps much, but not that\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    code, _, err = forked(line, ["inspect", "teacher"])
    assert code == 2 and err.count("\n") == 1
    assert "expected (99999,) for hinton99999" in err
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 4 << 20  # kB


def test_a_large_image_for_small_weights_is_no_bomb_either(refused, monkeypatch):
    from datafree.models.input_spec import InputSpec
    from datafree.releases import load
    from datafree.releases.load import new_model

    module = new_model("resnet8", InputSpec(shape=(1, 8, 8), classes=tuple("0123456789")), seed=0).module
    save_file(module.state_dict(), "resnet8.safetensors")
    monkeypatch.setattr(load.memory, "available", lambda: 8 << 30)
    text = refused("pack resnet8 --weights resnet8.safetensors --shape 1 4096 4096 --classes 10 --out o")
    assert re.fullmatch(
        r"resnet8 for images \(1, 4096, 4096\) needs [0-9,]+ bytes, expected at most the 8,589,934,592 of memory available; "
        "give a smaller network or smaller images",
        text,
    )


def test_a_pickle_is_not_run_and_the_formats_are_named(refused, here):
    class Evil:
        def __reduce__(self):
            return (open, (str(here / "ran"), "w"))

    (here / "evil.pt").write_bytes(pickle.dumps(Evil()))
    assert "is a pickle, which can run code; expected safetensors, or for weights a state dict" in refused(
        "evaluate teacher --weights evil.pt --data digits"
    )
    torch.save({"weights": Evil()}, "evil2.pt")
    refused("convert evil2.pt --out o.safetensors")
    assert not (here / "ran").exists()


def test_nan_in_a_record_or_a_set_is_refused(refused):
    for file, kind in (("teacher/record.safetensors", "record"), ("set/unit-000000.safetensors", "shard")):
        tensors, header = read_tensors(file, kind=kind)
        name = next(name for name, tensor in tensors.items() if tensor.dtype == torch.float32)
        save_file({**tensors, name: tensors[name] * torch.nan}, file)
        assert refused(READERS[file][0] if file in READERS else "distill teacher --set set --out o")
        write_tensors(file, tensors, header, kind=kind)


def test_a_record_of_impossible_numbers_is_refused(refused):
    tensors, header = read_tensors("teacher/record.safetensors", kind="record")
    for name, change in (("fc1/count", lambda t: -t), ("fc1/mean", lambda t: t[:3]), ("graph/mean", lambda t: t[:1])):
        write_tensors("teacher/record.safetensors", {**tensors, name: change(tensors[name])}, header, kind="record")
        refused("synthesize teacher --out o")
    write_tensors("teacher/record.safetensors", tensors, {**header, "entries": [7]}, kind="record")
    assert "an entry of the record is not an object" in refused("inspect teacher")


@pytest.mark.usefixtures("here")
def test_a_network_trained_again_loses_a_record_that_is_no_longer_its_own(command):
    from datafree.models.input_spec import InputSpec
    from datafree.releases.load import new_model
    from datafree.releases.release import write_release

    spec = InputSpec(shape=(1, 8, 8), classes=tuple("0123456789"))
    write_release("teacher", new_model("hinton16", spec, seed=5))
    assert "no record" in command("inspect teacher").out
