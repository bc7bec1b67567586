"""Wrong arguments of public functions: one line, before anything is written, and never a silent other meaning."""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from tests.conftest import make_data, make_network
from torch import nn

import datafree as df
from datafree._core.arguments import SOURCES
from datafree._core.settings import Settings
from datafree.distillation.online.run import train_online
from datafree.distillation.online.settings import OnlineDistillation
from datafree.quantization import calibrate, finetune
from datafree.records.divergence import StoredStatistics, divergence
from datafree.releases.release import write_record
from datafree.synthesis.losses.batchnorm import BatchNormDivergence
from datafree.synthesis.losses.online import Disagreement
from datafree.synthesis.methods import batches
from datafree.synthesis.scene import Scene

FREE = {"kl", "load_data", "method"}
"""Public functions that check their arguments themselves; `kl` is called in every step of a training."""
FUNCTIONS = {
    name: getattr(df, name) for name in df._HOMES if inspect.isfunction(getattr(df, name)) and name not in FREE
}
TEACHER, OTHER = make_network("norm"), make_network("norm", seed=1)
DATA = make_data()
PIXELS = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LOGITS = torch.rand(6, 3, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(6) % 3
ONE_HOT = torch.eye(3)[LABELS]


OUT = "out"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def recorded() -> df.Record:
    """What was measured of OTHER."""
    return df.record(OTHER, DATA, df.preset("sharp", OTHER, DATA))


def error(call) -> str:
    with pytest.raises(df.UserError) as raised:
        call()
    return str(raised.value)


def student() -> df.Network:
    return make_network(seed=2)


def test_every_public_function_checks_its_arguments_against_their_annotations():
    assert len(FUNCTIONS) == 28
    assert [name for name, function in FUNCTIONS.items() if not hasattr(function, "__wrapped__")] == []
    for function in (*FUNCTIONS.values(), train_online, write_record):
        get_type_hints(function)  # raises for a name that is there for the type checker alone


# -- words ------------------------------------------------------------


def words_of(hint: object) -> tuple[str, ...]:
    options = (hint, *get_args(hint))
    return next((get_args(own) for own in options if get_origin(own) is Literal), ())


def test_the_parameters_of_a_few_words_are_known():
    hints = {name: get_type_hints(function) for name, function in FUNCTIONS.items()}
    found = {(name, parameter) for name, own in hints.items() for parameter, hint in own.items() if words_of(hint)}
    assert found == {
        ("similarity", "form"), ("quantize", "correct_bias"), ("quantize", "target_cpu"), ("distill", "start"),
        ("quantize", "rounding"), ("distill_online", "start"), ("import_condensed", "labels"),
        ("import_condensed", "layout"), ("compare", "start"), ("similarity", "border"),
    }  # fmt: skip


LAYER = StoredStatistics("bn", torch.zeros(3), torch.ones(3))
WORDS = {
    "form": lambda word: df.similarity(TEACHER, {"a": PIXELS}, form=word),
    "border": lambda word: df.similarity(TEACHER, {"a": PIXELS}, border=3 if word is None else word),
    "correct_bias": lambda word: df.quantize(TEACHER, calibrate=PIXELS, correct_bias=word),
    "rounding": lambda word: df.quantize(TEACHER, calibrate=PIXELS, rounding=3 if word is None else word),
    "target_cpu": lambda word: df.quantize(TEACHER, calibrate=PIXELS, target_cpu=word),
    "start": lambda word: df.distill(TEACHER, student(), images=PIXELS, start=word),
    "start ": lambda word: df.distill_online(TEACHER, student(), start=word),
    "start  ": lambda word: df.compare(TEACHER, DATA, start=word),
    "labels": lambda word: df.import_condensed("x.pt", TEACHER, labels=word),
    "kind": lambda word: Disagreement(word),
    "ground": lambda word: Scene("things", word),
    "form ": lambda word: BatchNormDivergence((LAYER,), word),
    "form  ": lambda word: divergence(torch.zeros(3), torch.ones(3), LAYER, word),
}


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("word", ["x", "Forward", "", None, 1, np.zeros(2), ["forward"]])
def test_a_word_that_is_none_of_the_words_is_refused(name, word):
    message = error(lambda: WORDS[name](word))
    assert message.startswith((f"no {name.strip()} ", f"{name.strip()}: got ")) and (
        "expected" in message or "nearest" in message
    )


def test_a_slip_in_a_word_is_answered_with_the_word():
    assert error(lambda: WORDS["form"]("Forward")) == "no form 'Forward'; nearest: 'forward'"
    assert error(lambda: WORDS["correct_bias"](None)) == (
        "correct_bias: got None, expected 'analytic' or 'empirical' or 'none'; give one of them"
    )


def all_settings(of: type = Settings) -> list[type]:
    return [own for kind in of.__subclasses__() for own in (kind, *all_settings(kind))]


def test_settings_refuse_other_words():
    fields = {
        (own, name, word)
        for own in all_settings()
        if own.__module__.startswith("datafree.")
        for name, field in own.model_fields.items()
        for word in words_of(field.annotation)[:1]
    }
    assert len(fields) > 20
    for own, name, word in fields:
        for wrong in (word.upper(), "x", 1):
            assert f"{name}: got" in error(lambda own=own, name=name, wrong=wrong: own(**{name: wrong}))


# -- the record of another network ------------------------------------------------------------

RECORDS = {
    "similarity": lambda record: df.similarity(TEACHER, {"a": PIXELS}, record),
    "fresh": lambda record: df.fresh_images("distribution", TEACHER, record, images=8),
    "fresh without its use": lambda record: df.fresh_images(df.method("gaussian"), TEACHER, record, images=8),
    "synthesize": lambda record: df.synthesize(TEACHER, record, df.method("distribution"), OUT, images=8),
    "synthesize without its use": lambda record: df.synthesize(
        TEACHER, record, df.method("bns", steps=1), OUT, images=8
    ),
    "expand": lambda record: df.expand(TEACHER, (PIXELS, ONE_HOT), OUT, images=8, record=record),
    "write_release": lambda record: df.write_release(OUT, TEACHER, record),
    "adversarial": lambda record: train_online(
        TEACHER, student(), OnlineDistillation(epochs=1, iterations=1), record=record
    ),
    "batches": lambda record: list(batches(df.method("gaussian"), TEACHER, record, chunks=[0], seed=0, size=4)),
}


@pytest.mark.parametrize("name", RECORDS)
def test_the_record_of_another_network_is_refused_and_nothing_is_written(recorded, tmp_path, name):
    message = error(lambda: RECORDS[name](recorded))
    assert message.startswith("the record was made for another teacher") and message.endswith(
        "use the record of this model"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_record_of_another_network_is_not_put_into_a_release(recorded, tmp_path):
    folder = df.write_release(tmp_path / "teacher", TEACHER)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "another teacher" in error(lambda: write_record(folder, TEACHER, recorded))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["similarity", "fresh", "synthesize", "expand", "write_release"])
def test_a_record_is_compared_with_its_network_once_a_call(recorded, monkeypatch, name):
    calls = []
    monkeypatch.setattr(df.Record, "check_teacher", lambda *given: calls.append(given))
    RECORDS[name](recorded)
    assert len(calls) == 1


def test_images_with_the_logits_of_another_teacher_are_refused(recorded):
    source = df.fresh_images("distribution", OTHER, recorded, images=8)
    message = error(lambda: df.distill(TEACHER, student(), source, df.Distillation(epochs=1, batch=4)))
    assert message.startswith("source: its logits are of another teacher")


# -- images ------------------------------------------------------------


def changed(value: float) -> torch.Tensor:
    pixels = PIXELS.clone()
    pixels[3, 0, 1, 2] = value
    return pixels


NO_IMAGES = {
    "numpy": (PIXELS.numpy(), "pixels: got ndarray, expected a torch.Tensor; use torch.from_numpy(...)"),
    "list": (PIXELS.tolist(), "pixels: got list, expected a torch.Tensor; use torch.tensor(...) or torch.stack(...)"),
    "none": (None, "pixels: got None, expected a torch.Tensor; give such a value"),
    "half": (PIXELS.half(), "images of torch.float16, expected torch.float32 from 0 to 1; use .float()"),
    "whole": (PIXELS.long(), "images of torch.int64, expected torch.float32 from 0 to 1; use .float()"),
    "complex": (PIXELS + 0j, "images of torch.complex64, expected torch.float32 from 0 to 1; use real numbers"),
    "sparse": (PIXELS.to_sparse(), "images in the layout torch.sparse_coo, expected a dense tensor with values; use .to"),
    "meta": (PIXELS.to("meta"), "images without values (device meta), expected a dense tensor with values; load them"),
    "one": (PIXELS[0], "expected (1, 4, 4) (channels, height, width); that is one image: give a batch, with [None]"),
    "last": (PIXELS.permute(0, 2, 3, 1), "move the channels first, with .permute(0, 3, 1, 2)"),
    "colour": (PIXELS.expand(-1, 3, -1, -1), "the images are colour and the network takes grey: convert them"),
    "flat": (PIXELS.flatten(1), "images of shape (16,), expected (1, 4, 4)"),
    "number": (torch.tensor(1.0), "images of shape (), expected (1, 4, 4)"),
    "NaN": (changed(float("nan")), "images with NaN or infinity, expected finite pixels"),
    "infinity": (changed(float("-inf")), "images with NaN or infinity, expected finite pixels"),
}  # fmt: skip
OUT_OF_RANGE = {
    "0 to 255": (PIXELS * 255, "expected 0 to 1; scale the images first"),
    "bipolar of another range": (PIXELS * 2 - 1, "expected 0 to 1; scale the images first"),
    "negative": (PIXELS - 1, "expected 0 to 1; scale the images first"),
    "resized": (
        changed(1.07),
        "to 1.07, expected 0 to 1; clip them with .clamp(0, 1), if a resize made them overshoot",
    ),
}


def uses(pixels):
    """Every public function that takes images."""
    return {
        "similarity": lambda: df.similarity(TEACHER, {"a": pixels}),
        "quantize": lambda: calibrate(TEACHER, pixels),
        "expand": lambda: df.expand(TEACHER, (pixels, ONE_HOT), OUT, images=8),
        "Images": lambda: df.StoredImages(TEACHER.spec, pixels, LOGITS),
        "Mixed": lambda: df.MixedImages(TEACHER, pixels, None, 8),
        "finetune": lambda: finetune(calibrate(TEACHER, None), TEACHER, pixels, df.FineTuning(epochs=1)),
    }


@pytest.mark.parametrize("kind", [*NO_IMAGES, *OUT_OF_RANGE])
def test_what_are_no_images_is_refused_wherever_images_are_taken(tmp_path, kind):
    pixels, expected = (NO_IMAGES | OUT_OF_RANGE)[kind]
    if kind in NO_IMAGES:
        assert expected in error(lambda: TEACHER.predict(pixels))
    used = uses(pixels)
    if kind == "none":  # ranges from the batch norms
        used.pop("quantize")
    if kind == "numpy":  # takes data of any kind, see tests/data/test_adapters.py
        used.pop("similarity")
    if kind not in ("half", "NaN"):  # quantizes first, which takes time
        used.pop("finetune")
    for name, use in used.items():
        got, wanted = error(use), expected.removeprefix("pixels: ").partition(", expected a torch.Tensor")
        assert wanted[0] in got and wanted[2].rpartition("; ")[2] in got.replace("load_data", wanted[2]), name
    assert list(tmp_path.iterdir()) == []


def test_images_of_a_narrower_scale_are_refused_as_a_set():
    spec = TEACHER.spec.model_copy(update={"high": 255.0})
    network = replace(TEACHER, spec=spec)
    for use in ("quantize", "expand", "Mixed"):
        calls = {
            "quantize": lambda: calibrate(network, PIXELS),
            "expand": lambda: df.expand(network, (PIXELS, ONE_HOT), OUT, images=8),
            "Mixed": lambda: df.MixedImages(network, PIXELS, None, 8),
        }
        assert "only, expected images that cover 0 to 255; in that range these are one colour" in error(calls[use])
        assert spec.check(PIXELS) is None


def test_double_precision_and_images_beyond_the_range_are_predicted():
    torch.testing.assert_close(TEACHER.predict(PIXELS.double()), TEACHER.predict(PIXELS))
    assert bool(TEACHER.predict(PIXELS * 3).isfinite().all())
    assert TEACHER.predict(PIXELS[:0]).shape == (0, 3)


FIT = "targets: got shape {}, expected (6,) class numbers or (6, 3) logits, one for each image; give as many"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ((TEACHER.spec, PIXELS, torch.rand(7, 3)), FIT.format((7, 3))),
        ((TEACHER.spec, PIXELS, torch.rand(5, 3)), FIT.format((5, 3))),
        ((TEACHER.spec, PIXELS, torch.rand(6, 4)), FIT.format((6, 4))),
        ((TEACHER.spec, PIXELS, torch.tensor(1)), FIT.format(())),
        (
            (TEACHER.spec, PIXELS, LOGITS.long()),
            "targets: got logits of torch.int64, expected torch.float32; use .float()",
        ),
        (
            (TEACHER.spec, PIXELS, LABELS.int()),
            "targets: got class numbers of torch.int32, expected torch.int64; use .long()",
        ),
        (
            (TEACHER.spec, PIXELS, LABELS + 1),
            "targets: got classes from 1 to 3, expected 0 to 2; correct the class numbers",
        ),
        (
            (TEACHER.spec, PIXELS, LOGITS.log() - torch.inf),
            "targets: got logits with NaN or infinity, expected finite ones",
        ),
        ((TEACHER.spec, PIXELS[:0], LOGITS[:0]), "pixels: got no image, expected at least one; give some images"),
        (
            (PIXELS, LOGITS, TEACHER.spec),
            "spec: got Tensor, expected an InputSpec; give an InputSpec(shape=..., classes=...)",
        ),
        (
            (TEACHER.spec, PIXELS, LOGITS.numpy()),
            "targets: got ndarray, expected a torch.Tensor; use torch.from_numpy(...)",
        ),
        ((TEACHER, PIXELS, LOGITS), "spec: got Network, expected an InputSpec"),
    ],
)
def test_images_and_targets_that_do_not_fit_together_are_refused_when_they_are_put_together(fields, expected):
    assert expected in error(lambda: df.StoredImages(*fields))


