"""datafree quantize: what is written and said, going on after a stop, what is wrong with what was asked."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from datafree._core.files import read_json, sha256_file
from datafree._core.optional_packages import quiet
from datafree.distillation import training_loop
from datafree.evaluation.accuracy import evaluate
from datafree.models.agreement import interval_in_words
from datafree.releases.load import load_model
from datafree.runs.run_log import RunLog

with quiet():
    pytest.importorskip("torchao")
    pytest.importorskip("onnxruntime")

NET = "net --code normed.py:build"
WRITTEN = [".datafree.json", "README.md", "config.json", "model.onnx", "model.pt2", "run.json"]


@pytest.fixture(scope="module")
def made(made_normed):
    return made_normed


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def files(folder) -> dict[str, str]:
    """Every file below, with its content's hash."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): sha256_file(path) for path in found}


def test_it_writes_what_runs_and_says_what_it_is_worth(command, here, digits):
    done = command(f"quantize {NET} --calibrate shown --data digits --out int8 --quiet")
    assert (done.code, done.err) == (0, "")
    assert names(here / "int8") == WRITTEN
    own = read_json(here / "int8" / "run.json")
    found, result = own["result"]["evaluation"], own["result"]
    assert own["inputs"].keys() >= {"model", "calibrate", "digits (test)"}
    assert own["versions"].keys() >= {"torchao", "onnx", "onnxscript", "onnxruntime"}
    assert own["settings"]["images"] == 256 and result["images"] == 64
    told = "Ranges chosen on 64 synthetic images (bns), all there are; no training image was used."
    assert told in done.out and told in (here / "int8" / "README.md").read_text()
    largest = result["converted"]["largest_logit"]
    assert result["converted"]["largest"] == 0 and largest > 1
    assert result["exported"]["equal"] >= 98 and result["exported"]["images"] == 64
    assert result["integer_operators"]["QLinearConv"] == 2
    assert result["speed"]["quantized_bytes"] == (here / "int8" / "model.onnx").stat().st_size
    assert result["speed"]["smaller"] == pytest.approx(
        result["speed"]["quantized_bytes"] / result["speed"]["original_bytes"], abs=1e-4
    )
    assert found["agreement"] > 97 and abs(found["accuracy"] - result["original"]["accuracy"]) < 2
    for line in (
        "size: ", "speed: ", "operators: 1 QLinearAveragePool, 2 QLinearConv",
        f"converted and simulated network: largest logit difference 0 of logits up to {largest:.2g}, argmax equal on "
        "100.00 % of 64 images",
        f"accuracy {found['accuracy']:.2f} % (original {result['original']['accuracy']:.2f} %) on 500 test images of "
        f"digits, {interval_in_words(found['accuracy'], 500)}; agreement with the original {found['agreement']:.2f} %, "
        f"{interval_in_words(found['agreement'], 500)}",
    ):  # fmt: skip
        assert line in done.out
    assert "simulated: no kernels" not in done.out

    done = command("evaluate int8 --data digits --quiet")
    assert done.code == 0
    shown = float(re.search(r"accuracy (\S+) %", done.out)[1])
    assert abs(shown - found["accuracy"]) <= 0.4
    pixels = digits.pixels(range(40))
    opened = load_model("int8")
    assert opened.predict(pixels).shape == (40, 10)
    assert evaluate(opened, digits).images == len(digits)


def test_at_4_bits_fine_tuned_it_calls_itself_simulated_and_is_clamped_in_the_file(command, here):
    import onnx

    done = command(
        f"quantize {NET} --weight-bits 4 --activation-bits 4 --last-bits 8 --calibrate noise --images 64 --finetune "
        "shown --epochs 2 --batch 32 --repeats 2 --out few --quiet"
    )
    assert (done.code, done.err) == (0, "")
    assert names(here / "few") == WRITTEN
    own = read_json(here / "few" / "run.json")
    assert len(own["result"]["curve"]["loss"]) == 2
    assert (own["settings"]["weights"], own["settings"]["last"], own["settings"]["repeats"]) == (4, 8, 2)
    assert own["result"]["simulated"] and own["result"]["converted"]["largest"] == 0
    assert own["result"]["exported"]["largest"] < 1e-4
    assert "bits other than 8 are simulated: no kernels for them exist" in done.out
    assert "accuracy was not measured, as no labelled data was given" in done.out
    assert "simulated" in (here / "few" / "README.md").read_text()
    for said in (done.out, (here / "few" / "README.md").read_text()):
        assert "fine-tuned on 64 synthetic images (bns); no training image was used." in said
        assert "this file runs entirely in floating point, at" in said
        assert f"packed, the weights would take {own['result']['packed_bytes']:,} bytes" in said
    kinds = [node.op_type for node in onnx.load(here / "few" / "model.onnx").graph.node]
    assert kinds.count("Clip") == 1  # between the layers; the image and the last layer have 8 bits


