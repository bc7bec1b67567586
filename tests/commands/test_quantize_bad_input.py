"""What a user gets wrong about datafree quantize: exit code 2, one line, nothing written."""

from __future__ import annotations

import shlex
import shutil
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest

from datafree._core import optional_packages
from datafree._core.files import read_json, write_sealed_json
from datafree._core.optional_packages import quiet
from datafree.cli.main import run
from datafree.models.missing_layers import no_batch_norm, no_layer
from datafree.releases.load import load_model

with quiet():
    pytest.importorskip("torchao")
    pytest.importorskip("onnxruntime")

NET = "net --code normed.py:build"


@pytest.fixture(scope="module")
def made(made_normed):
    return made_normed


REFUSED = [
    ("--weight-bits 1", "--weight-bits: got 1, expected at least 2"),
    ("--weight-bits 17", "--weight-bits: got 17, expected at most 16"),
    ("--activation-bits 1", "--activation-bits: got 1, expected at least 2"),
    ("--activation-bits 17", "--activation-bits: got 17, expected at most 16"),
    ("--first-bits 0", "--first-bits: got 0, expected at least 2"),
    ("--last-bits 99", "--last-bits: got 99, expected at most 16"),
    ("--weight-bits 4.5", "--weight-bits: got 4.5, expected a valid integer"),
    ("--images 0", "--images: got 0, expected at least 1"),
    ("--epochs 0 --finetune shown", "--epochs: got 0, expected at least 1"),
    ("--mixup 2 --finetune shown", "--mixup: got 2, expected at most 1"),
    (
        "--calibrate nosuch",
        "no data set 'nosuch' in the data sets, and no such folder or .npz file; expected one of 'digits'",
    ),
    ("--calibrate empty.npz", "no image in split 'train' of data set 'empty.npz'; expected at least one"),
    ("--calibrate nan.npz", "values from nan to nan"),
    ("--calibrate range.npz", "expected uint8 0 to 255 or float 0 to 1"),
    ("--calibrate teacher", "no class folder in 'teacher'"),
    ("--finetune nosuch", "no data set 'nosuch'"),
    ("--data nosuch", "no data set 'nosuch'"),
    ("--epochs 5", "--epochs: got it without --finetune, expected images to fine-tune on"),
    ("--calibrate noise --images 999999999999", "--images: got 999,999,999,999, which need 511,999,999,999,488 bytes"),
    ("--calibrate bns --images 999999999999", "--images: got 999,999,999,999, which need 511,999,999,999,488 bytes"),
    ("--bits 4", "no flag '--bits'; nearest: "),
    ("--device cuda:99", "--device: got 'cuda:99'"),
]
SHAPE_AND_RANGE = [
    ("--calibrate colour.npz", "images of shape (3, 8, 8), expected (1, 8, 8)"),
    ("--calibrate unboxed", "expected 0 to 1; scale the images first"),
    ("--calibrate digits --finetune colour.npz", "images of shape (3, 8, 8), expected (1, 8, 8)"),
    ("--calibrate digits --finetune unboxed", "expected 0 to 1; scale the images first"),
]


@pytest.mark.parametrize(("options", "text"), REFUSED, ids=lambda value: value[:40])
def test_a_mistake_is_one_line_and_nothing_is_written(refused, options, text):
    defaults = "" if "--calibrate" in options else "--calibrate shown"
    assert text in refused(f"quantize {NET} --out o --quiet {defaults} {options}")


@pytest.mark.parametrize(("options", "text"), SHAPE_AND_RANGE, ids=lambda value: value[:60])
def test_images_that_do_not_fit_are_one_line_and_leave_no_folder_behind(refused, options, text):
    assert text in refused(f"quantize {NET} --out o --quiet {options}")


@pytest.mark.usefixtures("here")
def test_labels_of_images_to_calibrate_and_fine_tune_on_do_not_count_and_some_classes_can_be_measured(command):
    options = "--calibrate five.npz --finetune five.npz --epochs 1 --data five.npz"
    done = command(f"quantize {NET} --out o --images 8 --quiet {options}")
    assert done.code == 0
    assert (
        "five.npz has 5 of the 10 classes of normed.py:build, and the numbers are of those alone: 0, 1, 2, 3, 4"
        in done.out
    )


def test_data_to_measure_on_with_a_class_that_the_network_does_not_have_is_one_line(refused, here):
    images, labels = np.random.default_rng(0).random((40, 8, 8)), np.arange(40) % 5
    np.savez(here / "fruit.npz", images=images, labels=labels, classes=np.array(["0", "1", "2", "3", "apple"]))
    assert refused(f"quantize {NET} --out o --images 8 --quiet --data fruit.npz") == (
        "fruit.npz has 5 classes, normed.py:build 10, and 'apple' is none of those ('0', '1', '2', ...); use the data that "
        "the network was trained for, or give classes the network's names"
    )