def test_images_take_bytes_class_numbers_and_pixels_without_a_box():
    assert len(df.StoredImages(TEACHER.spec, (PIXELS * 255).to(torch.uint8), LABELS)) == 6
    assert len(df.StoredImages(TEACHER.spec, PIXELS * 3 - 1, LOGITS, in_range=False)) == 6


def test_a_student_of_another_range_or_order_of_classes_and_the_teacher_itself_are_refused():
    source, settings = df.StoredImages(TEACHER.spec, PIXELS, LOGITS), df.Distillation(epochs=1, batch=2)
    wide, turned = make_network(low=-1.0), replace(student(), spec=replace_classes(TEACHER.spec, "cba"))
    assert error(lambda: df.distill(TEACHER, wide, source, settings)) == (
        "student tiny takes pixels from -1 to 1, the images go from 0 to 1; give a student like its teacher"
    )
    assert error(lambda: df.distill(TEACHER, turned, source, settings)) == (
        "class 0 of student tiny is 'c', teacher tiny has 'a' there, and 'c' at another place; give a student like its "
        "teacher"
    )
    assert error(lambda: df.distill(TEACHER, TEACHER, source, settings)) == (
        "student: got the teacher tiny itself, expected another network, because it is trained in place; give a new one"
    )


def replace_classes(spec: df.InputSpec, classes: str) -> df.InputSpec:
    return spec.model_copy(update={"classes": tuple(classes)})