def test_by_default_ranges_come_from_samples_of_the_batch_norms(command, here):
    done = command(f"quantize {NET} --images 30 --out int8 --quiet")
    assert (done.code, done.err) == (0, "")
    own = read_json(here / "int8" / "run.json")
    assert own["settings"]["calibrate"] == "bns" and own["settings"]["images"] == 30
    assert own["settings"]["correct_bias"] == "analytic" and own["settings"]["equalise"]
    found = own["result"]["agreement_on_its_own_images"]
    assert found["images"] == 30 and found["equal"] > 85


@pytest.mark.parametrize(
    "given",
    [
        pytest.param("", marks=pytest.mark.slow),
        pytest.param("--correct-bias analytic", marks=pytest.mark.slow),
        pytest.param("--correct-bias empirical --no-equalise", marks=pytest.mark.slow),
    ],
)
def test_biases_are_corrected_by_the_batch_norms_unless_another_way_is_named(command, here, given):
    done = command(f"quantize {NET} --calibrate noise --images 8 {given} --out a --quiet")
    assert (done.code, done.err) == (0, "")
    settings = read_json(here / "a" / "run.json")["settings"]
    wanted = "empirical" if "empirical" in given else "analytic"
    assert (settings["correct_bias"], settings["equalise"]) == (wanted, "--no-equalise" not in given)


def test_data_that_it_was_made_with_is_named(command, here):
    np.savez("ten.npz", images=np.random.default_rng(0).random((40, 8, 8)), labels=np.arange(40) % 10)
    line = f"quantize {NET} --calibrate digits --images 30 --finetune ten.npz --epochs 1 --out q --quiet"
    assert command(line).code == 0
    text = (here / "q" / "README.md").read_text()
    result = read_json(here / "q" / "run.json")["result"]
    learnt = result["images"]
    assert (
        f"Ranges chosen on 30 images of digits (train split); fine-tuned on {learnt} images of an .npz file "
        "(train split), of unknown origin." in text
    )
    assert "no training data" not in text and "without training data" not in text
    assert 0 < learnt <= 40 and result["sources"]["ranges"]["images"] == 30


def test_with_executorch_a_program_for_it_is_written_that_answers_alike(command, here):
    pytest.importorskip("executorch", reason='needs the extra: pip install "datafree[executorch]"')
    done = command(f"quantize {NET} --calibrate shown --executorch --out int8 --quiet")
    assert (done.code, done.err) == (0, "")
    assert names(here / "int8") == sorted([*WRITTEN, "model.pte"])
    found = read_json(here / "int8" / "run.json")["result"]["mobile"]
    assert found["equal"] >= 98 and found["images"] == 64
    assert found["quantized_bytes"] == (here / "int8" / "model.pte").stat().st_size
    assert "ExecuTorch: model.pte of" in done.out
    assert "model.pte" in read_json(here / "int8" / "config.json")["sha256"]


@pytest.mark.slow  # tests/quantization has the same from Python
def test_ranges_come_from_batch_norms_alone_too(command, here):
    done = command(f"quantize {NET} --calibrate none --out int8 --quiet")
    assert (done.code, done.err) == (0, "")
    assert read_json(here / "int8" / "run.json")["result"]["agreement_on_its_own_images"]["equal"] > 85


@pytest.mark.usefixtures("exported_anew")
def test_a_network_without_batch_norm_is_quantized_on_noise_and_the_run_can_be_repeated(command, here):
    done = command("quantize teacher --calibrate noise --images 100 --out int8 --quiet")
    assert (done.code, done.err) == (0, "")
    assert read_json(here / "int8" / "config.json")["architecture"] == "hinton16"
    done = command("evaluate int8 --data digits --teacher teacher --quiet")
    assert done.code == 0 and float(re.search(r"agreement with teacher: (\S+) %", done.out)[1]) > 95
    assert command("rerun int8 --out again").code == 0
    assert sha256_file(here / "int8" / "model.onnx") == sha256_file(here / "again" / "model.onnx")


