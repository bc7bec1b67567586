"""Lines that once named the wrong cause, quoted a library at length, or came late."""

from __future__ import annotations

import json
import time

import pytest

import datafree as df
from datafree._core.device import LONGEST, reason_of
from datafree._core.files import write_sealed_json
from datafree.distillation.students import student_name
from datafree.quantization.capture import _uncapturable
from datafree.quantization.settings import FineTuning


@pytest.mark.usefixtures("here")
def test_a_module_is_offered_to_python_alone():
    narrow = df.new_model("resnet8/16", df.load_model("teacher").spec, seed=0)
    with pytest.raises(df.UserError, match=r"no half of resnet8/16; name one, from the zoo or as file.py:function$"):
        student_name(narrow)
    with pytest.raises(df.UserError, match=r"no half of resnet8/16; .* or as file.py:function, or give a module$"):
        df.distill(narrow, images="set")


def test_a_count_of_threads_that_no_processor_has_is_refused_at_once(refused):
    began = time.perf_counter()
    text = refused("distill teacher --set set --out o --threads 1000000")
    assert text == "--threads: got 1,000,000, expected at most 4,096; give a smaller count"
    assert time.perf_counter() - began < 5


def test_more_copies_than_a_batch_names_both_flags(refused):
    pytest.importorskip("torchao")
    text = refused("quantize teacher --finetune set --repeats 99999 --out o")
    assert text == ("--repeats: got 99999, expected at most 64, the images per step; give fewer, or a larger --batch")
    with pytest.raises(df.UserError, match=r"^repeats: got 9, expected at most 4, .* or a larger `batch`"):
        FineTuning(batch=4, repeats=9)


@pytest.mark.parametrize("device", ["mps", "x", "cuda:99", "meta"])
def test_a_device_that_is_not_here_is_told_in_short(device):
    with pytest.raises(
        df.UserError, match=rf"^device: got '{device}', expected one that is here \(.*\); give 'cpu'$"
    ) as error:
        df.condense("random", data=df.load_data("digits", "train"), per_class=1, device=device)
    assert len(str(error.value)) < LONGEST + 80
    assert len(reason_of(RuntimeError("word " * 100))) <= LONGEST + 4


def test_an_unfinished_set_is_said_to_be_started_for_a_number_of_images(refused, here):
    path = here / "set" / "set.json"
    about = json.loads(path.read_text())
    assert "already has 48" in refused("synthesize teacher --images 32 --chunk 16 --out set")
    write_sealed_json(path, {**about, "shards": None})
    text = refused("synthesize teacher --images 32 --chunk 16 --out set")
    assert text.startswith("--images: got 32, but the set in set was started for 48, expected at least as many; name")


def test_a_folder_that_hides_a_package_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    (tmp_path / "hidden_z3").mkdir()
    import hidden_z3  # pyright: ignore[reportMissingImports]

    teacher = df.new_model("hinton8", df.InputSpec(shape=(1, 8, 8), classes=("a", "b")), seed=0)
    with pytest.raises(AttributeError) as error:
        _ = hidden_z3.ExprRef
    text = str(_uncapturable(teacher, error.value))
    assert text.startswith("the folder hidden_z3 in the working directory hides the Python package of that name")
    text = str(_uncapturable(teacher, AttributeError("module 'json' has no attribute 'ExprRef'")))
    assert text.startswith("torch.export cannot capture hinton8: module 'json' has no attribute 'ExprRef'")