@pytest.mark.parametrize(("shape", "t"), [((6, 4), 1.0), ((5, 3), 1.0), ((6, 3), 0.0), ((6, 3), float("nan"))])
def test_logits_of_other_shapes_and_a_temperature_of_0_have_no_divergence(shape, t):
    assert "expected" in error(lambda: df.kl(LOGITS, torch.rand(shape), t))


def test_class_numbers_are_not_distilled_from():
    source = df.StoredImages(TEACHER.spec, PIXELS, LABELS)
    message = error(lambda: df.distill(TEACHER, student(), source, df.Distillation(epochs=1, batch=2)))
    assert message.startswith("source: got images with class numbers, expected the logits of tiny; use soft_labelled")


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (0, "images: got 0, expected at least 1; give a larger number"),
        (-5, "images: got -5, expected at least 1; give a larger number"),
        ("x", "images: got 'x', expected a whole number; give such a value"),
        (8.5, "images: got 8.5, expected a whole number; give such a value"),
        (True, "images: got True, expected a whole number; give such a value"),
        (None, "images: got None, expected a whole number; give such a value"),
    ],
)
def test_a_count_of_images_is_a_whole_number_from_1_on(tmp_path, images, expected):
    assert error(lambda: df.fresh_images("gaussian", TEACHER, None, images=images)) == expected
    maker = df.method("gaussian").bind(TEACHER, None)
    assert error(lambda: df.FreshImages(TEACHER.spec, maker, images)) == expected
    with pytest.raises(df.UserError, match="images: got"):
        df.synthesize(TEACHER, None, df.method("gaussian"), OUT, images=images)
    assert list(tmp_path.iterdir()) == []


