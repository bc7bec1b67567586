"""What a user gets wrong: exit code 2, one line (what, got, expected, do), nothing written, nothing lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datafree.releases.load import load_model

NAMES = [
    ("trian hinton16", "no command 'trian'; nearest: 'train'"),
    ("train nosuch --data digits --out o", "no model 'nosuch' in the zoo"),
    ("train lenet6 --data digits --out o", "nearest: 'lenet5'"),
    ("train teacher --data digits --out o", "teacher is a trained release, expected a new network"),
    (
        "train hinton16 --data digitz --out o",
        "no data set 'digitz' in the data sets, and no such folder or .npz file; nearest: 'digits'",
    ),
    ("record teachr --data digits", "no release folder 'teachr', and no network of that name in the zoo"),
    ("record teacher --data digits --kind momentz", "no kind of statistic 'momentz'; nearest: 'moments'"),
    (
        "record moments teacher --replace --data digits --taps fc9 --quiet",
        "no layer 'fc9' in hinton16; nearest: 'fc",
    ),
    ("record teacher --data digits --preset saef", "saef"),
    ("record moments teacher --data digits --covariance ful", "--covariance: got 'ful', expected 'none'"),
    ("synthesize teacher --method distributoin --out o", "no synthesis method 'distributoin'; nearest: 'distribution'"),
    ("synthesize nosuch --out o", "no release folder 'nosuch', and no network of that name in the zoo"),
    ("synthesize hinton16 --out o", "model 'hinton16' has no weights; give a release folder, or --weights"),
    ("distill teacher --online distributoin --out o", "no synthesis method 'distributoin'; nearest: 'distribution'"),
    ("distill teacher nosuch --set set --out o", "no model 'nosuch' in the zoo"),
    ("distill teacher --set nosuch --out o", "no synthetic set in nosuch"),
    ("distill teacher --set set --loss klx --out o", "--loss: got 'klx', expected 'kl' or 'mse'"),
    ("evaluate studnt --data digits", "no release folder 'studnt', and no network of that name in the zoo"),
    ("evaluate teacher --data digits --split tset", "no split 'tset' in data set 'digits'; nearest: 'test'"),
    (
        "evaluate teacher --data digits --teacher nosuch",
        "no release folder 'nosuch', and no network of that name in the",
    ),
    (
        "evaluate teacher --data digits --teacher hinton32",
        "--teacher: got hinton32, a network without weights, expected the release folder",
    ),
    ("evaluate teacher --data digits --record teacher/record.safetensors", "no flag '--record'; nearest: '--code'"),
    (
        "distill teacher --set set --record teacher/record.safetensors --out o",
        "--record belongs to datafree distill fresh|online",
    ),
    ("condense dm --data digits --per-class 1 --record teacher/record.safetensors --out o", "--record"),
    (
        "distill online teacher --record teacher/record.safetensors --out o",
        "--record: got it with statistics 0, which does not use it",
    ),
    (
        "record teacher --data digits --record teacher/record.safetensors",
        "--record: got teacher/record.safetensors without --add, expected --add",
    ),
    (
        "record teacher --data digits --preset small --leak 0.7",
        "--leak: got 0.7 beside the preset 'small', expected it only with 'safe'",
    ),
    ("inspect nosuch", "nosuch is not a file or folder that inspect can read"),
    ("inspect set/unit-000000.safetensors", "is of kind 'shard'; expected 'record'"),
    ("rerun nosuch", "no file nosuch, expected a run.json"),
    ("rerun teacher/config.json", "teacher/config.json names no command line"),
    ("report nosuch --out r.html", "no folder nosuch, expected a release"),
    ("report --out r.html", "RUNS: got none, expected release folders and synthetic sets"),
    ("report set --out r.html", "got no release, expected at least the teacher"),
    ("pack hinton17 --weights teacher/model.safetensors --shape 1 8 8 --classes 10 --out o", "expected (17,)"),
    ("pack hinton16 --weights nosuch --shape 1 8 8 --classes 10 --out o", "cannot read 'nosuch'"),
    ("pack teacher --weights teacher/model.safetensors --shape 1 8 8 --classes 10 --out o", "is a release already"),
    ("convert nosuch.pt --out o", "cannot read 'nosuch.pt'"),
    ("convert own.py --out o", "'own.py' is no torch file, expected what torch.save writes"),
]

PACK = "pack hinton16 --weights teacher/model.safetensors --shape 1 8 8 --classes 10 --out o"
NUMBERS = [
    ("train hinton16 --data digits --out o --epochs 0", "--epochs: got 0, expected at least 1"),
    ("train hinton16 --data digits --out o --batch -1", "--batch: got -1, expected at least 1"),
    ("train hinton16 --data digits --out o --batch 0.5", "--batch: got 0.5, expected a valid integer"),
    ("train hinton16 --data digits --out o --learning-rate 0", "--learning-rate: got 0, expected above 0"),
    (
        "train hinton16 --data digits --out o --learning-rate nan",
        "--learning-rate: got 'nan', expected a finite number",
    ),
    ("train hinton16 --data digits --out o --warmup 1", "--warmup: got 1, expected below 1"),
    ("train hinton16 --data digits --out o --limit 0", "--limit: got 0, expected at least 1"),
    ("train hinton16 --data digits --out o --limit 9999", "a subset of 9999 images"),
    ("train hinton16 --data digits --out o --seed x", "--seed: got x, expected a whole number"),
    ("train hinton16 --data digits --out o --size 0", "--size: got 0, expected at least 1"),
    ("train hinton16 --data digits --out o --std 0", "--std: got 0.0, expected above 0"),
    ("train hinton16 --data digits --out o --mean 0 1 2", "--mean: got 3 numbers, expected 1 or one for each of 1"),
    ("train hinton16 --data digits --out o --threads 0", "--threads: got 0, expected at least 1"),
    ("train hinton16 --data digits --out o --device gpu", "--device: got 'gpu', expected cpu, mps, cuda or cuda:1"),
    ("train hinton16 --data digits --out o --device meta", "--device: got 'meta'"),
    ("train hinton16 --data digits --out o --learning-rate 1e30 --quiet", "the loss is not finite in epoch 1; lower"),
    ("synthesize teacher --mehod top", "no flag '--mehod'; nearest: "),
    ("train hinton16 --data digits --otu=x", "no flag '--otu'; nearest: '--out'"),
    ("train hinton0 --data digits --out o", "got size 0, expected at least 1"),
    ("train resnet21 --data digits --out o", "no CIFAR ResNet of depth 21"),
    ("train hinton99999 --data digits --size 750 --out o", "needs 265,001,749,996"),
    ("train lenet5 --data digits --size 28 --out o", "lenet5 takes 32x32 images, got (28, 28)"),
    ("record teacher --data digits --leak 1.2", "--leak: got 1.2, expected above 0.5 and below 1"),
    ("record moments teacher --data digits --rank 0", "--rank: got 0, expected at least 1"),
    ("record spectral-all teacher --data digits --fraction 1.5", "--fraction: got 1.5, expected at most 1"),
    ("synthesize teacher --out o --images -1", "--images: got -1, expected at least 1"),
    ("synthesize teacher --out o --chunk 0", "--chunk: got 0, expected at least 1"),
    ("synthesize teacher --out o --workers 0", "--workers: got 0, expected at least 1"),
    ("synthesize top teacher --out o --steps 0", "--steps: got 0, expected at least 1"),
    ("synthesize teacher --out o --seed 1.5", "--seed: got 1.5, expected a whole number"),
    ("distill teacher --set set --out o --temperature 0", "--temperature: got 0, expected above 0"),
    ("distill teacher --set set --out o --epochs -3", "--epochs: got -3, expected at least 1"),
    ("distill fresh distribution teacher --epoch-images 0 --out o", "--epoch-images: got 0, expected at least 1"),
    ("demo --images 0 --out o", "--images: got 0, expected at least 1"),
    ("pack hinton16 --weights teacher/model.safetensors --shape 1 8 --classes 10 --out o", "--shape requires 3"),
    ("pack hinton16 --weights teacher/model.safetensors --shape 1 0 8 --classes 10 --out o", "--shape: got (1, 0, 8)"),
    (
        "pack hinton16 --weights teacher/model.safetensors --shape 1 8 8 --classes 1 --out o",
        "--classes: got 1, expected",
    ),
    (f"{PACK} --mean nan", "--mean: got nan as number 1, expected a finite number; give such a value"),
    (
        f"{PACK} --mean 0 0 inf".replace("--shape 1", "--shape 3"),
        "--mean: got inf as number 3, expected a finite number; give such",
    ),
    (f"{PACK} --std nan", "--std: got nan as number 1, expected a finite number; give such a value"),
    (f"{PACK} --mean 0 1", "--mean: got 2 numbers, expected 1 or one for each of 1 channels"),
    (f"{PACK} --std 0", "--std: got 0.0, expected above 0"),
    ("train hinton16 --data digits --out o --mean nan", "--mean: got nan as number 1, expected a finite number"),
    (
        "train hinton16 --data digits --out o --size 4097",
        "images of 1 x 4097 x 4097 in data set 'digits', expected at most",
    ),
]

USAGE = [
    ("train --data digits --out o", "needs MODEL, which was not given. Run datafree train --help"),
    ("train hinton16 --data digits", "needs --out, which was not given"),
    ("train hinton16 --out o", "no data named, expected --data; give digits"),
    (
        "train hinton16 --data digits --out o --epoch 3",
        "no flag '--epoch'; nearest: '--epochs'. Run datafree train --help",
    ),
    ("train hinton16 extra --data digits --out o", "unexpected argument 'extra', expected a flag before each value"),
    ("train hinton16 --data mnist --out o", "no folder for data set 'mnist'; give --data-dir or set DATAFREE_DATA"),
    ("train hinton16 --data mnist --data-dir nosuch --out o", "no folder 'nosuch' for data set 'mnist'"),
    ("train hinton16 --data celeba --data-dir teacher --out o", "celeba"),
    ("record teacher", "no data named, expected --data"),
    ("record teacher --data digits --taps fc1", "--taps belongs to datafree record "),
    (
        "record batch-norm teacher --data digits --replace --quiet",
        "no method or kind of datafree record 'batch-norm'; expected one of 'input', 'moments', 'spectral-all', "
        "'spectral-pairs'",
    ),
    ("record hinton16 --data digits", "hinton16 is no release folder, expected --out"),
    ("synthesize teacher", "needs --out, which was not given"),
    ("synthesize teacher --discard 2 --out o", "Name the method: datafree synthesize meta-generator ..."),
    ("synthesize other --out o", "method 'distribution' needs a record, got none"),
    ("synthesize other --out o --record teacher/record.safetensors", "the record was made for another teacher"),
    ("synthesize other --out o --record nosuch", "cannot read 'nosuch'"),
    ("distill teacher --out o", "nothing to learn from, expected --set SET, --condensed SET or --data NAME"),
    ("distill other --set set --out o", "the set in set was made from another teacher"),
    ("distill teacher --images set --online top --out o", "--images and --online: got both, expected one"),
    ("distill teacher other --set set --out o", "other is a trained release, expected a new network"),
    ("distill teacher own.py:build --set teacher --out o", "no synthetic set in teacher"),
    ("evaluate hinton16 --weights teacher/model.safetensors --data digits", "datafree pack hinton16 --weights"),
    ("evaluate teacher", "no data named, expected --data"),
    ("evaluate set --data digits", "set is a synthetic set, which holds no network, expected a release"),
    ("inspect", "needs PATH, which was not given"),
    ("inspect " + "x" * 5000, "File name too long"),
]

FOLDERS = [
    ("train hinton16 --data digits --out set", "folder 'set' holds 'synthetic-set'; expected 'release'"),
    ("train hinton16 --data digits --out .", "and no '.datafree.json'; expected an empty folder"),
    ("train hinton16 --data digits --out own.py", "'own.py' is a file; expected a folder"),
    (
        "train hinton16 --data digits --out teacher",
        "teacher was made with --epochs 3, not 10: name another --out",
    ),
    (
        "train hinton16 --data digits --epochs 9 --out student",
        "student was made by datafree distill, not datafree train: name another --out",
    ),
    ("distill teacher --set set --out teacher", "--out teacher is what this run reads, and would be lost"),
    (
        "distill teacher --set set --epochs 3 --out student",
        "student was made with --epochs 2, not 3: name another --out",
    ),
    ("distill teacher --set set --epochs 3 --out set", "--out set is what this run reads"),
    (
        "record other --data digits --out student --quiet",
        "student was made by datafree distill, not datafree record",
    ),
    ("synthesize teacher --out teacher", "folder 'teacher' holds 'release'; expected 'synthetic-set'"),
    (
        "synthesize teacher --images 48 --chunk 8 --out set",
        "set was made with --chunk 16, not 8: name",
    ),
    (
        "synthesize teacher --seed 2 --chunk 16 --out set",
        "set was made with --seed 0, not 2: name",
    ),
    (
        "pack hinton16 --weights teacher/model.safetensors --shape 1 8 8 --classes 10 --out other",
        "other was made by datafree train, not datafree pack",
    ),
    ("pack hinton16 --weights teacher/model.safetensors --shape 1 8 8 --classes 10 --out teacher", "this run reads"),
    ("report teacher --out no/such/page.html", "cannot write 'no/such/page.html'"),
    ("report teacher --out set", "--out: got set, a folder, expected a file"),
    ("report teacher --out teacher/model.safetensors", "exists, is no page of datafree's and would be lost"),
    ("synthesize teacher --images 32 --chunk 16 --out set", "--images: got 32, but the set in set already has 48"),
    ("train hinton16 --data digits --limit 5 --out o", "none of the 5 training images of digits is of class '0'"),
    ("demo --out set", "folder 'set' holds 'synthetic-set'; expected 'demo'"),
]


@pytest.mark.parametrize(("line", "text"), [*NAMES, *NUMBERS, *USAGE, *FOLDERS], ids=lambda value: value[:50])
def test_a_mistake_is_one_line_and_nothing_is_touched(refused, line, text):
    assert text in refused(line)


@pytest.mark.parametrize("line", ["train hinton16", "record hinton16 --weights teacher/model.safetensors"])
def test_data_of_one_class_is_named_and_no_flag_that_the_command_does_not_have(refused, here, line):
    np.savez(here / "one.npz", images=np.full((9, 8, 8), 200, np.uint8), labels=np.zeros(9, int))
    expected = (
        "data set 'one.npz' has images of one class alone, '0', expected 2 classes at least to tell apart; name data"
    )
    assert expected in refused(f"{line} --data one.npz --out o")


@pytest.mark.parametrize(
    ("tested", "expected"),
    [
        (
            [0, 1, 0, 5],
            "label 5 (class '5') of test image 3 in own.npz, of 1 such, is that of no training image; expected",
        ),
        (
            [2, 1, 2, 2],
            "label 2 (class '2') of test image 0 in own.npz, of 3 such, is that of no training image; expected",
        ),
        ([0, 1, 0, 1], None),
    ],
)
def test_a_label_of_test_images_alone_is_the_one_that_is_named(command, here, tested, expected):
    images = np.full((4, 8, 8), 200, np.uint8)
    np.savez(here / "own.npz", x_train=images, y_train=[0, 1, 0, 1], x_test=images, y_test=tested)
    line = "train hinton8 --data own.npz --epochs 1 --out o --quiet"
    done = command(line)
    assert done.code == (0 if expected is None else 2)
    assert (expected or "") in done.err and (here / "o").exists() == (expected is None)


def test_a_gap_between_labels_is_named_and_the_advice_closes_it(command, here):
    images, labels, line = np.full((20, 8, 8), 200, np.uint8), np.arange(20) % 2 * 3, "train hinton8 --data own.npz"
    np.savez(here / "own.npz", images=images, labels=labels)
    expected = (
        "no image in own.npz is of class '1', one of 4; expected some of each; add images of it, or number the labels"
    )
    assert expected in command(f"{line} --out o").err
    np.savez(here / "own.npz", images=images, labels=np.unique(labels, return_inverse=True)[1])
    assert command(f"{line} --epochs 1 --out o --quiet").code == 0


def test_celebas_attributes_are_named(refused, here):
    folder = here / "faces" / "celeba"
    folder.mkdir(parents=True)
    names = " ".join(f"{number:06d}" for number in range(2))
    (folder / "list_attr_celeba.txt").write_text(f"1\nAttractive Smiling\n{names[:6]}.jpg 1 -1\n")
    (folder / "list_eval_partition.txt").write_text(f"{names[:6]}.jpg 0\n")
    (folder / "img_align_celeba").mkdir()
    text = refused("train hinton16 --data celeba --data-dir faces --attribute Atractive --out o")
    assert "no attribute 'Atractive'" in text and "'Attractive'" in text


def test_a_student_with_other_classes_or_inputs_is_refused(refused, here):
    (here / "bad.py").write_text(
        "from torch import nn\n"
        "def three(spec): return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n"
        "def wide(spec): return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
    )
    assert "returns outputs of shape (16, 3), expected (images, 10 classes)" in refused(
        "distill teacher bad.py:three --set set --out o"
    )
    assert "does not take images of shape (1, 8, 8)" in refused("distill teacher bad.py:wide --set set --out o")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("def build(spec: return 1", "fails with SyntaxError"),
        ("import no_such_thing_here\ndef build(spec): return 1", "no module 'no_such_thing_here' for model"),
        ("1 / 0", "fails with ZeroDivisionError: division by zero"),
        ("def build(spec): raise ValueError('two\\nlines')", "fails with ValueError: two lines"),
        ("def build(spec): return 7", "returned int, expected a torch.nn.Module"),
        ("def other(spec): return 7", "no function 'build'"),
        ("from torch import nn\nclass build(nn.Module):\n def forward(self, x): return x.nothing", "AttributeError"),
    ],
)
def test_own_code_that_fails_is_one_line_that_names_the_file(refused, here, code, text):
    (here / "broken.py").write_text(code)
    line = refused("train broken.py:build --data digits --out o")
    assert text in line and "broken.py" in line


def test_a_network_without_a_layer_to_record_is_refused(command, here):
    (here / "plain.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class build(nn.Module):\n"
        " def __init__(self):\n"
        "  super().__init__()\n"
        "  self.w = nn.Parameter(torch.zeros(64, 10))\n"
        " def forward(self, x): return x.flatten(1) @ self.w\n"
    )
    assert command("train plain.py:build --data digits --epochs 1 --out plain --quiet").code == 0
    for what in ("--preset small", "--preset full", "moments", "spectral-all"):
        assert (
            "has no conv or linear layer, expected one at least that an image passes exactly once"
            in command(f"record {what} plain --code plain.py:build --data digits --quiet").line
        )


def save(name: str, images: np.ndarray, labels: np.ndarray) -> None:
    np.savez(name, images=images, labels=labels)


def test_data_that_is_off_is_refused(refused, here):
    rng = np.random.default_rng(0)
    images, labels = rng.random((40, 8, 8)), np.arange(40) % 10
    nan = images.copy()
    nan[3, 2, 2] = np.nan
    save("nan.npz", nan, labels)
    assert "values from nan to nan" in refused("train hinton16 --data nan.npz --out o")
    save("range.npz", images * 255, labels)
    assert "expected uint8 0 to 255 or float 0 to 1" in refused("train hinton16 --data range.npz --out o")
    save("shape.npz", images.reshape(40, 64), labels)
    assert "expected NHW, NHWC or NCHW" in refused("train hinton16 --data shape.npz --out o")
    save("five.npz", images, labels % 5)
    assert "five.npz has 5 classes, hinton16 10" in refused(
        "record teacher --replace --data five.npz --preset small --quiet"
    )
    classes = np.array(["0", "1", "2", "3", "cat"])
    np.savez("cat.npz", images=images, labels=labels % 5, classes=classes)
    assert "cat.npz has 5 classes, hinton8 10, and 'cat' is none of those" in refused(
        "distill teacher --set set --data cat.npz --out o"
    )
    save("colour.npz", rng.random((40, 8, 8, 3)), labels)
    assert "images of shape (3, 8, 8), expected (1, 8, 8)" in refused("evaluate teacher --data colour.npz")
    (here / "cut.npz").write_bytes((here / "five.npz").read_bytes()[:300])
    assert "cut.npz" in refused("train hinton16 --data cut.npz --out o")


def test_a_class_without_samples_is_named(refused):
    labels = np.arange(40) % 10
    labels[labels == 4] = 5
    np.savez(
        "gap.npz",
        images=np.random.default_rng(0).random((40, 8, 8)),
        labels=labels,
        classes=np.array(list("0123456789")),
    )
    for what in ("--preset safe", "--preset small", "moments"):
        text = refused(f"record {what} teacher --replace --data gap.npz --quiet")
        assert "class" in text and "4" in text


def test_weights_with_nan_are_refused(refused):
    from safetensors.torch import save_file

    state = load_model("teacher").module.state_dict()
    state["fc1.bias"][0] = torch.nan
    save_file(state, "nan.safetensors")
    assert "NaN or infinity" in refused("evaluate teacher --weights nan.safetensors --data digits")
    assert "NaN or infinity" in refused("pack hinton16 --weights nan.safetensors --shape 1 8 8 --classes 10 --out o")