def test_a_network_without_batch_norm_and_without_a_record_is_one_line_that_its_user_can_follow(refused):
    assert refused("quantize other --out o --quiet") == (
        "--calibrate: got nothing, expected images to choose ranges on, since hinton16 has no batch norm, and there is "
        "no record; give "
        "a folder of images (labels are not needed), a data set, 'inception', or 'noise'"
    )
    assert "the record was made for another teacher" in refused(
        "quantize other --out o --record teacher/record.safetensors --quiet"
    )


@pytest.mark.usefixtures("here")
def test_a_network_without_batch_norm_and_without_images_is_one_line(command):
    text = command("quantize teacher --calibrate none --out o --quiet").line
    assert text == "hinton16 has no batch norm, and no images were given; give some with --calibrate"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("quantize nosuch --out o", "no release folder 'nosuch', and no network of that name in the zoo"),
        ("quantize hinton16 --out o", "model 'hinton16' has no weights"),
        (
            "quantize net --out o",
            "net is a custom network ('custom:build'); name it with --code",
        ),
        ("quantize set --out o", "set is a synthetic set, which holds no network, expected a release"),
        (
            f"quantize {NET} --calibrate none --correct-bias empirical --out o",
            "expected images to correct on; give analytic",
        ),
        (f"quantize {NET} --correct-bias maybe --out o", "correct-bias"),
        (f"quantize {NET}", "needs --out, which was not given"),
        ("quantize --out o", "needs TEACHER, which was not given"),
        (f"quantize {NET} --out net", "folder 'net' holds 'release'; expected 'quantized'"),
        (f"quantize {NET} --calibrate shown --out shown", "folder 'shown' holds 'synthetic-set'; expected 'quantized'"),
        (f"quantize {NET} --calibrate shown --out normed.py", "'normed.py' is a file; expected a folder"),
    ],
    ids=lambda value: value[:50],
)
def test_a_model_or_folder_that_will_not_do_is_one_line(refused, line, text):
    assert text in refused(f"{line} --quiet")


@pytest.mark.parametrize("name", ["torchao", "onnx", "onnxscript", "onnxruntime"])
@pytest.mark.parametrize("found", [None, "0.0.1"])
def test_a_package_that_is_missing_or_of_another_version_is_named_with_the_pip_line(refused, monkeypatch, name, found):
    real = optional_packages.version

    def version(asked: str) -> str:
        if asked == name and found is None:
            raise PackageNotFoundError(asked)
        return found if asked == name else real(asked)

    monkeypatch.setattr(optional_packages, "version", version)
    text = refused(f"quantize {NET} --calibrate shown --out o --quiet")
    assert text.startswith(f"quantization needs {name}>=")
    assert text.endswith(f'got {found or "none"}; install it: pip install "datafree[quantize]"')


def test_executorch_is_asked_for_before_anything_is_done(refused, monkeypatch):
    others = {"torchao": "0.18.0", "onnxscript": "0.7.2"}

    def version(asked: str) -> str:
        if asked == "executorch":
            raise PackageNotFoundError(asked)
        return others.get(asked, "1.20.0")

    monkeypatch.setattr(optional_packages, "version", version)
    text = refused(f"quantize {NET} --executorch --out o --quiet")
    assert text == 'quantization needs executorch>=1.5,<1.6, got none; install it: pip install "datafree[executorch]"'

    monkeypatch.setattr(
        optional_packages, "version", lambda asked: {**others, "executorch": "1.5.1"}.get(asked, "1.20.0")
    )
    text = refused(f"quantize {NET} --executorch --activation-bits 4 --out o --quiet")
    assert text == (
        "--executorch: got w8a4, expected weights of at most 8 bits and activations of 8, which ExecuTorch can run; change "
        "the bits, or leave --executorch out"
    )


ODD = """
from torch import nn

class by_value(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.bn, self.fc = nn.BatchNorm2d(1), nn.Linear(64, 10)

    def forward(self, x):
        z = self.fc(self.bn(x).flatten(1))
        return z if x.sum() > 0 else -z

class for_numpy(by_value):
    def forward(self, x):
        import torch
        return self.fc(self.bn(torch.from_numpy(x.detach().numpy())).flatten(1))
"""


def odd(command, here, name: str) -> str:
    (here / "odd.py").write_text(ODD)
    assert command(f"train odd.py:{name} --data digits --epochs 1 --out odd --quiet").code == 0
    return f"quantize odd --code odd.py:{name} --calibrate digits --images 20 --out o --quiet"


def test_a_network_that_torch_export_cannot_take_is_one_line(command, here):
    text = command(odd(command, here, "for_numpy")).line
    assert text.startswith("torch.export cannot capture odd.py:for_numpy: .numpy() is not supported")


def test_a_network_that_torch_export_cannot_take_leaves_nothing_behind_and_prints_no_more(command, here, refused):
    assert "torch.export cannot capture odd.py:by_value" in refused(odd(command, here, "by_value"))


@pytest.fixture(scope="module")
def quantized(made_normed, tmp_path_factory):
    """A folder that `datafree quantize` wrote."""
    folder = tmp_path_factory.mktemp("quantized")
    shutil.copytree(made_normed / "teacher", folder / "teacher")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(shlex.split("quantize teacher --calibrate noise --images 8 --out int8 --quiet")) == 0
    return folder / "int8"