def test_a_whole_number_of_numpy_is_one():
    assert len(df.fresh_images("gaussian", TEACHER, None, images=np.int64(8))) == 8


# -- other kinds of objects ------------------------------------------------------------

MODULE = nn.Sequential(OrderedDict(flat=nn.Flatten(), fc=nn.Linear(16, 3)))
NETWORK = "give what load_model or new_model returns, or Network(module, input_shape=..., classes=...)"
EITHER = "a Network or a QuantizedNetwork"
DATASET = (
    "give what load_data returns, which reads folders of images and .npz files; or a torch Dataset, or (images, labels)"
)
PAIR = "a pair (torch.Tensor or numpy array, torch.Tensor or numpy array)"
DATA_LIKE = f"a Dataset or a torch Dataset or a torch DataLoader or {PAIR}"
SET = df.Distillation(epochs=1)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: df.evaluate(MODULE, DATA), f"network: got Sequential, expected {EITHER}; {NETWORK}"),
        (lambda: df.evaluate("lenet5", DATA), f"network: got 'lenet5', expected {EITHER}; {NETWORK}"),
        (lambda: df.evaluate(TEACHER, PIXELS), f"data: got Tensor, expected {DATA_LIKE}; {DATASET}"),
        (lambda: df.evaluate(TEACHER, [(1, 2)]), f"data: got list, expected {DATA_LIKE}; {DATASET}"),
        (lambda: df.evaluate(TEACHER, DATA, MODULE), f"teacher: got Sequential, expected a Network or None; {NETWORK}"),
        (lambda: df.train(None, DATA, df.Schedule()), f"network: got None, expected a Network; {NETWORK}"),
        (lambda: df.train(TEACHER, DATA, {"epohcs": 1}), "no setting 'epohcs' in Schedule; nearest: 'epochs'"),
        (lambda: df.train(TEACHER, DATA, epohcs=1), "no argument 'epohcs' in train; nearest: 'epochs'"),
        (lambda: df.train(TEACHER, DATA, 3), "settings: got 3, expected a Schedule or a dict or None; give"),
        (lambda: df.train(TEACHER, DATA, df.Schedule), "settings: got the class Schedule, expected a Schedule or a dict"),
        (lambda: df.distill(TEACHER, MODULE, None, SET), "nothing to learn from, expected record, method, images or cond"),
        (lambda: df.train_student(TEACHER, MODULE, None, SET), f"student: got Sequential, expected a Network; {NETWORK}"),
        (lambda: df.distill(TEACHER, student(), "set", SET), "source: got 'set', expected a Source; give what"),
        (lambda: df.distill(TEACHER, student(), DATA, SET), "source: got Dataset, expected a Source; give what fresh"),
        (lambda: df.distill(TEACHER, student(), df.StoredImages(TEACHER.spec, PIXELS, LOGITS), None),
     "expected a Distillation"),
        (lambda: df.distill(TEACHER, student(), df.StoredImages(TEACHER.spec, PIXELS, LOGITS), SET, state="a"),
     "a pathlib.Path"),
        (lambda: df.record(TEACHER, DATA, None), "preset: got None, expected text or a list; give what preset(name"),
        (lambda: df.record(TEACHER, DATA, "save"), "no preset 'save'; nearest: 'safe'"),
        (lambda: df.record(TEACHER, DATA, ["safe"]), "no statistic 'safe'; expected one of 'input', 'moments'"),
        (lambda: df.record(MODULE, DATA, []), f"network: got Sequential, expected a Network; {NETWORK}"),
        (lambda: df.record(TEACHER, PIXELS, []), f"data: got Tensor, expected {DATA_LIKE} or None"),
        (lambda: df.synthesize(TEACHER, None, "bnx", OUT, images=8), "no synthesis method 'bnx'; nearest: 'bns'"),
        (lambda: df.synthesize(TEACHER, None, 3, OUT, images=8), "method: got 3, expected text or a dict or a Synthesizer"),
        (lambda: df.synthesize(TEACHER, {}, df.method("bns"), OUT, images=8), "record: got dict, expected a Record or None"),
        (lambda: df.synthesize(MODULE, None, df.method("bns"), OUT, images=8), "teacher: got Sequential, expected a Net"),
        (lambda: df.expand(TEACHER, PIXELS, OUT, images=8), "condensed: got Tensor, expected a Condensed or text"),
        (lambda: df.expand(TEACHER, (PIXELS, [0]), OUT, images=8), "condensed[1]: got list, expected a torch.Tensor"),
        (lambda: df.expand(TEACHER, (PIXELS, ONE_HOT), OUT, 3, images=8),
     "settings: got 3, expected an Expansion or a MetaGenerator or a dict"),
        (lambda: df.similarity(TEACHER, [DATA]), "sources: got list, expected a dict; give {name: value}"),
        (lambda: df.similarity(TEACHER, {}), "sources: got none, expected at least one data set or images by name"),
        (lambda: df.similarity(TEACHER, {"a": [1]}),
     f"sources['a']: got list, expected {DATA_LIKE} or a torch.Tensor or a numpy array"),
        (lambda: df.similarity(TEACHER, {"a": PIXELS}, flip="no"), "flip: got 'no', expected True or False"),
        (lambda: calibrate(MODULE, PIXELS), f"network: got Sequential, expected a Network; {NETWORK}"),
        (lambda: calibrate(TEACHER, PIXELS, 8), "bits: got 8, expected a Bits or None; give a Bits(...)"),
        (lambda: calibrate(TEACHER, PIXELS, {"weights": 4}), "bits: got dict, expected a Bits or None; use Bits(**values)"),
        (lambda: finetune(TEACHER, TEACHER, PIXELS), "quantized: got Network, expected a Quantized; give"),
        (lambda: df.write_release(OUT, MODULE), f"network: got Sequential, expected a Network; {NETWORK}"),
        (lambda: df.write_release(None, TEACHER), "folder: got None, expected text or a pathlib.Path"),
        (lambda: df.write_release(OUT, TEACHER, "record"), "record: got 'record', expected a Record or None"),
        (lambda: df.Network(lambda x: x, TEACHER.spec, "n"), "module: got function, expected a Module"),
        (lambda: df.Network(MODULE, None, "n"),
     "input_shape: got None, expected channels, height and width; give input_shape"),
        (lambda: df.new_model("hinton8", TEACHER.spec, seed="x"), "seed: got 'x', expected a whole number"),
        (lambda: df.new_model("hinton8", None, seed=0), "spec: got None, expected an InputSpec"),
        (lambda: df.load_model(None), "name: got None, expected text"),
        (lambda: df.preset("safe", None, DATA), f"network: got None, expected a Network; {NETWORK}"),
        (lambda: df.stored_images("set"), "synthetic: got 'set', expected a SyntheticSet; give what synthesize"),
        (lambda: df.forecast_auc("x"), "released: got 'x', expected a number"),
        (lambda: df.MixedImages(MODULE, PIXELS, None, 8), f"teacher: got Sequential, expected a Network; {NETWORK}"),
    ],
)  # fmt: skip
def test_another_kind_of_object_is_one_line_that_names_the_argument(tmp_path, call, expected):
    message = error(lambda: call())
    assert expected in message and len(message.split("; ")) >= 2
    assert list(tmp_path.iterdir()) == []


