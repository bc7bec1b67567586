"""Every verb on a GPU against the CPU: the same results up to rounding where nothing is trained, else as good ones.

python benchmarks/gpu.py                                            # these tests, then the CIFAR-10 recipe
DATAFREE_TEST_DEVICE=cpu python -m pytest -m gpu tests/gpu          # checks the tests themselves, without a GPU
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import datafree as df
from datafree.data.condensed import methods as condensing
from datafree.records.presets import PRESETS
from datafree.synthesis import methods

DEVICE = os.environ.get("DATAFREE_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device"),
]
SHORT = {
    "steps": 5, "batch": 20, "discard": 1, "width": 8, "jitter": 0, "flip": False,
}  # fmt: skip
"""Settings that make a method quick, for those that have them."""


@pytest.fixture(autouse=True)
def exact_arithmetic():
    """TF32 rounds to 10 bits; the comparisons below are of float32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def both(normed) -> tuple[df.Network, df.Network]:
    """The same network on the CPU and on the device."""
    return normed, normed.to(DEVICE)


def quick(name: str) -> methods.Synthesizer:
    fields = methods.methods()[name].model_fields
    return methods.from_name(name, **{key: value for key, value in SHORT.items() if key in fields})


def test_predictions_accuracy_and_similarity(both, digits):
    pixels = digits.pixels(range(64))
    for a, b in zip(*((network.predict(pixels), df.evaluate(network, digits)) for network in both), strict=True):
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
        else:
            assert a.accuracy == pytest.approx(b.accuracy, abs=0.2)
    on_cpu, on_device = (df.similarity(network, {"digits": digits})[0] for network in both)
    assert on_device.total == pytest.approx(on_cpu.total, rel=1e-3)
    assert on_device.diversity == pytest.approx(on_cpu.diversity, rel=1e-2)


@pytest.mark.parametrize("preset", PRESETS)
def test_records(teacher, digits, preset):
    on_cpu, on_device = (df.record(network, digits, preset) for network in (teacher, teacher.to(DEVICE)))
    for name, entry in on_cpu.entries.items():
        for key, tensor in entry.summary.items():
            other = on_device.entries[name].summary[key]
            scale = float(tensor.double().abs().max()) or 1.0
            torch.testing.assert_close(other.double() / scale, tensor.double() / scale, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", sorted(methods.methods()))
def test_every_synthesis_method(name, teacher, normed, whole_record, tmp_path):
    network, record = (normed, None) if name in ("bns", "bns-inception", "meta-generator") else (teacher, whole_record)
    images = df.synthesize(network.to(DEVICE), record, quick(name), tmp_path / "set", images=40, workers=1)
    pixels, labels, logits = images.load()
    assert pixels.shape == (40, *network.spec.shape) and labels.bincount(minlength=10).tolist() == [4] * 10
    stored = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    torch.testing.assert_close(network.predict(stored), logits, rtol=1e-2, atol=2e-2)


def test_training_and_distillation_on_every_source(digits, whole_record, teacher):
    student = df.new_model("hinton16", digits_spec(digits), seed=0).to(DEVICE)
    df.train(student, digits, epochs=3, batch=32, learning_rate=5e-3)
    assert df.evaluate(student, digits).accuracy > 60
    on_device = teacher.to(DEVICE)
    sources = {
        "real": {"images": digits},
        "record": {"record": whole_record, "epoch_images": 512},
        "views": {"images": digits, "shift": 1, "flip": False, "mixup": 0.5},
        "bfloat16": {"images": digits, "precision": "bfloat16"},
    }
    for name, source in sources.items():
        result = df.distill(on_device, "hinton16", epochs=6, batch=32, learning_rate=0.02, optimizer="muon", **source)
        assert result.device.type == torch.device(DEVICE).type
        assert df.evaluate(result, digits).accuracy > 50, name


@pytest.mark.parametrize("replay", ["none", "bank", "vae", "ema"])
def test_online_distillation(teacher, replay):
    settings = {"epochs": 1, "iterations": 2, "student_steps": 2, "batch": 16, "latent": 8, "width": 8}
    student = df.distill_online(teacher.to(DEVICE), "hinton16", replay=replay, **settings)
    assert student.device.type == torch.device(DEVICE).type
    assert all(weight.isfinite().all() for weight in student.module.state_dict().values())


@pytest.mark.parametrize("name", sorted(condensing.methods()))
def test_condensing_and_expanding(name, teacher, digits, tmp_path):
    short = {"dm": {"iterations": 2, "real": 2, "width": 2}}.get(name, {})
    job = condensing.Job(digits, teacher.spec, 1, seed=0, device=DEVICE)
    condensed = condensing.condense(condensing.from_name(name, **short), job)
    anchors = (condensed.clamped(), condensed.labels)
    images = df.expand(teacher.to(DEVICE), anchors, tmp_path / "set", {"steps": 2}, images=20, workers=1)
    assert len(images) == 20


def test_quantization(both, digits):
    on_cpu, on_device = both
    quantized = df.quantize(on_device, calibrate=digits.pixels(range(64)))
    expected = df.quantize(on_cpu, calibrate=digits.pixels(range(64)))
    assert df.evaluate(quantized, digits).accuracy == pytest.approx(df.evaluate(expected, digits).accuracy, abs=2)


@pytest.mark.parametrize(
    "words",
    [
        "synthesize bns {release} --images 20 --steps 2 --out {out}",
        "distill {release} half --data digits --epochs 1 --out {out}",
        "distill online {release} half --epochs 1 --iterations 2 --width 8 --out {out}",
        "evaluate {release} --data digits",
        "similarity {release} digits noise --images 64",
        "train resnet8 --data digits --epochs 1 --out {out}",
    ],
)
def test_the_command_line(words, digits, tmp_path):
    release = df.write_release(tmp_path / "net", df.new_model("resnet8", digits_spec(digits), seed=0))
    line = words.format(release=release, out=tmp_path / "out")
    command = [sys.executable, "-m", "datafree", *line.split(), "--device", DEVICE, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def digits_spec(digits) -> df.InputSpec:
    return df.InputSpec(shape=digits.shape, classes=digits.classes)
