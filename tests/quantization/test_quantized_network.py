"""df.quantize: the same as the command, from objects, and what it refuses."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import datafree as df
from datafree._core.files import read_json
from datafree._core.optional_packages import quiet
from datafree.evaluation.accuracy import evaluate
from datafree.quantization.image_sources import Origin
from datafree.synthesis.synthetic_set import synthesize

with quiet():
    pytest.importorskip("torchao")
    pytest.importorskip("onnxruntime")

from datafree.quantization import QuantizedNetwork, calibrate, finetune, quantize

SPEC = df.InputSpec(shape=(1, 8, 8), classes=tuple("0123456789"))


class Grouped(nn.Module):
    """Somebody's network, with group norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 10)

    def forward(self, x):
        return self.fc(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def dense() -> df.Network:
    """Without convolution and norm."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
    return df.Network(layers.eval(), SPEC, "dense")


def grouped() -> df.Network:
    torch.manual_seed(0)
    return df.Network(Grouped().eval(), SPEC, "grouped")


@pytest.fixture(scope="module")
def by_default(normed) -> QuantizedNetwork:
    return quantize(normed, images=64)


def error(*args, **kwargs) -> str:
    with pytest.raises(df.UserError) as raised:
        quantize(*args, **kwargs)
    return str(raised.value)


def test_by_default_ranges_come_from_images_of_the_batch_norms(by_default, normed, shown):
    assert by_default.sources == {"ranges": Origin("64 synthetic images (bns)", synthetic=True, images=64)}
    assert by_default.bits == df.Bits() and by_default.curve is None
    logits = by_default(shown)
    assert torch.equal(logits, by_default.network.predict(shown))
    assert by_default.agreement().images == 64
    alike = (logits.argmax(1) == normed.predict(shown).argmax(1)).double().mean()
    assert alike > 0.95


def test_the_grids_are_those_that_calibrate_chooses_on_the_same_images(normed, shown):
    low_level = calibrate(normed, shown, df.Bits(weights=4), rounding="squant")
    verb = quantize(normed, "w4a8", calibrate=shown)
    assert torch.equal(low_level.network.predict(shown), verb(shown))


def test_the_original_is_left_as_it_was(normed, shown):
    before = normed.fingerprint()
    quantize(normed, "w4a4", calibrate=shown, fine_tune=df.FineTuning(epochs=1))
    assert normed.fingerprint() == before


@pytest.mark.parametrize(
    ("bits", "name"), [("w4a8", "w4a8"), (4, "w4a4"), (df.Bits(weights=3), "w3a8"), (None, "w8a8")]
)
def test_bits_are_text_a_number_or_settings(normed, shown, bits, name):
    assert quantize(normed, bits, calibrate=shown).bits.name == name


def test_saved_files_are_opened_measured_and_logged(by_default, normed, digits, tmp_path):
    scores, original = evaluate(by_default.network, digits, normed), evaluate(normed, digits)
    folder = by_default.save(tmp_path / "int8", evaluation=scores, original_evaluation=original)
    names = {path.name for path in folder.iterdir()}
    assert names == {".datafree.json", "README.md", "config.json", "model.onnx", "model.pt2", "run.json"}
    log = read_json(folder / "run.json")
    assert log["verb"] == "quantize" and log["inputs"] == {"model_fingerprint": normed.fingerprint()}
    assert (log["settings"]["calibrate"], log["settings"]["images"], log["settings"]["seed"]) == ("bns", 64, 0)
    assert log["versions"].keys() >= {"datafree", "torch", "torchao", "onnxruntime"}
    assert log["result"]["exported"]["equal"] > 95 and log["result"]["speed"]["faster"] > 0
    assert log["result"]["evaluation"]["accuracy"] == scores.accuracy
    assert (
        f"accuracy {scores.accuracy:.2f} % (original {original.accuracy:.2f} %)" in (folder / "README.md").read_text()
    )
    opened = df.load_model(str(folder))
    assert abs(df.evaluate(opened, digits).accuracy - scores.accuracy) <= 0.5


def test_an_evaluation_of_another_network_is_refused_and_one_alone_is_enough(by_default, normed, digits, tmp_path):
    scores, original = evaluate(by_default.network, digits), evaluate(normed, digits)
    for name, wrong in (("evaluation", original), ("original_evaluation", scores)):
        with pytest.raises(df.UserError, match=rf"^{name}: got one of another network \(fingerprint .*; give evaluate"):
            by_default.save(tmp_path / "int8", **{name: wrong})
    assert not (tmp_path / "int8").exists()
    card = (by_default.save(tmp_path / "int8", evaluation=scores) / "README.md").read_text()
    assert f"- accuracy {scores.accuracy:.2f} % on {scores.images:,} test images, 95 % interval " in card


def test_the_same_result_again_changes_nothing_and_another_one_is_refused(by_default, normed, tmp_path):
    folder = by_default.save(tmp_path / "int8")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.warns(df._core.errors.Notice, match="already complete: quantized network in"):
        by_default.save(folder)
    other = quantize(normed, "w4a8", images=64)
    with pytest.raises(df.UserError, match=r"was made with `weights=8`, not 4: name another `folder`, or remove"):
        other.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_nothing_is_written_into_a_folder_of_something_else(by_default, normed, tmp_path):
    folder = df.write_release(tmp_path / "teacher", normed)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(df.UserError, match="holds 'release'"):
        by_default.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_network_that_was_changed_since_is_not_saved(normed, shown, tmp_path):
    quantized = quantize(normed, "w4a4", calibrate=shown)
    finetune(quantized.simulation, normed, shown, df.FineTuning(epochs=1))
    with pytest.raises(df.UserError, match="changed after quantize returned it"):
        quantized.save(tmp_path / "q")
    assert list(tmp_path.iterdir()) == []


SOURCES = {
    "noise": ("noise", "32 images of noise", True),
    "method": (df.method("gaussian"), "32 synthetic images (gaussian)", True),
    "name": ("digits", "32 images of digits (train split)", False),
    "split": ("digits:test", "32 images of digits (test split)", False),
    "none": ("none", "what the batch norms say", True),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_ranges_are_chosen_on_what_is_named(normed, kind):
    source, description, synthetic = SOURCES[kind]
    origin = quantize(normed, calibrate=source, images=32).sources["ranges"]
    assert (origin.description, origin.synthetic) == (description, synthetic)


def test_ranges_are_chosen_on_what_is_handed_over(normed, digits, shown, tmp_path):
    synthetic = synthesize(normed, None, df.method("gaussian"), tmp_path / "set", images=20, chunk=20)
    unknown = "given in memory, of unknown origin"
    for source, description in (
        (shown, f"300 images {unknown}"),
        (shown.numpy(), f"300 images {unknown}"),
        ((shown * 255).byte(), f"300 images {unknown}"),
        (TensorDataset(shown), f"256 images {unknown}"),
        (DataLoader(TensorDataset(shown), batch_size=7), f"256 images {unknown}"),
        (digits, "256 images of digits"),
        (synthetic, "20 synthetic images (gaussian), all there are"),
        (str(tmp_path / "set"), "20 synthetic images (gaussian), all there are"),
    ):
        assert description in quantize(normed, calibrate=source).sources["ranges"].description


def test_fine_tuning_is_settings_images_or_both(normed, shown):
    alone = quantize(normed, "w4a4", calibrate=shown, fine_tune=df.FineTuning(epochs=2))
    assert len(alone.curve.loss) == 2 and torch.equal(alone.pixels, shown)
    both = quantize(normed, "w4a4", calibrate=shown, fine_tune={"images": shown[:64], "epochs": 1})
    assert len(both.curve.loss) == 1 and both.sources["fine_tuning"].images == 64


def test_a_stopped_fine_tuning_goes_on(normed, shown, tmp_path):
    def stop(done: int, total: int) -> None:
        if stages[-1].startswith("fine-tune") and done > total / 2:
            raise KeyboardInterrupt

    stages: list[str] = []

    def named(progress):
        from contextlib import nullcontext

        def stage(name: str):
            stages.append(name)
            return nullcontext(progress)

        return stage

    call = {"calibrate": shown, "fine_tune": {"images": shown, "epochs": 2}, "state": tmp_path / "state.safetensors"}
    with pytest.raises(KeyboardInterrupt):
        quantize(normed, "w4a4", **call, stages=named(stop))
    assert stages == ["images", "images to fine-tune on", "calibrate w4a4", "fine-tune w4a4"]
    assert (tmp_path / "state.safetensors").exists()
    resumed = quantize(normed, "w4a4", **call)
    whole = quantize(normed, "w4a4", calibrate=shown, fine_tune={"images": shown, "epochs": 2})
    assert torch.equal(resumed(shown), whole(shown))


@pytest.mark.parametrize("make", [pytest.param(grouped, marks=pytest.mark.slow), dense])
def test_a_network_without_batch_norm_takes_images(make, shown, tmp_path):
    network = make()
    quantized = quantize(network, calibrate=shown)
    opened = df.load_model(str(quantized.save(tmp_path / "q")))
    assert float((opened.predict(shown).argmax(1) == quantized(shown).argmax(1)).double().mean()) > 0.98
    assert error(network) == (
        f"calibrate: got nothing, expected images to choose ranges on, since {_norms(network)}, and there is no "
        "record; give a folder of images (labels are not needed), a data set, 'inception', or 'noise'"
    )


def _norms(network: df.Network) -> str:
    from datafree.models.missing_layers import no_batch_norm

    return no_batch_norm(network)


REFUSED = [
    ({"bits": "8"}, "bits: got '8', expected text such as 'w4a8'"),
    ({"bits": 1}, "weights: got 1, "),
    ({"bits": 4.5}, "bits: got 4.5, expected "),
    ({"images": 0}, "images: got 0, expected at least 1"),
    ({"images": 10**12}, "images: got 1,000,000,000,000, which need "),
    ({"calibrate": 3}, "calibrate: got 3, expected "),
    ({"calibrate": "bsn"}, "no data set or method 'bsn' in calibrate; nearest: 'bns'"),
    ({"calibrate": "nosuch"}, "no data set 'nosuch' in the data sets, and no such folder or .npz file"),
    ({"calibrate": torch.rand(4, 3, 8, 8)}, "images of shape (3, 8, 8), expected (1, 8, 8)"),
    ({"calibrate": torch.rand(4, 1, 8, 8) * 255}, "expected 0 to 1; scale the images first"),
    ({"calibrate": "none", "correct_bias": "empirical"}, "correct_bias: got 'empirical' with calibrate 'none'"),
    ({"calibrate": "none", "fine_tune": df.FineTuning()}, "fine_tune: got settings with calibrate 'none'"),
    ({"fine_tune": {"images": 3}}, "fine_tune['images']: got 3, expected "),
    ({"fine_tune": {"epoch": 3}}, "no setting 'epoch' in FineTuning; nearest: 'epochs'"),
    ({"fine_tune": "none"}, "fine_tune: got 'none', expected images to fine-tune on"),
    ({"correct_bias": "maybe"}, "no correct_bias 'maybe'; "),
    ({"target_cpu": "arm"}, "no target_cpu 'arm'; "),
]


@pytest.mark.parametrize(("arguments", "text"), REFUSED, ids=[text for _, text in REFUSED])
def test_a_mistake_is_one_line(normed, arguments, text):
    line = error(normed, **arguments)
    assert text in line and "\n" not in line and not re.search(r"--(calibrate|images|correct)", line)


def test_a_quantized_network_is_not_quantized_again(by_default, tmp_path):
    opened = df.load_model(str(by_default.save(tmp_path / "q")))
    assert error(opened).startswith("network: got normed-w8a8, whose layers are not accessible, expected ")


def test_the_record_of_another_network_is_refused(normed, digits):
    other = df.Network(normed.module[:0].append(nn.Flatten()).append(nn.Linear(64, 10)).eval(), normed.spec, "other")
    known = df.record(other, digits, "small")
    assert error(normed, record=known).startswith("the record was made for another teacher")