def test_too_many_arguments_are_said_in_the_words_of_python():
    with pytest.raises(TypeError, match=r"evaluate\(\) got an unexpected keyword argument 'dtaa'"):
        df.evaluate(TEACHER, dtaa=DATA)


# -- devices, paths and counts ------------------------------------------------------------


@pytest.mark.parametrize("device", ["gpu", "CPU", "", "cuda:-1", "meta", "hpu", "xla", None, 3])
def test_a_device_that_is_not_here_is_refused_in_one_line(device):
    df.write_release("teacher", TEACHER)
    for call in (
        lambda: df.condense("random", data=DATA, per_class=1, teacher=TEACHER, device=device),
        lambda: df.condense({"method": "dm", "iterations": 1}, data=DATA, per_class=1, teacher=TEACHER, device=device),
        lambda: df.report(["teacher"], "page.html", DATA, device=device),
        lambda: TEACHER.to(device),
    ):
        message = error(call)
        assert message.startswith(f"device: got {device!r}, expected ") and "; give " in message, message
    assert not Path("page.html").exists()


def made() -> dict[str, object]:
    """What can be saved."""
    return {
        "record": df.record(TEACHER, DATA, "small"),
        "condensed": df.condense("random", data=DATA, per_class=1, teacher=TEACHER),
        "student": df.distill(TEACHER, student(), images=PIXELS, epochs=1),
        "quantized": df.quantize(TEACHER, calibrate=PIXELS),
    }