@pytest.mark.parametrize(
    "line",
    [
        "quantize int8", "quantize int8 --calibrate digits", "quantize int8 --calibrate nosuch", "quantize int8 --images 0",
        "synthesize gaussian int8 --images 4", "synthesize bns int8", "expand int8 nosuch",
        "record int8 --data digits", "record moments int8 --data digits", "record int8",
        "distill online int8", "distill fresh distribution int8 hinton8", "distill fresh bns int8 hinton8",
    ],
)  # fmt: skip
def test_a_quantized_network_where_more_than_answers_is_needed_is_refused_for_that_first(
    refused, here, quantized, line
):
    shutil.copytree(quantized, here / "int8")
    expected = (
        "int8: a quantized file only returns logits: it cannot be quantized again, none of its layers can be recorded"
    )
    assert refused(f"{line} --out o --quiet").startswith(expected)


def test_a_quantized_network_teaches_where_its_answers_are_enough(command, here, quantized):
    shutil.copytree(quantized, here / "int8")
    line = "distill fresh gaussian int8 hinton8 --epochs 1 --epoch-images 64 --out learnt --quiet"
    done = command(line)
    assert done.code == 0 and "hinton8: 682 parameters; in learnt" in done.out  # 65 * 8 + 9 * 8 + 9 * 10


def test_why_a_quantized_network_shows_no_layer_is_told_truly(quantized):
    network = load_model(str(quantized))
    assert no_layer(network).endswith("is a quantized file, whose layers cannot be watched")
    assert no_batch_norm(network).endswith("is a quantized file, whose batch norms cannot be read")


def test_inspect_says_what_a_quantized_folder_holds(command, here, quantized):
    shutil.copytree(quantized, here / "int8")
    done = command("inspect int8")
    assert done.code == 0 and "w8a8" in done.out
    assert "release" not in done.out and "0 parameters" not in done.out


def test_a_quantized_file_that_is_not_ours_is_one_line(command, here, quantized):
    shutil.copytree(quantized, here / "int8")
    content = (here / "int8" / "model.onnx").read_bytes()
    (here / "int8" / "model.onnx").write_bytes(b"not this one")
    assert command("evaluate int8 --data digits").line == (
        "int8/model.onnx is not as it was written; get or write it again"
    )
    (here / "int8" / "model.onnx").unlink()
    assert "has no model.onnx, expected one to run; quantize again" in command("evaluate int8 --data digits").line
    (here / "int8" / "model.onnx").write_bytes(content)
    assert command("evaluate int8 --data digits --quiet").code == 0
    (here / "int8" / "config.json").write_text('{"format": 7, "kind": "quantized"}')
    assert "holds no quantized network of format 1" in command("evaluate int8 --data digits").line


def test_one_file_of_a_quantized_network_is_pointed_to_its_folder(command, here, quantized):
    shutil.copytree(quantized, here / "q")
    assert command("evaluate q/model.onnx --data digits").line == (
        "q/model.onnx is one file of a quantized network, expected its folder; give q"
    )
    content = bytearray((here / "q" / "model.pt2").read_bytes())
    content[len(content) // 2] ^= 1
    (here / "q" / "model.pt2").write_bytes(content)
    assert command("inspect q").line == "q/model.pt2 is not as it was written; get or write it again"


def test_a_folder_of_another_kind_says_which(refused, here):
    config = here / "teacher" / "config.json"
    write_sealed_json(config, {**read_json(config), "kind": "other"})
    assert "teacher is of kind 'other', expected a release" in refused("evaluate teacher --data digits")


def test_images_that_do_not_fit_are_one_line_and_nothing_is_said_of_their_size(command, here):
    import numpy as np

    rng = np.random.default_rng(0)
    np.savez(here / "wide.npz", images=rng.random((20, 9, 9, 3)), labels=np.arange(20) % 10)
    done = command(f"quantize {NET} --calibrate wide.npz --out q --quiet")
    assert done.code == 2 and "resized" not in done.out and "images of shape (3, 8, 8)" in done.line


def test_a_shift_as_wide_as_the_image_is_one_line(refused):
    text = refused("synthesize bns net --code normed.py:build --jitter 8 --steps 2 --images 8 --out o --quiet")
    assert text == "--jitter: got 8, expected below 8, the images' smaller side; give less"


UNIQUE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.fc = nn.Linear(spec.pixels, len(spec.classes))

    def forward(self, x):
        return self.fc(x.flatten(1)) + torch.linalg.svdvals(x[:, 0])[:, :1]

def build(spec):
    return Net(spec)
"""


def test_a_network_that_onnx_cannot_hold_is_refused_before_it_is_calibrated(command, here, monkeypatch):
    from datafree import quantization

    (here / "net.py").write_text(UNIQUE)
    assert command("train net.py:build --data digits --limit 64 --epochs 1 --out odd --quiet").code == 0
    monkeypatch.setattr(quantization, "quantize", lambda *_, **__: pytest.fail("calibrated"))
    line = command("quantize odd --code net.py:build --calibrate noise --out o --quiet").line
    assert line.startswith("this network cannot be written as ONNX: ")