class Stopped(KeyboardInterrupt):
    pass


PLAIN = "quantize teacher --calibrate noise --images 8 --out q --quiet"


def stop(*_) -> None:
    raise Stopped


def test_in_a_finished_folder_the_same_command_changes_nothing_and_another_is_refused(command, here, monkeypatch):
    assert command(PLAIN).code == 0
    before = files(here)
    assert command(f"{PLAIN} --weight-bits 4").line == (
        "q was made with --weight-bits 8, not 4: name another --out, or remove that folder first"
    )
    assert files(here) == before
    monkeypatch.setattr(RunLog, "write", stop)
    done = command(PLAIN)
    assert (done.code, done.err, files(here)) == (0, "", before)
    assert done.out == "already complete: quantized network in q, of the same settings; nothing was changed\n"


def test_stopped_without_fine_tuning_it_keeps_nothing_and_says_so(command, here, monkeypatch):
    monkeypatch.setattr(RunLog, "write", stop)
    done = command(PLAIN)
    assert done.code == 130 and not (here / "q").exists()
    assert done.err == f"datafree: stopped; no part is complete. Start again with: datafree {PLAIN}\n"


@pytest.mark.slow  # `make crash` stops it at every point
@pytest.mark.usefixtures("exported_anew")
def test_a_stopped_fine_tuning_goes_on_to_the_same_bytes_and_leaves_nothing_of_it_behind(command, here, monkeypatch):
    line = f"quantize {NET} --calibrate noise --images 64 --finetune shown --epochs 3 --batch 32 --out {{}} --quiet"
    save = training_loop._save

    def saved(*own) -> None:
        save(*own)
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(training_loop, "_save", saved)
        done = command(line.format("a"))
    assert done.code == 130
    assert (
        done.err == f"datafree: stopped; the part that is complete is kept. Go on with: datafree {line.format('a')}\n"
    )
    assert names(here / "a") == [".datafree.json", "training.safetensors"]
    before = files(here)
    for other in (PLAIN.replace("--out q", "--out a"), line.format("a").replace("--epochs 3", "--epochs 2")):
        assert "a holds an unfinished run with" in command(other).line
    assert files(here) == before
    assert command("evaluate a --data digits").line.startswith(
        "a holds an unfinished run of `datafree quantize`, and no "
    )
    assert command(line.format("a")).code == command(line.format("b")).code == 0
    assert names(here / "a") == WRITTEN
    assert sha256_file(here / "a" / "model.onnx") == sha256_file(here / "b" / "model.onnx")


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.usefixtures("here")
def test_a_published_resnet_is_quantized_from_its_weights_alone(command, real_data, tmp_path):
    path = real_data / "weights" / "cifar10-resnet20.safetensors"
    if not path.is_file():
        pytest.skip(f"no {path.name} among the real data sets")
    spec = "--shape 3 32 32 --classes 10 --mean 0.4914 0.4822 0.4465 --std 0.247 0.2435 0.2616"
    assert command(f"pack resnet20 --weights {path} {spec} --out {tmp_path / 'r20'}").code == 0
    done = command(f"quantize {tmp_path / 'r20'} --calibrate none --out {tmp_path / 'int8'} --quiet")
    assert (done.code, done.err) == (0, "")
    result = read_json(tmp_path / "int8" / "run.json")["result"]
    assert result["converted"]["largest"] == 0
    assert result["integer_operators"]["QLinearConv"] >= 19 and result["integer_operators"]["QLinearAdd"] == 9
    assert result["speed"]["smaller"] < 0.3
    pixels = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert load_model(str(tmp_path / "int8")).predict(pixels).shape == (8, 10)


@pytest.mark.parametrize(
    ("milliseconds", "text"), [(12.34, "12.3 ms"), (1.0, "1.0 ms"), (0.14, "0.14 ms"), (0.042, "0.042 ms")]
)
def test_a_time_below_a_millisecond_has_two_significant_digits(milliseconds, text):
    from datafree.cli.quantize import milliseconds as in_words

    assert in_words(milliseconds) == text