PATHS = {
    None: "got None, expected text or a pathlib.Path", 3: "got 3, expected text or a pathlib.Path",
    b"x": "got bytes, expected text or a pathlib.Path", "": "got an empty path, expected the path of a file or folder",
    "a\0b": "got 'a\\x00b', expected a path, without NUL", "\ud800": "got '\\ud800', expected a path, without NUL",
    "x" * 256: "expected a path of at most 4,096 bytes, with names of at most 255; give a shorter one",
    "x/" * 2100: "expected a path of at most 4,096 bytes, with names of at most 255; give a shorter one",
}  # fmt: skip


def test_something_that_is_no_path_is_refused_by_the_name_of_its_parameter():
    own = made()
    df.write_release("teacher", TEACHER)
    calls = {
        "folder": [
            lambda path: df.save_student(path, own["student"]),
            lambda path: own["condensed"].save(path),
            lambda path: own["quantized"].save(path),
            lambda path: df.write_release(path, TEACHER),
            lambda path: write_record(path, TEACHER, own["record"]),
            lambda path: df.SyntheticSet.open(path),
            lambda path: df.Release.open(path),
        ],
        "path": [
            lambda path: own["record"].save(path),
            lambda path: df.Record.load(path, TEACHER),
            lambda path: df.Condensed.open(path),
        ],
        "out": [
            lambda path: df.report(["teacher"], path),
            lambda path: df.expand(TEACHER, own["condensed"], path, images=4),
            lambda path: path is None or df.synthesize(TEACHER, None, "gaussian", path, images=4),
        ],
        "runs[0]": [lambda path: df.report([path], "page.html")],
        "source": [lambda path: df.import_condensed(path, TEACHER)],
        "condensed": [lambda path: path is None or df.distill(TEACHER, student(), condensed=path)],
        "images": [lambda path: path is None or df.distill(TEACHER, student(), images=path)],
        "calibrate": [lambda path: path is None or df.quantize(TEACHER, calibrate=path)],
        "data_dir": [lambda path: path is None or df.load_data("mnist", "train", data_dir=path)],
        "weights": [lambda path: path is None or df.load_model("teacher", weights=path)],
        "state": [
            lambda path: isinstance(path, str) and path and df.record(TEACHER, DATA, "small", state=Path(path)),
            lambda path: (
                isinstance(path, str) and path and df.distill(TEACHER, student(), images=PIXELS, state=Path(path))
            ),
        ],
    }
    before = sorted(path.name for path in Path().iterdir())
    for name, functions in calls.items():
        for function in functions:
            for path, text in PATHS.items():
                try:
                    function(path)
                except df.UserError as raised:
                    message = str(raised)
                    text = text.split(", expected text")[0]  # others may be accepted too
                    assert message.startswith(f"{name}: got ") and text in message, (name, path, message)
                else:
                    assert name == "state" or (path is None and name not in ("folder", "path", "runs[0]", "source"))
    assert sorted(path.name for path in Path().iterdir()) == before


def test_a_name_that_is_too_long_for_a_path_is_an_unknown_model():
    for call in (
        lambda: df.load_model("x" * 5000),
        lambda: df.new_model("x" * 5000, TEACHER.spec, seed=0),
        lambda: df.distill(TEACHER, "x" * 5000, images=PIXELS),
    ):
        assert error(call).startswith("no ")


COUNTS = {
    "n": lambda n: df.sample(TEACHER, "gaussian", n=n),
    "chunk": lambda n: df.sample(TEACHER, "gaussian", n=4, chunk=n),
    "chunk ": lambda n: df.sample(TEACHER, {"method": "bns", "steps": 1}, n=4, chunk=n),
    "chunk  ": lambda n: df.synthesize(TEACHER, None, "gaussian", OUT, images=4, chunk=n),
    "chunk   ": lambda n: df.synthesize(TEACHER, None, "gaussian", OUT, images=n, chunk=n),
    "chunk    ": lambda n: df.expand(TEACHER, (PIXELS, ONE_HOT), OUT, images=4, chunk=n),
    "chunk     ": lambda n: df.fresh_images("gaussian", TEACHER, images=4, chunk=n),
    "images": lambda n: df.synthesize(TEACHER, None, "gaussian", OUT, images=n),
    "images ": lambda n: df.quantize(TEACHER, calibrate="noise", images=n),
    "batch": lambda n: TEACHER.predict(PIXELS, n),
    "batch ": lambda n: df.distill_online(TEACHER, student(), epochs=1, iterations=1, batch=n),
    "latent": lambda n: df.distill_online(TEACHER, student(), epochs=1, iterations=1, latent=n),
    "width": lambda n: df.distill_online(TEACHER, student(), epochs=1, iterations=1, width=n),
    "epoch_images": lambda n: df.distill(
        TEACHER, student(), condensed=df.Condensed(PIXELS, ONE_HOT, TEACHER.spec, {}), epoch_images=n
    ),
    "per_class": lambda n: df.condense("random", data=DATA, per_class=n, teacher=TEACHER),
    "count": lambda n: DATA.subset(n),
    "count ": lambda n: df.Condensed(PIXELS, ONE_HOT, TEACHER.spec, {}).chosen(n),
}


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("count", [-1, 0, 10**12, 10**30, 10**400, 2.5, "3", None, True])
def test_a_count_that_cannot_be_is_refused_before_anything_is_allocated(name, count, monkeypatch):
    monkeypatch.setattr("datafree._core.memory.available", lambda: 1 << 33)
    if count is None or (count in ("3", True) and name.strip() in ("batch", "latent", "width", "count")):
        return  # None is a default of many, and settings read numbers from text
    refused = outcome(COUNTS[name], count)
    if refused is None:  # a batch, or a number of images, of all there are
        assert name.strip() in ("batch", "count") and 1 <= count < 1 << 63
        return
    assert "\n" not in refused and len(refused) < 1200
    if not isinstance(count, int) or count < 1 or isinstance(count, bool):
        assert refused.startswith((f"{name.strip()}: got {count!r}, expected ", "images: got ", "a subset of")), refused


def outcome(call, value) -> str | None:
    """The message of the error; None without one. Any other exception fails the test."""
    try:
        call(value)
    except df.UserError as raised:
        return str(raised)
    return None


def test_a_state_of_another_run_is_answered_with_the_name_of_its_parameter():
    state = Path("state.safetensors")

    class Stopped(BaseException):
        pass

    def stop_at_third(scores):
        def score(_):
            scores.append(0.0)
            if len(scores) > 2:
                raise Stopped
            return 0.0

        return score

    runs = {
        "train": lambda seed, **how: df.train(
            student(), DATA, df.Schedule(epochs=3), seed=seed, state=state, identity={"seed": seed}, **how
        ),
        "distill": lambda seed, **how: df.distill(
            TEACHER, student(), images=PIXELS, epochs=3, seed=seed, state=state, **how
        ),
        "distill_online": lambda seed, **how: df.distill_online(
            TEACHER, student(), epochs=3, iterations=1, batch=8, seed=seed, state=state, **how
        ),
    }
    for name, run in runs.items():
        with pytest.raises(Stopped):
            run(0, score=stop_at_third([]))
        assert state.exists(), name
        message = error(lambda run=run: run(1))
        assert "`state`" in message and "`out`" not in message, message
        state.unlink()


def test_a_type_is_answered_with_names_that_exist():
    named = {
        name
        for text in SOURCES.values()
        for name in re.findall(r"\b([a-zA-Z_]\w*)(?=\(| (?:or|and) \w+ returns?| returns|, \w+ or)", text)
    }
    assert {"fresh_images", "stored_images", "soft_labelled", "StoredImages"} <= named
    assert {name for name in named if not hasattr(df, name)} <= {"Path", "calibrate", "load", "open", "torch"}
